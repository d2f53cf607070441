//! The registry as clients, attackers, and failing machines meet it. One program: it is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod api;
mod client;
mod collect;
mod limits;
mod served;
mod site;
mod tls;
mod tokens;
