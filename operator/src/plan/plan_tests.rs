//! Plans as snapshots, and the laws of planning.
