//! Which tests run in the guest, and the programs they are in.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// Beginnings of the names of the tests that run in the guest, by package, in the order they run in: the longest first.
/// An empty one is all of them.
///
/// Chosen for what differs there, cgroup v2 and the kernel of 2022. What neither touches is tested outside, where it
/// takes a tenth of the time.
const CHOSEN: &[(&str, &[&str])] = &[
    (
        "ferry-e2e",
        &[
            "layers::a_hundred_and_twenty",
            "survive::twenty",
            "cgroups::",
            "limits::",
            "userns::",
            "oci_cgroups::",
            "oci_propagation::root_binds",
            "oci_propagation::root_nothing",
            "apparmor::",
            "oci_apparmor::",
            "oci_selinux::",
            "cleanup::",
            "survive::a_shim_that_dies",
            "survive::an_attached_client",
            "survive::nobody_waits",
            "network::a_container_on_the_bridge",
            "network::containers_and_the_host",
            "network::outbound_is_masqueraded",
            "exec::it_ends_with",
            "exec::it_is_confined",
            "isolation::every_namespace",
            "isolation::host_namespaces",
            "isolation::masked_and_read_only",
            "isolation::no_descriptor",
            "isolation::nothing_is_mounted",
            "isolation::privileged",
            "isolation::the_devices",
            "build::a_result_goes",
            "build::a_secret_is",
            "build::only_what",
            "build_ways::files_below",
            "image_mounts::",
            "layers::device_nodes",
            "layers::whiteouts",
            "lifecycle::kill_sends",
            "lifecycle::pause",
            "lifecycle::restart",
            "lifecycle::rm_takes",
            "lifecycle::top",
            "lifecycle::version_and_info",
            "run::a_device",
            "run::a_read_only_root",
            "run::bind_mounts",
            "run::hello",
            "runtimes::programs_run",
            "runtimes::signals_pauses",
            "oci_spec::",
            "oci::root_a_container_is_created",
            "oci::root_a_create_that_is_killed",
            "oci::root_a_paused",
            "oci::root_exec",
            "oci::root_limits_can_be_changed",
            "oci::root_signals",
            "oci::root_the_runtime_s_binary",
            "oci_bad_input::root_a_damaged",
            "oci_bad_input::root_each_wrong",
            "oci_bad_input::root_mounts_that",
        ],
    ),
    ("ferry-sys", &["overlay::", "bpf::", "mount::", "clone::"]),
    (
        "ferry-cgroup",
        &["v2::beside::", "v2::devices::", "v2::kernel::", "v2::limits::"],
    ),
    ("ferry-netlink", &[""]),
    ("ferry-network", &["an_ipvlan_is", "what_somebody_takes"]),
];

/// What emulation makes too slow, a minute of one kernel function, and what it cannot keep to, rates of a clock that jumps.
const LEFT_OUT: &[&str] = &[
    "ten_thousand_published_ports",
    "a_transfer_keeps_to",
    // The lanes are made there, and `tc` does not list their classes: why is not known yet.
    "acknowledgements_and_nothing",
];

/// The start of the machine a test needs: only one of the two security modules can be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    AppArmor,
    SeLinux,
}

impl Boot {
    pub const ALL: [Self; 2] = [Self::AppArmor, Self::SeLinux];

    /// The one the test of that name runs in.
    pub fn of(test: &str) -> Self {
        if test.starts_with("oci_selinux::") {
            Self::SeLinux
        } else {
            Self::AppArmor
        }
    }

    pub fn takes(self, test: &str) -> bool {
        Self::of(test) == self
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// For the kernel's command line. The guest finds its name in them.
    pub fn words(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor=1 security=apparmor",
            Self::SeLinux => "enforcing=1 security=selinux",
        }
    }
}

/// A test program, and the tests of it that are to be run.
pub struct Program {
    pub path: PathBuf,
    pub package: String,
    pub tests: Vec<String>,
}

/// The chosen tests, or with a filter those of any package where one of its words is in the package's or the test's name.
pub fn find(filter: &[String]) -> Result<Vec<Program>> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--workspace", "--all-targets", "--quiet"]);
    build.arg("--message-format=json-render-diagnostics");
    let messages = shell::output(&mut build)?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let Some((package, path)) = test_program(line) else {
            continue;
        };
        let chosen = CHOSEN.iter().find(|(name, _)| *name == package);
        if filter.is_empty() && chosen.is_none() {
            continue;
        }
        let list = shell::output(Command::new(&path).args(["--list", "--format", "terse"]))
            .with_context(|| format!("list the tests of {package}"))?;
        let wanted = |name: &str| match chosen {
            Some((_, beginnings)) if filter.is_empty() => {
                let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
                begins(beginnings) && !begins(LEFT_OUT)
            }
            _ => filter
                .iter()
                .any(|word| package.contains(word.as_str()) || name.contains(word.as_str())),
        };
        let tests: Vec<String> = list
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| wanted(name))
            .map(str::to_owned)
            .collect();
        if !tests.is_empty() {
            programs.push(Program { path, package, tests });
        }
    }
    programs.sort_by_key(|program| CHOSEN.iter().position(|(name, _)| *name == program.package));
    if programs.is_empty() {
        bail!("no test's name contains {}", filter.join(" or "));
    }
    Ok(programs)
}

/// Package and path of a test program, from a message of cargo's (`compiler-artifact`).
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"].as_bool()? && message["reason"] == "compiler-artifact";
    let executable = message["executable"].as_str().filter(|_| is_test)?;
    // path+file:///…/crates/cgroup#ferry-cgroup@0.1.0, or without the name where the directory has it already
    let id = message["package_id"].as_str()?;
    let (path, name) = id.split_once('#')?;
    let package = match name.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    Some((package.to_owned(), executable.into()))
}

#[cfg(test)]
mod tests {
    use super::Boot;

    #[test]
    fn a_test_runs_in_one_boot_which_the_guest_can_name() {
        for (test, boot) in [
            ("oci_selinux::root_a", Boot::SeLinux),
            ("oci_apparmor::root_a", Boot::AppArmor),
        ] {
            let takes: Vec<Boot> = Boot::ALL.into_iter().filter(|boot| boot.takes(test)).collect();
            assert_eq!(takes, [boot]);
        }
        for boot in Boot::ALL {
            assert!(boot.words().ends_with(&format!(" security={}", boot.name())));
        }
    }

    #[test]
    fn test_programs_are_read_from_the_messages_of_cargo() {
        let line = |id: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","profile":{{"test":{test}}},"executable":"/t/x-1"}}"#
            )
        };
        let found = |id: &str, test: bool| super::test_program(&line(id, test)).map(|(package, _)| package);
        assert_eq!(
            found("path+file:///w/crates/sys#ferry-sys@0.1.0", true).as_deref(),
            Some("ferry-sys")
        );
        assert_eq!(found("path+file:///w/xtask#0.1.0", true).as_deref(), Some("xtask"));
        assert_eq!(found("path+file:///w/xtask#0.1.0", false), None);
        assert_eq!(super::test_program(r#"{"reason":"build-finished"}"#), None);
    }
}
