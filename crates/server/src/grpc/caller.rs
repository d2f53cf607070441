//! A connection on which the daemon is the client of whoever connected.

use std::pin::Pin;
use std::task::{Context, Poll};

use ferry_buildkit::Message;
use futures_util::Stream;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// Contexts come by this many bytes at a time, and by this many for all calls of a connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// One message. BuildKit's clients send no larger ones.
const MESSAGE_MAX: usize = 16 << 20;

/// Calls what the other end serves. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Caller(http2::SendRequest<Body>);

impl Caller {
    /// The caller, and the connection, which has to be awaited as long as it is used.
    pub async fn new<T>(io: T) -> hyper::Result<(Self, impl Future<Output = hyper::Result<()>>)>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        Ok((Self(sender), connection))
    }

    async fn client(&self) -> Result<Grpc<Self>, Status> {
        let origin = Uri::from_static("http://localhost");
        let mut client = Grpc::with_origin(self.clone(), origin).max_decoding_message_size(MESSAGE_MAX);
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the client is gone: {error}")))?;
        Ok(client)
    }

    pub async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = self.client().await?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        Ok(client
            .unary(tonic::Request::new(question), path, codec)
            .await?
            .into_inner())
    }

    /// Messages both ways. Returns when the other end begins to answer, which may be at its end.
    pub async fn stream<Q, A>(
        &self,
        path: &'static str,
        metadata: MetadataMap,
        questions: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = self.client().await?;
        let mut request = tonic::Request::new(questions);
        *request.metadata_mut() = metadata;
        let codec = ProstCodec::<Q, A>::default();
        let answer = client
            .streaming(request, PathAndQuery::from_static(path), codec)
            .await?;
        Ok(answer.into_inner())
    }
}

impl tower_service::Service<Request<Body>> for Caller {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
