//! A file at a URL that is no registry's: for `ADD`, and contexts of builds.
//!
//! The same connections, proxies and bounds as for registries; what is given for `Authorization` goes to the URL's own host alone.

use std::io;

use http::{Method, header};
use url::Url;

use crate::endpoint::{Endpoint, authority};
use crate::transport::{Call, Pace};
use crate::{Client, Error, Result};

/// What a file's server says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes.
    pub size: u64,
    pub last_modified: Option<std::time::SystemTime>,
    pub etag: Option<String>,
}

impl Client {
    /// Fetches `url`, `http` or `https`, into `sink`. Fails where it has more than `limit` bytes.
    pub async fn download(
        &self,
        url: &str,
        authorization: Option<&str>,
        limit: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Downloaded> {
        let wrong = |why: &str| Error::Options(format!("{url}: {why}"));
        let mut parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(wrong("only http:// and https:// are fetched"));
        }
        parsed.set_fragment(None);
        let endpoint = Endpoint::of(&parsed, self.shared.transport.insecure.contains(&authority(&parsed)));
        // The file as it is: who compresses on the way would change its digest.
        let mut call = Call::new(Method::GET, parsed).header(header::ACCEPT_ENCODING, "identity");
        if let Some(authorization) = authorization {
            call = call.header(header::AUTHORIZATION, authorization);
        }
        let transport = &self.shared.transport;
        let mut response = transport.probe(&endpoint, &call).await?;
        if !response.status().is_success() {
            return Err(transport.refusal(&call.method, response, &endpoint).await);
        }
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let mut downloaded = Downloaded {
            size: 0,
            last_modified: text(header::LAST_MODIFIED).and_then(|text| httpdate::parse_http_date(text).ok()),
            etag: text(header::ETAG).map(str::to_owned),
        };
        let options = &transport.options.limits;
        let mut pace = Pace::new(options.stall, options.least);
        while let Some(chunk) = pace.chunk(&mut response).await? {
            downloaded.size += chunk.len() as u64;
            if downloaded.size > limit {
                return Err(Error::TooLarge {
                    registry: endpoint.registry,
                    subject: url.to_owned(),
                    limit,
                });
            }
            sink(&chunk).map_err(|error| wrong(&error.to_string()))?;
        }
        Ok(downloaded)
    }
}
