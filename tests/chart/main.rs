//! The chart as Helm renders it, without a cluster. The first run builds Helm and the linters from their pinned modules.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admission;
mod alerts;
mod chart;
mod conformance;
mod dashboard;
mod lint;
mod promql;
mod schemas;
mod score;
mod templates;
mod values;
