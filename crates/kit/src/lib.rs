//! Small things every other crate speaks: identifiers, generated names, Docker's human units and Go's durations,
//! atomic files, Go-compatible tables and templates, and a backoff counter.
//!
//! Nothing here knows containers. What prints, prints exactly what the Go libraries under Docker print.

pub mod atomic;
pub mod backoff;
pub mod duration;
pub mod error;
pub mod gofmt;
pub mod id;
pub mod moment;
pub mod names;
pub mod signal;
pub mod table;
pub mod template;
pub mod units;

pub use atomic::{AtomicFile, Durability};
pub use backoff::Backoff;
pub use error::{Error, Result};
pub use id::Id;
pub use template::Template;
