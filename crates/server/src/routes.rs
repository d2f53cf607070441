//! Paths and methods. Each file has the handlers of one subject.

mod archive;
mod attach;
mod build;
mod commit;
mod containers;
mod exec;
mod images;
mod logs;
mod networks;
mod registries;
mod saves;
mod stats;
mod swarm;
mod system;
mod transfers;
mod uploads;
mod volumes;
mod websocket;

pub use build::Jobs;

use axum::Router;
use axum::routing::{any, delete, get, post};
use ferry_engine::Engine;
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::Failure;
use crate::grpc::{self, Grpc};
use crate::{App, Identity, gate};

/// The whole API. `closing` ends streams that would go on for ever.
pub fn router(engine: Engine, identity: Identity, closing: CancellationToken) -> Router {
    let app = App {
        grpc: Grpc::new(engine.clone(), closing.clone()),
        engine,
        closing,
        tasks: TaskTracker::new(),
        jobs: build::Jobs::default(),
    };
    let version = identity.version.clone();
    let routes = Router::new()
        .merge(system(identity))
        .merge(containers())
        .merge(images())
        .merge(networks())
        .merge(volumes())
        .merge(swarm::routes())
        .merge(builds(&app.grpc))
        .merge(missing())
        .with_state(app);
    gate::guard(routes, &version)
}

fn system(identity: Identity) -> Router<App> {
    let ping = move |method: Method| std::future::ready(system::ping(&identity, &method));
    Router::new()
        .route("/_ping", get(ping.clone()).head(ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/check", post(system::check))
        .route("/system/df", get(system::disk_usage))
}

fn containers() -> Router<App> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/{alias}", delete(containers::remove_link))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/changes", get(containers::changes))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(websocket::attach))
        .route(
            "/containers/{id}/archive",
            get(archive::get).head(archive::head).put(archive::put),
        )
        .route("/containers/{id}/export", get(saves::export))
        .route("/commit", post(commit::commit))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
}

fn images() -> Router<App> {
    Router::new()
        .route("/images/json", get(images::list))
        .route("/auth", post(registries::sign_in))
        .route("/distribution/{*rest}", get(registries::distribution))
        .route("/images/search", get(registries::search))
        .route("/images/load", post(uploads::load))
        .route("/images/create", post(uploads::create))
        .route("/images/get", get(saves::several))
        .route("/images/prune", post(images::prune))
        .route(
            "/images/{*rest}",
            get(images::get).post(images::post).delete(images::remove),
        )
}

fn networks() -> Router<App> {
    Router::new()
        .route("/networks", get(networks::list))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}/connect", post(networks::connect))
        .route("/networks/{id}/disconnect", post(networks::disconnect))
        .route("/ports", get(networks::ports))
}

fn volumes() -> Router<App> {
    Router::new()
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}/export", get(volumes::export))
        .route("/volumes/{name}/import", post(volumes::import))
        .route(
            "/volumes/{name}",
            get(volumes::inspect).put(volumes::update).delete(volumes::remove),
        )
}

/// The builder: for archives, for Ferry's own command line, and BuildKit's protocol, after an upgrade or as it is.
fn builds(grpc: &Grpc) -> Router<App> {
    Router::new()
        .route("/build", post(build::build))
        .route("/build/cancel", post(build::cancel))
        .route("/build/prune", post(build::prune))
        .route(ferry_build::wire::PATH, post(build::talk))
        .route("/grpc", post(grpc::serve))
        .route("/session", post(grpc::serve_session))
        .merge(grpc.services())
}

/// What Docker has and Ferry does not have yet: each is named in its answer.
fn missing() -> Router<App> {
    let routes = [
        ("/containers/{id}/checkpoints", any(experimental)),
        ("/containers/{id}/checkpoints/{checkpoint}", any(experimental)),
    ];
    let mut router = Router::new();
    for (path, methods) in routes {
        router = router.route(path, methods);
    }
    router
}

fn missing_as(what: &'static str) -> impl Fn() -> std::future::Ready<Failure> + Clone + Send + Sync + 'static {
    move || std::future::ready(Failure::missing(what))
}

/// Checkpoints, in Docker's words for them.
async fn experimental() -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
    )
}
