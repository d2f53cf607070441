//! `POST /build`: for clients that send their context as an archive. They read Docker's lines, or BuildKit's messages in them
//! ([`buildkit`]).

mod buildkit;
mod cache;
mod jobs;
mod layout;
mod lines;
mod refusal;
mod sent;
mod talk;

use std::collections::BTreeMap;
use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use ferry_api::container::Ulimit;
use ferry_build::cache::CacheSource;
use ferry_build::output::Output;
use ferry_build::progress::Events;
use ferry_build::request::{Address, Limits, Location, NoCache, RunOptions};
use ferry_build::{Error, Request as BuildRequest};
use ferry_image::{DEFAULT_DOMAIN, Reference};
use ferry_kit::Id;
use http::{HeaderMap, Request, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};
use jobs::Upload;
use lines::Lines;
use sent::Sent;

pub use cache::{prune, usage};
pub use jobs::Jobs;
pub use talk::talk;

/// How many lines may wait for a client that reads slowly.
const LINES: usize = 64;
/// The context's name in the session.
const CONTEXT: &str = "the build context";

pub async fn build(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response> {
    match query.text("version") {
        "" | "1" => first(&app, &query, &headers, request.into_body()).await,
        "2" => buildkit::build(&app, &query, &headers, request.into_body()).await,
        other => Err(Failure::invalid(format!(
            "invalid version {}",
            ferry_kit::gofmt::quote(other)
        ))),
    }
}

/// `POST /build/cancel`
pub async fn cancel(State(app): State<App>, query: Query) -> Result<StatusCode> {
    let name = query.given("id");
    app.jobs
        .cancel(name.ok_or_else(|| Failure::invalid("build ID not provided"))?);
    Ok(StatusCode::OK)
}

/// Docker's first builder. The answer begins when the Dockerfile was read, or with the first line.
async fn first(app: &App, query: &Query, headers: &HeaderMap, context: Body) -> Result<Response> {
    if query
        .given("outputs")
        .is_some_and(|outputs| !matches!(outputs, "[]" | "null"))
    {
        return Err(Failure::missing(
            "outputs of POST /build with version=1: give version=2",
        ));
    }
    if query.text("remote") == "client-session" {
        return Err(Failure::invalid(
            "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
        ));
    }
    let (mut build, names) = read(query)?;
    refusal::check(&build)?;
    limit_cache(app, &mut build);
    let mut output = Output::default();
    output.attributes.insert("name".to_owned(), names.join(","));
    let quiet = query.flag("q");
    let session = Sent::session(headers, Upload::new(context), None)?;
    let builds = app.engine.builds.clone();
    let job = app.jobs.begin(query.text("buildid"));
    let (begins, begun) = oneshot::channel();
    let response = answer(|sender| async move {
        let (events, mut happening) = Events::new();
        let (reading, request) = (events.clone(), build.clone());
        let building = async {
            let solved = builds.solve(build, session.clone(), events.clone()).await?;
            let told = builds.export(&solved, &[output], &[], session, events).await?;
            Ok::<_, Error>(told)
        };
        let mut lines = Lines::new(sender, begins, &request, quiet);
        tokio::pin!(building);
        let outcome = loop {
            tokio::select! {
                biased;
                () = reading.read(), if !lines.have_begun() => lines.begin(),
                Some(event) = happening.recv() => lines.event(event).await,
                outcome = &mut building => break outcome,
                () = job.canceled() => break Err(Error::Canceled),
            }
        };
        if reading.has_read() {
            lines.begin();
        }
        while let Ok(event) = happening.try_recv() {
            lines.event(event).await;
        }
        lines.end(outcome, &request, &names).await;
    });
    match begun.await {
        Ok(Some(refused)) => Err(refused),
        Ok(None) => Ok(response),
        Err(_) => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the build ended without a word",
        )),
    }
}

/// To Docker's first builder caches are images that are here, and who names some has no step of others. Beyond it, those in a
/// registry that is named are asked for.
fn limit_cache(app: &App, build: &mut BuildRequest) {
    let known = |source: &CacheSource| match source {
        CacheSource::Registry(name) => {
            let elsewhere = Reference::parse_named(name).is_ok_and(|name| name.domain() != DEFAULT_DOMAIN);
            elsewhere || app.engine.images.inspect(name).is_ok()
        }
        CacheSource::Local(_) => true,
    };
    let any = !build.cache_from.is_empty();
    build.cache_from.retain(known);
    if any && build.cache_from.is_empty() {
        build.no_cache = NoCache::All;
    }
}

/// Lines of a build, which a client that goes takes along.
fn answer<F>(build: impl FnOnce(mpsc::Sender<Bytes>) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(LINES);
    let running = (receiver, AbortOnDropHandle::new(tokio::spawn(build(sender))));
    let lines = futures_util::stream::unfold(running, |(mut receiver, task)| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, io::Error>(line), (receiver, task)))
    });
    body::stream(Body::from_stream(lines))
}

/// The query's words as a request; those that mean nothing to this builder, or ask for what it does not do, aside.
///
/// Beside it the names that the image gets.
fn read(query: &Query) -> Result<(BuildRequest, Vec<String>)> {
    if query.flag("squash") {
        return Err(Failure::missing("squash"));
    }
    if !query.all("securityopt").is_empty() {
        return Err(Failure::invalid("security options are not supported on linux"));
    }
    if let Some(isolation) = query.given("isolation").filter(|isolation| *isolation != "default") {
        return Err(Failure::invalid(format!("unsupported isolation: {isolation:?}")));
    }
    let given = |values: Option<BTreeMap<String, Option<String>>>| {
        let values = values.unwrap_or_default().into_iter();
        values.filter_map(|(name, value)| Some((name, value?))).collect()
    };
    let number = |name: &str| query.integer(name).map(Option::unwrap_or_default);
    let platform = match query.given("platform") {
        Some(text) => Some(
            text.parse()
                .map_err(|error: ferry_image::Error| Failure::invalid(error.to_string()))?,
        ),
        None => None,
    };
    let cache_from: Option<Vec<String>> = json(query, "cachefrom", "cache-from")?;
    let cache_from = cache_from
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !name.is_empty());
    let cache_from = cache_from.map(|name| CacheSource::parse(&[name]));
    let ulimits: Option<Vec<Ulimit>> = json(query, "ulimits", "ulimit settings")?;
    let remote = query.text("remote");
    let request = BuildRequest {
        id: Id::random().to_string(),
        context: match remote {
            "" => Location::Archive(CONTEXT.to_owned()),
            url => Location::Url(url.to_owned()),
        },
        filename: query.text("dockerfile").to_owned(),
        target: query.text("target").to_owned(),
        platform,
        build_args: given(json(query, "buildargs", "build args")?),
        labels: given(json(query, "labels", "labels")?),
        no_cache: if query.flag("nocache") {
            NoCache::All
        } else {
            NoCache::None
        },
        pull: query.flag("pull"),
        run: RunOptions {
            network: query.text("networkmode").to_owned(),
            extra_hosts: hosts(&query.all("extrahosts"))?,
            shm_size: number("shmsize")?,
            ulimits: ulimits
                .unwrap_or_default()
                .into_iter()
                .map(|limit| (limit.name, limit.soft, limit.hard))
                .collect(),
            cgroup_parent: query.text("cgroupparent").to_owned(),
            limits: Limits {
                memory: number("memory")?,
                memory_swap: number("memswap")?,
                cpu_shares: number("cpushares")?,
                cpu_period: number("cpuperiod")?,
                cpu_quota: number("cpuquota")?,
                cpuset_cpus: query.text("cpusetcpus").to_owned(),
                cpuset_mems: query.text("cpusetmems").to_owned(),
            },
            ..RunOptions::default()
        },
        cache_from: cache_from
            .collect::<Result<_, _>>()
            .map_err(|error: Error| Failure::invalid(error.to_string()))?,
        ..BuildRequest::default()
    };
    let names: Vec<String> = query.all("t").into_iter().filter(|name| !name.is_empty()).collect();
    for name in &names {
        Reference::parse_named(name)
            .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    }
    Ok((request, names))
}

/// A parameter that is JSON, called `what` where it is none; `null` is nothing.
fn json<T: DeserializeOwned>(query: &Query, name: &str, what: &str) -> Result<Option<T>> {
    let Some(text) = query.given(name) else { return Ok(None) };
    let wrong = |why: &dyn std::fmt::Display| Failure::invalid(format!("error reading {what}: {why}"));
    if serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.is_eof()) {
        return Err(wrong(&"unexpected end of JSON input"));
    }
    ferry_api::json::from_slice::<Option<T>>(text.as_bytes()).map_err(|error| wrong(&error))
}

/// `name:address`, as `docker build --add-host` sends them; some clients send a JSON list of them.
fn hosts(given: &[String]) -> Result<Vec<(String, Address)>> {
    let mut hosts = Vec::new();
    for text in given {
        let several = match text.starts_with('[') {
            true => body::parse::<Vec<String>>(text.as_bytes())?,
            false => vec![text.clone()],
        };
        for text in several.iter().filter(|text| !text.is_empty()) {
            let wrong = || Failure::invalid(format!("bad format for add-host: {text:?}"));
            let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
            hosts.push((name.to_owned(), address.parse().map_err(|_| wrong())?));
        }
    }
    Ok(hosts)
}
