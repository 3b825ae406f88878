//! The settings of the operator that shape its plans.

/// What every plan is made by, whatever the object.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image for templates that name none.
    pub runtime_image: String,
    /// The operator's own namespace, from which pods let calls in.
    pub namespace: String,
    /// The operator may run commands in pods.
    pub exec_hooks: bool,
    /// Freezes hold what they select.
    pub obey_freezes: bool,
}
