//! The life of a container, and what may be asked of it when. Pure: no handles, no I/O.
//!
//! ```text
//!            start            exit                     start
//!  Created ────────▶ Running ──────▶ Exited ───────────────────▶ Running
//!                    │    ▲            ▲  ╲ restart policy   ▲
//!              pause │    │ unpause    │   ▼                 │ back-off over
//!                    ▼    │            │  Restarting ────────┘
//!                    Paused ───────────┘      │ stop: Exited
//!                         (kill)
//!  any, by remove ─▶ Removing ─▶ gone
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    /// Between an exit and the start that its restart policy makes.
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// What is asked of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove { force: bool },
    Exec,
    Attach,
    Resize,
    Top,
}

/// What a verb that is allowed amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Go,
    /// It is so already: 304.
    Already,
}

impl Status {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// A process of it exists.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether `verb` is legal now. `name` (without a slash) and `id` are for the message, which is Docker's.
    pub fn permit(self, verb: Verb, name: &str, id: &str) -> Result<Permit> {
        use Permit::{Already, Go};
        let not_running = || Err(Error::conflict(format!("container {id} is not running")));
        match (verb, self) {
            (Verb::Remove { .. }, Self::Removing) => Err(Error::conflict(format!(
                "removal of container {name} is already in progress"
            ))),
            (_, Self::Removing | Self::Dead) if !matches!(verb, Verb::Remove { .. }) => Err(Error::conflict(
                "container is marked for removal and cannot be started".replace("started", verb.past()),
            )),
            (Verb::Start, Self::Running | Self::Restarting) => Ok(Already),
            (Verb::Start, Self::Paused) => Err(Error::conflict(
                "cannot start a paused container, try unpause instead".to_owned(),
            )),
            (Verb::Start, _) => Ok(Go),
            (Verb::Stop, Self::Created | Self::Exited) => Ok(Already),
            (Verb::Stop | Verb::Restart, _) => Ok(Go),
            (Verb::Kill, Self::Running | Self::Paused | Self::Restarting) => Ok(Go),
            (Verb::Kill, _) => not_running(),
            (Verb::Pause, Self::Running) => Ok(Go),
            (Verb::Pause, Self::Paused) => Err(Error::conflict(format!("Container {id} is already paused"))),
            (Verb::Pause, Self::Restarting) => Err(Error::conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            ))),
            (Verb::Pause, _) => not_running(),
            (Verb::Unpause, Self::Paused) => Ok(Go),
            // Docker's answer is a 500.
            (Verb::Unpause, _) => Err(Error::new(Kind::Internal, format!("Container {id} is not paused"))),
            (Verb::Remove { force: false }, Self::Running) => Err(Error::conflict(format!(
                "cannot remove container \"{name}\": container is running: stop the container before removing or force remove"
            ))),
            (Verb::Remove { force: false }, Self::Paused) => Err(Error::conflict(format!(
                "cannot remove container \"{name}\": container is paused and must be unpaused first"
            ))),
            (Verb::Remove { force: false }, Self::Restarting) => Err(Error::conflict(format!(
                "cannot remove container \"{name}\": container is restarting: stop the container before removing or force remove"
            ))),
            (Verb::Remove { .. }, _) => Ok(Go),
            (Verb::Exec, Self::Running) => Ok(Go),
            (Verb::Exec, Self::Paused) => Err(Error::conflict(format!(
                "Container {name} is paused, unpause the container before exec"
            ))),
            (Verb::Exec, Self::Restarting) => Err(Error::conflict(format!(
                "container {id} is restarting, wait until the container is running"
            ))),
            (Verb::Exec | Verb::Resize | Verb::Top, Self::Created | Self::Exited) => not_running(),
            (Verb::Attach, Self::Paused) => Err(Error::conflict(format!(
                "container {id} is paused, unpause the container before attach"
            ))),
            (Verb::Attach, Self::Restarting) => Err(Error::conflict(format!(
                "container {id} is restarting, wait until the container is running"
            ))),
            (Verb::Top, Self::Restarting) => Err(Error::conflict(format!(
                "container {id} is restarting, wait until the container is running"
            ))),
            (Verb::Attach | Verb::Resize | Verb::Top | Verb::Exec, _) => Ok(Go),
        }
    }
}

impl Verb {
    fn past(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Kill => "killed",
            Self::Restart => "restarted",
            Self::Pause => "paused",
            Self::Unpause => "unpaused",
            Self::Remove { .. } => "removed",
            Self::Exec => "used for exec",
            Self::Attach => "attached to",
            Self::Resize => "resized",
            Self::Top => "looked into",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_verbs_and_states() {
        use Status::{Created, Exited, Paused, Removing, Restarting, Running};
        let verbs = [
            Verb::Start,
            Verb::Stop,
            Verb::Kill,
            Verb::Restart,
            Verb::Pause,
            Verb::Unpause,
            Verb::Remove { force: false },
            Verb::Remove { force: true },
            Verb::Exec,
            Verb::Attach,
        ];
        let row = |status: Status| -> String {
            let letter = |verb: &Verb| match status.permit(*verb, "n", "i") {
                Ok(Permit::Go) => 'g',
                Ok(Permit::Already) => 'a',
                Err(_) => '-',
            };
            verbs.iter().map(letter).collect()
        };
        let table: Vec<_> = [Created, Running, Paused, Restarting, Removing, Exited].map(row).into();
        let expected = [
            "ga-g--gg-g",
            "agggg--ggg",
            "-ggg-g-g--",
            "aggg---g--",
            "----------",
            "ga-g--gg-g",
        ];
        assert_eq!(table, expected);
    }
}
