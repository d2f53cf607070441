//! Control: builds, what is kept of them, and what this builder is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_build::cache::{CacheDestination, CacheSource};
use ferry_build::output::{Kept, Output, OutputKind, Prune};
use ferry_build::{Error, Result, Session};
use ferry_buildkit::RpcStatus;
use ferry_buildkit::control::control_server::Control;
use ferry_buildkit::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, Exporter, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use ferry_buildkit::frontend::{ReturnRequest, result};
use ferry_buildkit::session::header;
use ferry_engine::builds::Solved;
use hyper_util::rt::TokioIo;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::builds::{Asked, Build, Running, exporters};
use super::entry::Entry;
use super::{Grpc, attributes, failure, history, progress, streams, worker};

/// Of a session in a call.
const TUNNEL: usize = 256 * 1024;

#[tonic::async_trait]
impl Control for Grpc {
    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse {
            record: vec![self.worker()],
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(worker::version()),
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        let told = self.build(&request, None).await?;
        Ok(Response::new(SolveResponse {
            exporter_response: told,
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<BoxStream<StatusResponse>>, Status> {
        let reference = request.into_inner().r#ref;
        let entry = self.builds.any(&reference).await.ok_or_else(|| no_such(&reference))?;
        let happening = futures_util::stream::unfold((entry, 0), |(entry, mut position)| async move {
            let next = entry.log.next(&mut position).await?;
            Some((Ok(next), (entry, position)))
        });
        Ok(Response::new(Box::pin(happening)))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<BoxStream<BytesMessage>>, Status> {
        let headers = request.metadata().clone().into_headers();
        self.check_session(&headers).map_err(Status::invalid_argument)?;
        let (ours, theirs) = tokio::io::duplex(TUNNEL);
        let (reader, writer) = tokio::io::split(theirs);
        tokio::spawn(streams::pump(
            request.into_inner(),
            |message: BytesMessage| message.data,
            writer,
        ));
        let (sessions, closing) = (self.sessions.clone(), self.closing.clone());
        tokio::spawn(async move {
            if let Err(error) = sessions.serve(TokioIo::new(ours), &headers, "", &closing).await {
                let id = headers.get(header::ID);
                tracing::debug!(%error, ?id, "a build's session ended early");
            }
        });
        let answers = streams::messages(reader, |data| Ok(BytesMessage { data }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn disk_usage(&self, request: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        let filter = request.into_inner().filter;
        let kept = self
            .engine
            .builds
            .usage(&filter)
            .await
            .map_err(|error| failure::status(&error))?;
        Ok(Response::new(DiskUsageResponse {
            record: kept.into_iter().map(usage).collect(),
        }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<BoxStream<UsageRecord>>, Status> {
        let request = request.into_inner();
        let size = |size: i64| u64::try_from(size).unwrap_or(0);
        let prune = Prune {
            all: request.all,
            filters: request.filter,
            keep_seconds: size(request.keep_duration) / 1_000_000_000,
            reserved: size(request.reserved_space),
            max_used: size(request.max_used_space),
            min_free: size(request.min_free_space),
        };
        let gone = self
            .engine
            .builds
            .prune(prune)
            .await
            .map_err(|error| failure::status(&error))?;
        let records = gone.into_iter().map(|kept| Ok(usage(kept)));
        Ok(Response::new(Box::pin(futures_util::stream::iter(records))))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<BoxStream<BuildHistoryEvent>>, Status> {
        let events = history::listen(self.builds.clone(), request.into_inner())?;
        Ok(Response::new(events))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        history::update(&self.builds, &request).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

fn no_such(reference: &str) -> Status {
    Status::not_found(format!("no such job {reference}"))
}

impl Grpc {
    /// A build from its begin to its end. Dropped, it is canceled.
    pub async fn build(
        &self,
        request: &SolveRequest,
        asked: Option<Asked>,
    ) -> Result<BTreeMap<String, String>, Status> {
        let frontend = match request.frontend.as_str() {
            "" => "dockerfile.v0",
            other => other,
        };
        let running = self.builds.begin(request, asked, frontend);
        let mut running =
            running.map_err(|error| Status::failed_precondition(format!("job {}: {error}", request.r#ref)))?;
        let outcome = self.run(request, &mut running).await;
        let status = |status: &Status| RpcStatus {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        };
        running.build.entry.note(outcome.as_ref().map_err(status).cloned());
        outcome
    }

    /// One that has begun, or is about to.
    pub async fn find(&self, reference: &str) -> Option<Arc<Entry>> {
        self.builds.any(reference).await
    }

    async fn run(&self, request: &SolveRequest, running: &mut Running) -> Result<BTreeMap<String, String>, Status> {
        let outputs = outputs(request).map_err(|error| failure::status(&error))?;
        let caches = caches(request).map_err(|error| failure::status(&error))?;
        let build = Arc::clone(&running.build);
        let solved = match request.frontend.as_str() {
            "" => {
                let gone = || Status::cancelled("the frontend has gone");
                let returned = (&mut running.frontend).await.map_err(|_| gone())?;
                result_of(&build, returned)?
            }
            frontend => Some(
                self.solve_frontend(&build, frontend, &request.frontend_attrs, &request.frontend_inputs, &[])
                    .await?,
            ),
        };
        match solved {
            Some(solved) if !(outputs.is_empty() && caches.is_empty()) => {
                let session = self.session_of(&build).await?;
                let exporting = self
                    .engine
                    .builds
                    .export(&solved, &outputs, &caches, session, build.events.clone());
                exporting.await.map_err(|error| failure::status(&error))
            }
            _ => Ok(BTreeMap::new()),
        }
    }

    /// Builds a Dockerfile for a build of a client's.
    pub async fn solve_frontend(
        &self,
        build: &Build,
        frontend: &str,
        attributes: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, ferry_buildkit::pb::Definition>,
        imports: &[ferry_buildkit::frontend::CacheOptionsEntry],
    ) -> Result<Solved, Status> {
        let request = match &build.asked {
            Some(asked) => Ok(asked.request.clone()),
            None => attributes::request(frontend, attributes, inputs, &build.entitlements),
        };
        let mut request = request.map_err(|error| failure::status(&error))?;
        let shared = build.caches.iter().map(|cache| (&cache.r#type, &cache.attrs));
        for (kind, attributes) in shared.chain(imports.iter().map(|cache| (&cache.r#type, &cache.attrs))) {
            let cache = CacheSource::new(kind, attributes.clone()).map_err(|error| failure::status(&error))?;
            // The frontend's attributes name them as well.
            if !request.cache_from.contains(&cache) {
                request.cache_from.push(cache);
            }
        }
        let session = self.session_of(build).await?;
        let solving = self.engine.builds.solve(request, session, build.events.clone());
        let solved = tokio::select! {
            solved = solving => solved.map_err(|error| failure::status(&error))?,
            () = build.canceled.cancelled() => return Err(failure::status(&Error::Canceled)),
        };
        build.keep(solved.clone());
        Ok(solved)
    }

    pub async fn session_of(&self, build: &Build) -> Result<Arc<dyn Session>, Status> {
        if let Some(asked) = &build.asked {
            return Ok(Arc::clone(&asked.session));
        }
        let session = self.open_session(&build.session).await;
        session.map_err(|error| failure::status(&error))
    }
}

/// What a frontend has come to; `None` if it only asked something.
fn result_of(build: &Build, returned: ReturnRequest) -> Result<Option<Solved>, Status> {
    if let Some(error) = returned.error {
        return Err(failure::of(&error));
    }
    let several = || failure::status(&Error::invalid("images for several platforms are not there yet"));
    let id = match returned.result.and_then(|result| result.result) {
        None => return Ok(None),
        Some(result::Result::RefDeprecated(id)) => id,
        Some(result::Result::Ref(reference)) => reference.id,
        Some(result::Result::RefsDeprecated(map)) => one(map.refs.into_values()).ok_or_else(several)?,
        Some(result::Result::Refs(map)) => one(map.refs.into_values()).ok_or_else(several)?.id,
    };
    if id.is_empty() {
        return Ok(None);
    }
    let unknown = || Status::new(Code::NotFound, format!("the result {id} is none of this build's"));
    build.result(&id).map(Some).ok_or_else(unknown)
}

fn one<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// What a build becomes; refuses what nobody here can do.
pub fn outputs(request: &SolveRequest) -> Result<Vec<Output>> {
    if request
        .definition
        .as_ref()
        .is_some_and(|definition| !definition.def.is_empty())
    {
        return Err(Error::invalid(
            "graphs of a client's own (LLB) are not there yet: build a Dockerfile (frontend dockerfile.v0)",
        ));
    }
    if request
        .source_policy
        .as_ref()
        .is_some_and(|policy| !policy.rules.is_empty())
    {
        return Err(Error::invalid(
            "source policies are not there yet: build without EXPERIMENTAL_BUILDKIT_SOURCE_POLICY",
        ));
    }
    exporters(request).into_iter().map(output).collect()
}

/// Where else its steps are kept.
fn caches(request: &SolveRequest) -> Result<Vec<CacheDestination>> {
    let exports = request.cache.iter().flat_map(|cache| &cache.exports);
    exports
        .map(|export| CacheDestination::new(&export.r#type, export.attrs.clone()))
        .collect()
}

fn output(exporter: Exporter) -> Result<Output> {
    let kind = match exporter.r#type.as_str() {
        "image" | "moby" => OutputKind::Image,
        "docker" => OutputKind::Docker,
        "oci" => OutputKind::Oci,
        "tar" => OutputKind::Tar,
        "local" => OutputKind::Local,
        other => {
            return Err(Error::invalid(format!(
                "exporter {other:?} could not be found: there are image, docker, oci, tar and local"
            )));
        }
    };
    Ok(Output {
        kind,
        attributes: exporter.attrs,
    })
}

fn usage(kept: Kept) -> UsageRecord {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    UsageRecord {
        mutable: kept.is_mutable(),
        id: kept.id,
        in_use: kept.in_use,
        size: number(kept.size),
        parent: String::new(),
        // Clients read it without looking whether it is there.
        created_at: Some(kept.created.map(progress::timestamp).unwrap_or_default()),
        last_used_at: kept.last_used.map(progress::timestamp),
        usage_count: number(kept.used),
        description: kept.description,
        record_type: kept.kind,
        shared: kept.shared,
        parents: kept.parents,
    }
}
