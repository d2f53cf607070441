//! What the kernel and the disk hold, against what a daemon says it has.

use std::collections::BTreeSet;
use std::fs;

use crate::daemon::TestDaemon;
use crate::leftovers;

impl TestDaemon {
    /// What is there and belongs to no container that the daemon knows, or to one that it says does not run: processes,
    /// control groups, directories. Some of it goes a moment after the answer: wait for none.
    #[track_caller]
    pub fn ghosts(&self) -> Vec<String> {
        let (_, list) = self.api("GET", "/containers/json?all=1", None);
        let containers: Vec<(String, String)> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| (text(&one["Id"]), text(&one["State"])))
            .collect();
        let known: BTreeSet<&str> = containers.iter().map(|(id, _)| id.as_str()).collect();
        let live: BTreeSet<&str> = containers
            .iter()
            .filter(|(_, state)| matches!(state.as_str(), "running" | "paused"))
            .map(|(id, _)| id.as_str())
            .collect();
        let mut found = Vec::new();
        let mut inhabited = BTreeSet::new();
        for (pid, line) in leftovers::processes(self.cgroup_parent()) {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let Some(id) = container_of(&groups, self.cgroup_parent()) else {
                continue;
            };
            if live.contains(id.as_str()) {
                inhabited.insert(id);
            } else {
                found.push(format!("process {pid} of {id}: {line}"));
            }
        }
        let empty = live.iter().filter(|id| !inhabited.contains(**id));
        found.extend(empty.map(|id| format!("container {id} runs without a process")));
        for group in leftovers::groups(self.cgroup_parent()) {
            let names = leftovers::children(&group);
            let strange = names.iter().filter(|path| !is_of(path, &live));
            found.extend(strange.map(|path| format!("control group {}", path.display())));
        }
        for (dir, of) in [
            (self.data_root().join("containers"), &known),
            (self.run_dir().join("containers"), &known),
            (self.run_dir().join("secrets"), &known),
            (self.data_root().join("tmp"), &BTreeSet::new()),
        ] {
            let names = leftovers::children(&dir);
            let strange = names.iter().filter(|path| !is_of(path, of));
            found.extend(strange.map(|path| format!("directory {}", path.display())));
        }
        found
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The container whose control group, or one below it, this is.
fn container_of(groups: &str, parent: &str) -> Option<String> {
    let after = groups
        .lines()
        .find_map(|line| line.split_once(&format!("{parent}/")))?
        .1;
    after.split('/').next().map(str::to_owned)
}

fn is_of(path: &std::path::Path, ids: &BTreeSet<&str>) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| ids.contains(name))
}
