//! The OpenAPI document, generated from the handlers.

use axum::Json;
use utoipa::OpenApi;

use super::{events, executions, verbs};

#[derive(OpenApi)]
#[openapi(
    info(title = "Agent runtime", description = "The lifecycle contract, and the executions of one agent"),
    paths(
        verbs::command,
        verbs::brake,
        verbs::status,
        verbs::streams,
        verbs::live,
        verbs::ready,
        verbs::metrics,
        executions::trigger,
        executions::list,
        executions::get,
        executions::cancel,
        executions::cancel_all,
        executions::retry,
        executions::input,
        events::follow,
        events::emit,
        agent_schema,
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

/// The JSON Schema of an agent's definition.
#[utoipa::path(get, path = "/agent.schema.json", responses((status = 200, body = Object)))]
pub(super) async fn agent_schema() -> Json<schemars::Schema> {
    Json(crate::definition::schema())
}
