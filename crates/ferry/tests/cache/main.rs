//! `ferry registry serve --upstream`: a cache in front of a registry that is slow, lies, breaks off, or is gone.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in a test a panic is the report

mod lies;
mod origin;
mod served;
mod shared;
mod tags;
