//! Networks of containers: one bridge with its namespaces, addresses and firewall.
//!
//! ```text
//!   attach ──▶ Ipam: an address ──▶ Pool: a namespace ──▶ host socket: veth, bridge port, up    (one send)
//!                                                     └─▶ its own socket: address, up, route    (two sends)
//!   first attach, reconcile, shutdown ──▶ observe ──▶ plan (pure, prints as text) ──▶ apply
//! ```
//!
//! Everything made here says whose it is: the bridge and the host ends carry the alias `ferry:<id>`, host ends are
//! named `fe-` and eight digits of the endpoint's id, and all firewall rules are in one table. Nothing else is touched.
//!
//! This crate knows namespaces and endpoints, not containers. It is synchronous: call it where blocking is allowed. No
//! call moves the calling thread into another namespace.

mod apply;
mod bridge;
mod endpoint;
mod error;
pub mod firewall;
pub mod ipam;
mod mac;
pub mod namespace;
mod plan;
mod pool;
mod subnet;
mod sysctl;

pub use bridge::{Bridge, Config};
pub use endpoint::{Attach, Endpoint};
pub use error::{Error, Result};
pub use ferry_netlink::nft::Watch;
pub use firewall::Firewall;
pub use mac::Mac;
pub use plan::{Addressing, Desired, Observed, Plan, Record, Step, Sysctl, TableState, plan};
pub use pool::Pool;
pub use subnet::Subnet;
