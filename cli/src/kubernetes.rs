//! The API server, under the user's own RBAC: runtimes, and the pods' API through the pod proxy.

use crds::AgentRuntime;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::arguments::Place;
use crate::error::Error;

const RUNTIME_LABEL: &str = "agents.hive.dev/runtime";

pub(crate) struct Kubernetes {
    client: Client,
    namespace: Option<String>,
    default_namespace: String,
}

impl Kubernetes {
    pub(crate) async fn connect(place: &Place) -> Result<Self, Error> {
        let broken = |error: &dyn std::fmt::Display| Error::Kubeconfig(error.to_string());
        let options = KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
        // Without any kubeconfig it may still be a pod with a ServiceAccount.
        let config = if place.context.is_some() || Kubeconfig::read().is_ok() {
            Config::from_kubeconfig(&options).await.map_err(|e| broken(&e))?
        } else {
            Config::infer().await.map_err(|e| broken(&e))?
        };
        // Fails only where it has been done before, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let default_namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| broken(&e))?;
        let namespace = (!place.all_namespaces).then(|| default_namespace.clone());
        Ok(Self { client, namespace, default_namespace })
    }

    /// The runtimes of the namespace, or of all, by an optional label selector; in order of their names.
    pub(crate) async fn list(&self, selector: Option<&str>) -> Result<Vec<AgentRuntime>, Error> {
        let parameters = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
        let list = self.runtimes().list(&parameters).await.map_err(|e| api("agentruntimes cannot be listed", &e))?;
        let mut items = list.items;
        items.sort_by(|a, b| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)));
        Ok(items)
    }

    /// All runtimes that are meant, for lists and watches.
    pub(crate) fn runtimes(&self) -> Api<AgentRuntime> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// One runtime of the present namespace.
    pub(crate) async fn get(&self, name: &str) -> Result<AgentRuntime, Error> {
        let place = &self.default_namespace;
        let found = self.of(place).get_opt(name).await;
        found.map_err(|e| api(&format!("agentruntime {place}/{name} cannot be read"), &e))?.ok_or_else(|| {
            Error::Input(format!("there is no agentruntime {name} in namespace {place}: see kubectl hive status -A"))
        })
    }

    /// Runtimes of one namespace.
    pub(crate) fn of(&self, namespace: &str) -> Api<AgentRuntime> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Changes a runtime by a merge patch.
    pub(crate) async fn patch(&self, runtime: &AgentRuntime, patch: &Value) -> Result<AgentRuntime, Error> {
        let (namespace, name) = identity(runtime);
        let parameters = PatchParams { field_manager: Some("kubectl-hive".to_owned()), ..PatchParams::default() };
        let patched = self.of(namespace).patch(name, &parameters, &Patch::Merge(patch)).await;
        patched.map_err(|e| api(&format!("agentruntime {namespace}/{name} cannot be changed"), &e))
    }

    /// The names of a runtime's running pods.
    pub(crate) async fn pods(&self, runtime: &AgentRuntime) -> Result<Vec<String>, Error> {
        let (namespace, name) = identity(runtime);
        let parameters = ListParams::default().labels(&format!("{RUNTIME_LABEL}={name}"));
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let list = pods.list(&parameters).await.map_err(|e| api("pods cannot be listed", &e))?;
        let runs = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        Ok(list.items.into_iter().filter(runs).filter_map(|pod| pod.metadata.name).collect())
    }

    /// One request to a pod's own API, through the API server. Needs pods/proxy: get to read, create to change.
    pub(crate) async fn ask(
        &self,
        runtime: &AgentRuntime,
        pod: &str,
        (method, path): (Method, &str),
        key: Option<&str>,
        body: &str,
    ) -> Result<Value, Error> {
        let (namespace, _) = identity(runtime);
        let port = runtime.spec.lifecycle.port;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"))
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let what = format!("pod {namespace}/{pod} cannot be asked (it needs the permission pods/proxy)");
        let request = request
            .body(Body::from(body.as_bytes().to_vec()))
            .map_err(|e| Error::Input(format!("the request to the pod cannot be made: {e}")))?;
        let response = self.client.send(request).await.map_err(|e| api(&what, &e))?;
        let code = response.status();
        let bytes = response.into_body().collect().await.map_err(|e| api(&what, &e))?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if code.is_success() {
            return Ok(answer);
        }
        // The runtime says `detail`, the API server `message`.
        let said = answer.get("detail").or_else(|| answer.get("message")).and_then(Value::as_str);
        let detail = said.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        Err(Error::Pod { pod: format!("{namespace}/{pod}"), code: code.as_u16(), detail })
    }
}

/// Namespace and name.
pub(crate) fn identity(runtime: &AgentRuntime) -> (&str, &str) {
    (runtime.metadata.namespace.as_deref().unwrap_or("default"), runtime.metadata.name.as_deref().unwrap_or_default())
}

fn api(what: &str, error: &dyn std::error::Error) -> Error {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = inner.source();
    }
    if reason.contains("404") || reason.contains("page not found") {
        reason.push_str(
            "\nIs the operator's chart installed in this cluster? See kubectl get crd agentruntimes.agents.hive.dev",
        );
    }
    Error::Api { what: what.to_owned(), reason }
}
