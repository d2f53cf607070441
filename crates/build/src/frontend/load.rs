//! The Dockerfile, and what its context leaves out.

use ferry_dockerfile::Ignore;

use super::contexts::{self, MAX_DOCKERFILE, Opened, Sent};
use super::{Contexts, Job};
use crate::error::{Error, Result};
use crate::progress::Status;
use crate::request::{Location, Request};
use crate::session::Wanted;
use crate::workspace::Workspace;

const DEFAULT: &str = "Dockerfile";
/// What files that ask for another frontend may ask for: it is this one.
const FRONTENDS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// A Dockerfile as it was read.
#[derive(Debug)]
pub struct Loaded {
    pub filename: String,
    pub bytes: Vec<u8>,
    /// The patterns of the build's context.
    pub exclude: Vec<String>,
    pub ignore: Option<Ignore>,
    /// The step that read it.
    pub vertex: String,
}

impl Loaded {
    /// An error with the lines it is about.
    pub fn explain(&self, error: ferry_dockerfile::Error) -> Error {
        let excerpt = error.excerpt(&self.filename, &self.bytes);
        Error::Dockerfile(Box::new(crate::error::Written {
            error,
            filename: self.filename.clone(),
            source: self.bytes.clone(),
            excerpt,
        }))
    }
}

/// Reads the Dockerfile and `.dockerignore`. What comes as a whole is open in `contexts` afterwards.
pub async fn load<W: Workspace>(job: &Job<W>, contexts: &mut Contexts) -> Result<Loaded> {
    let request = &job.request;
    let filename = match request.filename.as_str() {
        "" => DEFAULT.to_owned(),
        name => name.to_owned(),
    };
    let running = job
        .events
        .start(format!("[internal] load build definition from {filename}"), Vec::new());
    let vertex = running.id().to_owned();
    let read = async {
        let mut sent = open_sent(job, &request.context, contexts).await?;
        if let Some(location) = &request.dockerfile
            && *location != request.context
        {
            let other = open_sent(job, location, contexts).await?;
            sent = other.or(sent);
        }
        if let Some(bytes) = sent {
            return Ok((bytes, None));
        }
        let location = request.dockerfile.as_ref().unwrap_or(&request.context);
        read_files(job, location, &filename, contexts, &vertex).await
    };
    let (bytes, specific) = running.end(read.await)?;
    let exclude = match specific {
        Some(patterns) => patterns,
        None => ignored(job, contexts).await?,
    };
    let ignore =
        Ignore::new(&exclude).map_err(|error| Error::invalid(format!("failed parsing .dockerignore: {error}")))?;
    if let Some(opened) = contexts.get_mut(super::describe(&request.context)) {
        opened.ignore = std::sync::Arc::new(ignore.clone());
    }
    Ok(Loaded {
        filename,
        bytes,
        ignore: Some(ignore).filter(|_| !exclude.is_empty()),
        exclude,
        vertex,
    })
}

/// Opens what is sent as a whole. What is no archive is the Dockerfile itself, and the context is empty.
async fn open_sent<W: Workspace>(
    job: &Job<W>,
    location: &Location,
    contexts: &mut Contexts,
) -> Result<Option<Vec<u8>>> {
    let sent = match location {
        Location::Directory(_) => return Ok(None),
        Location::Upload(name) => contexts::receive(job, name).await?,
        Location::Archive(name) => contexts::receive_archive(job, name).await?,
        Location::Url(url) => job.workspace.fetch_context(url, &job.session).await?,
        Location::Nothing => Sent::Dockerfile(Vec::new()),
    };
    let (directory, dockerfile) = match sent {
        Sent::Files(directory) => (directory, None),
        Sent::Dockerfile(bytes) => (
            contexts::directory_of(job.workspace.draft().await?)?,
            Some(bytes).filter(|bytes| !bytes.is_empty()),
        ),
    };
    contexts.insert(
        super::describe(location).to_owned(),
        Opened::new(directory, Ignore::default()),
    );
    Ok(dockerfile)
}

/// The Dockerfile in a directory, and the patterns of the file of ignored paths that goes with it.
async fn read_files<W: Workspace>(
    job: &Job<W>,
    location: &Location,
    filename: &str,
    contexts: &Contexts,
    vertex: &str,
) -> Result<(Vec<u8>, Option<Vec<String>>)> {
    let name = super::describe(location);
    let specific = format!("{filename}.dockerignore");
    let fetched;
    let directory = match contexts.get(name) {
        Some(opened) => &opened.directory,
        None => {
            let mut paths = vec![filename.to_owned(), specific.clone()];
            if filename == DEFAULT {
                paths.push(DEFAULT.to_lowercase());
            }
            let wanted = Wanted {
                paths,
                exclude: Vec::new(),
            };
            let report = report(job, vertex, "transferring dockerfile:");
            fetched = std::sync::Arc::new(job.session.directory(name, &wanted, &report).await?);
            &fetched
        }
    };
    let root = &directory.root;
    let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let mut bytes = root.read(filename, MAX_DOCKERFILE);
    if filename == DEFAULT && bytes.as_ref().is_err_and(is_missing) {
        bytes = root.read(DEFAULT.to_lowercase(), MAX_DOCKERFILE);
    }
    let bytes = bytes.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => return Error::NoDockerfile(filename.to_owned()),
            std::io::ErrorKind::InvalidInput => "it is no file".to_owned(),
            std::io::ErrorKind::FileTooLarge => format!("it is longer than {MAX_DOCKERFILE} bytes"),
            _ => error.to_string(),
        };
        Error::NotFound(format!("failed to read dockerfile: open {filename}: {why}"))
    })?;
    Ok((bytes, contexts::ignore_file(root, &specific)?))
}

/// `.dockerignore` of the build's context.
async fn ignored<W: Workspace>(job: &Job<W>, contexts: &Contexts) -> Result<Vec<String>> {
    let running = job.events.start("[internal] load .dockerignore".to_owned(), Vec::new());
    let location = &job.request.context;
    let read = async {
        if let Some(opened) = contexts.get(super::describe(location)) {
            let found = contexts::ignore_file(&opened.directory.root, ".dockerignore");
            return found.map(Option::unwrap_or_default);
        }
        match location {
            Location::Directory(name) => contexts::ignored(job, name).await,
            _ => Ok(Vec::new()),
        }
    };
    running.end(read.await)
}

/// Passes on how a transfer goes, as part of a step.
pub fn report<W: Workspace>(job: &Job<W>, vertex: &str, what: &str) -> impl Fn(Status) + Send + Sync + use<W> {
    let (events, vertex, what) = (job.events.clone(), vertex.to_owned(), what.to_owned());
    move |status| {
        events.send(crate::progress::Event::Status(Status {
            vertex: vertex.clone(),
            id: what.clone(),
            ..status
        }));
    }
}

/// `# syntax=`: BuildKit's own frontend is built in; others are programs that would run with the build's files and secrets.
pub fn check_syntax(asked: Option<&str>, request: &Request) -> Result<()> {
    let given = request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let Some(reference) = given.filter(|given| !given.is_empty()).or(asked) else {
        return Ok(());
    };
    let name = ferry_image::Reference::parse_named(reference).map(|reference| reference.familiar_name());
    match name {
        Ok(name) if FRONTENDS.contains(&name.as_str()) => Ok(()),
        _ if reference == "dockerfile.v0" => Ok(()),
        _ => Err(Error::invalid(format!(
            "# syntax={reference}: Ferry runs no frontends but its own, which is docker/dockerfile: take the line out, or name that one"
        ))),
    }
}
