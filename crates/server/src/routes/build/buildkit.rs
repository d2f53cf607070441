//! `POST /build` with `version=2`: a build of BuildKit's, of which everything is told in Docker's lines.
//!
//! ```text
//! POST /build?version=2                                  the context is the body
//!            &session=ID                                 of whom the rest can be asked
//!            &session=ID&remote=client-session           the context as well
//!            &remote=upload-request&buildid=NAME         it comes by POST /build?version=2&buildid=upload-request:NAME
//! answer     {"id":"moby.buildkit.trace","aux":"…"}      a StatusResponse, base64; many of them
//!            {"id":"moby.image.id","aux":{"ID":"…"}}
//! ```

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferry_api::image::{Aux, Message};
use ferry_api::json;
use ferry_build::Request as BuildRequest;
use ferry_build::request::Location;
use ferry_buildkit::Message as _;
use ferry_buildkit::control::{Exporter, SolveRequest};
use ferry_kit::Id;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::Status;

use super::jobs::Upload;
use super::sent::Sent;
use crate::failure::{Failure, Result};
use crate::grpc::{self, Asked, Grpc};
use crate::query::Query;
use crate::{App, body};

const TRACE: &str = "moby.buildkit.trace";
const IMAGE: &str = "moby.image.id";
/// Before a build's name: the request has its context.
const UPLOAD: &str = "upload-request:";
/// Names of directories in a session.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";

pub async fn build(app: &App, query: &Query, headers: &HeaderMap, body: Body) -> Result<Response> {
    let name = query.text("buildid");
    if let Some(name) = name.strip_prefix(UPLOAD) {
        app.jobs.offer(name, body).await?;
        return Ok(().into_response());
    }
    let (mut request, tags) = super::read(query)?;
    request.entitlements.network_host |= request.run.network == "host";
    let mut upload = Upload::new(body);
    match query.text("remote") {
        "client-session" => {
            request.context = Location::Directory(CONTEXT.to_owned());
            request.dockerfile = Some(Location::Directory(DOCKERFILE.to_owned()));
        }
        "upload-request" => {
            upload = app.jobs.context(name).await?;
            request.context = Location::Upload(super::CONTEXT.to_owned());
        }
        "" => request.context = Location::Upload(super::CONTEXT.to_owned()),
        _ => {}
    }
    let solve = solve(query, &request, &tags)?;
    grpc::outputs(&solve).map_err(|error| Failure::invalid(error.to_string()))?;
    let session = query.given("session").map(|id| (app.grpc.clone(), id.to_owned()));
    let session = Sent::session(headers, upload, session)?;
    let job = app.jobs.begin(name);
    let (grpc, is_quiet) = (app.grpc.clone(), query.flag("q"));
    Ok(super::answer(move |sender| async move {
        let build = Answering {
            grpc,
            solve,
            sender,
            is_quiet,
        };
        tokio::select! {
            () = build.run(Asked { request, session }) => {}
            () = job.canceled() => build.tell(&Message::error("context canceled")).await,
        }
    }))
}

/// What is built, and what becomes of it, as `Control.Solve` is asked for it.
fn solve(query: &Query, request: &BuildRequest, tags: &[String]) -> Result<SolveRequest> {
    Ok(SolveRequest {
        r#ref: Id::random().to_string(),
        session: query.text("session").to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attributes(request),
        exporters: exporters(query.text("outputs"), tags)?,
        ..SolveRequest::default()
    })
}

/// For who looks at the history.
fn attributes(request: &BuildRequest) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut note = |name: String, value: &str| {
        if !value.is_empty() {
            attributes.insert(name, value.to_owned());
        }
    };
    note("filename".to_owned(), &request.filename);
    note("target".to_owned(), &request.target);
    if let Location::Url(url) = &request.context {
        note("context".to_owned(), url);
    }
    for (name, value) in &request.build_args {
        note(format!("build-arg:{name}"), value);
    }
    for (name, value) in &request.labels {
        note(format!("label:{name}"), value);
    }
    attributes
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    r#type: String,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// Without a word about it, an image of these names.
fn exporters(outputs: &str, tags: &[String]) -> Result<Vec<Exporter>> {
    let given: Option<Vec<Output>> = match outputs {
        "" => None,
        text => json::from_slice(text.as_bytes())
            .map_err(|error| Failure::invalid(format!("invalid outputs specified: {error}")))?,
    };
    let mut given = given.unwrap_or_default();
    if given.is_empty() {
        given.push(Output {
            r#type: "moby".to_owned(),
            attrs: None,
        });
    }
    given.retain(|output| output.r#type != "cacheonly");
    let exporter = |output: Output| {
        let mut attrs = output.attrs.unwrap_or_default();
        if matches!(output.r#type.as_str(), "image" | "moby") && !tags.is_empty() {
            attrs.insert("name".to_owned(), tags.join(","));
        }
        Exporter {
            r#type: output.r#type,
            attrs,
        }
    };
    Ok(given.into_iter().map(exporter).collect())
}

/// A build whose client reads along.
struct Answering {
    grpc: Grpc,
    solve: SolveRequest,
    sender: mpsc::Sender<Bytes>,
    is_quiet: bool,
}

impl Answering {
    async fn tell(&self, message: &Message) {
        // A client that has gone misses it.
        let _ = self.sender.send(body::line(message).into()).await;
    }

    async fn run(&self, asked: Asked) {
        let building = self.grpc.build(&self.solve, Some(asked));
        let outcome = match self.is_quiet {
            true => building.await,
            false => tokio::join!(building, self.trace()).0,
        };
        match outcome {
            Ok(told) => self.end(&told).await,
            Err(status) => self.fail(&status).await,
        }
    }

    /// Everything that happens in the build, from its begin to its end.
    async fn trace(&self) {
        let Some(entry) = self.grpc.find(&self.solve.r#ref).await else {
            return;
        };
        let mut position = 0;
        while let Some(happened) = entry.log.next(&mut position).await {
            let aux = STANDARD.encode(happened.encode_to_vec());
            self.tell(&Message {
                id: TRACE.to_owned(),
                aux: Some(Aux::Other(aux.into())),
                ..Message::default()
            })
            .await;
        }
    }

    async fn end(&self, told: &BTreeMap<String, String>) {
        let Some(id) = told.get("containerimage.config.digest").cloned() else {
            return;
        };
        let last = match self.is_quiet {
            true => Message::stream(format!("{id}\n")),
            false => Message {
                id: IMAGE.to_owned(),
                aux: Some(Aux::Built { id }),
                ..Message::default()
            },
        };
        self.tell(&last).await;
    }

    async fn fail(&self, status: &Status) {
        if self.is_quiet {
            self.trace().await;
        }
        self.tell(&Message::error(status.message())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_dockerd_reads_them() {
        let tags = ["a".to_owned(), "b".to_owned()];
        let read = |outputs: &str| exporters(outputs, &tags).unwrap();
        let names = |outputs: &str| read(outputs)[0].attrs.get("name").cloned();
        for outputs in ["", "[]", "null", r#"[{"Type":"image","Attrs":null}]"#] {
            assert_eq!(names(outputs).as_deref(), Some("a,b"), "{outputs}");
        }
        assert_eq!(names(r#"[{"Type":"tar"}]"#), None);
        assert!(read(r#"[{"Type":"cacheonly"}]"#).is_empty());
        assert!(exporters("{", &tags).is_err());
    }
}
