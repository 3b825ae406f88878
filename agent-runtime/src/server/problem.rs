//! Errors as answers: RFC 9457 problem documents, in one place.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lifecycle::wire::{Problem, Status};

/// Seconds after which the store may be asked again.
const STORE_SECONDS: u32 = 5;

/// An error that answers itself.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    problem: Box<Problem>,
    retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// `kind` is a stable word for programs, `detail` says what to do.
    pub(super) fn new(code: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: kind.to_owned(),
            title: code.canonical_reason().unwrap_or("Error").to_owned(),
            status: code.as_u16(),
            detail: detail.into(),
            runtime: None,
        };
        Self { code, problem: Box::new(problem), retry_after_seconds: None }
    }

    /// The body is not what it should be.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// The store failed.
    pub(super) fn storage(error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", error.to_string()).retry_after(STORE_SECONDS)
    }

    pub(super) fn with_status(mut self, status: Status) -> Self {
        self.problem.runtime = Some(Box::new(status));
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(self.problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
