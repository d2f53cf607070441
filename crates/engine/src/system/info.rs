//! What `docker info` and `docker version` print.

use std::collections::BTreeMap;

use ferry_api::system::{Commit, Component, Index, Info, Platform, Plugins, RegistryConfig, Version};
use ferry_api::{ApiVersion, Timestamp};

use crate::container::Status;
use crate::world::World;

/// What the engine calls itself where Docker's clients show a version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn version(world: &World) -> Version {
    let details = BTreeMap::from(
        [
            ("ApiVersion", ApiVersion::MAX.to_string()),
            ("Arch", crate::hello::architecture().to_owned()),
            ("KernelVersion", world.host.kernel_release.clone()),
            ("MinAPIVersion", ApiVersion::MIN.to_string()),
            ("Os", "linux".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    Version {
        platform: Platform {
            name: "Ferry".to_owned(),
        },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: ApiVersion::MAX,
        min_api_version: Some(ApiVersion::MIN),
        os: "linux".to_owned(),
        arch: crate::hello::architecture().to_owned(),
        kernel_version: world.host.kernel_release.clone(),
        build_time: world.host.build_time.clone(),
        ..Version::default()
    }
}

pub(super) fn info(world: &World) -> Info {
    let live = world.live.get();
    let mut info = Info {
        id: world.networks.engine_id().to_owned(),
        images: count(world.store.images.list().len()),
        driver: "overlay2".to_owned(),
        driver_status: Some(driver_status()),
        plugins: plugins(),
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: ["ip_forward", "conf/default/forwarding"]
            .iter()
            .any(|key| read(&format!("/proc/sys/net/ipv4/{key}")).trim() == "1"),
        debug: live.debug,
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| count(entries.count())),
        oom_kill_disable: world.hierarchy.version() == 1,
        n_goroutines: count(world.tasks.len()),
        system_time: Timestamp(jiff::Timestamp::now()),
        logging_driver: world.config.log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: world.hierarchy.version().to_string(),
        kernel_version: world.host.kernel_release.clone(),
        operating_system: world.host.os_name.clone(),
        os_version: world.host.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries(&live.registries.client)),
        http_proxy: masked(&live.registries.client.proxies.http),
        https_proxy: masked(&live.registries.client.proxies.https),
        no_proxy: live.registries.client.proxies.none.clone(),
        n_cpu: count(world.host.cpus),
        mem_total: i64::try_from(world.host.memory).unwrap_or(i64::MAX),
        docker_root_dir: world.config.data_root.to_string_lossy().into_owned(),
        name: world.host.hostname.clone(),
        labels: Some(live.labels.clone()),
        server_version: VERSION.to_owned(),
        runtimes: Some(live.runtimes.shown()),
        default_runtime: live.runtimes.default.clone(),
        live_restore_enabled: true,
        init_binary: "docker-init".to_owned(),
        containerd_commit: Commit::default(),
        runc_commit: Commit::default(),
        init_commit: Commit::default(),
        security_options: Some(security_options(world)),
        warnings: None,
        ..Info::default()
    };
    for handle in world.containers.all() {
        info.containers += 1;
        match handle.snapshot().record.run.status {
            Status::Running | Status::Restarting => info.containers_running += 1,
            Status::Paused => info.containers_paused += 1,
            _ => info.containers_stopped += 1,
        }
    }
    let problems = world.store.problems();
    let of_store = problems
        .iter()
        .map(|problem| format!("WARNING: {} cannot be used: {}", problem.what, problem.why));
    let of_network = world
        .networks
        .obstacles()
        .into_iter()
        .map(|text| format!("WARNING: {text}"));
    let warnings: Vec<_> = of_store.chain(of_network).collect();
    if !warnings.is_empty() {
        info.warnings = Some(warnings);
    }
    info
}

fn driver_status() -> Vec<[String; 2]> {
    let method = ferry_sys::overlay::method().map_or("not available", ferry_sys::overlay::Method::name);
    vec![
        ["Overlay mounts".to_owned(), method.to_owned()],
        ["Mounted on the host".to_owned(), "never".to_owned()],
    ]
}

/// A proxy's URL without its user and password.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}xxxxx:xxxxx{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

/// As dockerd shows it: docker.io, then what is insecure.
fn registries(options: &ferry_distribution::Options) -> RegistryConfig {
    let (blocks, hosts): (Vec<String>, Vec<String>) =
        options.insecure.iter().cloned().partition(|entry| entry.contains('/'));
    let of = |domain: &str| {
        let mirrors = options.mirrors.iter().filter(|mirror| mirror.domain == domain);
        mirrors.map(|mirror| mirror.url.to_string()).collect::<Vec<_>>()
    };
    let index = |name: &str, official: bool| {
        let index = Index {
            mirrors: Some(of(name)),
            name: name.to_owned(),
            official,
            secure: !hosts.iter().any(|host| host == name),
        };
        (name.to_owned(), index)
    };
    let mut indexes = BTreeMap::from([index("docker.io", true)]);
    indexes.extend(hosts.iter().map(|host| index(host, false)));
    let loopback = ["::1/128", "127.0.0.0/8"].map(str::to_owned);
    let mirrors = of("docker.io");
    RegistryConfig {
        index_configs: Some(indexes),
        insecure_registry_cidrs: Some(loopback.into_iter().chain(blocks).collect()),
        mirrors: (!mirrors.is_empty()).then_some(mirrors),
    }
}

fn plugins() -> Plugins {
    let list = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    Plugins {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "null"]),
        log: list(&crate::logs::options::DRIVERS),
        ..Plugins::default()
    }
}

fn security_options(world: &World) -> Vec<String> {
    let live = world.live.get();
    let defaults = &live.containers;
    let profile = match defaults.seccomp.as_deref() {
        None => "builtin",
        Some("unconfined") => "unconfined",
        Some(_) => "custom",
    };
    let mut options = Vec::new();
    if world.apparmor.is_enabled() {
        options.push("name=apparmor".to_owned());
    }
    options.push(format!("name=seccomp,profile={profile}"));
    if defaults.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    if world.hierarchy.version() == 2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
