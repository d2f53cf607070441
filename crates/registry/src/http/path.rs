//! What a path asks for. Names have slashes in them, so paths are read from their end.
//!
//! Nothing is decoded but `%3A` in the last part, for clients that escape the colon of a digest: a name with an escape in it is
//! out of grammar, whatever it would be without.

use crate::name::{Invalid, Name, Reference, UploadId};
use ferry_image::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Version,
    Catalog,
    Tags(Name),
    Manifest(Name, Reference),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, UploadId),
    Referrers(Name, Digest),
    Token,
    Health,
    Metrics,
}

impl Route {
    /// As metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Catalog => "catalog",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Uploads(_) | Self::Upload(..) => "upload",
            Self::Referrers(..) => "referrers",
            Self::Token => "token",
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }

    pub fn repository(&mut self) -> Option<&mut Name> {
        match self {
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
            Self::Version | Self::Catalog | Self::Token | Self::Health | Self::Metrics => None,
        }
    }

    /// `None` for what is no path of a registry.
    pub fn parse(path: &str) -> Option<Result<Self, Invalid>> {
        match path {
            "/v2" | "/v2/" => return Some(Ok(Self::Version)),
            "/v2/_catalog" => return Some(Ok(Self::Catalog)),
            "/token" => return Some(Ok(Self::Token)),
            "/healthz" => return Some(Ok(Self::Health)),
            "/metrics" => return Some(Ok(Self::Metrics)),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/")?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(name.parse().map(Self::Tags));
        }
        if let Some(name) = rest
            .strip_suffix("/blobs/uploads/")
            .or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Some(name.parse().map(Self::Uploads));
        }
        let (before, last) = rest.rsplit_once('/')?;
        let last = last.replacen("%3A", ":", 1).replacen("%3a", ":", 1);
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            return Some(both(name, last.parse()).map(|(name, id)| Self::Upload(name, id)));
        }
        let (name, kind) = before.rsplit_once('/')?;
        let digest = || last.parse::<Digest>().map_err(|_| Invalid::Digest);
        Some(match kind {
            "manifests" => both(name, last.parse()).map(|(name, reference)| Self::Manifest(name, reference)),
            "blobs" => both(name, digest()).map(|(name, digest)| Self::Blob(name, digest)),
            "referrers" => both(name, digest()).map(|(name, digest)| Self::Referrers(name, digest)),
            _ => return None,
        })
    }
}

fn both<T>(name: &str, last: Result<T, Invalid>) -> Result<(Name, T), Invalid> {
    Ok((name.parse()?, last?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_may_hold_the_words_that_paths_are_made_of() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let digest = Digest::of("x");
        let routes = [
            (
                "/v2/a/b/manifests/latest".to_owned(),
                Route::Manifest(name("a/b"), "latest".parse().unwrap()),
            ),
            (
                "/v2/manifests/tags/list/manifests/list".to_owned(),
                Route::Manifest(name("manifests/tags/list"), "list".parse().unwrap()),
            ),
            (
                format!("/v2/blobs/uploads/blobs/{digest}"),
                Route::Blob(name("blobs/uploads"), digest.clone()),
            ),
            (
                format!("/v2/a/blobs/{}", digest.to_string().replace(':', "%3A")),
                Route::Blob(name("a"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/tags/tags/list".to_owned(), Route::Tags(name("tags"))),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest)),
        ];
        for (path, route) in routes {
            assert_eq!(Route::parse(&path), Some(Ok(route)), "{path}");
        }
    }

    #[test]
    fn what_is_out_of_grammar_is_named() {
        for path in [
            "/v2/../manifests/x",
            "/v2/..%2f..%2fetc/manifests/x",
            "/v2/a//manifests/x",
            "/v2/A/tags/list",
            "/v2/a%2fb/tags/list",
        ] {
            assert_eq!(Route::parse(path), Some(Err(Invalid::Name)), "{path}");
        }
        assert_eq!(Route::parse("/v2/a/manifests/..%2fx"), Some(Err(Invalid::Tag)));
        assert_eq!(Route::parse("/v2/a/blobs/sha256:.."), Some(Err(Invalid::Digest)));
        assert_eq!(Route::parse("/v2/a/blobs/uploads/.."), Some(Err(Invalid::Upload)));
        for path in ["/", "/v1/", "/v2/a", "/v2/a/b", "/v2/a/tags", "/v3/a/tags/list"] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_a_route_or_refused(path in "/v2/(\\PC|manifests|blobs|uploads|tags|list|referrers|/|\\.\\.|%2f|[a-z]){0,20}") {
            let _ = Route::parse(&path);
        }
    }
}
