//! From the flags of `run`, `create` and `update` to the request's body, as docker/cli's container/opts.go does it.
//!
//! Parsing reads files only where a flag names one (`--env-file`, `--label-file`, `--security-opt seccomp=`); what the flags mean
//! is the daemon's to judge.

use std::collections::BTreeMap;

use ferry_api::{
    Empty, Words,
    container::{Config, Create, HostConfig, LogConfig, Resources, RestartPolicy, Update},
};

use crate::{environment::Environment, flags::Matches};

mod capabilities;
mod devices;
mod health;
mod lists;
pub mod mounts;
mod networks;
mod ports;
mod rates;
pub mod secrets;
mod security;

pub use devices::ulimit;
pub use lists::{label, link};
pub use mounts::fields;

/// A parsing step's result; the message is docker's.
type Result<T> = std::result::Result<T, String>;

/// The flags of `run` and `create` that end up in the request, after those each has of its own.
macro_rules! container_flags {
    () => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/options/flags.txt"))
    };
}
pub(crate) use container_flags;

/// The flags of `run` and `create` that docker has not.
pub const OWN: &str = "\
--net-burst bytes | Bytes that the container may receive or send at once after a pause
--net-rate rate | Limit what the container receives and what it sends, each (10mbit)
--net-rate-in rate | Limit what the container receives
--net-rate-out rate | Limit what the container sends
--secret secret | A file of the container's in memory, below /run/secrets (id=NAME,src=FILE or id=NAME,env=VARIABLE)
--health-http address | Check health by HTTP, without a program in the container (:8080/path)
--health-tcp address | Check health by connecting to a port of the container (:5432)
--health-on-failure string | What becomes of a container that turns unhealthy (none|restart|kill|stop)";

/// Other spellings docker accepts and does not list.
pub const HIDDEN: &[(&str, &str)] = &[
    ("net", "network"),
    ("net-alias", "network-alias"),
    ("dns-opt", "dns-option"),
];

/// Checks what docker checks while it reads the flags.
pub fn check(flag: &str, value: &str) -> Result<()> {
    match flag {
        "add-host" => lists::extra_host(value).map(|_| ()),
        "attach" => match value.to_lowercase().as_str() {
            "stdin" | "stdout" | "stderr" => Ok(()),
            _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
        },
        "blkio-weight-device" => devices::weight(value).map(|_| ()),
        "cpus" => devices::nano_cpus(value).map(|_| ()),
        "device-read-bps" | "device-write-bps" => devices::bytes_rate(value).map(|_| ()),
        "device-read-iops" | "device-write-iops" => devices::operations_rate(value).map(|_| ()),
        "device-cgroup-rule" => devices::cgroup_rule(value),
        "dns" => lists::address(value),
        "env" => lists::variable(value, &|_| None).map(|_| ()),
        "label" => lists::label(value),
        "link" => lists::link(value),
        "mount" => mounts::parse(value, std::path::Path::new("/")).map(|_| ()),
        "net-rate" | "net-rate-in" | "net-rate-out" => rates::parse(value).map(|_| ()),
        "secret" => secrets::parse(value).map(|_| ()),
        "network" => networks::parse(value).map(|_| ()),
        "sysctl" => lists::sysctl(value),
        "ulimit" => devices::ulimit(value).map(|_| ()),
        _ => Ok(()),
    }
}

/// `NAME=value` of each, in the order given.
pub fn pairs(list: &[String]) -> BTreeMap<String, String> {
    let split = |entry: &String| {
        entry
            .split_once('=')
            .map_or((entry.clone(), String::new()), |(k, v)| (k.into(), v.into()))
    };
    list.iter().map(split).collect()
}

/// Null for a flag that was not given.
fn given(list: Vec<String>) -> Option<Vec<String>> {
    Some(list).filter(|list| !list.is_empty())
}

fn words(list: Vec<String>) -> Option<Words> {
    given(list).map(Words::from)
}

/// The body of a create request. `command` is what follows the image.
pub fn create(matches: &Matches, env: &Environment, image: &str, command: &[String]) -> Result<Create> {
    let attach: Vec<String> = matches
        .list("attach")
        .iter()
        .map(|stream| stream.to_lowercase())
        .collect();
    let attached = |stream: &str| attach.iter().any(|name| name == stream);
    let open_stdin = matches.switch("interactive");
    let mac_address = matches.text("mac-address");
    if !mac_address.is_empty() && !networks::is_mac_address(mac_address) {
        return Err(format!("{mac_address} is not a valid mac address"));
    }
    let swappiness = matches.int("memory-swappiness").unwrap_or(-1);
    if !(-1..=100).contains(&swappiness) {
        return Err(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        ));
    }
    let (binds, volumes) = mounts::volumes(&matches.list("volume"), &env.directory)?;
    let published = ports::published(&matches.list("publish"), &matches.list("expose"))?;
    let lookup = |name: &str| env.variables.get(name).cloned();
    let variables = lists::variables(&matches.list("env-file"), &matches.list("env"), &lookup, &env.directory)?;
    let labels = lists::labels(&matches.list("label-file"), &matches.list("label"), &env.directory)?;
    let stdin_attached = open_stdin || attached("stdin");
    let config = Config {
        hostname: matches.text("hostname").into(),
        domainname: matches.text("domainname").into(),
        user: matches.text("user").into(),
        attach_stdin: stdin_attached,
        attach_stdout: attach.is_empty() || attached("stdout"),
        attach_stderr: attach.is_empty() || attached("stderr"),
        exposed_ports: published.exposed,
        tty: matches.switch("tty"),
        open_stdin,
        stdin_once: open_stdin,
        env: given(variables),
        cmd: words(command.to_vec()),
        healthcheck: health::check(matches)?,
        image: image.into(),
        volumes: Some(volumes.into_iter().map(|volume| (volume, Empty)).collect()),
        working_dir: matches.text("workdir").into(),
        // An empty one resets the image's.
        entrypoint: matches
            .get("entrypoint")
            .map(|program| Words::from(vec![program.to_owned()])),
        labels: Some(labels),
        stop_signal: matches.text("stop-signal").into(),
        stop_timeout: matches.int("stop-timeout"),
        ..Config::default()
    };
    let host_config = host_config(matches, env, binds, published.bindings)?;
    let networking_config = Some(networks::endpoints(matches)?);
    Ok(Create {
        config,
        host_config: Some(host_config),
        networking_config,
        runtime: String::new(),
        secrets: secrets::read(&matches.list("secret"), env)?,
    })
}

fn host_config(
    matches: &Matches,
    env: &Environment,
    binds: Vec<String>,
    port_bindings: ferry_api::container::PortMap,
) -> Result<HostConfig> {
    let restart_policy = match restart(matches.text("restart"))? {
        policy if policy.name.is_empty() => RestartPolicy {
            name: "no".into(),
            ..policy
        },
        policy => policy,
    };
    let auto_remove = matches.switch("rm");
    if auto_remove && restart_policy.name != "no" {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    modes(matches)?;
    let security = security::options(&matches.list("security-opt"), &env.directory)?;
    let log_options = pairs(&matches.list("log-opt"));
    if matches.text("log-driver") == "none" && !log_options.is_empty() {
        return Err("invalid logging opts for driver none".into());
    }
    let storage_options = matches.list("storage-opt");
    if storage_options.iter().any(|option| !option.contains('=')) {
        return Err("invalid storage option".into());
    }
    let tmpfs = matches
        .list("tmpfs")
        .into_iter()
        .map(|entry| match entry.split_once(':') {
            Some((target, options)) => (target.to_owned(), options.to_owned()),
            None => (entry, String::new()),
        });
    let mounts: Result<Vec<_>> = matches
        .list("mount")
        .iter()
        .map(|mount| mounts::parse(mount, &env.directory))
        .collect();
    let extra_hosts: Result<Vec<_>> = matches
        .list("add-host")
        .iter()
        .map(|host| lists::extra_host(host))
        .collect();
    let (cap_add, cap_drop) = capabilities::effective(&matches.list("cap-add"), &matches.list("cap-drop"));
    let network_mode = match matches.list("network").first() {
        Some(network) => networks::parse(network)?.target,
        None => "default".into(),
    };
    Ok(HostConfig {
        binds: given(binds),
        container_id_file: matches.text("cidfile").into(),
        log_config: LogConfig {
            r#type: matches.text("log-driver").into(),
            config: Some(log_options),
        },
        network_mode,
        port_bindings: Some(port_bindings),
        restart_policy,
        auto_remove,
        volume_driver: matches.text("volume-driver").into(),
        volumes_from: given(matches.list("volumes-from")),
        annotations: pairs(&matches.list("annotation")),
        cap_add: words(cap_add),
        cap_drop: words(cap_drop),
        cgroupns_mode: matches.text("cgroupns").into(),
        dns: Some(matches.list("dns")),
        dns_options: Some(matches.list("dns-option")),
        dns_search: Some(matches.list("dns-search")),
        extra_hosts: given(extra_hosts?),
        group_add: given(matches.list("group-add")),
        ipc_mode: matches.text("ipc").into(),
        links: given(matches.list("link")),
        oom_score_adj: matches.int("oom-score-adj").unwrap_or(0),
        pid_mode: matches.text("pid").into(),
        privileged: matches.switch("privileged"),
        publish_all_ports: matches.switch("publish-all"),
        readonly_rootfs: matches.switch("read-only"),
        security_opt: given(security.options),
        storage_opt: pairs(&storage_options),
        tmpfs: tmpfs.collect(),
        uts_mode: matches.text("uts").into(),
        userns_mode: matches.text("userns").into(),
        shm_size: matches.bytes("shm-size"),
        sysctls: pairs(&matches.list("sysctl")),
        runtime: matches.text("runtime").into(),
        isolation: matches.text("isolation").into(),
        resources: resources(matches)?,
        mounts: mounts?,
        masked_paths: security.system_paths_unconfined.then(Vec::new),
        readonly_paths: security.system_paths_unconfined.then(Vec::new),
        init: matches.get("init").map(|_| matches.switch("init")),
        net_rate: rates::net_rate(matches)?,
        ..HostConfig::default()
    })
}

fn resources(matches: &Matches) -> Result<Resources> {
    let list = |name: &str| matches.list(name);
    Ok(Resources {
        cpu_realtime_period: matches.int("cpu-rt-period").unwrap_or(0),
        cpu_realtime_runtime: matches.int("cpu-rt-runtime").unwrap_or(0),
        blkio_weight_device: Some(each(&list("blkio-weight-device"), devices::weight)?),
        blkio_device_read_bps: Some(each(&list("device-read-bps"), devices::bytes_rate)?),
        blkio_device_write_bps: Some(each(&list("device-write-bps"), devices::bytes_rate)?),
        blkio_device_read_iops: Some(each(&list("device-read-iops"), devices::operations_rate)?),
        blkio_device_write_iops: Some(each(&list("device-write-iops"), devices::operations_rate)?),
        cgroup_parent: matches.text("cgroup-parent").into(),
        devices: Some(each(&list("device"), devices::mapping)?),
        device_cgroup_rules: given(list("device-cgroup-rule")),
        device_requests: given(list("gpus")).map(|gpus| gpus.iter().map(|gpu| devices::gpus(gpu)).collect()),
        memory_swappiness: Some(matches.int("memory-swappiness").unwrap_or(-1)),
        oom_kill_disable: Some(matches.switch("oom-kill-disable")),
        ulimits: Some(each(&list("ulimit"), devices::ulimit)?),
        ..limits(matches)?
    })
}

/// The variables of an exec.
pub fn exec_variables(matches: &Matches, env: &Environment) -> Result<Option<Vec<String>>> {
    let lookup = |name: &str| env.variables.get(name).cloned();
    lists::variables(&matches.list("env-file"), &matches.list("env"), &lookup, &env.directory).map(given)
}

/// What `run` and `update` have in common.
fn limits(matches: &Matches) -> Result<Resources> {
    Ok(Resources {
        cpu_shares: matches.int("cpu-shares").unwrap_or(0),
        memory: matches.bytes("memory"),
        nano_cpus: matches.get("cpus").map_or(Ok(0), devices::nano_cpus)?,
        blkio_weight: matches.text("blkio-weight").parse().unwrap_or(0),
        cpu_period: matches.int("cpu-period").unwrap_or(0),
        cpu_quota: matches.int("cpu-quota").unwrap_or(0),
        cpu_realtime_period: matches.int("cpu-rt-period").unwrap_or(0),
        cpu_realtime_runtime: matches.int("cpu-rt-runtime").unwrap_or(0),
        cpuset_cpus: matches.text("cpuset-cpus").into(),
        cpuset_mems: matches.text("cpuset-mems").into(),
        memory_reservation: matches.bytes("memory-reservation"),
        memory_swap: matches.bytes("memory-swap"),
        pids_limit: Some(matches.int("pids-limit").unwrap_or(0)),
        ..Resources::default()
    })
}

fn each<T>(list: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    list.iter().map(|entry| parse(entry)).collect()
}

/// The body of an update request.
pub fn update(matches: &Matches) -> Result<Update> {
    let names = [
        "blkio-weight",
        "cpu-period",
        "cpu-quota",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpu-shares",
        "cpus",
        "cpuset-cpus",
        "cpuset-mems",
        "memory",
        "memory-reservation",
        "memory-swap",
        "pids-limit",
        "restart",
        "net-burst",
        "net-rate",
        "net-rate-in",
        "net-rate-out",
        "publish-add",
        "publish-rm",
    ];
    if !names.iter().any(|name| matches.is_set(name)) {
        return Err("you must provide one or more flags when using this command".into());
    }
    let published = |flag| {
        let ports = ports::published(&matches.list(flag), &[])?.bindings;
        Ok::<_, String>((!ports.is_empty()).then_some(ports))
    };
    Ok(Update {
        resources: Resources {
            pids_limit: matches.int("pids-limit"),
            ..limits(matches)?
        },
        restart_policy: restart(matches.text("restart"))?,
        net_rate: rates::net_rate(matches)?,
        publish_add: published("publish-add")?,
        publish_remove: published("publish-rm")?,
    })
}

/// `on-failure:3`.
fn restart(text: &str) -> Result<RestartPolicy> {
    let (name, count) = text.split_once(':').map_or((text, ""), |(name, count)| (name, count));
    if name.is_empty() && !text.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".into());
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => count
            .parse()
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned())?,
    };
    Ok(RestartPolicy {
        name: name.into(),
        maximum_retry_count,
    })
}

/// The namespace modes whose values docker checks itself.
fn modes(matches: &Matches) -> Result<()> {
    let refuse = |valid: bool, message: &str| if valid { Ok(()) } else { Err(message.to_owned()) };
    let pid = matches.text("pid");
    refuse(
        matches!(pid, "" | "host") || pid.strip_prefix("container:").is_some_and(|id| !id.is_empty()),
        "--pid: invalid PID mode",
    )?;
    refuse(matches!(matches.text("uts"), "" | "host"), "--uts: invalid UTS mode")?;
    refuse(
        matches!(matches.text("userns"), "" | "host" | "auto"),
        "--userns: invalid USER mode",
    )?;
    refuse(
        matches!(matches.text("cgroupns"), "" | "host" | "private"),
        "--cgroupns: invalid CGROUP mode",
    )
}

#[cfg(test)]
mod tests;
