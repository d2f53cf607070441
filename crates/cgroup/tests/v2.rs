//! Version 2: what is written, against a directory of plain files; and what needs no controller, against the unified
//! hierarchy that is mounted beside v1 on this machine.

// clippy.toml allows these in test functions; here their helpers need them too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod v2 {
    mod files;
    mod kernel;
}
