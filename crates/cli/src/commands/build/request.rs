//! The command line's words as a request.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ferry_build::request::{
    Address, Call as Asked, Entitlements, Layout, Limits, Location, Named, NoCache, Request, RunOptions,
};
use ferry_kit::Id;
use rustix::fs::{Mode, OFlags};

use super::agent::{self, Agent};
use super::layouts::Caches;
use super::outputs::{self, Place};
use crate::commands::Call;
use crate::environment::Environment;
use crate::failure::{Failure, Result, io_text};
use crate::options::secrets::{self, Source};

/// The names of what the client has, in the session.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
const STDIN: &str = "stdin";

/// Arguments that are taken from the environment if nothing else is said.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What is to be built, and what the engine may ask for.
#[derive(Debug)]
pub struct Wanted {
    pub request: Request,
    pub outputs: Vec<Place>,
    pub directories: Vec<Directory>,
    pub secrets: BTreeMap<String, Source>,
    /// By id.
    pub agents: BTreeMap<String, Agent>,
    pub caches: Caches,
}

#[derive(Debug)]
pub struct Directory {
    pub name: String,
    pub fd: OwnedFd,
}

impl Wanted {
    pub fn read(call: &mut Call<'_>) -> Result<Self> {
        refuse(call)?;
        let mut wanted = Self {
            request: Request {
                id: Id::random().to_string(),
                ..Request::default()
            },
            outputs: outputs::read(call)?,
            directories: Vec::new(),
            secrets: secrets_of(call)?,
            agents: agent::read(call)?,
            caches: Caches::read(call)?,
        };
        wanted.contexts(call)?;
        for output in &wanted.outputs {
            if let Some(path) = output.path.as_deref().filter(|_| output.is_layout()) {
                wanted.caches.result(path)?;
            }
        }
        for (name, layout) in wanted.caches.layouts.clone() {
            // One that is yet to be made is not handed over: the engine asks for it.
            if layout.path.is_dir() {
                wanted.open(&name, &layout.path)?;
            }
        }
        wanted.request.cache_from.clone_from(&wanted.caches.from);
        wanted.request.build_args = build_args(call)?;
        let matches = &call.matches;
        let request = &mut wanted.request;
        request.target = matches.text("target").to_owned();
        request.platform = platform(call)?;
        request.labels = pairs(&matches.list("label"), "label", call.env)?;
        request.no_cache = match (matches.switch("no-cache"), matches.list("no-cache-filter")) {
            (true, filters) if !filters.is_empty() => {
                return Err(Failure::new(
                    "--no-cache and --no-cache-filter cannot currently be used together",
                ));
            }
            (true, _) => NoCache::All,
            (false, filters) if filters.is_empty() => NoCache::None,
            (false, filters) => {
                let stages = filters.iter().flat_map(|filter| filter.split(','));
                NoCache::Stages(stages.map(str::to_owned).collect())
            }
        };
        request.pull = matches.switch("pull");
        request.run = RunOptions {
            network: match matches.text("network") {
                "default" => String::new(),
                network => network.to_owned(),
            },
            extra_hosts: hosts(&matches.list("add-host"))?,
            hostname: String::new(),
            shm_size: matches.bytes("shm-size"),
            ulimits: ulimits(call)?,
            cgroup_parent: matches.text("cgroup-parent").to_owned(),
            limits: Limits::default(),
        };
        request.entitlements = entitlements(&matches.list("allow"))?;
        request.call = asked(call)?;
        request.explain = call.matches.switch("explain");
        request.keep_failed = call.matches.switch("debug-on-error");
        Ok(wanted)
    }

    fn open(&mut self, name: &str, path: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            let shown = path.display();
            Failure::new(format!(
                "unable to prepare context: path {:?} not found: {}",
                shown.to_string(),
                io_text(&error.into())
            ))
        })?;
        self.directories.push(Directory {
            name: name.to_owned(),
            fd,
        });
        Ok(())
    }

    /// The build's context, the Dockerfile, and contexts with names.
    fn contexts(&mut self, call: &Call<'_>) -> Result<()> {
        let context = call.matches.arguments[0].clone();
        let file = call.matches.text("file").to_owned();
        let directory = call.env.directory.clone();
        let is_local = !matches!(context.as_str(), "-") && !is_url(&context);
        self.request.context = match context.as_str() {
            "-" if file == "-" => {
                return Err(Failure::new(
                    "invalid argument: can't use stdin for both build context and dockerfile",
                ));
            }
            "-" => Location::Upload(STDIN.to_owned()),
            url if is_url(url) => Location::Url(url.to_owned()),
            path => {
                self.open(CONTEXT, &directory.join(path))?;
                Location::Directory(CONTEXT.to_owned())
            }
        };
        match file.as_str() {
            "" => {}
            "-" => self.request.dockerfile = Some(Location::Upload(STDIN.to_owned())),
            file if is_local => {
                let root = directory.join(&context);
                let path = directory.join(file);
                let (root, path) = (clean(&root), clean(&path));
                match path.strip_prefix(&root) {
                    Ok(inside) => self.request.filename = inside.display().to_string(),
                    Err(_) => {
                        let parent = path.parent().unwrap_or(Path::new("/"));
                        self.open(DOCKERFILE, parent)?;
                        self.request.dockerfile = Some(Location::Directory(DOCKERFILE.to_owned()));
                        let name = path.file_name().unwrap_or_default();
                        self.request.filename = name.to_string_lossy().into_owned();
                    }
                }
            }
            file => self.request.filename = file.to_owned(),
        }
        for text in call.matches.list("build-context") {
            let wrong = || Failure::new(format!("invalid context value: {text}, expected key=value"));
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            let name = name.to_lowercase();
            let named = if let Some(image) = value.strip_prefix("docker-image://") {
                Named::Image(image.to_owned())
            } else if let Some(layout) = value.strip_prefix("oci-layout://") {
                let (store, digest) = self.caches.context(call, layout)?;
                Named::Layout(Layout { store, digest })
            } else if value.starts_with("target:") {
                return Err(Failure::new(format!(
                    "--build-context {text}: target: is of bake files: build that target, and name its image with docker-image://"
                )));
            } else if is_url(value) {
                Named::Files(Location::Url(value.to_owned()))
            } else {
                let place = format!("{CONTEXT} {name}");
                self.open(&place, &directory.join(value))?;
                Named::Files(Location::Directory(place))
            };
            self.request.contexts.insert(name, named);
        }
        Ok(())
    }
}

/// Without `.`, and without `..` where there is something before it.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(cleaned.pop()),
            part => cleaned.push(part),
        }
    }
    cleaned
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// Options that this builder does not have.
fn refuse(call: &Call<'_>) -> Result<()> {
    const MISSING: [(&str, &str); 2] = [("annotation", "set labels with --label"), ("attest", "leave it out")];
    for (name, instead) in MISSING {
        if call.matches.is_set(name) {
            return Err(Failure::new(format!("--{name} is not there yet: {instead}")));
        }
    }
    for name in ["provenance", "sbom"] {
        if call.matches.is_set(name) && !matches!(call.matches.text(name), "false" | "0") {
            return Err(Failure::new(format!(
                "--{name} is not there yet: leave it out, or give --{name}=false"
            )));
        }
    }
    let builder = call.matches.text("builder");
    if !matches!(builder, "" | "default") {
        return Err(Failure::new(format!(
            "--builder {builder}: Ferry has one builder, the engine: leave it out"
        )));
    }
    Ok(())
}

fn asked(call: &Call<'_>) -> Result<Option<Asked>> {
    let text = match call.matches.switch("check") {
        true => "check",
        false => call.matches.text("call"),
    };
    match text.split(',').next().unwrap_or_default() {
        "" | "build" => Ok(None),
        "check" | "lint" => Ok(Some(Asked::Check)),
        "outline" => Ok(Some(Asked::Outline)),
        "targets" => Ok(Some(Asked::Targets)),
        "subrequests.describe" => Ok(Some(Asked::Describe)),
        other => Err(Failure::new(format!(
            "--call={other}: there are check, outline, targets and subrequests.describe"
        ))),
    }
}

fn platform(call: &Call<'_>) -> Result<Option<ferry_image::Platform>> {
    let mut given: Vec<String> = call.matches.list("platform");
    given.extend(
        call.env
            .variable("DOCKER_DEFAULT_PLATFORM")
            .filter(|_| given.is_empty())
            .map(str::to_owned),
    );
    let given: Vec<&str> = given
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|text| !text.is_empty())
        .collect();
    match given.as_slice() {
        [] => Ok(None),
        [one] => {
            let platform = one
                .parse()
                .map_err(|error: ferry_image::Error| Failure::new(error.to_string()))?;
            Ok(Some(platform))
        }
        _ => Err(Failure::new(
            "more than one --platform is not there yet: build for one after the other, and join the images with manifest create",
        )),
    }
}

/// `NAME=value`, or `NAME` for the environment's value.
fn pairs(list: &[String], what: &str, env: &Environment) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for text in list {
        match text.split_once('=') {
            Some(("", _)) => return Err(Failure::new(format!("invalid {what}: {text}"))),
            Some((name, value)) => drop(pairs.insert(name.to_owned(), value.to_owned())),
            None if what == "label" => drop(pairs.insert(text.clone(), String::new())),
            None => {
                if let Some(value) = env.variable(text) {
                    pairs.insert(text.clone(), value.to_owned());
                }
            }
        }
    }
    Ok(pairs)
}

fn build_args(call: &mut Call<'_>) -> Result<BTreeMap<String, String>> {
    let mut args = pairs(&call.matches.list("build-arg"), "build argument", call.env)?;
    // As buildx: the client's configuration has proxies for what is built.
    let host = call.client.host().to_string();
    for pair in call.config().proxy_variables(&host) {
        if let Some((name, value)) = pair.split_once('=')
            && PROXIES.contains(&name)
        {
            args.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    if let Some(epoch) = call.env.variable("SOURCE_DATE_EPOCH") {
        args.entry("SOURCE_DATE_EPOCH".to_owned())
            .or_insert_with(|| epoch.to_owned());
    }
    Ok(args)
}

fn hosts(list: &[String]) -> Result<Vec<(String, Address)>> {
    let mut hosts = Vec::new();
    for text in list.iter().flat_map(|text| text.split(',')) {
        let wrong = || Failure::new(format!("invalid host {text}: give host:ip, or host:host-gateway"));
        let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
        hosts.push((name.to_owned(), address.parse().map_err(|_| wrong())?));
    }
    Ok(hosts)
}

fn ulimits(call: &Call<'_>) -> Result<Vec<(String, i64, i64)>> {
    let mut limits = Vec::new();
    for text in call.matches.list("ulimit") {
        let wrong = || Failure::new(format!("invalid ulimit argument: {text}"));
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
        limits.push((name.to_owned(), number(soft)?, number(hard)?));
    }
    Ok(limits)
}

fn entitlements(list: &[String]) -> Result<Entitlements> {
    let mut allowed = Entitlements::default();
    for text in list.iter().flat_map(|text| text.split(',')) {
        match text {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.security_insecure = true,
            "device" => allowed.device = true,
            // What the client may read it reads anyway.
            text if text.starts_with("fs") || text.starts_with("ssh") => {}
            other => return Err(Failure::new(format!("invalid entitlement: {other}"))),
        }
    }
    Ok(allowed)
}

/// `id=NAME[,src=FILE|,env=VARIABLE]`; without either, the variable of that name, or the file.
fn secrets_of(call: &Call<'_>) -> Result<BTreeMap<String, Source>> {
    let mut found = BTreeMap::new();
    for text in call.matches.list("secret") {
        let (id, source) = secrets::named(&text).map_err(Failure::new)?;
        let source = source.unwrap_or_else(|| match call.env.variable(&id) {
            Some(_) => Source::Variable(id.clone()),
            None => Source::File(id.clone()),
        });
        if let Source::File(path) = &source
            && let Err(error) = std::fs::metadata(call.env.directory.join(path))
        {
            let why = io_text(&error);
            return Err(Failure::new(format!("failed to stat {path}: stat {path}: {why}")));
        }
        found.insert(id, source);
    }
    Ok(found)
}
