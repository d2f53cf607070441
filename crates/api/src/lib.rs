//! The Docker Engine API, version 1.51, as plain data: what travels between a client and the engine, and nothing else.
//!
//! The source of every shape is the Engine's reference (`docker-engine-api-1.51.yaml`) and, for key order and for what
//! is null, `[]`, `{}` or absent, the answers of Docker Engine 28.5.2 kept in `tests/golden`.
//!
//! Conventions, the same in every type here:
//!
//! * Field order is the order of the JSON keys: `docker inspect` prints what the engine sent.
//! * `Option<Vec<_>>` and `Option<BTreeMap<_, _>>` are Go's slices and maps: `None` is `null`, `Some(empty)` is `[]`
//!   or `{}`, and a client can tell them apart. A plain `Vec` or map is left out of the JSON when it is empty.
//! * Every field accepts `null` and absence alike, and keys nobody knows are ignored. Go also matches keys without
//!   regard to case, and so does [`json::from_slice`], by which requests are read.
//! * Names out of an open set (states, mount types, event actions) are strings, so that what a newer peer says can
//!   be read and what an older one asks for can be refused with the engine's own words. Constants stand beside them.
//! * Sizes are bytes and durations nanoseconds unless a field says otherwise.

mod wire;

pub mod container;
pub mod error;
pub mod events;
pub mod exec;
pub mod filters;
pub mod frame;
pub mod image;
pub mod json;
pub mod network;
pub mod registry;
pub mod system;
pub mod timestamp;
pub mod version;
pub mod volume;

pub use error::{Error, ErrorBody, Result};
pub use filters::Filters;
pub use frame::Frame;
pub use timestamp::Timestamp;
pub use version::ApiVersion;
pub use wire::{Empty, Words};
