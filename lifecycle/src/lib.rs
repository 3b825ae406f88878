//! The contract between the operator and a pod: states, verbs, the fence, the wire types and the client.
//!
//! Nothing here serves HTTP or knows Kubernetes. Every rule is a pure function, so that the
//! runtime, the operator, the tests and a model checker share one copy of it.

pub mod brake;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod conformance;
pub mod fence;
pub mod hold;
#[cfg(feature = "client")]
pub mod listen;
pub mod machine;
pub mod probe;
pub mod record;
pub mod signature;
pub mod state;
pub mod wire;

pub use brake::{Brake, Brakes};
pub use fence::{BootFile, Keys, Record};
pub use hold::Holds;
pub use machine::{Decision, Event, Machine, Phase};
pub use state::{Desired, DrainMode, OnDrainTimeout, State, Verb};
