//! The real binary, driven through its real API: what users and the operator rely on.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod boot;
mod boundaries;
mod bounds;
mod brakes;
mod clients;
mod contract;
mod docs;
mod durability;
mod effects;
mod graph;
mod handover;
mod hive;
mod holds;
mod input;
mod limits;
mod llm;
mod llm_server;
mod network;
#[allow(dead_code, reason = "the end-to-end tests use more of it")]
mod postgres_server;
mod process;
mod queue;
mod replicas;
mod shutdown;
mod signed;
mod timers;
mod tools;
mod torture;
mod traces;
mod verbs;
mod webhook;
