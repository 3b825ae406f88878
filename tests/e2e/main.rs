//! End to end on a real cluster: each test asserts on what kubectl shows.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod boot;
mod freeze;
mod holds;
mod input;
mod lifecycle;
mod plugin;
mod removal;
mod rollout;
mod signed;
mod space;
mod speed;
mod standalone;
mod storage;
mod unknown;
mod window;
