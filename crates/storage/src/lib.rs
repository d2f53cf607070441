//! What Ferry keeps: records, blobs, layers, images, and the writable directories of containers.
//!
//! ```text
//! <data root>/             one engine at a time (flock on `lock`), 0710
//!   ferry.db               every record ([`db`])
//!   blobs/sha256/<hex>     configurations and manifests exactly as they came, and layers that came compressed
//!   layers/<hex>/          layers by chain id, shared read-only ([`layers`]): fs/ unpacked, recipe and attic/ what it takes to
//!                          make the very same tar again ([`ferry_archive::recipe`])
//!   containers/<id>/       upper/ work/, and what the engine puts beside them ([`snapshots`])
//!   ingest/<hex>           parts of blobs on their way in
//!   volumes/               the engine's
//!   tmp/                   everything is made here and renamed into place; everything is renamed here to be deleted
//! ```
//!
//! Files come before the records that name them, and go after them: whatever is on disk without a record is the rest of
//! something that did not finish, and [`Store::open`] collects it. Readers use an index in memory and do no I/O.
//!
//! Functions that are not `async` and touch the disk say so: call them from `spawn_blocking`.

mod assembly;
mod changes;
mod check;
mod commit;
pub mod db;
mod error;
mod hashing;
mod images;
mod import;
mod ingest;
mod layers;
mod layout;
mod load;
mod names;
mod origin;
mod outgoing;
mod pull;
mod reaper;
mod relink;
mod remake;
mod remove;
mod reserve;
mod save;
mod settling;
mod single;
mod snapshots;
mod steps;
mod store;
mod stream;

pub use check::{CheckOptions, Checked, Done, Finding};
pub use commit::{CommitOptions, UpperOptions, apply_changes};
pub use db::{Batch, Db, Document, Durability, Quarantined};
pub use error::{Error, Result};
pub use ferry_archive::{Change, Changed, Shift};
pub use images::{Image, Images, Loaded, Named};
pub use import::ImportOptions;
pub use layers::{Blob, Layer};
pub use load::{LoadOptions, Progress};
pub use origin::{DOCUMENT_LIMIT, Gathered, Origin, Way};
pub use outgoing::{Outgoing, Packing, Travelling};
pub use pull::{NewPull, Pull, Remote};
pub use remove::{RemoveOptions, Removed, User};
pub use save::Save;
pub use single::Single;
pub use snapshots::{Snapshot, Snapshots, Usage, visible_layers};
pub use steps::{Built, Draft, Held, Lent, Step, Steps, lend_all};
pub use store::{Problem, Store};
pub use stream::Expansion;
