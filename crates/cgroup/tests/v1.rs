//! The real v1 hierarchies of this machine, as root, below a parent of the test's own.

// clippy.toml allows these in test functions; here their helpers need them too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod v1 {
    mod limits;
    mod processes;
    mod testbed;
}
