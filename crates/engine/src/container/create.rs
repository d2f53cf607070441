//! Making a container: checked whole before anything is made, and unmade whole if something fails.

use std::path::Path;
use std::sync::Arc;

use ferry_api::container::{Config, Create, Created, HostConfig, Ulimit};
use ferry_api::network::mode;
use ferry_api::volume::mount_type;
use ferry_kit::Id;
use ferry_storage::{Batch, Durability, Image};
use jiff::Timestamp;

use super::point::Point;
use super::record::{Record, Run};
use super::{actor, health, kernel, links, merge, mounts, plan, resources, validate};
use crate::error::{Error, Result};
use crate::images;
use crate::networks::{self, membership};
use crate::world::World;

pub(super) async fn create(
    world: &Arc<World>,
    name: Option<&str>,
    platform: Option<&str>,
    request: Create,
) -> Result<Created> {
    let Create {
        mut config,
        host_config,
        networking_config,
        runtime,
        secrets,
    } = request;
    let mut host = host_config.unwrap_or_default();
    // One that is not known is passed over, as Docker does with each.
    if host.runtime.is_empty() && world.live.get().runtimes.has(&runtime) {
        host.runtime = runtime;
    }
    let name = name
        .map(|name| name.trim_start_matches('/'))
        .filter(|name| !name.is_empty());
    if let Some(name) = name {
        validate::name(name)?;
    }
    if config.image.is_empty() {
        return Err(Error::invalid("no image specified"));
    }
    validate::supported(&host)?;
    validate::restart(&host)?;
    links::check_request(&host, world)?;
    if let Some(check) = &config.healthcheck {
        health::validate(check)?;
    }
    let mut warnings = resources::validate(&mut host, &world.host)?;
    warnings.extend(kernel::discard(&mut host.resources, world.hierarchy.version()));
    let image = images::find_to_run(world, &config.image).await?;
    check_platform(&image, platform)?;
    warnings.extend(foreign(&image, platform));
    let given_labels = config.labels.iter().flat_map(|labels| labels.keys().cloned()).collect();
    merge::merge(&mut config, merge::image_config(&image)?);
    check_config(&config)?;
    let (path, args) = command(&config)?;
    let mounts::Drafts { points, volumes } = mounts::points(world, &host, &config)?;
    let secrets = crate::secrets::check(secrets, &config.user, &points)?;
    defaults(&mut host, world);
    crate::runtimes::check(&host, &points, world)?;
    if host.userns_mode != "auto" && points.iter().any(|point| point.idmap) {
        return Err(Error::invalid(
            "IDMap shows a bind's files with the owners of the container's own ids: it has some with --userns=auto",
        ));
    }
    let networking = membership::of_request(&world.networks, &host, networking_config)?;
    let wanted = networking
        .iter()
        .flat_map(|networking| networking.endpoints_config.iter().flatten())
        .map(|(name, settings)| (name.clone(), settings.clone().unwrap_or_default()))
        .collect();
    networks::limits::tidy(&mut host);
    networks::limits::check(&world.networks, &host, &wanted)?;
    let published = networks::publish::of_map(host.port_bindings.as_ref())?;
    warnings.extend(world.networks.warnings(&host.network_mode, &published).await);

    let id = Id::random().to_string();
    let name = match name {
        Some(name) => {
            world.containers.reserve(name, &id)?;
            name.to_owned()
        }
        None => world.containers.reserve_any(&id),
    };
    if config.hostname.is_empty() && host.uts_mode != "host" && host.network_mode != mode::HOST {
        id[..12].clone_into(&mut config.hostname);
    }
    let mut undo = Undo {
        world,
        id: &id,
        name: &name,
        done: false,
    };
    let ids = match host.userns_mode.as_str() {
        "auto" => Some(world.ids.take(&id)?),
        _ => None,
    };
    let record = Record {
        id: id.clone(),
        name: name.clone(),
        created: Timestamp::now(),
        image: image.id.to_string(),
        image_name: config.image.clone(),
        config,
        host_config: host,
        given_labels,
        networking,
        platform: "linux".to_owned(),
        path,
        args,
        mounts: with_sources(points, world),
        ids,
        secrets: secrets.names(),
        endpoints: Vec::new(),
        ports: Vec::new(),
        run: Run::default(),
    };
    // Whatever of the record cannot be started is refused now, while the user is looking.
    plan::check(&record, world)?;
    crate::seccomp::filter(&record, world)?;
    crate::logs::options::file(&record, world)?;
    warnings.extend(world.apparmor.warning(&record));
    let given: Vec<String> = crate::volumes::names(&record)
        .filter(|name| !volumes.iter().any(|made| made.name == *name))
        .map(str::to_owned)
        .collect();
    let claims = world.volumes.claim(world, volumes, &given).await?;
    let owner = ids.map(|range| (range.start, range.start));
    let durability = if record.host_config.auto_remove {
        Durability::Process
    } else {
        Durability::Power
    };
    world.wait_for_space().await;
    world.secrets.put(&record, secrets).await?;
    keep(world, &record, &image, owner, durability).await?;
    if let Err(error) = crate::volumes::copy_up(world, &record, crate::volumes::When::Made).await {
        let _ = world.store.db.delete::<Record>(&id, durability).await;
        return Err(error);
    }
    world.events.container(&record, "create", &[]);
    world.containers.insert(actor::spawn(world, record, None));
    claims.keep();
    undo.done = true;
    Ok(Created {
        id: id.clone(),
        warnings: Some(warnings),
    })
}

/// Where the files of volumes are on the host.
fn with_sources(mut points: Vec<Point>, world: &World) -> Vec<Point> {
    for point in points.iter_mut().filter(|point| point.r#type == mount_type::VOLUME) {
        let data = world.store.root().join("volumes").join(&point.name).join("_data");
        point.source = data.to_string_lossy().into_owned();
        crate::volumes::DRIVER.clone_into(&mut point.driver);
    }
    points
}

/// Makes the container's directories and writes its record.
async fn keep(
    world: &World,
    record: &Record,
    image: &Arc<Image>,
    owner: Option<(u32, u32)>,
    durability: Durability,
) -> ferry_storage::Result<()> {
    let mut batch = Batch::default();
    batch.put(record)?;
    let mounted = record.mounts.iter().filter(|point| !point.image.is_empty());
    let mounted: ferry_storage::Result<Vec<_>> =
        mounted.map(|point| world.store.images.resolve(&point.image)).collect();
    let snapshots = &world.store.snapshots;
    let prepared = snapshots.prepare(&record.id, image, mounted?, owner, batch, durability);
    let snapshot = prepared.await?;
    mark(&snapshot.upper, owner);
    Ok(())
}

/// The empty `/.dockerenv` by which programs find out that they are in a container.
fn mark(upper: &Path, owner: Option<(u32, u32)>) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = upper.join(".dockerenv");
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&path);
    let owned = made.and_then(|file| match owner {
        Some((uid, gid)) => std::os::unix::fs::fchown(file, Some(uid), Some(gid)),
        None => Ok(()),
    });
    if let Err(error) = owned {
        // A container runs without it; a disk that is full says so where it matters.
        tracing::warn!(path = %path.display(), %error, "cannot make the file");
    }
}

/// Takes back what a failed create took.
struct Undo<'a> {
    world: &'a Arc<World>,
    id: &'a str,
    name: &'a str,
    done: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.world.containers.release_name(self.name, self.id);
            self.world.ids.release(self.id);
            self.world.remove_files(self.id, async {});
        }
    }
}

fn check_platform(image: &Image, platform: Option<&str>) -> Result<()> {
    let Some(wanted) = platform.filter(|platform| !platform.is_empty()) else {
        return Ok(());
    };
    let wanted: ferry_image::Platform = wanted
        .parse()
        .map_err(|_| Error::invalid(format!("{wanted:?} is an invalid platform")))?;
    let have = format!("{}/{}", image.config.os(), image.config.architecture());
    let fits = have
        .parse::<ferry_image::Platform>()
        .is_ok_and(|have| have.os == wanted.os && have.architecture == wanted.architecture);
    if fits {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {} was found but does not provide the specified platform ({wanted})",
        image
            .references
            .first()
            .map_or_else(|| image.id.to_string(), ferry_image::Reference::familiar)
    )))
}

/// What to say of an image for another machine, which may yet run under an emulator.
fn foreign(image: &Image, asked: Option<&str>) -> Option<String> {
    let have = ferry_image::Platform::new(
        &image.config.os().to_string(),
        &image.config.architecture().to_string(),
        image.config.variant().as_deref().unwrap_or_default(),
    );
    let host = ferry_image::Platform::host();
    let asked = asked.is_some_and(|platform| !platform.is_empty());
    (!asked && !host.runs().iter().any(|can| can.architecture == have.architecture)).then(|| {
        format!(
            "The requested image's platform ({have}) does not match the detected host platform ({host}) and no specific platform was requested"
        )
    })
}

fn check_config(config: &Config) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    if config.hostname.len() > 63 {
        return Err(Error::invalid(format!(
            "invalid hostname format: {}: at most 63 bytes",
            config.hostname
        )));
    }
    if !config.stop_signal.is_empty() {
        crate::signal::parse(&config.stop_signal)?;
    }
    Ok(())
}

/// What runs: the entrypoint with the command behind it, or the command.
fn command(config: &Config) -> Result<(String, Vec<String>)> {
    let words = |words: &Option<ferry_api::Words>| words.as_ref().map(|words| words.0.clone()).unwrap_or_default();
    let entrypoint: Vec<String> = words(&config.entrypoint);
    // `--entrypoint ""` clears the image's.
    let entrypoint = if entrypoint == [""] { Vec::new() } else { entrypoint };
    let all: Vec<String> = entrypoint.into_iter().chain(words(&config.cmd)).collect();
    match all.split_first() {
        Some((path, args)) => Ok((path.clone(), args.to_vec())),
        None => Err(Error::invalid("no command specified")),
    }
}

/// What a user namespace of its own would be in the way of.
fn shares_the_host(host: &HostConfig) -> bool {
    let modes = [&host.network_mode, &host.pid_mode, &host.ipc_mode, &host.uts_mode];
    host.privileged
        || modes
            .iter()
            .any(|mode| *mode == "host" || mode.starts_with("container:"))
}

/// What Docker fills in and `inspect` then shows.
pub(super) fn defaults(host: &mut HostConfig, world: &World) {
    let set = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    if host.network_mode.is_empty() || host.network_mode == mode::DEFAULT {
        mode::BRIDGE.clone_into(&mut host.network_mode);
    }
    set(&mut host.log_config.r#type, &world.config.log_driver);
    let live = world.live.get();
    let given = &live.containers;
    set(&mut host.ipc_mode, &given.ipc);
    let group = given.cgroupns.as_deref();
    set(&mut host.cgroupns_mode, group.unwrap_or_else(|| plan::cgroupns(world)));
    set(&mut host.restart_policy.name, "no");
    set(&mut host.runtime, &live.runtimes.default);
    if host.shm_size == 0 {
        host.shm_size = given.shm_size;
    }
    host.init = host.init.or(given.init.then_some(true));
    if !given.ulimits.is_empty() {
        let own = host.resources.ulimits.get_or_insert_default();
        let missing = |limit: &&Ulimit| !own.iter().any(|own| own.name == limit.name);
        let missing: Vec<Ulimit> = given.ulimits.iter().filter(missing).cloned().collect();
        own.extend(missing);
    }
    if given.own_users && host.userns_mode.is_empty() && !shares_the_host(host) {
        "auto".clone_into(&mut host.userns_mode);
    }
    let options = host.log_config.config.get_or_insert_default();
    if host.log_config.r#type == world.config.log_driver {
        for (key, value) in &world.config.log_options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if !host.privileged {
        let strings = |paths: &[&str]| Some(paths.iter().map(|&path| path.to_owned()).collect());
        let unconfined = host
            .security_opt
            .iter()
            .flatten()
            .any(|option| option == "systempaths=unconfined");
        let empty: [&str; 0] = [];
        if host.masked_paths.is_none() {
            host.masked_paths = if unconfined {
                strings(&empty)
            } else {
                Some(plan::masked(world))
            };
        }
        if host.readonly_paths.is_none() {
            host.readonly_paths = strings(if unconfined { &empty } else { &plan::READONLY });
        }
    }
}
