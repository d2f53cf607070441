//! Whole-program tests, one file a theme. `Engine::start()` is a fresh Ferry, or with `FERRY_TEST_ENGINE=docker` the
//! real Docker Engine: that is how an expectation is proven before Ferry is held to it. Tests that only make sense on
//! Ferry start a `TestDaemon`.

mod attach;
mod badinput;
mod blockio;
mod cgroups;
mod cleanup;
mod clients;
mod commit;
mod compat;
mod corners;
mod cp;
mod df;
mod evil_archives;
mod exec;
mod full_disk;
mod hostile;
mod images;
mod isolation;
mod keyring;
mod layers;
mod lifecycle;
mod limits;
mod logs;
mod names;
mod network;
mod oci;
mod oci_apparmor;
mod oci_attacks;
mod oci_bad_input;
mod oci_cgroups;
mod oci_drop_in;
mod oci_engines;
mod oci_propagation;
mod oci_selinux;
mod oci_spec;
mod ondemand;
mod readme;
mod registry_access;
mod registry_server;
mod run;
mod save;
mod survive;
mod transfers;
mod tty;
mod userns;
