//! Images, and the message streams that pull, push, load and import answer with.

mod descriptor;
mod history;
mod inspect;
mod message;
mod summary;

pub use descriptor::{Descriptor, Platform};
pub use history::{Deleted, History, Prune};
pub use inspect::{Config, HealthCheck, Inspect, Metadata, RootFs};
pub use message::{Aux, Message, MessageError, Progress};
pub use summary::{Attestation, ContentSize, ImageData, Manifest, Summary, UnpackedSize, manifest_kind};
