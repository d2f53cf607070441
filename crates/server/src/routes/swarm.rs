//! Swarms and plugins, as dockerd answers when it is in no swarm and has no plugin.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{any, get, post};
use http::{Request, StatusCode};

use super::missing_as;
use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm \
                          and try again.";

pub fn routes() -> Router<App> {
    let mut router = Router::new()
        .route("/swarm", get(no_manager))
        .route("/swarm/init", post(begin))
        .route("/swarm/join", post(begin))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(|query| update("swarm", query)))
        .route("/swarm/unlock", post(no_manager))
        .route("/swarm/unlockkey", get(no_manager))
        .route("/plugins", get(plugins))
        .route("/plugins/privileges", get(missing_as("plugins")))
        .route("/plugins/pull", post(missing_as("plugins")))
        .route("/plugins/create", post(missing_as("plugins")))
        .route("/plugins/{*rest}", any(plugin));
    for (path, what) in [
        ("/nodes", "node"),
        ("/services", "service"),
        ("/secrets", "secret"),
        ("/configs", "config"),
    ] {
        router = router
            .route(path, get(no_manager))
            .route(&format!("{path}/{{id}}/update"), post(move |query| update(what, query)))
            .route(&format!("{path}/{{id}}"), any(no_manager))
            .route(&format!("{path}/{{id}}/{{more}}"), any(no_manager));
    }
    router
        .route("/tasks", get(no_manager))
        .route("/tasks/{*rest}", any(no_manager))
}

pub async fn no_manager() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, NO_MANAGER)
}

async fn leave() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn update(what: &'static str, query: Query) -> Failure {
    let version = query.text("version");
    match version.parse::<u64>() {
        Ok(_) => no_manager().await,
        Err(_) => Failure::invalid(format!(
            "invalid {what} version '{version}': strconv.ParseUint: parsing {version:?}: invalid syntax"
        )),
    }
}

/// Where others would find this node is the first thing that dockerd looks at.
async fn begin(request: Request<Body>) -> Result<Response> {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Begin {
        listen_addr: String,
    }
    let begin: Begin = body::read(request).await?;
    if begin.listen_addr.is_empty() {
        return Err(Failure::invalid("invalid ListenAddr \"\": invalid empty address"));
    }
    Err(Failure::missing("swarm mode"))
}

/// A plugin by its name, whatever is asked of it; `inspect` without a type asks too.
async fn plugin(Path(rest): Path<String>) -> Failure {
    let actions = ["/json", "/enable", "/disable", "/push", "/set", "/upgrade"];
    let name = actions.iter().find_map(|action| rest.strip_suffix(action));
    let name = name.unwrap_or(&rest);
    Failure::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found"))
}

async fn plugins(query: Query) -> Result<Response> {
    query.filters()?;
    body::ok(&serde_json::Value::Array(Vec::new()))
}
