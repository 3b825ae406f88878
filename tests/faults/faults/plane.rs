//! Owns the API server of the tests, with the custom resources defined.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;

pub(crate) struct Plane {
    pub(crate) api: Api,
    _plane: cluster::Plane,
    _folder: TempDir,
}

impl Plane {
    /// Starts it, and defines the custom resources.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plane = cluster::Plane::start(folder.path(), &cluster::Silent).expect("the control plane");
        let api = connect(&mut plane).await;
        define(&api).await;
        Self { api, _plane: plane, _folder: folder }
    }
}

async fn connect(plane: &mut cluster::Plane) -> Api {
    let begun = Instant::now();
    loop {
        // It makes its own certificate as it starts.
        if let Ok(pem) = std::fs::read(plane.certificates()) {
            let api = Api::new(plane.url().to_owned(), plane.token(), &pem);
            if api.call(Method::GET, "/readyz", None).await.0 == 200 {
                return api;
            }
        }
        plane.alive().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "the API server is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn define(api: &Api) {
    for definition in crds::definitions() {
        let body = serde_json::to_value(&definition).unwrap();
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let (code, answer) = api.call(Method::POST, path, Some(&body)).await;
        assert_eq!(code, 201, "{answer}");
        let list = format!("/apis/{}/v1alpha1/{}", crds::GROUP, definition.spec.names.plural);
        while api.call(Method::GET, &list, None).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The text at a path of a JSON object; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a path of a JSON object; 0 when there is none.
pub(crate) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}
