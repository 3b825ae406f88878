//! End to end on a real cluster: each test asserts on what kubectl shows.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admission;
mod api;
mod boot;
mod browser;
mod chart;
mod dashboard;
mod dashboard_away;
mod dashboard_inside;
mod dashboard_looks;
mod disruption;
mod flux;
mod foreign;
mod freeze;
mod holds;
mod hooks;
mod hpa;
mod input;
mod lasting;
mod law;
mod lifecycle;
mod namespaced;
mod plugin;
mod postgres;
#[path = "../../agent-runtime/tests/process/postgres_server.rs"]
#[allow(dead_code, reason = "the tests of the process use more of it")]
mod postgres_server;
mod quickstart;
mod rbac;
mod removal;
mod replaced;
mod rollout;
mod scale;
mod signed;
mod space;
mod speed;
mod standalone;
mod states;
mod statuses;
mod storage;
mod unknown;
mod window;
mod withheld;
