//! The OpenAPI document, generated from the handlers.

use axum::Json;
use utoipa::OpenApi;

use super::{executions, verbs};

#[derive(OpenApi)]
#[openapi(
    info(title = "Agent runtime", description = "The lifecycle contract, and the executions of one agent"),
    paths(
        verbs::command,
        verbs::status,
        verbs::streams,
        verbs::live,
        verbs::ready,
        verbs::metrics,
        executions::trigger,
        executions::list,
        executions::get,
    )
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(super) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
