//! The API server, under the user's own RBAC: runtimes, and the pods' API through the pod proxy.

use clap::Args;
use crds::decoded::Decoded;
use crds::{AgentFreeze, AgentRuntime};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::error::Error;
use crate::proxy;

const OPERATOR_LABEL: &str = "app.kubernetes.io/name=agentruntime-operator";
const RUNTIME_LABEL: &str = "agents.hive.dev/runtime";

/// Which cluster and which namespace, as kubectl has them.
#[derive(Args, Debug, Default)]
pub(crate) struct Place {
    /// The context of the kubeconfig (KUBECONFIG, else ~/.kube/config)
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// The namespace; the context's own if not given
    #[arg(long, short, global = true)]
    pub(crate) namespace: Option<String>,
    /// Every namespace, for what works on many
    #[arg(long, short = 'A', global = true)]
    pub(crate) all_namespaces: bool,
}

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
        let file = Kubeconfig::read();
        let mut config = if place.context.is_some() || file.is_ok() {
            Config::from_kubeconfig(&options).await.map_err(|e| broken(&e))?
        } else {
            Config::infer().await.map_err(|e| broken(&e))?
        };
        if let Ok(file) = &file {
            proxy::choose(&mut config, file, place.context.as_deref()).map_err(|e| broken(&e))?;
        }
        let default_namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| broken(&e))?;
        let namespace = (!place.all_namespaces).then(|| default_namespace.clone());
        Ok(Self { client, namespace, default_namespace })
    }

    /// The runtimes of the namespace, or of all, by an optional label selector; in order of their names.
    pub(crate) async fn list(&self, selector: Option<&str>) -> Result<Vec<AgentRuntime>, Error> {
        let items = listed(&self.runtimes(), selector, "agentruntimes").await?.into_iter();
        let mut items: Vec<AgentRuntime> = items.map(Decoded::into_runtime).collect();
        items.sort_by(|a, b| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)));
        Ok(items)
    }

    /// The runtimes of one namespace, by an optional label selector.
    pub(crate) async fn list_in(&self, namespace: &str, selector: Option<&str>) -> Result<Vec<AgentRuntime>, Error> {
        let items = listed(&self.of(namespace), selector, "agentruntimes").await?;
        Ok(items.into_iter().map(Decoded::into_runtime).collect())
    }

    /// The names of the namespaces that a label selector selects.
    pub(crate) async fn namespaces(&self, selector: &str) -> Result<Vec<String>, Error> {
        let all: Api<Namespace> = Api::all(self.client.clone());
        let found = listed(&all, Some(selector), "namespaces").await?;
        Ok(found.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
    }

    /// The freezes, which belong to no namespace.
    pub(crate) fn freezes(&self) -> Api<AgentFreeze> {
        Api::all(self.client.clone())
    }

    /// Makes a freeze.
    pub(crate) async fn create_freeze(&self, freeze: &AgentFreeze) -> Result<(), Error> {
        let name = freeze.metadata.name.as_deref().unwrap_or_default();
        match self.freezes().create(&PostParams::default(), freeze).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::Input(format!(
                "there is an agentfreeze {name} already: take another name, or change it by kubectl edit"
            ))),
            Err(error) => Err(api(&format!("agentfreeze {name} cannot be made"), &error)),
        }
    }

    /// Has the API server judge an object as if it were applied; it keeps nothing of it.
    pub(crate) async fn try_out(
        &self,
        kind: &str,
        name: &str,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<(), Error> {
        let parameters = PatchParams::apply("kubectl-hive").force().dry_run().validation_strict();
        let patch = Patch::Apply(object);
        let outcome = match kind {
            "AgentRuntime" => {
                let place = namespace.unwrap_or(&self.default_namespace);
                self.of(place).patch(name, &parameters, &patch).await.map(drop)
            }
            "AgentFreeze" => self.freezes().patch(name, &parameters, &patch).await.map(drop),
            other => return Err(Error::Input(format!("there is no kind {other:?} in {}", crds::GROUP))),
        };
        outcome.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 422 || status.code == 400 => Error::Input(status.message),
            error => api("the API server cannot judge it", &error),
        })
    }

    /// All runtimes that are meant, for lists and watches.
    pub(crate) fn runtimes(&self) -> Api<Decoded<AgentRuntime>> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The Events of the namespace that is meant, or of all, for lists and watches.
    pub(crate) fn events(&self) -> Api<Event> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// One runtime of the present namespace.
    pub(crate) async fn get(&self, name: &str) -> Result<AgentRuntime, Error> {
        let place = &self.default_namespace;
        let found = self.of(place).get_opt(name).await;
        let found = found.map_err(|e| api(&format!("agentruntime {place}/{name} cannot be read"), &e))?;
        found.map(Decoded::into_runtime).ok_or_else(|| {
            Error::Input(format!("there is no agentruntime {name} in namespace {place}: see kubectl hive status -A"))
        })
    }

    /// The namespace that is meant; none for all.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The API server's version, and how many seconds this machine's clock is ahead of it.
    pub(crate) async fn version(&self) -> Result<(String, Option<i64>), Error> {
        let what = "the version cannot be read";
        let request = Request::get("/version").body(Body::empty());
        let request = request.map_err(|e| Error::Input(format!("{what}: {e}")))?;
        let response = self.client.send(request).await.map_err(|e| api(what, &e))?;
        let date = response.headers().get(http::header::DATE).and_then(|value| value.to_str().ok());
        let skew = date.and_then(|date| skew(date, Timestamp::now()));
        let bytes = response.into_body().collect().await.map_err(|e| api(what, &e))?.to_bytes();
        let version: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let said = version.get("gitVersion").and_then(Value::as_str);
        Ok((said.unwrap_or("of an unknown version").to_owned(), skew))
    }

    /// Whether the group of our custom resources is served.
    pub(crate) async fn serves(&self, group: &str) -> Result<bool, Error> {
        let groups = self.client.list_api_groups().await.map_err(|e| api("API groups cannot be listed", &e))?;
        Ok(groups.groups.iter().any(|found| found.name == group))
    }

    /// The operator's Deployments, each with its ready pods.
    pub(crate) async fn operators(&self) -> Result<Vec<(String, i32)>, Error> {
        let all: Api<Deployment> = Api::all(self.client.clone());
        let list = all.list(&ListParams::default().labels(OPERATOR_LABEL)).await;
        let found = list.map_err(|e| api("deployments cannot be listed", &e))?.items.into_iter().map(|deployment| {
            let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0);
            let (namespace, name) = (deployment.metadata.namespace, deployment.metadata.name);
            (format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default()), ready)
        });
        Ok(found.collect())
    }

    /// Whether this person may do that.
    pub(crate) async fn may(&self, review: &SelfSubjectAccessReview) -> Result<bool, Error> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), review).await;
        let answer = answer.map_err(|e| api("permissions cannot be asked for", &e))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Runtimes of one namespace.
    pub(crate) fn of(&self, namespace: &str) -> Api<Decoded<AgentRuntime>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Changes a runtime by a merge patch.
    pub(crate) async fn patch(&self, runtime: &AgentRuntime, patch: &Value) -> Result<AgentRuntime, Error> {
        let (namespace, name) = identity(runtime);
        let parameters = PatchParams { field_manager: Some("kubectl-hive".to_owned()), ..PatchParams::default() };
        let patched = self.of(namespace).patch(name, &parameters, &Patch::Merge(patch)).await;
        patched
            .map(Decoded::into_runtime)
            .map_err(|e| api(&format!("agentruntime {namespace}/{name} cannot be changed"), &e))
    }

    /// The names of a runtime's running pods.
    pub(crate) async fn pods(&self, runtime: &AgentRuntime) -> Result<Vec<String>, Error> {
        let (namespace, name) = identity(runtime);
        let parameters = ListParams::default().labels(&format!("{RUNTIME_LABEL}={name}"));
        let list = self.pods_of(namespace).list(&parameters).await.map_err(|e| api("pods cannot be listed", &e))?;
        let runs = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        Ok(list.items.into_iter().filter(runs).filter_map(|pod| pod.metadata.name).collect())
    }

    /// As [`Self::pods`]; an error when there is none.
    pub(crate) async fn some_pods(&self, runtime: &AgentRuntime) -> Result<Vec<String>, Error> {
        let pods = self.pods(runtime).await?;
        if pods.is_empty() {
            let (namespace, name) = identity(runtime);
            return Err(Error::Input(format!(
                "{namespace}/{name} has no running pod: see kubectl hive explain-state {name}"
            )));
        }
        Ok(pods)
    }

    /// The pods of one namespace.
    pub(crate) fn pods_of(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// One request to a pod's own API, through the API server. Needs pods/proxy: get to read, create to change.
    pub(crate) async fn ask(
        &self,
        runtime: &AgentRuntime,
        pod: &str,
        request: (Method, &str),
        key: Option<&str>,
        body: &str,
    ) -> Result<Value, Error> {
        let response = self.reach(runtime, pod, request, key, body).await?;
        let bytes = response.into_body().collect().await.map_err(|e| api(&unasked(runtime, pod), &e))?.to_bytes();
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// As [`Self::ask`], for an answer that comes in pieces; an answer that is no success is an error.
    pub(crate) async fn reach(
        &self,
        runtime: &AgentRuntime,
        pod: &str,
        (method, path): (Method, &str),
        key: Option<&str>,
        body: &str,
    ) -> Result<Response<Body>, Error> {
        let (namespace, _) = identity(runtime);
        let port = runtime.spec.lifecycle.port;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"))
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request
            .body(Body::from(body.as_bytes().to_vec()))
            .map_err(|e| Error::Input(format!("the request to the pod cannot be made: {e}")))?;
        let what = unasked(runtime, pod);
        let response = self.client.send(request).await.map_err(|e| api(&what, &e))?;
        let code = response.status();
        if code.is_success() {
            return Ok(response);
        }
        let bytes = response.into_body().collect().await.map_err(|e| api(&what, &e))?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        // The runtime says `detail`, the API server `message`.
        let said = answer.get("detail").or_else(|| answer.get("message")).and_then(Value::as_str);
        let detail = said.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        Err(Error::Pod { pod: format!("{namespace}/{pod}"), code: code.as_u16(), detail })
    }
}

fn unasked(runtime: &AgentRuntime, pod: &str) -> String {
    let (namespace, _) = identity(runtime);
    format!("pod {namespace}/{pod} cannot be asked (it needs the permission pods/proxy)")
}

async fn listed<K>(all: &Api<K>, selector: Option<&str>, what: &str) -> Result<Vec<K>, Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let parameters = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
    let list = all.list(&parameters).await.map_err(|e| api(&format!("{what} cannot be listed"), &e))?;
    Ok(list.items)
}

/// How many seconds `now` is ahead of an HTTP date.
fn skew(date: &str, now: Timestamp) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(now.as_second() - theirs.timestamp().as_second())
}

/// Namespace and name.
pub(crate) fn identity(runtime: &AgentRuntime) -> (&str, &str) {
    (runtime.metadata.namespace.as_deref().unwrap_or("default"), runtime.metadata.name.as_deref().unwrap_or_default())
}

/// An error of the API server, with its causes and what to do.
pub(crate) fn api(what: &str, error: &dyn std::error::Error) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_is_compared_with_ours() {
        let now: Timestamp = "2026-11-25T07:00:10Z".parse().unwrap();
        assert_eq!(skew("Wed, 25 Nov 2026 07:00:00 GMT", now), Some(10));
        assert_eq!(skew("yesterday", now), None);
    }
}
