//! Networks of containers: namespaces, addresses, links, published ports and the firewall around them.
//!
//! ```text
//!   attach ──▶ Addresses: one a network ──▶ Pool: a namespace ──▶ host socket: veth, bridge port, up    (one send)
//!                                                           └─▶ its own socket: address, up, route     (two sends)
//!   create, publish ──▶ Wall: elements of the one table       (one batch)
//!   first use, reconcile, shutdown ──▶ observe ──▶ plan (pure, prints as text) ──▶ apply
//! ```
//!
//! Everything made here says whose it is: bridges and host ends carry the alias `ferry:<id>`, host ends are named `fe-`
//! and eight digits of the endpoint's id, queues of limited containers `fi-` and `fo-`, and all firewall rules are in one
//! table. Nothing else is touched.
//!
//! This crate knows namespaces and endpoints, not containers. It is synchronous: call it where blocking is allowed. No
//! call moves the calling thread into another namespace.

mod apply;
mod endpoint;
mod error;
mod fabric;
pub mod firewall;
mod foreign;
pub mod ipam;
mod legacy;
mod limit;
mod mac;
pub mod namespace;
pub mod network;
mod plan;
mod pool;
pub mod ports;
pub mod resolver;
mod sysctl;

pub use endpoint::{Attach, Endpoint, way_out};
pub use error::{Error, Result};
pub use fabric::{Config, Draft, Fabric, Live};
pub use ferry_netlink::nft::Watch;
pub use ferry_netlink::route::Queue;
pub use firewall::Firewall;
pub use ipnet;
pub use limit::Limits;
pub use mac::Mac;
pub use network::Network;
pub use plan::{BridgeLink, Desired, Observed, Plan, Record, Step, Sysctl, TableState, plan};
pub use pool::Pool;
