//! A tree of plain files in the place of the kernel's.

use std::fs;
use std::path::PathBuf;

use ferry_cgroup::{Cgroup, Error, Hierarchy, Layout, Warning};
use oci_spec::runtime::LinuxResources;

struct Tree {
    root: tempfile::TempDir,
    hierarchy: Hierarchy,
}

const ID: &str = "ferry/c1";

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

impl Tree {
    /// The files of the group are there as if the kernel had made them.
    fn new(files: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(ID)).unwrap();
        fs::write(root.path().join(ID).join("cgroup.controllers"), "memory io cpu\n").unwrap();
        fs::write(
            root.path().join("cgroup.controllers"),
            "cpuset cpu io memory hugetlb pids rdma misc\n",
        )
        .unwrap();
        for parent in ["", "ferry"] {
            fs::write(root.path().join(parent).join("cgroup.subtree_control"), "").unwrap();
        }
        for file in files {
            fs::write(root.path().join(ID).join(file), "").unwrap();
        }
        let hierarchy = Hierarchy::try_from(Layout::V2(root.path().to_owned())).unwrap();
        Self { root, hierarchy }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(ID).join(file)
    }

    fn held(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn create(&self, json: &str) -> Result<(Cgroup, Vec<Warning>), Error> {
        self.hierarchy.create(ID, &resources(json))
    }
}

#[test]
fn controllers_are_switched_on_from_the_root_down() {
    let tree = Tree::new(&[]);
    tree.create("{}").unwrap();
    for parent in ["", "ferry"] {
        let file = tree.root.path().join(parent).join("cgroup.subtree_control");
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            "+cpuset +cpu +io +memory +hugetlb +pids +rdma +misc"
        );
    }
}

#[test]
fn controllers_that_are_on_are_left_alone() {
    let tree = Tree::new(&[]);
    let file = tree.root.path().join("ferry/cgroup.subtree_control");
    let on = "cpuset cpu io memory hugetlb pids rdma misc";
    fs::write(&file, on).unwrap();
    tree.create("{}").unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), on);
    assert_eq!(
        fs::read_to_string(tree.root.path().join("cgroup.subtree_control")).unwrap(),
        ""
    );
}

#[test]
fn memory_and_swap_become_two_separate_limits() {
    let tree = Tree::new(&["memory.max", "memory.swap.max", "memory.low"]);
    let json = r#"{"memory": {"limit": 104857600, "swap": 157286400, "reservation": 52428800}}"#;
    let (_, warnings) = tree.create(json).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(tree.held("memory.max"), "104857600");
    assert_eq!(tree.held("memory.swap.max"), "52428800");
    assert_eq!(tree.held("memory.low"), "52428800");
}

#[test]
fn no_swap_needs_no_swap_accounting() {
    let tree = Tree::new(&["memory.max"]);
    let (_, warnings) = tree
        .create(r#"{"memory": {"limit": 104857600, "swap": 104857600}}"#)
        .unwrap();
    assert_eq!(warnings, []);
    let (_, warnings) = Tree::new(&["memory.max"])
        .create(r#"{"memory": {"limit": 1048576, "swap": 2097152}}"#)
        .unwrap();
    assert_eq!(
        warnings[0].to_string(),
        "memory.swap 1048576 is not applied: this kernel offers no memory.swap.max"
    );
}

#[test]
fn settings_of_v1_alone_are_warnings() {
    let tree = Tree::new(&["io.weight"]);
    let json = r#"{"memory": {"swappiness": 60, "disableOOMKiller": true}, "cpu": {"realtimeRuntime": 95000, "realtimePeriod": 1000000},
        "network": {"classID": 7, "priorities": [{"name": "lo", "priority": 3}]}, "blockIO": {"leafWeight": 20}}"#;
    let (_, warnings) = tree.create(json).unwrap();
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for limit in [
        "memory.swappiness 60",
        "memory.disableOOMKiller true",
        "cpu.realtimeRuntime 95000",
        "cpu.realtimePeriod 1000000",
        "network.classID 7",
        "network.priorities lo 3",
        "blockIO.leafWeight 20",
    ] {
        let text = format!("{limit} is not applied: cgroup v2 has nothing like it");
        assert!(texts.contains(&text), "{text}: {texts:?}");
    }
    assert_eq!(texts.len(), 7, "{texts:?}");
}

#[test]
fn an_idle_group_gets_no_weight() {
    let tree = Tree::new(&["cpu.idle", "cpu.weight"]);
    let (cgroup, warnings) = tree.create(r#"{"cpu": {"idle": 1, "shares": 512}}"#).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (tree.held("cpu.idle"), tree.held("cpu.weight")),
        ("1".into(), String::new())
    );
    cgroup
        .update(&resources(r#"{"cpu": {"idle": 0, "shares": 512}}"#))
        .unwrap();
    assert_eq!(
        (tree.held("cpu.idle"), tree.held("cpu.weight")),
        ("0".into(), "59".into())
    );
}

#[test]
fn swap_and_memory_together_stay_what_they_are() {
    let tree = Tree::new(&["memory.max", "memory.swap.max"]);
    let json = r#"{"memory": {"limit": 104857600, "swap": 157286400}}"#;
    let (cgroup, _) = tree.create(json).unwrap();
    let update = |json: &str| {
        // Plain files keep the end of a longer value.
        for file in ["memory.max", "memory.swap.max"] {
            let value = tree.held(file);
            fs::write(tree.path(file), format!("{value}\n")).unwrap();
        }
        cgroup.update(&resources(json))
    };
    let held = |file: &str| tree.held(file).lines().next().unwrap().to_owned();
    update(r#"{"memory": {"limit": 125829120}}"#).unwrap();
    assert_eq!(
        (held("memory.max"), held("memory.swap.max")),
        ("125829120".into(), "31457280".into())
    );
    update(r#"{"memory": {"swap": 167772160}}"#).unwrap();
    assert_eq!(held("memory.swap.max"), "41943040");
    let error = update(r#"{"memory": {"limit": 904857600}}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("memory+swap limit should be >= memory limit"),
        "{error}"
    );
    let error = tree.create(r#"{"memory": {"swap": 1048576}}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("unable to set swap limit without memory limit"),
        "{error}"
    );
}

#[test]
fn devices_of_rdma_have_a_line_each() {
    let tree = Tree::new(&["rdma.max"]);
    tree.create(r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}"#)
        .unwrap();
    assert_eq!(tree.held("rdma.max"), "mlx5_1 hca_handle=3 hca_object=10000");
    for bad in [r#"{"rdma": {"a b": {"hcaHandles": 3}}}"#, r#"{"rdma": {"mlx5_1": {}}}"#] {
        assert!(matches!(tree.create(bad), Err(Error::Invalid { .. })), "{bad}");
    }
}

#[test]
fn cpu_limits_are_weight_and_one_line_of_bandwidth() {
    let tree = Tree::new(&["cpu.weight", "cpu.max"]);
    let (_, warnings) = tree
        .create(r#"{"cpu": {"shares": 512, "quota": 50000, "period": 200000}}"#)
        .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(tree.held("cpu.weight"), "59");
    assert_eq!(tree.held("cpu.max"), "50000 200000");
}

#[test]
fn a_new_period_keeps_the_quota_and_a_new_quota_the_period() {
    let tree = Tree::new(&["cpu.max"]);
    fs::write(tree.path("cpu.max"), "50000 100000\n").unwrap();
    let (cgroup, _) = tree.create("{}").unwrap();
    cgroup.update(&resources(r#"{"cpu": {"period": 250000}}"#)).unwrap();
    assert!(tree.held("cpu.max").starts_with("50000 250000"));
    fs::write(tree.path("cpu.max"), "").unwrap();
    cgroup.update(&resources(r#"{"cpu": {"quota": -1}}"#)).unwrap();
    assert_eq!(tree.held("cpu.max"), "max");
}

#[test]
fn a_cpuset_that_is_not_effective_is_a_warning() {
    let tree = Tree::new(&[
        "cpuset.cpus",
        "cpuset.mems",
        "cpuset.cpus.effective",
        "cpuset.mems.effective",
    ]);
    fs::write(tree.path("cpuset.cpus.effective"), "0-1\n").unwrap();
    fs::write(tree.path("cpuset.mems.effective"), "0\n").unwrap();
    let (_, warnings) = tree.create(r#"{"cpu": {"cpus": "0,1,2", "mems": "0"}}"#).unwrap();
    assert_eq!(tree.held("cpuset.cpus"), "0,1,2");
    assert_eq!(
        warnings,
        [Warning::Adjusted {
            limit: "cpu.cpus".into(),
            asked: "0,1,2".into(),
            held: "0-1".into()
        }]
    );
    assert!(matches!(
        tree.create(r#"{"cpu": {"cpus": "2-1"}}"#),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn io_and_pids_and_huge_pages_have_their_files() {
    let files = [
        "io.weight",
        "io.max",
        "pids.max",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
    ];
    let tree = Tree::new(&files);
    let json = r#"{"pids": {"limit": 100}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
        "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 300}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 70}]}}"#;
    let (_, warnings) = tree.create(json).unwrap();
    let expected = ["8:0 2930", "8:16 wiops=70", "100", "4194304", "4194304"];
    assert_eq!(files.map(|file| tree.held(file)), expected);
    assert_eq!(warnings, []);
    let huge = r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#;
    assert!(matches!(tree.create(huge), Err(Error::Invalid { .. })));
}

#[test]
fn bfq_takes_weights_as_they_are() {
    let tree = Tree::new(&["io.bfq.weight"]);
    let (_, warnings) = tree.create(r#"{"blockIO": {"weight": 500}}"#).unwrap();
    assert_eq!((tree.held("io.bfq.weight").as_str(), warnings), ("500", vec![]));
}

#[test]
fn unified_files_are_written_by_name_and_only_by_name() {
    let tree = Tree::new(&["memory.high"]);
    tree.create(r#"{"unified": {"memory.high": "1048576"}}"#).unwrap();
    assert_eq!(tree.held("memory.high"), "1048576");
    tree.create(r#"{"unified": {"memory.high": ""}}"#).unwrap();
    for (bad, why) in [
        ("../memory.high", "no slashes"),
        ("", "no slashes"),
        ("..", "no slashes"),
        ("memory.nothing", "the group has no such file"),
        ("nothing", "it must be in the form CONTROLLER.PARAMETER"),
        ("nothing.max", "controller \"nothing\" not available"),
    ] {
        let json = format!(r#"{{"unified": {{"{bad}": "1"}}}}"#);
        let error = tree.create(&json).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Invalid { .. }), "{bad}");
        assert!(text.contains(why) && text.contains(bad), "{bad}: {text}");
    }
}

#[test]
fn a_limit_below_the_usage_is_refused_when_asked_to_check() {
    let tree = Tree::new(&["memory.max"]);
    fs::write(tree.path("memory.current"), "9000000\n").unwrap();
    let (cgroup, _) = tree.create("{}").unwrap();
    for (limits, why) in [
        (r#""limit": 8000000"#, "rejecting memory limit 8000000 <= usage 9000000"),
        (
            r#""limit": 8000000, "swap": 8500000"#,
            "rejecting memory+swap limit 8500000 <= usage 9000000",
        ),
    ] {
        let json = format!(r#"{{"memory": {{{limits}, "checkBeforeUpdate": true}}}}"#);
        let error = cgroup.update(&resources(&json)).unwrap_err();
        assert!(error.to_string().ends_with(why), "{error}");
    }
    assert_eq!(tree.held("memory.max"), "");
}

#[test]
fn statistics_are_read_in_their_units() {
    let tree = Tree::new(&[]);
    for (file, text) in [
        (
            "cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "8192\n"),
        ("memory.swap.current", "0\n"),
        ("memory.stat", "anon 1\nfile 2\n"),
        (
            "memory.events",
            "low 0\nhigh 0\nmax 6\noom 1\noom_kill 3\noom_group_kill 0\n",
        ),
        ("pids.current", "2\n"),
        ("pids.max", "100\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbad\n"),
        ("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=42\n"),
        ("hugetlb.2MB.current", "7\n"),
        ("hugetlb.2MB.rsvd.current", "4194304\n"),
        ("hugetlb.2MB.events", "max 3\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
        ("rdma.max", "mlx4_0 hca_handle=3 hca_object=max\n"),
    ] {
        fs::write(tree.path(file), text).unwrap();
    }
    let (cgroup, _) = tree.create("{}").unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!(
        (stats.cpu.total, stats.cpu.user, stats.cpu.kernel),
        (30_000, 20_000, 10_000)
    );
    assert_eq!(
        (stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_time),
        (5, 2, 7_000)
    );
    assert_eq!(
        (stats.memory.usage, stats.memory.limit, stats.memory.max_usage),
        (4096, None, 8192)
    );
    assert_eq!(
        (stats.memory.swap_usage, stats.memory.swap_limit, stats.memory.failures),
        (Some(0), None, 6)
    );
    assert_eq!(stats.memory.stat["file"], 2);
    assert_eq!((stats.pids.current, stats.pids.limit), (2, Some(100)));
    let bytes: Vec<_> = stats
        .block_io
        .service_bytes
        .iter()
        .map(|e| (e.operation.as_str(), e.value))
        .collect();
    assert_eq!(bytes, [("read", 1), ("write", 2)]);
    assert_eq!(cgroup.oom_kills().unwrap(), 3);
    let pressure = stats.cpu.pressure.unwrap();
    assert_eq!((pressure.some.avg10.as_str(), pressure.some.total), ("0.50", 42));
    assert_eq!(stats.memory.pressure, None);
    let pages = stats.huge_pages["2MB"];
    assert_eq!((pages.usage, pages.failures), (4_194_304, 3));
    let device = &stats.rdma[0];
    assert_eq!(
        (device.device.as_str(), device.handles, device.objects),
        ("mlx4_0", 2, 2000)
    );
    assert_eq!((device.handle_limit, device.object_limit), (Some(3), None));
}

#[test]
fn an_event_wakes_the_oom_watch() {
    let tree = Tree::new(&["memory.events"]);
    let (cgroup, _) = tree.create("{}").unwrap();
    let watch = cgroup.oom_watch().unwrap();
    let waiting = || {
        let mut poll = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&nothing)).unwrap()
    };
    assert_eq!(waiting(), 0);
    fs::write(tree.path("memory.events"), "oom_kill 1\n").unwrap();
    assert_eq!(waiting(), 1);
}

#[test]
fn there_is_a_directory_to_be_cloned_into() {
    let tree = Tree::new(&["cgroup.procs"]);
    let (cgroup, _) = tree.create("{}").unwrap();
    let birth = cgroup.birth().unwrap();
    assert!(birth.tasks.is_empty());
    let directory = rustix::fs::fstat(birth.into.unwrap()).unwrap();
    assert_eq!(directory.st_ino, rustix::fs::stat(tree.path("")).unwrap().st_ino);
    cgroup.enter().unwrap();
    assert_eq!(tree.held("cgroup.procs"), "0");
}
