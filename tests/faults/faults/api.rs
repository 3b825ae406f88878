//! The harness's own client of the API server, and what its proxies pass requests on with.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

#[derive(Clone)]
pub(crate) struct Api {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    token: String,
}

impl Api {
    /// A client that trusts these certificates and no other.
    pub(crate) fn new(base: String, token: &str, pem: &[u8]) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            // The file holds the authority and what it signed; only the first can be one.
            let _ = roots.add(certificate.unwrap());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(http);
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(64).build(https);
        Self { http, base, token: token.to_owned() }
    }

    /// Sends a request and gives the head of its answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", content_type)
            .header("accept", accept)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        self.http.request(request).await.map_err(|error| lifecycle::client::chain(&error))
    }

    /// One whole exchange; code 0 when there was no answer. A PATCH is a merge patch.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let response = match self.send(method, path, content_type, "application/json", body).await {
            Ok(response) => response,
            Err(error) => return (0, Value::String(error)),
        };
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}
