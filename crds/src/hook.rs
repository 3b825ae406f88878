//! Hooks: what pods are told around a pause and a resume.

#![expect(unreachable_pub, reason = "kube's derive makes the types it derives public in a private module")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::patterns::LABEL;

/// A call into each pod when its state changes. It is made once for a change, unless the operator dies between the
/// pod's answer and the note of it: then again, with the same Idempotency-Key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.http) != has(self.exec)")
    .message("spec.lifecycle: give a hook exactly one of http and exec"))]
pub struct Hook {
    /// A POST without a body. A code from 200 to 299 is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHook>,
    /// A command in a container of the pod. An exit code of 0 is success. Only an operator that may exec into pods
    /// runs it: the chart's operator.execHooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHook>,
    /// Seconds for the answer.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: i32,
    /// What a call that fails leads to.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

fn ten() -> i32 {
    10
}

/// Where in a pod a hook is called.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpHook {
    /// The path, with a query if there is one.
    #[schemars(regex(pattern = r"^/[A-Za-z0-9/._~?=&%-]*$"), length(max = 512))]
    pub path: String,
    /// The port; lifecycle.port if left out. The template must declare it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: Option<i32>,
}

/// What is run in a pod, without a shell and without an Idempotency-Key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExecHook {
    /// The program and its arguments. One that is still running at the timeout goes on in its container.
    #[x_kube(validation = Rule::new("size(self) == 0 || self[0] != ''").message("spec.lifecycle: exec.command: the program's name is empty"))]
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// The container; `agent` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub container: Option<String>,
}

/// What a hook that fails leads to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It is passed over.
    #[default]
    Ignore,
    /// It is called again until it succeeds: the pause waits, or the resume is not complete; the object is Stalled.
    Fail,
}
