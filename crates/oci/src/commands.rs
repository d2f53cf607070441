//! The commands, one file each.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod kill;
mod list;
mod pause;
mod ps;
mod spec;
mod start;
mod state;
mod update;

use crate::command_line::Context;
use crate::error::{Error, Result};
use crate::flags::{Flag, Order, Parsed, switch, value};

/// One command of the command line.
pub(crate) struct Command {
    pub name: &'static str,
    pub about: &'static str,
    pub arguments: &'static str,
    /// The fewest and the most there may be.
    pub count: (usize, usize),
    pub flags: &'static [Flag],
    pub order: Order,
    /// What a failure's text begins with (`runc create` + ` failed`).
    pub prefix: &'static str,
    /// The exit status of a failure.
    pub failure: u8,
    pub run: fn(&mut Context<'_>, &Parsed) -> Result<u8>,
}

const ID: &str = "<container-id>";
const ONE: (usize, usize) = (1, 1);

pub(crate) const ALL: &[Command] = &[
    Command {
        name: "checkpoint",
        about: "checkpoint a running container (not there yet)",
        arguments: ID,
        count: (0, usize::MAX),
        flags: &[],
        order: Order::First,
        prefix: "",
        failure: 1,
        run: |_, _| {
            Err(Error::Invalid(
                "checkpoint is not supported by this runtime yet".to_owned(),
            ))
        },
    },
    Command {
        name: "create",
        about: "create a container",
        arguments: ID,
        count: ONE,
        flags: &create::FLAGS,
        order: Order::Mixed,
        prefix: "runc create",
        failure: 1,
        run: create::create,
    },
    Command {
        name: "delete",
        about: "delete any resources held by the container often used with detached container",
        arguments: ID,
        count: ONE,
        flags: &[switch(
            "force",
            "f",
            "Forcibly deletes the container if it is still running (uses SIGKILL)",
        )],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: delete::delete,
    },
    Command {
        name: "events",
        about: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        arguments: ID,
        count: ONE,
        flags: &[
            value("interval", "", "set the stats collection interval (default: 5s)"),
            switch("stats", "", "display the container's stats then exit"),
        ],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: events::events,
    },
    Command {
        name: "exec",
        about: "execute new process inside the container",
        arguments: "<container-id> <command> [command options]  || -p process.json <container-id>",
        count: (1, usize::MAX),
        flags: &exec::FLAGS,
        order: Order::First,
        prefix: "exec",
        failure: 255,
        run: exec::exec,
    },
    Command {
        name: "features",
        about: "show the enabled features",
        arguments: "",
        count: (0, 0),
        flags: &[],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: features::features,
    },
    Command {
        name: "kill",
        about: "kill sends the specified signal (default: SIGTERM) to the container's init process",
        arguments: "<container-id> [signal]",
        count: (1, 2),
        flags: &[switch("all", "a", "send the signal to every process of the container")],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: kill::kill,
    },
    Command {
        name: "list",
        about: "lists containers with the given root",
        arguments: "",
        count: (0, 0),
        flags: &[
            value("format", "f", "select one of: table or json (default: \"table\")"),
            switch("quiet", "q", "display only container IDs"),
        ],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: list::list,
    },
    Command {
        name: "pause",
        about: "pause suspends all processes inside the container",
        arguments: ID,
        count: ONE,
        flags: &[],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: pause::pause,
    },
    Command {
        name: "ps",
        about: "ps displays the processes running inside a container",
        arguments: "<container-id> [ps options]",
        count: (1, usize::MAX),
        flags: &[value(
            "format",
            "f",
            "select one of: table or json (default: \"table\")",
        )],
        order: Order::First,
        prefix: "",
        failure: 1,
        run: ps::ps,
    },
    Command {
        name: "restore",
        about: "restore a container from a previous checkpoint (not there yet)",
        arguments: ID,
        count: (0, usize::MAX),
        flags: &[],
        order: Order::First,
        prefix: "",
        failure: 1,
        run: |_, _| {
            Err(Error::Invalid(
                "restore is not supported by this runtime yet".to_owned(),
            ))
        },
    },
    Command {
        name: "resume",
        about: "resumes all processes that have been previously paused",
        arguments: ID,
        count: ONE,
        flags: &[],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: pause::resume,
    },
    Command {
        name: "run",
        about: "create and run a container",
        arguments: ID,
        count: ONE,
        flags: &create::RUN_FLAGS,
        order: Order::Mixed,
        prefix: "runc run",
        failure: 1,
        run: create::run,
    },
    Command {
        name: "spec",
        about: "create a new specification file",
        arguments: "",
        count: (0, 0),
        flags: &[
            value("bundle", "b", "path to the root of the bundle directory"),
            switch("rootless", "", "generate a configuration for a rootless container"),
        ],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: spec::spec,
    },
    Command {
        name: "start",
        about: "executes the user defined process in a created container",
        arguments: ID,
        count: ONE,
        flags: &[],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: start::start,
    },
    Command {
        name: "state",
        about: "output the state of a container",
        arguments: ID,
        count: ONE,
        flags: &[],
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: state::state,
    },
    Command {
        name: "update",
        about: "update container resource constraints",
        arguments: ID,
        count: ONE,
        flags: &update::FLAGS,
        order: Order::Mixed,
        prefix: "",
        failure: 1,
        run: update::update,
    },
];

impl Command {
    pub fn check_arguments(&self, parsed: &Parsed) -> Result<()> {
        let (least, most) = self.count;
        let count = parsed.positional.len();
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let name = self.name;
        let text = match (least, most) {
            (least, most) if least == most => format!("{name:?} requires exactly {least} argument(s)"),
            (least, _) if count < least => format!("{name:?} requires a minimum of {least} args"),
            (_, most) => format!("{name:?} requires a maximum of {most} args"),
        };
        Err(Error::Invalid(format!("runc: {text}")))
    }

    pub fn help(&self) -> String {
        let Self {
            name, about, arguments, ..
        } = self;
        let options = if self.flags.is_empty() {
            ""
        } else {
            " [command options]"
        };
        let mut text = format!("{name} - {about}\n\nUSAGE:\n   runc {name}{options} {arguments}\n");
        if !self.flags.is_empty() {
            text.push_str("\nOPTIONS:\n");
            text.push_str(&describe(self.flags));
        }
        text
    }
}

/// A line for each flag.
pub(crate) fn describe(flags: &[Flag]) -> String {
    let name = |flag: &Flag| {
        let value = if flag.takes_value { " value" } else { "" };
        match flag.short {
            "" => format!("--{}{value}", flag.name),
            short => format!("--{}{value}, -{short}{value}", flag.name),
        }
    };
    let width = flags.iter().map(|flag| name(flag).len()).max().unwrap_or(0);
    flags
        .iter()
        .map(|flag| format!("   {:<width$}  {}\n", name(flag), flag.help))
        .collect()
}

/// The id every command but `list`, `spec` and `features` begins with.
fn id(parsed: &Parsed) -> &str {
    parsed.positional.first().map_or("", String::as_str)
}
