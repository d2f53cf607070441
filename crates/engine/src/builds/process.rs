//! `RUN`: a process in a container of its own, with what it is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_api::container::{Config, HostConfig, Ulimit};
use ferry_build::graph::{Exec, ExecMount, MountKind};
use ferry_build::workspace::{Ended, Run, Tree};
use ferry_build::{Error, Result, Session, Workspace as _};
use ferry_kit::Id;
use ferry_runtime::plan::{Mount, Source, Upper};
use ferry_storage::{Held, Lent};
use ferry_supervise::Rootfs;
use ferry_sys::mount::{Attributes, NODEV, NOEXEC, NOSUID, RDONLY};

use super::workshop::{Layer, Workshop, failed};
use super::{agent, caches};
use crate::container::{Sandbox, bind, run_sandbox};
use crate::secrets::Given;

/// What a container's root has that the engine made to mount something on, relative to it.
const MADE: [&str; 8] = [
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "run",
    "sys",
    "tmp",
];
/// BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";

/// What is held as long as the process runs.
#[derive(Default)]
struct Prepared {
    mounts: Vec<Mount>,
    secrets: Given,
    env: Vec<String>,
    /// Mounts of secrets, whose files are known by the process's id: name and target.
    files: Vec<(String, String)>,
    agents: Vec<agent::Agent>,
    /// By name.
    caches: BTreeMap<String, caches::Lease>,
    drafts: Vec<ferry_storage::Draft>,
    lent: Vec<Lent>,
}

pub(super) async fn run(shop: &Workshop, run: Run<'_, Workshop>) -> Result<Ended> {
    let exec = run.exec;
    let id = Id::random().to_string();
    let mut given = Prepared::default();
    take_caches(shop, &run, &mut given).await?;
    for mount in &exec.mounts {
        prepare(shop, &run, mount, &id, &mut given).await?;
    }
    let world = &shop.world;
    for (name, target) in &given.files {
        let path = world.secrets.dir(&id).join(name);
        given
            .mounts
            .push(bind(target, path, false, RDONLY | NOSUID | NODEV | NOEXEC));
    }
    let mut made: Vec<PathBuf> = MADE.iter().map(PathBuf::from).collect();
    made.extend(exec.mounts.iter().map(|mount| relative(&mount.target)));
    let lent = ferry_storage::lend_all(&held(run.root)).await;
    let empty = shop.world.store.empty_dir();
    let mut layers: Vec<PathBuf> = lent.iter().rev().map(|lent| lent.path.clone()).collect();
    if layers.is_empty() {
        layers.push(empty);
    }
    given.lent.extend(lent);
    let sandbox = Sandbox {
        id,
        config: config(exec, &given.env),
        host: host(exec),
        args: exec.args.clone(),
        rootfs: Rootfs {
            layers,
            upper: run.draft.draft.upper(),
            work: run.draft.draft.work(),
            volatile: true,
            idmap: None,
        },
        mounts: std::mem::take(&mut given.mounts),
        secrets: std::mem::take(&mut given.secrets),
        lines: Arc::clone(&shop.lines),
    };
    let lent = std::mem::take(&mut given.lent);
    let (events, vertex) = (run.events.clone(), run.vertex.to_owned());
    let exit = run_sandbox(
        world,
        sandbox,
        move || drop(lent),
        move |stream, piece| {
            events.log(&vertex, stream, piece);
        },
    )
    .await;
    let exit = match exit {
        Ok(exit) => exit,
        // It is the step's own fault: there is no such program, or user.
        Err(error) if error.message.starts_with("unable to find") || matches!(error.exit_code(), 126 | 127) => {
            if error.message.starts_with("unable to find") {
                let command = ferry_kit::gofmt::quote(&exec.args.join(" "));
                return Err(Error::invalid(format!(
                    "process {command} did not complete successfully: {}",
                    error.message
                )));
            }
            run.events.log(run.vertex, 2, format!("{}\n", error.message));
            return Ok(Ended {
                code: 1,
                out_of_memory: false,
                made,
            });
        }
        Err(error) => return Err(Error::Internal(error.message)),
    };
    Ok(Ended {
        code: exit.code,
        out_of_memory: exit.oom_killed,
        made,
    })
}

fn held(tree: &Tree<Layer>) -> Vec<Held> {
    tree.layers.iter().map(|layer| layer.held.clone()).collect()
}

fn relative(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

fn config(exec: &Exec, more: &[String]) -> Config {
    let proxies = exec.proxies.iter().map(|(key, value)| format!("{key}={value}"));
    let env = exec.env.iter().cloned().chain(proxies).chain(more.iter().cloned());
    Config {
        env: Some(env.collect()),
        user: exec.user.clone(),
        working_dir: exec.cwd.clone(),
        hostname: match exec.hostname.as_str() {
            "" => HOSTNAME.to_owned(),
            name => name.to_owned(),
        },
        ..Config::default()
    }
}

fn host(exec: &Exec) -> HostConfig {
    let limits = &exec.limits;
    let mut host = HostConfig {
        network_mode: exec.network.clone(),
        privileged: exec.insecure,
        shm_size: exec.shm_size,
        auto_remove: true,
        ..HostConfig::default()
    };
    let hosts = exec
        .extra_hosts
        .iter()
        .map(|(name, address)| format!("{name}:{address}"));
    host.extra_hosts = Some(hosts.collect::<Vec<_>>()).filter(|hosts| !hosts.is_empty());
    let resources = &mut host.resources;
    resources.cgroup_parent.clone_from(&exec.cgroup_parent);
    resources.memory = limits.memory;
    resources.memory_swap = limits.memory_swap;
    resources.cpu_shares = limits.cpu_shares;
    resources.cpu_period = limits.cpu_period;
    resources.cpu_quota = limits.cpu_quota;
    resources.cpuset_cpus.clone_from(&limits.cpuset_cpus);
    resources.cpuset_mems.clone_from(&limits.cpuset_mems);
    let ulimits = exec.ulimits.iter().map(|(name, soft, hard)| Ulimit {
        name: name.clone(),
        soft: *soft,
        hard: *hard,
    });
    resources.ulimits = Some(ulimits.collect::<Vec<_>>()).filter(|limits| !limits.is_empty());
    host
}

/// Takes the caches of all mounts: of those with one name, as the first of them says.
async fn take_caches(shop: &Workshop, run: &Run<'_, Workshop>, given: &mut Prepared) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for mount in &run.exec.mounts {
        if let MountKind::Cache { id, input, source, .. } = &mount.kind {
            let name = caches::name(id, input.map(|_| source.as_str()));
            wanted.entry(name).or_insert(&mount.kind);
        }
    }
    for (name, kind) in wanted {
        let MountKind::Cache {
            id,
            sharing,
            input,
            source,
            mode,
            uid,
            gid,
            ..
        } = kind
        else {
            continue;
        };
        let tree = input.and_then(|input| run.inputs.get(input).cloned());
        let begin = tree.map(|tree| (tree, source.clone()));
        let access = (*mode, *uid, *gid);
        let taking = shop.shared.caches.take(shop, (&name, id), *sharing, begin, access);
        let lease = taking.await?;
        given.caches.insert(name, lease);
    }
    Ok(())
}

async fn prepare(
    shop: &Workshop,
    run: &Run<'_, Workshop>,
    mount: &ExecMount,
    id: &str,
    given: &mut Prepared,
) -> Result<()> {
    let target = &mount.target;
    match &mount.kind {
        MountKind::Bind {
            input,
            source,
            writable,
        } => {
            let tree = run.inputs.get(*input).cloned().unwrap_or_default();
            is_there(shop, &tree, source).await?;
            let bound = layers(shop, &tree, target, source, *writable, given).await?;
            given.mounts.push(bound);
        }
        MountKind::Cache {
            id,
            input,
            source,
            writable,
            ..
        } => {
            let name = caches::name(id, input.map(|_| source.as_str()));
            let missing = || Error::Internal(format!("the cache {id} was not taken"));
            let lease = given.caches.get(&name).ok_or_else(missing)?;
            let readonly = if *writable { 0 } else { RDONLY };
            let mut cache = bind(target, lease.path(), false, readonly);
            if input.is_none() {
                cache.subpath = relative(source);
            }
            given.mounts.push(cache);
        }
        MountKind::Tmpfs { size } => {
            let mut options = vec![("source".to_owned(), "tmpfs".to_owned())];
            if *size > 0 {
                options.push(("size".to_owned(), size.to_string()));
            }
            options.push(("mode".to_owned(), "1777".to_owned()));
            let mut tmpfs = bind(target, "", false, NOSUID | NODEV);
            tmpfs.source = Source::New {
                kind: "tmpfs".to_owned(),
                options,
            };
            given.mounts.push(tmpfs);
        }
        MountKind::Secret {
            id: secret,
            env,
            required,
            mode,
            uid,
            gid,
        } => {
            let Some(data) = run.session.secret(secret).await? else {
                return match required {
                    true => Err(Error::NotFound(format!("secret {secret}: not found"))),
                    false => Ok(()),
                };
            };
            if let Some(name) = env {
                let text = String::from_utf8_lossy(&data);
                given.env.push(format!("{name}={text}"));
            }
            if !target.is_empty() {
                let name = given.secrets.add(data.to_vec(), *uid, *gid, *mode);
                given.files.push((name, target.clone()));
            }
        }
        MountKind::Ssh {
            id: agent,
            required,
            mode,
            uid,
            gid,
        } => {
            let session: Arc<dyn Session> = Arc::clone(run.session);
            let offered = session.ssh(agent).await?;
            if offered.is_none() {
                return match required {
                    true => Err(Error::NotFound(format!("unset ssh forward key {agent}"))),
                    false => Ok(()),
                };
            }
            let agent = agent::Agent::listen(&shop.world, session, agent.clone(), (*mode, *uid, *gid))?;
            given.mounts.push(bind(target, agent.path(), false, 0));
            given.agents.push(agent);
        }
        MountKind::Document { content, mode } => {
            let name = given.secrets.add(content.clone(), 0, 0, *mode);
            let path = shop.world.secrets.dir(id).join(name);
            let mut script = bind(target, path, false, RDONLY);
            // It lies among the secrets, where nothing is run.
            script.attributes.clear = NOEXEC;
            given.mounts.push(script);
        }
    }
    Ok(())
}

/// A source that is not there is said so in the words for files that are copied.
async fn is_there(shop: &Workshop, tree: &Tree<Layer>, source: &str) -> Result<()> {
    if source == "/" {
        return Ok(());
    }
    let view = shop.view(tree).await?;
    match view.exists(source) {
        Ok(true) => Ok(()),
        _ => {
            let name = ferry_kit::gofmt::quote(source);
            Err(Error::NotFound(format!("{name}: not found")))
        }
    }
}

/// Files of a tree; what is written to them goes with the process.
async fn layers(
    shop: &Workshop,
    tree: &Tree<Layer>,
    target: &str,
    source: &str,
    writable: bool,
    given: &mut Prepared,
) -> Result<Mount> {
    let lent = ferry_storage::lend_all(&held(tree)).await;
    let mut layers: Vec<PathBuf> = lent.iter().rev().map(|lent| lent.path.clone()).collect();
    given.lent.extend(lent);
    if layers.is_empty() {
        layers.push(shop.world.store.empty_dir());
    }
    let upper = match writable {
        false => None,
        true => {
            let draft = shop.world.store.steps.draft();
            let draft = draft.map_err(failed("make a directory for what is lost"))?;
            let upper = Upper {
                dir: draft.upper(),
                work: draft.work(),
            };
            given.drafts.push(draft);
            Some(upper)
        }
    };
    let mut mount = bind(target, "", false, if writable { 0 } else { RDONLY });
    mount.source = Source::Layers { layers, upper };
    mount.subpath = Path::new(source)
        .strip_prefix("/")
        .unwrap_or(Path::new(source))
        .to_owned();
    mount.attributes = Attributes {
        recursive: false,
        ..mount.attributes
    };
    Ok(mount)
}
