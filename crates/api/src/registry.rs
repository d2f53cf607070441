//! What is said about registries: credentials, and images that are there.

use crate::image::{Descriptor, Platform};
use crate::wire::{omit, wire};

wire! {
    /// Credentials for a registry (`registry.AuthConfig`): the body of `POST /auth`, and the header `X-Registry-Auth` in base64
    /// (RFC 4648 section 5).
    pub struct AuthConfig {
        #[serde(skip_serializing_if = "omit")]
        pub username: String,
        #[serde(skip_serializing_if = "omit")]
        pub password: String,
        /// `username:password` in base64, where the two are not given.
        #[serde(skip_serializing_if = "omit")]
        pub auth: String,
        /// `https://index.docker.io/v1/`, or a host with its port.
        #[serde(skip_serializing_if = "omit")]
        pub serveraddress: String,
        /// Exchanged for access tokens, in place of a password.
        #[serde(skip_serializing_if = "omit")]
        pub identitytoken: String,
        /// Sent as it is.
        #[serde(skip_serializing_if = "omit")]
        pub registrytoken: String,
    }

    /// The answer of `POST /auth`.
    #[serde(rename_all = "PascalCase")]
    pub struct Authenticated {
        pub identity_token: String,
        pub status: String,
    }

    /// One of the answer of `GET /images/search`.
    pub struct SearchResult {
        pub star_count: i64,
        pub is_official: bool,
        pub name: String,
        /// Always false: Docker Hub has given this up.
        pub is_automated: bool,
        pub description: String,
    }

    /// The answer of `GET /distribution/{name}/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Distribution {
        pub descriptor: Descriptor,
        pub platforms: Vec<Platform>,
    }
}
