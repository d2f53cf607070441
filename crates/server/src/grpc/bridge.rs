//! LLBBridge: what a frontend asks. Here it is the client, which has Dockerfiles built and says in the end what the result is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_build::cache::CacheSource;
use ferry_build::progress::{Event, Warning};
use ferry_buildkit::Message as _;
use ferry_buildkit::frontend::llb_bridge_server::LlbBridge;
use ferry_buildkit::frontend::{
    EvaluateRequest, EvaluateResponse, InputsRequest, InputsResponse, PingRequest, PongResponse, Ref, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, WarnRequest, WarnResponse, result,
};
use ferry_buildkit::pb::{Definition, Input, Op, OpMetadata, SourceOp, op};
use ferry_buildkit::session::metadata;
use ferry_engine::builds::Solved;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::builds::Build;
use super::{Grpc, attributes, failure, worker};

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
        let imports = request.cache_imports.iter();
        let imports: Result<Vec<_>, _> = imports
            .map(|import| CacheSource::new(&import.r#type, import.attrs.clone()))
            .collect();
        let imports = imports.map_err(|error| failure::status(&error))?;
        let solving = self.solve_frontend(
            &build,
            &request.frontend,
            &request.frontend_opt,
            &request.frontend_inputs,
            &imports,
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

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>> {
        let build = self.build_of(request.metadata()).await?;
        let warn = request.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        build.events.send(Event::Warning(Warning {
            vertex: warn.digest,
            short: text(&warn.short),
            detail: warn.detail.iter().map(|detail| text(detail)).collect(),
            url: warn.url,
            ranges: Vec::new(),
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
