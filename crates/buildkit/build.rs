//! The messages and services of `proto/` as Rust.

#![allow(clippy::print_stdout, reason = "it is how cargo is told")]

use std::error::Error;
use std::path::Path;

const PROTO: &str = "proto";
const FILES: [&str; 13] = [
    "caps.proto",
    "content.proto",
    "control.proto",
    "filesync.proto",
    "fsutil.proto",
    "gateway.proto",
    "health.proto",
    "ops.proto",
    "secrets.proto",
    "ssh.proto",
    "status.proto",
    "trace.proto",
    "worker.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = FILES.map(|file| Path::new(PROTO).join(file));
    // Not the directory: another clone's has another time.
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let messages = protox::compile(files, [PROTO])?;
    tonic_prost_build::configure()
        // What a session serves is called by path: one generic call instead of a client for each service.
        .build_client(false)
        .build_transport(false)
        // A call that Ferry has no answer to is "unimplemented".
        .generate_default_stubs(true)
        .btree_map(".")
        .bytes(".")
        .include_file("wire.rs")
        .compile_fds(messages)?;
    Ok(())
}
