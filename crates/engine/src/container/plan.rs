//! From a container's record to what its first process needs: Docker's defaults (moby `oci/defaults.go`,
//! `daemon/oci_linux.go`) as a [`Plan`].

mod capabilities;
mod devices;
mod namespaces;

use std::path::{Path, PathBuf};

use ferry_api::exec::Create as ExecCreate;
use ferry_api::volume::mount_type;
use ferry_runtime::Plan;
use ferry_runtime::plan::{Attached, IdMap, Lifecycle, Mount, Process, Rlimit, Source, User, parse_options};
use ferry_supervise::Rootfs;
use ferry_sys::mount::{Attributes, NODEV, NOEXEC, NOSUID, RDONLY, STRICTATIME};

use super::merge::overlay_env;
use super::point::{Depth, Point};
use super::record::Record;
use super::{files, links};
use crate::error::{Error, Result};
use crate::world::World;

pub(crate) use capabilities::of as capabilities;
pub(crate) use namespaces::default_cgroup as cgroupns;

/// moby `defaultLinuxMaskedPaths` of 28.5.2; the thermal throttle counters of each CPU come on top.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub(crate) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Of /dev/shm, unless `--shm-size` says otherwise.
pub(crate) const SHM_SIZE: i64 = 64 * 1024 * 1024;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Decides everything about the container's start that does not depend on its network.
pub(crate) fn build(record: &Record, world: &World) -> Result<Plan> {
    let host = &record.host_config;
    let namespaces = namespaces::plan(record, world)?;
    let own_network = namespaces.own_network;
    let mut mounts = standard_mounts(record, own_network);
    mounts.extend(file_mounts(record, world));
    mounts.extend(user_mounts(record, world)?);
    mounts.extend(crate::secrets::mount(record, world));
    // Parents before what lies in them, as the user's mounts may be given in any order.
    mounts.sort_by_key(|mount| mount.target.components().count());
    // Filled in when the container was made; a privileged one has none.
    let paths = |given: &Option<Vec<String>>| given.iter().flatten().map(PathBuf::from).collect();
    let hostname = (namespaces.own_uts).then(|| files::hostname(record, world));
    let domainname =
        (namespaces.own_uts && !record.config.domainname.is_empty()).then(|| record.config.domainname.clone());
    Ok(Plan {
        namespaces: namespaces.namespaces,
        hostname,
        domainname,
        mounts,
        devices: devices::of(host)?,
        masked: paths(&host.masked_paths),
        readonly: paths(&host.readonly_paths),
        readonly_root: host.readonly_rootfs,
        root_propagation: None,
        sysctls: sysctls(record, own_network),
        process: process(record, world)?,
        lifecycle: Lifecycle::default(),
    })
}

/// What the container's root is mounted from.
pub(crate) fn rootfs(record: &Record, world: &World) -> Result<Rootfs> {
    let snapshot = world.store.snapshots.get(&record.id)?;
    Ok(Rootfs {
        layers: snapshot.layers,
        upper: snapshot.upper,
        work: snapshot.work,
        volatile: record.host_config.auto_remove,
        idmap: record.ids,
    })
}

/// What of the host shows in the container while it does not run: the user's bind mounts, and the files that an earlier start
/// left it.
pub(crate) fn binds(record: &Record, world: &World) -> Result<Vec<Mount>> {
    let files = file_mounts(record, world);
    let there = |mount: &Mount| matches!(&mount.source, Source::Bind { path, .. } if path.exists());
    let mut mounts: Vec<_> = files.into_iter().filter(there).collect();
    let bind = |mount: &Mount| matches!(mount.source, Source::Bind { .. } | Source::Layers { .. });
    mounts.extend(user_mounts(record, world)?.into_iter().filter(bind));
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// What is hidden by default: moby's list, and the thermal counters of each CPU for the side channel they are.
pub(crate) fn masked(world: &World) -> Vec<String> {
    let thermal = (0..world.host.cpus)
        .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"))
        .filter(|path| Path::new(path).exists());
    MASKED.iter().map(|&path| path.to_owned()).chain(thermal).collect()
}

/// Whether the record can be turned into a plan; its descriptors are not looked at.
pub(crate) fn check(record: &Record, world: &World) -> Result<()> {
    process(record, world)?;
    user_mounts(record, world)?;
    super::resources::devices(&record.host_config).map(drop)
}

fn sysctls(record: &Record, own_network: bool) -> Vec<(String, String)> {
    let mut sysctls = record.host_config.sysctls.clone();
    if own_network && record.ids.is_none() {
        // What Docker sets, so that a user who is not root may listen on port 80 and ping.
        sysctls
            .entry("net.ipv4.ip_unprivileged_port_start".to_owned())
            .or_insert_with(|| "0".to_owned());
        sysctls
            .entry("net.ipv4.ping_group_range".to_owned())
            .or_insert_with(|| "0 2147483647".to_owned());
    }
    sysctls.into_iter().collect()
}

fn new_fs(target: &str, kind: &str, options: &[(&str, &str)], set: u64) -> Mount {
    let options = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Mount {
        target: target.into(),
        source: Source::New {
            kind: kind.to_owned(),
            options,
        },
        attributes: Attributes {
            set,
            ..Attributes::default()
        },
        explicit: 0,
        propagation: 0,
        propagation_top: false,
        copy_up: false,
        below: Attributes::default(),
        idmap: None,
        subpath: PathBuf::new(),
    }
}

fn standard_mounts(record: &Record, own_network: bool) -> Vec<Mount> {
    let host = &record.host_config;
    let writable = if host.privileged { 0 } else { RDONLY };
    let size = if host.shm_size > 0 { host.shm_size } else { SHM_SIZE }.to_string();
    let nothing = NOSUID | NOEXEC | NODEV;
    let mut mounts = vec![
        match host.pid_mode.as_str() {
            // A /proc of the host's processes would be the host's own, and a user namespace may not make one.
            "host" if record.ids.is_some() => bind("/proc", "/proc", true, nothing),
            _ => new_fs("/proc", "proc", &[("source", "proc")], nothing),
        },
        new_fs(
            "/dev",
            "tmpfs",
            &[("source", "tmpfs"), ("mode", "755"), ("size", "65536k")],
            NOSUID | STRICTATIME,
        ),
        new_fs(
            "/dev/pts",
            "devpts",
            &[
                ("source", "devpts"),
                ("newinstance", ""),
                ("ptmxmode", "0666"),
                ("mode", "0620"),
                ("gid", "5"),
            ],
            NOSUID | NOEXEC,
        ),
        match own_network {
            true => new_fs("/sys", "sysfs", &[("source", "sysfs")], nothing | writable),
            // A sysfs shows the network namespace it is made in, and a user namespace may only make its own.
            false if record.ids.is_some() => bind("/sys", "/sys", true, nothing | RDONLY),
            false => new_fs("/sys", "sysfs", &[("source", "sysfs")], nothing | writable),
        },
        Mount {
            target: "/sys/fs/cgroup".into(),
            source: Source::Cgroup,
            attributes: Attributes {
                set: nothing | writable,
                ..Attributes::default()
            },
            explicit: 0,
            propagation: 0,
            propagation_top: false,
            copy_up: false,
            below: Attributes::default(),
            idmap: None,
            subpath: PathBuf::new(),
        },
        new_fs("/dev/mqueue", "mqueue", &[("source", "mqueue")], nothing),
    ];
    match host.ipc_mode.as_str() {
        "host" => mounts.push(bind("/dev/shm", "/dev/shm", false, nothing)),
        "none" => {}
        _ => mounts.push(new_fs(
            "/dev/shm",
            "tmpfs",
            &[("source", "shm"), ("mode", "1777"), ("size", &size)],
            nothing,
        )),
    }
    // What the user mounts himself takes the place of what every container has.
    mounts.retain(|mount| {
        !record
            .mounts
            .iter()
            .any(|point| Path::new(&point.destination) == mount.target)
    });
    mounts
}

pub(crate) fn bind(target: &str, source: impl Into<PathBuf>, recursive: bool, set: u64) -> Mount {
    Mount {
        target: target.into(),
        source: Source::Bind {
            path: source.into(),
            recursive,
        },
        attributes: Attributes {
            set,
            recursive,
            ..Attributes::default()
        },
        explicit: 0,
        propagation: 0,
        propagation_top: false,
        copy_up: false,
        below: Attributes::default(),
        idmap: None,
        subpath: PathBuf::new(),
    }
}

fn file_mounts(record: &Record, world: &World) -> Vec<Mount> {
    let readonly = if record.host_config.readonly_rootfs { RDONLY } else { 0 };
    let own = |name: &&&str| {
        !record
            .mounts
            .iter()
            .any(|point| point.destination == format!("/etc/{name}"))
    };
    let mount = |name: &&str| {
        bind(
            &format!("/etc/{name}"),
            files::path(record, world, name),
            false,
            readonly,
        )
    };
    files::NAMES.iter().filter(own).map(mount).collect()
}

fn user_mounts(record: &Record, world: &World) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for point in &record.mounts {
        let mount = match point.r#type.as_str() {
            mount_type::BIND | mount_type::VOLUME => of_host(record, point),
            mount_type::IMAGE => of_image(record, point, world),
            _ => tmpfs(record, point)?,
        };
        mounts.push(mount);
    }
    Ok(mounts)
}

/// A directory or file of the host's, or a volume, which is one as well.
fn of_host(record: &Record, point: &Point) -> Mount {
    let mode = parse_options([point.propagation.as_str()].into_iter().filter(|text| !text.is_empty()));
    let readonly = if point.rw { 0 } else { RDONLY };
    let mut mount = bind(&point.destination, &point.source, point.depth != Depth::Top, readonly);
    // `ro` makes the directory read-only with all that is mounted below.
    mount.attributes.recursive = !point.rw && point.depth == Depth::Whole;
    (mount.propagation, mount.propagation_top) = (mode.propagation, mode.propagation_top);
    mount.subpath = PathBuf::from(&point.subpath);
    // A volume belongs to its containers, whatever ids they have outside.
    let mapped = point.idmap || point.r#type == mount_type::VOLUME;
    mount.idmap = own_ids(record).filter(|_| mapped);
    mount
}

/// An image's files, which nobody can change.
fn of_image(record: &Record, point: &Point, world: &World) -> Mount {
    let mut mount = bind(&point.destination, "", false, RDONLY);
    mount.source = Source::Layers {
        layers: point.layers.iter().map(|chain| world.layer_dir(chain)).collect(),
        upper: None,
    };
    mount.subpath = PathBuf::from(&point.subpath);
    mount.idmap = own_ids(record);
    mount
}

/// Shows the owners that files have without a user namespace as the container's own.
fn own_ids(record: &Record) -> Option<IdMap> {
    record.ids.map(|ids| {
        let ids = vec![(0, ids.start, ids.count)];
        IdMap {
            uids: ids.clone(),
            gids: ids,
            recursive: false,
        }
    })
}

fn tmpfs(record: &Record, point: &Point) -> Result<Mount> {
    let (options, extra) = super::mounts::tmpfs_options(&record.host_config, &point.destination);
    let words = ["noexec", "nosuid", "nodev"]
        .into_iter()
        .chain(options.split(',').filter(|word| !word.is_empty()));
    let mode = parse_options(words);
    const KNOWN: [&str; 9] = [
        "size",
        "mode",
        "uid",
        "gid",
        "nr_inodes",
        "nr_blocks",
        "huge",
        "mpol",
        "inode64",
    ];
    if let Some((key, _)) = mode.data.iter().find(|(key, _)| !KNOWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!("Invalid tmpfs option [\"{key}\"]")));
    }
    let mut mount = new_fs(&point.destination, "tmpfs", &[("source", "tmpfs")], mode.attributes.set);
    if !point.rw {
        mount.attributes.set |= RDONLY;
    }
    if let Source::New { options, .. } = &mut mount.source {
        options.extend(mode.data);
        options.extend(extra);
        // Anybody may use a tmpfs, unless its mode is given.
        if !options.iter().any(|(key, _)| key == "mode") {
            options.push(("mode".to_owned(), "1777".to_owned()));
        }
    }
    Ok(mount)
}

fn process(record: &Record, world: &World) -> Result<Process> {
    let (config, host) = (&record.config, &record.host_config);
    let mask = capabilities::of(record)?;
    let args = std::iter::once(record.path.clone())
        .chain(record.args.iter().cloned())
        .collect();
    let size = host.console_size;
    let size = (u16::try_from(size[0]).unwrap_or(0), u16::try_from(size[1]).unwrap_or(0));
    Ok(Process {
        args,
        env: environment(record, world),
        cwd: if config.working_dir.is_empty() {
            "/".into()
        } else {
            PathBuf::from(&config.working_dir)
        },
        make_cwd: true,
        user: User::Named {
            user: config.user.clone(),
            groups: host.group_add.clone().unwrap_or_default(),
        },
        capabilities: capabilities::sets(mask),
        no_new_privileges: no_new_privileges(record, world)?,
        rlimits: rlimits(record, world),
        oom_score_adj: i32::try_from(host.oom_score_adj)
            .ok()
            .filter(|adjustment| *adjustment != 0),
        umask: None,
        terminal: config.tty,
        size: (config.tty && size.0 > 0 && size.1 > 0).then_some(size),
        init: host.init.unwrap_or(false) && host.pid_mode.is_empty(),
        kernel: Attached {
            apparmor: world.apparmor.of(record),
            ..Attached::default()
        },
    })
}

fn environment(record: &Record, world: &World) -> Vec<String> {
    let config = &record.config;
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", files::hostname(record, world))];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(links::environment(record, world));
    overlay_env(&mut env, config.env.iter().flatten().cloned());
    env
}

fn no_new_privileges(record: &Record, world: &World) -> Result<bool> {
    let mut wanted = world.live.get().containers.no_new_privileges;
    for option in record.host_config.security_opt.iter().flatten() {
        match option.split_once(['=', ':']) {
            None if option == "no-new-privileges" => wanted = true,
            Some(("no-new-privileges", value)) => {
                wanted = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid --security-opt 2: {option:?}")))?;
            }
            // Looked at elsewhere. Labels: as Docker where SELinux is not switched on for containers.
            Some(("label" | "apparmor" | "seccomp" | "systempaths" | "writable-cgroups", _)) => {}
            None if option == "disable" => {}
            _ => return Err(Error::invalid(format!("invalid --security-opt 1: {option:?}"))),
        }
    }
    Ok(wanted)
}

fn rlimits(record: &Record, world: &World) -> Vec<Rlimit> {
    const OPEN_FILES: &str = "nofile";
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let own = record.host_config.resources.ulimits.iter().flatten();
    let mut limits: Vec<_> = own
        .map(|own| Rlimit {
            name: own.name.clone(),
            soft: limit(own.soft),
            hard: limit(own.hard),
        })
        .collect();
    if let Some((soft, hard)) = world.config.open_files
        && !limits.iter().any(|limit| limit.name == OPEN_FILES)
    {
        limits.push(Rlimit {
            name: OPEN_FILES.to_owned(),
            soft,
            hard,
        });
    }
    limits
}

/// The process of an exec: the container's own, with what the request says.
pub(crate) fn exec_process(
    record: &Record,
    request: &ExecCreate,
    size: Option<(u16, u16)>,
    world: &World,
) -> Result<Process> {
    let mut process = process(record, world)?;
    process.args = request.cmd.clone().unwrap_or_default();
    if request.tty && !record.config.tty {
        process.env.push("TERM=xterm".to_owned());
    }
    overlay_env(&mut process.env, request.env.iter().flatten().cloned());
    process.terminal = request.tty;
    process.size = size.filter(|_| request.tty);
    process.init = false;
    if !request.user.is_empty() {
        process.user = User::Named {
            user: request.user.clone(),
            groups: Vec::new(),
        };
    }
    if !request.working_dir.is_empty() {
        process.cwd = PathBuf::from(&request.working_dir);
        process.make_cwd = false;
    }
    if request.privileged {
        process.capabilities = capabilities::sets(capabilities::all());
        process.kernel.apparmor = None;
    }
    Ok(process)
}
