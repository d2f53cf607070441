//! What storage, distribution, registry and build all speak about images: references, digests, platforms, media types.
//!
//! Pure values over the `oci-spec` crate, without any I/O. References are those of github.com/distribution/reference
//! 0.6, digests those of
//! github.com/opencontainers/go-digest, platforms those of github.com/containerd/platforms, error texts included.

mod chain;
mod digest;
mod error;
pub mod media;
mod platform;
mod reference;

pub use chain::{chain_id, chain_ids};
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Error, Result};
pub use platform::Platform;
pub use reference::{AnyReference, DEFAULT_DOMAIN, DEFAULT_TAG, Reference};
