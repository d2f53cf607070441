//! Why there is no connection, in Go's words.

use std::error::Error as _;
use std::io;

use http::Method;
use url::Url;

use super::{shown_url, title};
use crate::Error;

pub(super) fn network(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
    Error::Network {
        method: title(method),
        url: shown_url(url),
        cause: text(url, error),
        unreachable: error.is_connect(),
    }
}

fn text(url: &Url, error: &reqwest::Error) -> String {
    let host = url.host_str().unwrap_or_default();
    let address = match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    if error.is_dns() {
        return format!("dial tcp: lookup {host}: no such host");
    }
    let mut innermost = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(error) = source.downcast_ref::<rustls::Error>() {
            return ferry_tls::explain(error);
        }
        if let Some(error) = source.downcast_ref::<io::Error>() {
            if let Some(error) = ferry_tls::of_io(error) {
                return ferry_tls::explain(error);
            }
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return format!("dial tcp {address}: connect: connection refused"),
                io::ErrorKind::HostUnreachable => return format!("dial tcp {address}: connect: no route to host"),
                io::ErrorKind::NetworkUnreachable => {
                    return format!("dial tcp {address}: connect: network is unreachable");
                }
                io::ErrorKind::ConnectionReset => return "read: connection reset by peer".to_owned(),
                io::ErrorKind::UnexpectedEof => return "unexpected EOF".to_owned(),
                _ => {}
            }
        }
        innermost = source.to_string();
        next = source.source();
    }
    if error.is_timeout() && error.is_connect() {
        return format!("dial tcp {address}: i/o timeout");
    }
    if innermost.contains("connection closed before message completed") {
        return "EOF".to_owned();
    }
    if let Some(alert) = innermost.strip_prefix("received fatal alert: ") {
        // HTTP/2 keeps the text alone of what TLS said.
        return ferry_tls::alert(alert);
    }
    // The second is what HTTP/2 says when it still had something to write.
    let closed = ["connection closed", "stream closed because of a broken pipe"].contains(&innermost.as_str());
    if closed && url.scheme() == "https" {
        // Its reason, which comes after the handshake, was lost on the way up.
        return "connection closed by the server, which may require a client certificate".to_owned();
    }
    innermost
}
