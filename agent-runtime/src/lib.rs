//! The agent runtime: executes agents durably and speaks the lifecycle contract.
//!
//! `control` feeds the state machine of the contract and makes the `gate` obey it; `engine` runs what
//! the gate admits and writes each step to the `store`; `server` is the API, `shutdown` the way out.

pub mod config;
pub mod control;
pub mod definition;
pub mod engine;
pub mod gate;
pub mod init;
pub mod llm;
pub mod sample_site;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod timers;
pub mod tools;
pub mod trace;
