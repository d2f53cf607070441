//! `ferry self-test security`: known attacks on container runtimes, tried against one on the user's own machine.
//!
//! An attack is a row of [`attacks`]: a container with something hostile in it (a link for a directory, a user file without
//! an end, a volume whose names are exchanged all the time) is started by the runtime under attack, and a look from inside
//! and at a "host" that is the lab's own says whether it got out. The program in the containers is this very binary
//! ([`probe`]): no image and no network is needed. The runtime is Ferry's, or any other with runc's command line.
//!
//! A row that can never fail is worth nothing. Two things prove that they can: other runtimes, older ones above all, and
//! [`Options::wrong`], with which every container is set up wrongly on purpose and every row has to say BROKEN.
//!
//! Invariants: nothing outside of the lab is written, also not by an attack that gets through; what the lab is made of goes
//! when its first process goes ([`lab`]).

mod attacks;
mod bundle;
mod call;
mod error;
mod lab;
mod outcome;
mod probe;
mod run;

pub use error::{Error, Result};
pub use probe::probe;
pub use run::{Format, Options, USAGE, parse, run, start_again};
