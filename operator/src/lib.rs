//! The operator: observe, plan, act.
//!
//! `observe` holds what was seen, `plan` every rule as a pure function, `act` the writes and the calls to pods;
//! `controller` wires them to watches, `lease` lets one replica act at a time.

pub mod config;

pub mod observe;
pub mod plan;
