//! What flags and arguments can be: fixed words here, names from the engine, or files.

use super::names::Kind;

/// What may stand somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Words(&'static [&'static str]),
    /// Containers in these states, or in any.
    Names(Kind, &'static [&'static str]),
    Contexts,
    /// Variables of the environment.
    Variables,
    /// Drivers or runtimes, by the pointer into `/info`.
    Known(&'static str),
    Files,
    Directories,
    Nothing,
}

const SIGNALS: &[&str] = &[
    "SIGABRT", "SIGALRM", "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTERM", "SIGUSR1",
    "SIGUSR2",
];
const PLATFORMS: &[&str] = &[
    "linux/386",
    "linux/amd64",
    "linux/arm/v7",
    "linux/arm64",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
];

/// Of `--NAME` of a command.
pub fn of_flag(command: &str, name: &str, kind: &str) -> Choice {
    use Choice::*;
    match name {
        "filter" => Words(filters(command)),
        "format" => Words(&["json", "table"]),
        "network" => Names(Kind::Network, &[]),
        "volumes-from" | "link" => Names(Kind::Container, &[]),
        "volume" => Names(Kind::Volume, &[]),
        "context" | "from" => Contexts,
        "env" => Variables,
        "restart" => Words(&["always", "no", "on-failure", "unless-stopped"]),
        "pull" => Words(&["always", "missing", "never"]),
        "signal" | "stop-signal" => Words(SIGNALS),
        "platform" => Words(PLATFORMS),
        "log-driver" => Known("/Plugins/Log"),
        "volume-driver" => Known("/Plugins/Volume"),
        "driver" if command.starts_with("volume") => Known("/Plugins/Volume"),
        "driver" if command.starts_with("network") => Known("/Plugins/Network"),
        "runtime" => Known("/Runtimes"),
        "log-level" => Words(&["debug", "error", "fatal", "info", "warn"]),
        "type" => Words(&["container", "image", "network", "volume"]),
        "attach" => Words(&["stderr", "stdin", "stdout"]),
        "cgroupns" => Words(&["host", "private"]),
        "ipc" => Words(&["container:", "host", "none", "private", "shareable"]),
        "pid" => Words(&["container:", "host"]),
        "uts" => Words(&["host"]),
        "userns" => Words(&["auto", "host"]),
        "health-on-failure" => Words(&["kill", "none", "restart", "stop"]),
        "security-opt" => Words(&[
            "apparmor=",
            "label=",
            "no-new-privileges",
            "seccomp=",
            "systempaths=unconfined",
        ]),
        "config" => Directories,
        "env-file" | "label-file" | "cidfile" | "input" | "output" | "device" | "tlscacert" | "tlscert" | "tlskey" => {
            Files
        }
        _ if kind == "file" => Files,
        _ => Nothing,
    }
}

fn filters(command: &str) -> &'static [&'static str] {
    match command {
        "ps" => &[
            "ancestor=",
            "before=",
            "exited=",
            "expose=",
            "health=",
            "id=",
            "label=",
            "name=",
            "network=",
            "publish=",
            "since=",
            "status=",
            "volume=",
        ],
        "images" => &["before=", "dangling=", "label=", "reference=", "since=", "until="],
        "volume ls" => &["dangling=", "driver=", "label=", "name="],
        "network ls" => &["dangling=", "driver=", "id=", "label=", "name=", "scope=", "type="],
        "events" => &[
            "container=",
            "daemon=",
            "event=",
            "image=",
            "label=",
            "network=",
            "scope=",
            "type=",
            "volume=",
        ],
        "search" => &["is-automated=", "is-official=", "stars="],
        "volume prune" => &["all=", "label=", "label!="],
        _ => &["label=", "label!=", "until="],
    }
}

/// Of a command's argument at this index, as the usage line names it.
pub fn of_argument(command: &str, synopsis: &str, index: usize) -> Choice {
    let line = synopsis.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "[OPTIONS]").collect();
    let word = match words.last() {
        Some(last) if index >= words.len() && last.contains("...") => *last,
        _ => words.get(index).copied().unwrap_or_default(),
    };
    let states: &'static [&'static str] = match command {
        "start" => &["created", "exited"],
        "unpause" => &["paused"],
        "attach" | "exec" | "kill" | "pause" | "port" | "stats" | "stop" | "top" => &["running"],
        _ => &[],
    };
    match word.trim_start_matches('[').split([']', '.', ':', '[']).next() {
        Some("COMMAND" | "ARG" | "FILE|-" | "file|-" | "file|URL|-") => Choice::Files,
        // `cp` begins with either.
        Some("CONTAINER" | "SRC_PATH" | "DEST_PATH|-") if command == "cp" => Choice::Files,
        Some("CONTAINER") => Choice::Names(Kind::Container, states),
        Some("IMAGE" | "SOURCE_IMAGE" | "TARGET_IMAGE" | "REPOSITORY") => Choice::Names(Kind::Image, &[]),
        Some("NAME") if word.contains(":TAG") => Choice::Names(Kind::Image, &[]),
        Some("NAME|ID") => Choice::Names(Kind::Any, &[]),
        Some("NETWORK") if command != "network create" => Choice::Names(Kind::Network, &[]),
        Some("VOLUME") if command != "volume create" => Choice::Names(Kind::Volume, &[]),
        Some("CONTEXT") if command != "context create" => Choice::Contexts,
        _ => Choice::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_what_the_usage_line_calls_them() {
        for (command, synopsis, index, want) in [
            (
                "rm",
                "[OPTIONS] CONTAINER [CONTAINER...]",
                5,
                Choice::Names(Kind::Container, &[]),
            ),
            (
                "exec",
                "[OPTIONS] CONTAINER COMMAND [ARG...]",
                0,
                Choice::Names(Kind::Container, &["running"]),
            ),
            ("exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", 7, Choice::Files),
            (
                "run",
                "[OPTIONS] IMAGE [COMMAND] [ARG...]",
                0,
                Choice::Names(Kind::Image, &[]),
            ),
            (
                "tag",
                "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
                1,
                Choice::Names(Kind::Image, &[]),
            ),
            ("rename", "CONTAINER NEW_NAME", 1, Choice::Nothing),
            (
                "inspect",
                "[OPTIONS] NAME|ID [NAME|ID...]",
                2,
                Choice::Names(Kind::Any, &[]),
            ),
            ("push", "[OPTIONS] NAME[:TAG]", 0, Choice::Names(Kind::Image, &[])),
            ("volume create", "[OPTIONS] [VOLUME]", 0, Choice::Nothing),
            ("ps", "[OPTIONS]", 0, Choice::Nothing),
        ] {
            assert_eq!(of_argument(command, synopsis, index), want, "{command} {index}");
        }
    }
}
