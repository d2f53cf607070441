//! From a Dockerfile to a graph of steps and the configuration of an image, as BuildKit's `dockerfile2llb` does it.
//!
//! ```text
//! load (the file, .dockerignore) ─▶ scope (stages, arguments) ─▶ bases (images) ─▶ checks ─▶ stage by stage, from the target back
//! ```

pub mod config;
mod contexts;
mod instructions;
mod load;
mod names;
mod run;
mod stage;
mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferry_dockerfile::checks::{self, Base, On, Options, Scope};
use ferry_dockerfile::{Dockerfile, Ignore, Problem, Range};
use ferry_image::{AnyReference, Platform, Reference};
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Step, StepId};
use crate::progress::{Event, Events, SourceFile, Warning};
use crate::request::{Layout, Location, Named, Request};
use crate::session::Session;
use crate::workspace::{Image, Workspace};
use config::ImageConfig;
pub use contexts::{Contexts, Opened, Sent, directory_of, send_directory, unpack, unpack_directory};
pub(crate) use load::{Loaded, report};
use stage::Stage;

/// What a build works with. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Job<W: Workspace> {
    pub request: Arc<Request>,
    pub session: Arc<dyn Session>,
    pub workspace: W,
    pub events: Events,
}

/// What a build is to do.
#[derive(Debug)]
pub struct Plan {
    pub graph: Graph,
    /// The files of the image; without it there are none.
    pub target: Option<StepId>,
    pub image: ImageConfig,
    pub platform: Platform,
    /// The Dockerfile's name, and all of it.
    pub filename: String,
    pub source: Vec<u8>,
    /// Directories that are open already, by the names in [`crate::graph::Context`].
    pub contexts: Contexts,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<Timestamp>,
}

/// The graph while it is made.
struct Making<'a, W: Workspace> {
    job: &'a Job<W>,
    file: &'a Dockerfile,
    scope: Scope,
    graph: Graph,
    /// Stages that are done.
    stages: Vec<Option<Arc<Stage>>>,
    /// Images that are known, by name and platform.
    images: HashMap<(String, String), Image>,
    /// Steps of images and contexts.
    sources: HashMap<String, StepId>,
    contexts: Contexts,
    /// The patterns of what contexts leave out, by name.
    excluded: HashMap<String, Vec<String>>,
    epoch: Option<Timestamp>,
    /// Bytes that values of variables took.
    spent: usize,
    /// Stages that are begun.
    depth: usize,
}

/// Reads the Dockerfile alone.
pub(crate) async fn load_only<W: Workspace>(job: &Job<W>) -> Result<Loaded> {
    load::load(job, &mut Contexts::default()).await
}

/// Reads the Dockerfile and plans the build.
pub async fn plan<W: Workspace>(job: &Job<W>) -> Result<Plan> {
    let mut contexts = Contexts::default();
    let loaded = load::load(job, &mut contexts).await?;
    let file = Dockerfile::parse(&loaded.bytes).map_err(|error| loaded.explain(error))?;
    let target = &job.request.target;
    if target.is_empty() || file.stage(target).is_some() {
        job.events.note_read();
    }
    plan_file(job, &loaded, &file, contexts)
        .await
        .map_err(|error| match error {
            Error::Dockerfile(written) => loaded.explain(written.error),
            Error::Step(mut failed) => {
                failed.show(&loaded.filename, &loaded.bytes);
                Error::Step(failed)
            }
            other => other,
        })
}

/// Of all stages of a build together: each is a step, whose state is some kilobytes.
const MAX_INSTRUCTIONS: usize = 10_000;

async fn plan_file<W: Workspace>(
    job: &Job<W>,
    loaded: &load::Loaded,
    file: &Dockerfile,
    contexts: Contexts,
) -> Result<Plan> {
    let request = &job.request;
    let syntax = ferry_dockerfile::syntax(&loaded.bytes);
    load::check_syntax(syntax.as_ref().map(|syntax| syntax.reference.as_str()), request)?;
    let host = job.workspace.platform();
    let platform = request.platform.clone().unwrap_or_else(|| host.clone());
    let scope = Scope::of(file, &options(request, &host, &platform, None, &|_, _| None))?;
    let needed = file.stages.iter().zip(&scope.stages).filter(|(_, based)| based.needed);
    if needed.map(|(stage, _)| stage.instructions.len()).sum::<usize>() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(format!(
            "the target needs more than {MAX_INSTRUCTIONS} instructions: build a part of them as an image of its own"
        )));
    }
    let mut making = Making {
        job,
        file,
        stages: file.stages.iter().map(|_| None).collect(),
        scope,
        epoch: epoch(request)?,
        graph: Graph::default(),
        images: HashMap::new(),
        sources: HashMap::new(),
        contexts,
        excluded: HashMap::from([(describe(&request.context).to_owned(), loaded.exclude.clone())]),
        spent: 0,
        depth: 0,
    };
    making.find_images().await?;
    let base = |reference: &Reference, platform: &Platform| making.base(reference, platform);
    let report = checks::run(
        &loaded.bytes,
        &options(request, &host, &platform, loaded.ignore.as_ref(), &base),
    );
    let source = SourceFile {
        name: loaded.filename.clone(),
        bytes: loaded.bytes.clone().into(),
    };
    for warning in report.warnings {
        job.events.send(Event::Warning(Warning {
            vertex: loaded.vertex.clone(),
            short: format!("{}: {}", warning.rule.name(), warning.detail),
            detail: vec![warning.rule.description().to_owned()],
            url: warning.rule.url(),
            ranges: vec![warning.range],
            file: Some(source.clone()),
        }));
    }
    if let Some(error) = report.error {
        return Err(error.into());
    }
    let target = making.scope.target;
    // In the order of the file, so that hardly any waits for another.
    for index in 0..target {
        if making.scope.stages[index].needed {
            making.stage(index).await?;
        }
    }
    let stage = making.stage(target).await?;
    let mut image = stage.image.clone();
    image.config.labels.extend(request.labels.clone());
    Ok(Plan {
        graph: making.graph,
        target: stage.files,
        image,
        platform: stage.platform.clone(),
        filename: loaded.filename.clone(),
        source: loaded.bytes.clone(),
        contexts: making.contexts,
        epoch: making.epoch,
    })
}

fn options<'a>(
    request: &'a Request,
    host: &Platform,
    platform: &Platform,
    ignore: Option<&'a Ignore>,
    base: &'a dyn Fn(&Reference, &Platform) -> Option<Base>,
) -> Options<'a> {
    Options {
        arguments: request.build_args.clone(),
        target: Some(request.target.as_str()).filter(|target| !target.is_empty()),
        build_platform: host.clone(),
        target_platform: platform.clone(),
        settings: None,
        ignore,
        base,
    }
}

fn epoch(request: &Request) -> Result<Option<Timestamp>> {
    let Some(text) = request
        .build_args
        .get("SOURCE_DATE_EPOCH")
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let second = text.parse().ok().and_then(|second| Timestamp::from_second(second).ok());
    second
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("invalid SOURCE_DATE_EPOCH: {text}: give seconds since 1970")))
}

impl<W: Workspace> Making<'_, W> {
    fn add(&mut self, step: Step) -> StepId {
        self.graph.steps.push(step);
        StepId(self.graph.steps.len() - 1)
    }

    /// Finds all images that the file itself names, at once.
    async fn find_images(&mut self) -> Result<()> {
        let mut wanted: Vec<(String, Platform, Range)> = Vec::new();
        for (stage, based) in self.file.stages.iter().zip(&self.scope.stages) {
            if !based.needed {
                continue;
            }
            if let On::Image(name) = &based.on {
                wanted.push((name.clone(), based.platform.clone(), stage.range));
            }
            for instruction in &stage.instructions {
                for from in instructions::origins(&instruction.command, &self.scope)? {
                    wanted.push((from, based.platform.clone(), instruction.range));
                }
            }
        }
        wanted.retain(|(name, ..)| name != "scratch" && !self.is_files(name));
        wanted.sort_by_key(|(name, platform, _)| (name.clone(), platform.to_string()));
        wanted.dedup_by_key(|(name, platform, _)| (name.clone(), platform.to_string()));
        let job = self.job;
        let mut finding = tokio::task::JoinSet::new();
        for (name, platform, range) in wanted {
            let job = job.clone();
            let name = self.image_name(&name);
            finding.spawn(async move {
                let found = find_image(&job, &name, &platform).await;
                (name, platform, found.map_err(|error| at(error, range)))
            });
        }
        while let Some(found) = finding.join_next().await {
            let (name, platform, image) = found.map_err(|error| Error::internal("find an image", &error))?;
            self.images.insert((name, platform.to_string()), image?);
        }
        Ok(())
    }

    /// Whether a name is that of a context that is no image.
    fn is_files(&self, name: &str) -> bool {
        matches!(self.named(name), Some(Named::Files(_) | Named::Result(_)))
    }

    /// The named context that stands in the place of an image or a stage.
    fn named(&self, name: &str) -> Option<&Named> {
        named(&self.job.request, name)
    }

    /// The image that a name means, which may be another one's by `--build-context`.
    fn image_name(&self, name: &str) -> String {
        match self.named(name) {
            Some(Named::Image(other)) => other.clone(),
            _ => name.to_owned(),
        }
    }

    async fn image(&mut self, name: &str, platform: &Platform) -> Result<Image> {
        let name = self.image_name(name);
        let key = (name.clone(), platform.to_string());
        if let Some(known) = self.images.get(&key) {
            return Ok(known.clone());
        }
        let found = find_image(self.job, &name, platform).await?;
        self.images.insert(key, found.clone());
        Ok(found)
    }

    /// What the checks want to know of an image.
    fn base(&self, reference: &Reference, platform: &Platform) -> Option<Base> {
        let is = |name: &str| {
            Reference::parse_named(name).is_ok_and(|known| known.tagged().to_string() == reference.to_string())
        };
        let found = self
            .images
            .iter()
            .find(|((name, of), _)| is(name) && *of == platform.to_string());
        let (_, image) = found?;
        let config = ImageConfig::parse(&image.config).ok()?;
        let pair = |pair: &String| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        };
        Some(Base {
            variables: config.config.env.iter().map(pair).collect::<BTreeMap<_, _>>(),
            workdir: config.config.working_dir,
            shell: config.config.shell,
            triggers: config.config.on_build,
            platform: image.platform.clone(),
        })
    }

    /// The step that has an image's files.
    fn image_step(&mut self, image: Image, name: String, ranges: Vec<ferry_dockerfile::Range>) -> StepId {
        let key = format!("image {}", image.id);
        if let Some(step) = self.sources.get(&key) {
            return *step;
        }
        let step = self.add(Step {
            op: Op::Image(image),
            inputs: Vec::new(),
            name,
            ranges,
            no_cache: false,
        });
        self.sources.insert(key, step);
        step
    }
}

/// The named context that stands in the place of an image or a stage.
fn named<'a>(request: &'a Request, name: &str) -> Option<&'a Named> {
    let contexts = &request.contexts;
    let familiar = || Reference::parse_named(name).ok().map(|reference| reference.familiar());
    let full = || {
        let reference = Reference::parse_named(name).ok()?;
        Some(reference.tagged().to_string())
    };
    contexts
        .get(&name.to_lowercase())
        .or_else(|| contexts.get(&familiar()?))
        .or_else(|| contexts.get(&full()?))
}

async fn find_image<W: Workspace>(job: &Job<W>, name: &str, platform: &Platform) -> Result<Image> {
    if let Some(Named::Layout(layout)) = named(&job.request, name) {
        return find_layout(job, name, layout, platform).await;
    }
    let full = match name.parse::<AnyReference>() {
        Ok(AnyReference::Name(reference)) => reference.tagged().to_string(),
        Ok(AnyReference::Id(id)) => id.to_string(),
        Err(error) => {
            let name = ferry_kit::gofmt::quote(name);
            return Err(Error::invalid(format!("failed to parse stage name {name}: {error}")));
        }
    };
    let running = job
        .events
        .start(format!("[internal] load metadata for {full}"), Vec::new());
    let found = job
        .workspace
        .find_image(&full, platform, job.request.pull, &job.session, &job.events)
        .await
        .map_err(|error| match error {
            Error::NotFound(why) => {
                Error::NotFound(format!("{name}: failed to resolve source metadata for {full}: {why}"))
            }
            other => other,
        });
    running.end_as_step(found)
}

/// An error of an image that these lines ask for.
fn at(error: Error, range: Range) -> Error {
    match error {
        Error::Step(mut failed) => {
            failed.ranges = vec![range];
            Error::Step(failed)
        }
        Error::Invalid(why) => Problem::Invalid(why).at(range).into(),
        other => other,
    }
}

async fn find_layout<W: Workspace>(job: &Job<W>, name: &str, layout: &Layout, platform: &Platform) -> Result<Image> {
    let running = job
        .events
        .start(format!("[context {name}] OCI load from client"), Vec::new());
    let told = (&job.events, running.id());
    let found = job
        .workspace
        .find_layout(name, layout, platform, &job.session, told)
        .await;
    let found = found.map_err(|error| match error {
        Error::NotFound(why) => Error::NotFound(format!("the OCI layout of {name}: {why}")),
        Error::Invalid(why) => Error::Invalid(format!("the OCI layout of {name}: {why}")),
        other => other,
    });
    running.end_as_step(found)
}

/// A context's place in words, for a step's key and for errors.
fn describe(location: &Location) -> &str {
    match location {
        Location::Directory(name) | Location::Upload(name) | Location::Archive(name) | Location::Url(name) => name,
        Location::Nothing => "nothing",
    }
}
