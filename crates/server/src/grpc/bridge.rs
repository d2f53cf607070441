//! LLBBridge: what a frontend asks. Here it is the client, which has Dockerfiles built and says in the end what the result is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_build::progress::{Event, SourceFile, Warning};
use ferry_build::workspace::Image;
use ferry_buildkit::Message as _;
use ferry_buildkit::frontend::llb_bridge_server::LlbBridge;
use ferry_buildkit::frontend::{
    EvaluateRequest, EvaluateResponse, InputsRequest, InputsResponse, PingRequest, PongResponse, ReadDirRequest,
    ReadDirResponse, ReadFileRequest, ReadFileResponse, Ref, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest, ReturnResponse,
    SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse, result,
};
use ferry_buildkit::pb::{Definition, Input, Op, OpMetadata, Platform, SourceOp, op};
use ferry_buildkit::session::metadata;
use ferry_engine::builds::Solved;
use ferry_sys::Root;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::builds::Build;
use super::{Grpc, attributes, failure, files, progress, worker};

type Result<T, E = Status> = std::result::Result<T, E>;

#[tonic::async_trait]
impl LlbBridge for Grpc {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>> {
        self.build_of(request.metadata()).await?;
        Ok(Response::new(worker::pong(self.worker())))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let request = request.into_inner();
        if request
            .definition
            .as_ref()
            .is_some_and(|definition| !definition.def.is_empty())
        {
            return self.solve_definition(&build, &request);
        }
        if request.frontend.is_empty() {
            return Ok(Response::new(SolveResponse::default()));
        }
        let solving = self.solve_frontend(
            &build,
            &request.frontend,
            &request.frontend_opt,
            &request.frontend_inputs,
            &request.cache_imports,
        );
        let solved = solving.await?;
        Ok(Response::new(answer(&solved)))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>> {
        let build = self.build_of(request.metadata()).await?;
        match build.end_frontend(request.into_inner()) {
            true => Ok(Response::new(ReturnResponse {})),
            false => Err(Status::failed_precondition("the frontend has returned already")),
        }
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>> {
        let build = self.build_of(request.metadata()).await?;
        Ok(Response::new(InputsResponse {
            definitions: build.inputs.clone(),
        }))
    }

    /// Everything is built when it has a result.
    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let reference = request.into_inner().r#ref;
        match build.result(&reference) {
            Some(_) => Ok(Response::new(EvaluateResponse {})),
            None => Err(Status::not_found(format!("no such ref: {reference}"))),
        }
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>> {
        let tree = self.tree(request.metadata(), &request.get_ref().r#ref).await?;
        let request = request.into_inner();
        let data = blocking(move || files::read(&tree, &request.file_path, request.range)).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>> {
        let tree = self.tree(request.metadata(), &request.get_ref().r#ref).await?;
        let request = request.into_inner();
        let list = move || files::list(&tree, &request.dir_path, &request.include_pattern);
        let entries = blocking(list).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>> {
        let tree = self.tree(request.metadata(), &request.get_ref().r#ref).await?;
        let request = request.into_inner();
        let stat = blocking(move || files::stat(&tree, &request.path)).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let request = request.into_inner();
        if request.resolver_type != 0 {
            return Err(Status::unimplemented(
                "an image in an OCI layout is found by the frontend dockerfile.v0 alone: name it by context:NAME",
            ));
        }
        let mode = &request.resolve_mode;
        let image = self.image(&build, &request.r#ref, request.platform, mode).await?;
        Ok(Response::new(ResolveImageConfigResponse {
            digest: digest(&image),
            r#ref: image.name,
            config: image.config.into(),
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let request = request.into_inner();
        let source = request.source.unwrap_or_default();
        let name = source.identifier.strip_prefix("docker-image://").ok_or_else(|| {
            let what = &source.identifier;
            Status::unimplemented(format!("what {what:?} is cannot be told yet, only of docker-image://"))
        })?;
        let image = self
            .image(&build, name, request.platform, &request.resolve_mode)
            .await?;
        Ok(Response::new(ResolveSourceMetaResponse {
            image: Some(ResolveSourceImageResponse {
                digest: digest(&image),
                config: image.config.into(),
            }),
            source: Some(source),
        }))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let warn = request.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        build.events.send(Event::Warning(Warning {
            vertex: warn.digest,
            short: text(&warn.short),
            detail: warn.detail.iter().map(|detail| text(detail)).collect(),
            url: warn.url,
            ranges: warn.ranges.iter().map(progress::written).collect(),
            file: warn.info.map(|info| SourceFile {
                name: info.filename,
                bytes: info.data,
            }),
        }));
        Ok(Response::new(WarnResponse {}))
    }
}

impl Grpc {
    /// The build that a call belongs to.
    async fn build_of(&self, metadata: &MetadataMap) -> Result<Arc<Build>> {
        let name = metadata.get(metadata::BUILD).and_then(|value| value.to_str().ok());
        let name = name.ok_or_else(|| Status::invalid_argument("no buildid in the call: it belongs to a build"))?;
        let build = self.builds.running(name).await;
        build.ok_or_else(|| Status::not_found(format!("no such job {name}")))
    }

    /// A result's files.
    async fn tree(&self, metadata: &MetadataMap, reference: &str) -> Result<Root> {
        let build = self.build_of(metadata).await?;
        let missing = || Status::not_found(format!("no such ref: {reference}"));
        let solved = build.result(reference).ok_or_else(missing)?;
        let tree = self.engine.builds.view(&solved).await;
        tree.map_err(|error| failure::status(&error))
    }

    async fn image(&self, build: &Build, name: &str, platform: Option<Platform>, mode: &str) -> Result<Image> {
        let session = self.session_of(build).await?;
        let platform = platform.map(|asked| ferry_image::Platform::new(&asked.os, &asked.architecture, &asked.variant));
        let (builds, must_ask) = (&self.engine.builds, mode == "pull");
        let found = builds.image(name, platform, must_ask, &session, &build.events).await;
        found.map_err(|error| failure::status(&error))
    }

    /// A result of ours that a client hands back is what it was.
    fn solve_definition(&self, build: &Build, request: &SolveRequest) -> Result<Response<SolveResponse>> {
        let id = request.definition.as_ref().and_then(attributes::result);
        match id.and_then(|id| build.result(&id)) {
            Some(solved) => Ok(Response::new(answer(&solved))),
            None => Err(Status::unimplemented(
                "graphs of a client's own (LLB) are not there yet: build a Dockerfile (frontend dockerfile.v0)",
            )),
        }
    }
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Status::internal(error.to_string()))?
}

/// Of its manifest, as far as one is known.
fn digest(image: &Image) -> String {
    match image.name.split_once('@') {
        Some((_, digest)) => digest.to_owned(),
        None => image.id.to_string(),
    }
}

fn answer(solved: &Solved) -> SolveResponse {
    let mut metadata: BTreeMap<String, bytes::Bytes> = solved
        .answers()
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    // What was only asked has no files.
    let reference = match metadata.is_empty() {
        true => Ref {
            id: solved.id().to_owned(),
            def: Some(definition(solved.id())),
        },
        false => Ref::default(),
    };
    if !solved.config().is_empty() {
        metadata.insert("containerimage.config".to_owned(), solved.config().to_vec().into());
    }
    SolveResponse {
        r#ref: String::new(),
        result: Some(ferry_buildkit::frontend::Result {
            metadata,
            result: Some(result::Result::Ref(reference)),
        }),
    }
}

/// A graph that stands for a result, for clients that hand it back.
fn definition(id: &str) -> Definition {
    let source = Op {
        op: Some(op::Op::Source(SourceOp {
            identifier: format!("{}{id}", attributes::RESULT),
            attrs: BTreeMap::new(),
        })),
        ..Op::default()
    };
    let source = source.encode_to_vec();
    let digest = ferry_image::Digest::of(&source).to_string();
    let last = Op {
        inputs: vec![Input {
            digest: digest.clone(),
            index: 0,
        }],
        ..Op::default()
    };
    let last = last.encode_to_vec();
    let names = [digest, ferry_image::Digest::of(&last).to_string()];
    Definition {
        metadata: names.map(|name| (name, OpMetadata::default())).into(),
        def: vec![source.into(), last.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_known_again() {
        assert_eq!(attributes::result(&definition("abc")).as_deref(), Some("abc"));
        assert_eq!(attributes::result(&Definition::default()), None);
    }
}
