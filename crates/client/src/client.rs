use std::{
    error::Error as _,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{API_VERSION, Body, Connector, Error, Host, Response, Result, Stream, Upgraded, query};

/// The longest body of an error answer that is read, in bytes.
const ERROR_BODY: usize = 1 << 20;

/// What `HEAD /_ping` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    pub api_version: String,
    pub os_type: String,
    pub server: String,
    pub experimental: bool,
}

/// Cheap to clone; clones share the idle connection and the negotiated version.
#[derive(Debug, Clone)]
pub struct Client {
    host: Arc<Host>,
    tls: Option<Connector>,
    shared: Arc<Shared>,
    agent: HeaderValue,
}

#[derive(Debug, Default)]
struct Shared {
    idle: Mutex<Option<SendRequest<Body>>>,
    version: Mutex<Version>,
}

#[derive(Debug, Clone)]
struct Version {
    text: String,
    /// Asked for by the caller, or already negotiated: not to be changed.
    fixed: bool,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            text: API_VERSION.to_owned(),
            fixed: false,
        }
    }
}

/// A connection that carries an answer at the moment and can be used again after its last byte.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Option<SendRequest<Body>>,
    shared: Arc<Shared>,
}

impl Lease {
    pub(crate) fn give_back(&mut self) {
        if let Some(sender) = self.sender.take()
            && !sender.is_closed()
        {
            *self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Client {
    /// Opens nothing yet. `version` pins the API version (`DOCKER_API_VERSION`).
    #[must_use]
    pub fn connect(host: Host, version: Option<String>) -> Self {
        let shared = Shared::default();
        if let Some(text) = version {
            *shared.version.lock().unwrap_or_else(PoisonError::into_inner) = Version {
                text: text.trim_start_matches('v').to_owned(),
                fixed: true,
            };
        }
        Self {
            host: Arc::new(host),
            tls: None,
            shared: Arc::new(shared),
            agent: HeaderValue::from_static(concat!("Ferry-Client/", env!("CARGO_PKG_VERSION"), " (linux)")),
        }
    }

    /// The same client, speaking through TLS, if there is any.
    #[must_use]
    pub fn with_tls(self, tls: Option<Connector>) -> Self {
        Self { tls, ..self }
    }

    /// A connection as it is, for what is no request of ours.
    pub async fn dial(&self) -> Result<Stream> {
        Stream::connect(&self.host, self.tls.as_ref()).await
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The API version requests are made with, as far as it is known by now.
    #[must_use]
    pub fn version(&self) -> String {
        self.shared
            .version
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text
            .clone()
    }

    /// Asks the daemon for its API version and lowers this client's to it.
    pub async fn ping(&self) -> Result<Ping> {
        let response = self.exchange(Method::HEAD, "/_ping", &[], Body::Empty).await?;
        let ping = Ping {
            api_version: response.header("api-version").to_owned(),
            os_type: response.header("ostype").to_owned(),
            server: response.header("server").to_owned(),
            experimental: response.header("docker-experimental") == "true",
        };
        response.bytes().await?;
        let mut version = self.shared.version.lock().unwrap_or_else(PoisonError::into_inner);
        if !version.fixed {
            let theirs = if ping.api_version.is_empty() {
                "1.24"
            } else {
                &ping.api_version
            };
            if numbers(theirs) < numbers(&version.text) {
                theirs.clone_into(&mut version.text);
            }
            version.fixed = true;
        }
        Ok(ping)
    }

    /// One request; an answer of 400 and above is `Error::Api`. `path` starts with a slash and has no version.
    pub async fn request(&self, method: Method, path: &str, body: Body) -> Result<Response> {
        self.request_with(method, path, &[], body).await
    }

    /// As [`request`](Self::request), with headers.
    pub async fn request_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response> {
        let negotiated = self.shared.version.lock().unwrap_or_else(PoisonError::into_inner).fixed;
        let Some(again) = body.again() else {
            // What can be sent only once is not tried out.
            if !negotiated {
                self.ping().await?;
            }
            return self.versioned(method, path, headers, body).await;
        };
        match self.versioned(method.clone(), path, headers, body).await {
            Err(Error::Api { status: 400, message }) if !negotiated && message.contains("is too new") => {
                self.ping().await?;
                self.versioned(method, path, headers, again).await
            }
            result => result,
        }
    }

    async fn versioned(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Response> {
        let path = format!("/v{}{path}", self.version());
        check(self.exchange(method, &path, headers, body).await?).await
    }

    pub async fn get(&self, path: &str) -> Result<Response> {
        self.request(Method::GET, path, Body::Empty).await
    }

    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.get(path).await?.json().await
    }

    /// Without a body; the answer's is read and dropped. Gives the status (204, 304, …).
    pub async fn post(&self, path: &str) -> Result<u16> {
        let response = self.request(Method::POST, path, Body::Empty).await?;
        let status = response.status;
        response.bytes().await?;
        Ok(status)
    }

    pub async fn post_json<T: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<T> {
        self.request(Method::POST, path, Body::json(body)?).await?.json().await
    }

    pub async fn delete(&self, path: &str) -> Result<Response> {
        self.request(Method::DELETE, path, Body::Empty).await
    }

    /// Turns a connection into a raw stream (attach, exec start).
    pub async fn upgrade(&self, path: &str, body: Body) -> Result<Upgraded> {
        let path = format!("/v{}{path}", self.version());
        let mut request = self.build(&Method::POST, &path, body)?;
        request
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let mut sender = self.sender().await?;
        let response = self.send(&mut sender, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status().as_u16();
            let lease = Lease {
                sender: Some(sender),
                shared: Arc::clone(&self.shared),
            };
            let (parts, body) = response.into_parts();
            let response = Response {
                status,
                headers: parts.headers,
                body,
                lease,
            };
            return match check(response).await {
                Err(error) => Err(error),
                Ok(_) => Err(Error::NotUpgraded { status }),
            };
        }
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let raw = kind == Some("application/vnd.docker.raw-stream");
        let parts = hyper::upgrade::on(response)
            .await?
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| Error::NotUpgraded {
                status: StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            })?;
        Ok(Upgraded {
            stream: parts.io.into_inner(),
            early: parts.read_buf,
            raw,
        })
    }

    async fn exchange(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Response> {
        let mut request = self.build(&method, path, body)?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(http::Error::from)?;
            let value = HeaderValue::from_str(value).map_err(http::Error::from)?;
            request.headers_mut().insert(name, value);
        }
        let mut sender = self.sender().await?;
        let response = self.send(&mut sender, request).await?;
        let (parts, body) = response.into_parts();
        let mut lease = Lease {
            sender: Some(sender),
            shared: Arc::clone(&self.shared),
        };
        if parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED {
            lease.give_back();
        }
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            lease,
        })
    }

    fn build(&self, method: &Method, path: &str, body: Body) -> Result<Request<Body>> {
        let host = match &*self.host {
            Host::Unix(_) => "api.moby.localhost",
            Host::Tcp(address) => address,
            Host::Ssh(_) => "docker.example.com",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, self.agent.clone());
        request = match &body {
            Body::Json(_) => request.header(header::CONTENT_TYPE, "application/json"),
            Body::Reader(_) => request.header(header::CONTENT_TYPE, "application/x-tar"),
            Body::Empty if *method == Method::POST => request.header(header::CONTENT_LENGTH, "0"),
            Body::Empty => request,
        };
        Ok(request.body(body)?)
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Body>,
        request: Request<Body>,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        let sent = sender.send_request(request).await;
        sent.map_err(|error| unsent(&self.host, error))
    }

    /// The idle connection if it still stands, else a new one.
    async fn sender(&self) -> Result<SendRequest<Body>> {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = self.dial().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with its sender and the body it delivers, or goes over to the upgraded stream.
        drop(tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        }));
        Ok(sender)
    }

    /// A name or id as a segment of a path.
    #[must_use]
    pub fn escape(name: &str) -> String {
        query::segment(name)
    }
}

fn unsent(host: &Host, error: hyper::Error) -> Error {
    let Some(source) = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
    else {
        return Error::Transport(error);
    };
    match ferry_tls::of_io(source) {
        // A server of TLS 1.3 looks at the client's certificate after the handshake.
        Some(error) => Error::Tls {
            host: host.to_string(),
            reason: ferry_tls::explain(error),
        },
        None if error.is_user() => Error::Upload(std::io::Error::new(source.kind(), source.to_string())),
        None => Error::Transport(error),
    }
}

/// Turns an answer that says no into an error with the daemon's own message.
async fn check(mut response: Response) -> Result<Response> {
    let status = response.status;
    if status < 400 {
        return Ok(response);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ERROR_BODY {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let message = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.message,
        Err(_) if body.trim_ascii().is_empty() => {
            let reason = StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason());
            format!("request returned {status} {}", reason.unwrap_or_default())
        }
        Err(_) => String::from_utf8_lossy(body.trim_ascii()).into_owned(),
    };
    Err(Error::Api { status, message })
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
