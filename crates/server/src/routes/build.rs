//! `POST /build`: the builder for clients that send their context as an archive and read Docker's lines.

mod cache;
mod layout;
mod talk;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use ferry_api::container::Ulimit;
use ferry_api::image::{Aux, Message, MessageError};
use ferry_build::cache::CacheSource;
use ferry_build::output::Output;
use ferry_build::progress::{Event, Events, Status};
use ferry_build::request::{Limits, Location, NoCache, RunOptions};
use ferry_build::session::{BoxFuture, ContentStore, Directory, Stream, Wanted};
use ferry_build::{Error, Request as BuildRequest, Session};
use ferry_engine::images::Credentials;
use ferry_kit::Id;
use http::{HeaderMap, Request};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

pub use cache::{prune, usage};
pub use talk::talk;

/// How many lines may wait for a client that reads slowly.
const LINES: usize = 64;
/// The context's name in the session.
const CONTEXT: &str = "the build context";
const REGISTRY_CONFIG: &str = "x-registry-config";

pub async fn build(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response> {
    let (build, names) = read(&query)?;
    let mut output = Output::default();
    output.attributes.insert("name".to_owned(), names.join(","));
    let quiet = query.flag("q");
    let session: Arc<dyn Session> = Arc::new(Sent {
        credentials: credentials(&headers)?,
        body: Mutex::new(Some(request.into_body())),
    });
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(LINES);
    let builds = app.engine.builds.clone();
    let task = tokio::spawn(async move {
        let (events, mut happening) = Events::new();
        let building = async {
            let solved = builds.solve(build, Arc::clone(&session), events.clone()).await?;
            let told = builds.export(&solved, &[output], &[], session, events).await?;
            Ok::<_, Error>(told)
        };
        let mut lines = Lines {
            sender,
            quiet,
            steps: BTreeMap::new(),
            begun: 0,
        };
        tokio::pin!(building);
        let outcome = loop {
            tokio::select! {
                biased;
                Some(event) = happening.recv() => lines.event(event).await,
                outcome = &mut building => break outcome,
            }
        };
        while let Ok(event) = happening.try_recv() {
            lines.event(event).await;
        }
        lines.end(outcome, &names).await;
    });
    // A client that goes takes its build along.
    let running = (receiver, AbortOnDropHandle::new(task));
    let answer = futures_util::stream::unfold(running, |(mut receiver, task)| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, io::Error>(line), (receiver, task)))
    });
    Ok(body::stream(Body::from_stream(answer)))
}

/// The query's words as a request; those that mean nothing to this builder, or ask for what it does not do, aside.
///
/// Beside it the names that the image gets.
fn read(query: &Query) -> Result<(BuildRequest, Vec<String>)> {
    if query.flag("squash") {
        return Err(Failure::missing("squash"));
    }
    match query.given("version") {
        None | Some("1") => {}
        Some("2") => {
            return Err(Failure::missing(
                "POST /build with version=2: use /grpc, as buildx does",
            ));
        }
        Some(other) => return Err(Failure::invalid(format!("invalid version {other:?}"))),
    }
    if !query.all("securityopt").is_empty() {
        return Err(Failure::invalid("security options are not supported on linux"));
    }
    if let Some(isolation) = query.given("isolation").filter(|isolation| *isolation != "default") {
        return Err(Failure::invalid(format!("unsupported isolation: {isolation:?}")));
    }
    if query
        .given("outputs")
        .is_some_and(|outputs| !matches!(outputs, "[]" | "null"))
    {
        return Err(Failure::missing("outputs of POST /build"));
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
            "" | "client-session" => Location::Upload(CONTEXT.to_owned()),
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
        pull: query.given("pull").is_some_and(|pull| !matches!(pull, "0" | "false")),
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
        ferry_image::Reference::parse_named(name).map_err(|error| Failure::invalid(error.to_string()))?;
    }
    Ok((request, names))
}

/// A parameter that is JSON, called `what` where it is none; `null` is nothing.
fn json<T: DeserializeOwned>(query: &Query, name: &str, what: &str) -> Result<Option<T>> {
    let Some(text) = query.given(name) else { return Ok(None) };
    let parsed = serde_json::from_str::<Option<T>>(text);
    parsed.map_err(|error| Failure::invalid(format!("error reading {what}: {error}")))
}

/// `name:address`, as `docker build --add-host` sends them; some clients send a JSON list of them.
fn hosts(given: &[String]) -> Result<Vec<(String, IpAddr)>> {
    let mut hosts = Vec::new();
    for text in given {
        let several = match text.starts_with('[') {
            true => body::parse::<Vec<String>>(text.as_bytes())?,
            false => vec![text.clone()],
        };
        for text in several.iter().filter(|text| !text.is_empty()) {
            let wrong = || Failure::invalid(format!("bad format for add-host: {text:?}"));
            let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
            let address = address.trim_matches(['[', ']']);
            hosts.push((name.to_owned(), address.parse().map_err(|_| wrong())?));
        }
    }
    Ok(hosts)
}

fn credentials(headers: &HeaderMap) -> Result<BTreeMap<String, Credentials>> {
    match headers.get(REGISTRY_CONFIG).and_then(|value| value.to_str().ok()) {
        Some(text) => ferry_engine::images::registry_config(text).map_err(|error| Failure::invalid(error.to_string())),
        None => Ok(BTreeMap::new()),
    }
}

/// A client that has sent all it has with its request.
#[derive(Debug)]
struct Sent {
    credentials: BTreeMap<String, Credentials>,
    body: Mutex<Option<Body>>,
}

fn absent<T>(what: &str) -> ferry_build::Result<T> {
    Err(Error::invalid(format!(
        "{what} needs a session, which POST /build does not have: build with buildx, or with ferry build"
    )))
}

impl Session for Sent {
    fn directory<'a>(
        &'a self,
        name: &'a str,
        _: &'a Wanted,
        _: &'a (dyn Fn(Status) + Send + Sync),
    ) -> BoxFuture<'a, ferry_build::Result<Directory>> {
        Box::pin(async move { absent(&format!("the directory {name}")) })
    }

    fn upload<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ferry_build::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            let body = body.ok_or_else(|| Error::Internal("the context was read already".to_owned()))?;
            let pieces = futures_util::TryStreamExt::map_err(body.into_data_stream(), io::Error::other);
            let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(StreamReader::new(pieces));
            Ok(reader)
        })
    }

    fn secret<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Bytes>>> {
        Box::pin(async { Ok(None) })
    }

    fn ssh<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Box<dyn Stream>>>> {
        Box::pin(async { Ok(None) })
    }

    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<(String, String)>>> {
        let given = match self.credentials.get(host) {
            Some(Credentials::Basic { username, password }) => Some((username.clone(), password.clone())),
            Some(Credentials::Identity { token, .. }) => Some((String::new(), token.clone())),
            _ => None,
        };
        Box::pin(async move { Ok(given) })
    }

    fn receive_archive<'a>(
        &'a self,
        _: usize,
        _: &'a [(String, String)],
    ) -> BoxFuture<'a, ferry_build::Result<Box<dyn AsyncWrite + Send + Unpin>>> {
        Box::pin(async { absent("an archive as output") })
    }

    fn receive_directory<'a>(&'a self, _: usize, _: ferry_sys::Root) -> BoxFuture<'a, ferry_build::Result<()>> {
        Box::pin(async { absent("a directory as output") })
    }

    fn store<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ferry_build::Result<Option<Arc<dyn ContentStore>>>> {
        Box::pin(async { Ok(None) })
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        // Its task ends with the connection.
        Box::pin(std::future::pending())
    }
}

/// What happens, in the words of Docker's first builder.
struct Lines {
    sender: tokio::sync::mpsc::Sender<Bytes>,
    quiet: bool,
    /// Steps of stages: whether they were told.
    steps: BTreeMap<String, bool>,
    begun: usize,
}

impl Lines {
    async fn tell(&self, message: &Message) {
        // A client that has gone misses it.
        let _ = self.sender.send(body::line(message).into()).await;
    }

    async fn stream(&self, text: String) {
        if !self.quiet {
            self.tell(&Message {
                stream: text,
                ..Message::default()
            })
            .await;
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => {
                if let (true, Some(error)) = (vertex.name.starts_with("importing cache"), &vertex.error) {
                    return self.stream(format!("{}: {error}\n", vertex.name)).await;
                }
                let is_step = vertex.name.starts_with('[') && !vertex.name.starts_with("[internal]");
                if !is_step {
                    return;
                }
                let told = self.steps.entry(vertex.id.clone()).or_default();
                if vertex.started.is_none() || *told {
                    return;
                }
                *told = true;
                self.begun += 1;
                let (begun, all) = (self.begun, self.steps.len());
                let what = vertex.name.split_once("] ").map_or(&*vertex.name, |(_, what)| what);
                self.stream(format!("Step {begun}/{all} : {what}\n")).await;
                if vertex.cached {
                    self.stream(" ---> Using cache\n".to_owned()).await;
                }
            }
            Event::Log(log) => {
                self.stream(String::from_utf8_lossy(&log.data).into_owned()).await;
            }
            Event::Status(_) | Event::Warning(_) | Event::Explained(_) => {}
        }
    }

    async fn end(&self, outcome: ferry_build::Result<BTreeMap<String, String>>, names: &[String]) {
        let told = match outcome {
            Ok(told) => told,
            Err(error) => {
                let code = match &error {
                    Error::Step(failed) => failed.exit_code.map_or(0, i64::from),
                    _ => 0,
                };
                let text = error.to_string();
                return self
                    .tell(&Message {
                        error: Some(MessageError {
                            code,
                            message: text.clone(),
                        }),
                        error_message: text,
                        ..Message::default()
                    })
                    .await;
            }
        };
        let id = told.get("containerimage.config.digest").cloned().unwrap_or_default();
        self.tell(&Message {
            aux: Some(Aux::Built { id: id.clone() }),
            ..Message::default()
        })
        .await;
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        match self.quiet {
            true => {
                self.tell(&Message {
                    stream: format!("{id}\n"),
                    ..Message::default()
                })
                .await;
            }
            false => self.stream(format!("Successfully built {short}\n")).await,
        }
        for name in names {
            if let Ok(reference) = ferry_image::Reference::parse_named(name) {
                let name = reference.tagged().familiar();
                self.stream(format!("Successfully tagged {name}\n")).await;
            }
        }
    }
}
