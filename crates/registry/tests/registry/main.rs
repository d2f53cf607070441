//! The registry as clients, attackers, and failing machines meet it. One program: it is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod cached;
mod child;
mod client;
mod collect;
mod full;
mod hostile;
mod killed;
mod limits;
mod power;
mod served;
mod site;
mod tls;
mod tokens;
