//! The attacks, one file a theme.

mod binary;
mod capabilities;
mod cgroups;
mod descriptors;
mod devices;
mod input;
mod links;
mod masks;
mod proc;
mod races;
mod seccomp;
mod users;

use crate::outcome::Attack;

/// Every row, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Attack> {
    [
        binary::ATTACKS,
        descriptors::ATTACKS,
        proc::ATTACKS,
        masks::ATTACKS,
        devices::ATTACKS,
        links::ATTACKS,
        races::ATTACKS,
        capabilities::ATTACKS,
        cgroups::ATTACKS,
        seccomp::ATTACKS,
        input::ATTACKS,
        users::ATTACKS,
    ]
    .into_iter()
    .flatten()
}
