//! Keys and flags of dockerd's that set nothing here: one table for the file and the command line. What one means is either
//! the case anyway, or has no meaning here, which is said in the log; or it is refused with what to do instead.

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value};

use super::settings::Both;

/// What comes of a value that was given.
enum Say {
    /// In the log.
    Note(&'static str),
    /// Unless it asks for nothing, or for one of these.
    Refuse(&'static [&'static str], &'static str),
}

use Say::{Note, Refuse};

struct Other {
    key: &'static str,
    /// Empty for keys that are no flags.
    flag: &'static str,
    /// A flag that needs no value.
    switch: bool,
    say: Say,
}

const fn text(key: &'static str, flag: &'static str, say: Say) -> Other {
    Other {
        key,
        flag,
        switch: false,
        say,
    }
}

const fn switch(key: &'static str, say: Say) -> Other {
    Other {
        key,
        flag: key,
        switch: true,
        say,
    }
}

const CONTAINERD: Say = Note("there is no containerd: Ferry starts containers itself");
const NO_SWARM: Say = Note("there is no swarm");
const REAL_TIME: Say = Refuse(
    &["0"],
    "is not there: set real-time limits of a container with --cpu-rt-period and --cpu-rt-runtime of run, on cgroup v1",
);

const OTHERS: &[Other] = &[
    text("containerd", "containerd", CONTAINERD),
    text("containerd-namespace", "containerd-namespace", CONTAINERD),
    text(
        "containerd-plugin-namespace",
        "containerd-plugins-namespace",
        CONTAINERD,
    ),
    switch("cri-containerd", CONTAINERD),
    switch(
        "userland-proxy",
        Note("published ports need no proxy program, either way"),
    ),
    text(
        "userland-proxy-path",
        "userland-proxy-path",
        Note("published ports need no proxy program"),
    ),
    switch(
        "ip-forward-no-drop",
        Note("Ferry leaves the FORWARD policy as it is, either way"),
    ),
    text(
        "init-path",
        "init-path",
        Note("the init of --init is Ferry's own binary"),
    ),
    switch("live-restore", Note("containers always outlive the daemon")),
    text(
        "shutdown-timeout",
        "shutdown-timeout",
        Note("containers are not stopped when the daemon ends: they outlive it"),
    ),
    text(
        "storage-driver",
        "storage-driver",
        Refuse(
            &["overlay2", "overlayfs"],
            "is not there: layers are overlay mounts (overlay2)",
        ),
    ),
    text(
        "storage-opts",
        "storage-opt",
        Refuse(
            &[],
            "is not there: limit a container's disk with --storage-opt size= of run",
        ),
    ),
    text("network-control-plane-mtu", "network-control-plane-mtu", NO_SWARM),
    text("swarm-default-advertise-addr", "swarm-default-advertise-addr", NO_SWARM),
    text("swarm-raft-heartbeat-tick", "", NO_SWARM),
    text("swarm-raft-election-tick", "", NO_SWARM),
    text("node-generic-resources", "node-generic-resource", NO_SWARM),
    switch("experimental", Note("nothing is experimental")),
    text(
        "features",
        "feature",
        Note("Docker's features are on or off here as they are: containerd-snapshotter has no meaning"),
    ),
    switch(
        "selinux-enabled",
        Refuse(
            &["false"],
            "is not there for the engine's containers; ferry runtime, below another engine, applies SELinux labels",
        ),
    ),
    switch(
        "rootless",
        Refuse(
            &["false"],
            "is not there: run the daemon as root, and containers with --userns=auto",
        ),
    ),
    text(
        "authorization-plugins",
        "authorization-plugin",
        Refuse(
            &[],
            "is not there: let in only whom you trust, by the socket's --group or by --tlsverify",
        ),
    ),
    text("cpu-rt-period", "cpu-rt-period", REAL_TIME),
    text("cpu-rt-runtime", "cpu-rt-runtime", REAL_TIME),
    text(
        "exec-opts",
        "exec-opt",
        Refuse(
            &["native.cgroupdriver=cgroupfs"],
            "is not there: Ferry makes control groups itself (cgroupfs), below --cgroup-parent",
        ),
    ),
    text(
        "cdi-spec-dirs",
        "cdi-spec-dir",
        Refuse(&[], "is not there: give devices with --device"),
    ),
];

/// Flags as they were given.
#[derive(Debug, Default, Clone)]
pub struct OtherFlags(Vec<(&'static str, String)>);

impl Args for OtherFlags {
    fn augment_args(command: Command) -> Command {
        let flags = OTHERS.iter().filter(|other| !other.flag.is_empty());
        flags.fold(command, |command, other| {
            let mut arg = Arg::new(other.flag)
                .long(other.flag)
                .action(ArgAction::Append)
                .hide(true);
            if other.flag == "storage-driver" {
                arg = arg.short('s');
            }
            if other.switch {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OtherFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = OTHERS.iter().filter(|other| !other.flag.is_empty());
        let given = flags.flat_map(|other| {
            let values = matches.get_many::<String>(other.flag).into_iter().flatten();
            values.map(move |value| (other.key, value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub fn is_known(key: &str) -> bool {
    OTHERS.iter().any(|other| other.key == key)
}

/// What is given of these: lines for the log, or the first refusal. `file` has the keys of [`is_known`].
pub fn check(flags: &OtherFlags, file: &Map<String, Value>, both: &mut Both) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for other in OTHERS {
        let of_flags = flags.0.iter().filter(|(key, _)| *key == other.key);
        let mut given: Vec<String> = of_flags.map(|(_, value)| value.clone()).collect();
        let of_file = file.get(other.key).map(words);
        both.pick(other.key, (!given.is_empty()).then(|| given.clone()), of_file.clone());
        given.extend(of_file.into_iter().flatten());
        match &other.say {
            Note(why) if !given.is_empty() => notes.push(format!("{} sets nothing: {why}", other.key)),
            Note(_) => {}
            Refuse(fine, why) => {
                if let Some(value) = given
                    .iter()
                    .find(|value| !value.is_empty() && !fine.contains(&value.as_str()))
                {
                    bail!("{}: {value:?} {why}", other.key);
                }
            }
        }
    }
    Ok(notes)
}

/// A value's parts as text; what asks for nothing has none.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(words).collect(),
        Value::Object(map) if map.is_empty() => Vec::new(),
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}
