//! Work on the network, done where it may block, and what its failures mean for a client.

use std::sync::Arc;

use ferry_network::ports::Holder;

use super::publish;
use crate::container::Record;
use crate::error::{Error, Kind, Result, chain};
use crate::world::{self, World};

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    world::blocking("work on the network", work).await
}

/// Does blocking work where that is allowed.
pub(super) async fn run<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> ferry_network::Result<T> + Send + 'static,
) -> Result<T> {
    blocking(work).await?.map_err(|error| of_network(what, &error))
}

/// What a client can do about it decides its kind.
fn of_network(what: &str, error: &ferry_network::Error) -> Error {
    use ferry_network::Error as E;
    match error {
        E::Overlap { .. } => Error::new(
            Kind::Forbidden,
            format!("invalid pool request: Pool overlaps with other one on this address space: {error}"),
        ),
        E::InUse { .. } => Error::new(Kind::Forbidden, error.to_string()),
        E::NoNetwork { .. } => Error::not_found(chain(error)),
        E::Unusable { .. } | E::Invalid { .. } | E::AddressOutside { .. } | E::NoSubnet { .. } | E::Missing { .. } => {
            Error::invalid(chain(error))
        }
        E::AddressInUse { .. } => Error::new(Kind::Forbidden, "Address already in use".to_owned()),
        E::Taken { .. } | E::Full { .. } => Error::conflict(chain(error)),
        E::NoAddress { .. } => Error::new(Kind::Internal, error.to_string()),
        _ => Error::internal(what, error),
    }
}

/// Why a container could not join its networks, with who is in the way.
pub(super) fn explain(world: &Arc<World>, record: &Record, error: &ferry_network::Error) -> Error {
    use ferry_network::Error as E;
    let external = |reason: String| {
        Error::new(
            Kind::Internal,
            format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint {}: {reason}",
                record.name
            ),
        )
    };
    match error {
        E::PortTaken {
            address, port, holder, ..
        } => {
            let who = match holder {
                Holder::Published(id) => match world.containers.find(id) {
                    Ok(handle) => format!("container {} has it", handle.snapshot().record.name),
                    Err(_) => "a container that is going has it".to_owned(),
                },
                Holder::Socket(inode) => match ferry_network::ports::owner(*inode) {
                    Some(owner) => format!("process {} ({}) listens there", owner.pid, owner.name),
                    None => "a process of the host listens there".to_owned(),
                },
            };
            external(format!(
                "Bind for {} failed: port is already allocated: {who}",
                publish::place(*address, *port)
            ))
        }
        E::NoPort { .. } => external(error.to_string()),
        E::NotLocal { address, port } => external(format!(
            "failed to bind host port for {}: cannot assign requested address: {error}",
            publish::place(*address, *port)
        )),
        E::AddressInUse { address } => Error::new(
            Kind::Forbidden,
            format!("failed to set up container networking: Address already in use: {address}"),
        ),
        error => {
            let error = of_network("connect the container to its network", error);
            Error::new(
                error.kind,
                format!("failed to set up container networking: {}", error.message),
            )
        }
    }
}
