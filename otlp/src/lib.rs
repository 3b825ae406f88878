//! Traces over OTLP for both programs, and what requests over https trust.

#[cfg(feature = "collector")]
pub mod collector;
mod export;
pub mod trust;

pub use export::{Export, Service, begin};
