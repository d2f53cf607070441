//! What `metrics-addr` serves: nothing of the API.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use ferry_engine::Engine;
use http::{StatusCode, header};

/// The text format of Prometheus, as dockerd.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`, and `/healthz` for who wants to know whether anybody is there.
pub fn router(engine: Engine) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "404 page not found: the metrics are at /metrics\n",
            )
        })
        .with_state(engine)
}

async fn metrics(State(engine): State<Engine>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], engine.metrics().await)
}
