//! Nothing but a place for the test `gate`: loom is no dependency of the runtime.
