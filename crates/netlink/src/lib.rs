//! The kernel's network configuration, spoken directly: no `ip`, `nft` or `iptables` binary.
//!
//! ```text
//!   Route (rtnetlink: links, addresses, routes)      nft::Batch (nf_tables: one atomic change)
//!            \                                          /
//!             Socket: one send, every answer collected, never blocks
//!                          |
//!             wire: attributes out (length-checked), attributes in (bounded)
//! ```
//!
//! Beside these two are [`diag`] (who holds which port) and [`conntrack`] (flows to forget).
//!
//! A socket belongs for ever to the network namespace of the thread that opened it, whoever uses it later: that is how
//! Ferry configures a container's namespace without entering it again.
//!
//! Both families handle a request inside `sendmsg(2)`, so all answers wait in the receive queue when the send returns.
//! Nothing here blocks: an answer that is missing then is an error ([`Error::NoAnswer`]), not a reason to wait.
//!
//! The attribute encoding is our own, for rtnetlink as for nf_tables: `netlink-packet-route` decodes every attribute of
//! every link or fails, so that one attribute of a newer kernel would hide all links; the reader here skips what it
//! does not know. Host byte order is what netlink speaks; nf_tables alone has big-endian numbers.

pub mod conntrack;
pub mod diag;
mod error;
pub mod nft;
pub mod route;
mod socket;
mod wire;

pub use error::{Error, Result};
pub use route::Route;
