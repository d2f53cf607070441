//! Version 2: what is written, against a directory of plain files; what needs no controller, against the unified
//! hierarchy that is mounted beside v1 on this machine; and the rest where there is no v1 (`cargo xtask vm`).

// clippy.toml allows these in test functions; here their helpers need them too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod v2 {
    mod beside;
    mod devices;
    mod files;
    mod kernel;
    mod limits;
    mod testbed;
}
