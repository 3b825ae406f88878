//! Nothing to build: the harness is the test program in `faults/`.
