//! `--output`: what becomes of a build, and where it goes here.

use std::path::PathBuf;

use ferry_build::output::{Output, OutputKind};

use crate::commands::Call;
use crate::failure::{Failure, Result};
use crate::options::mounts;

/// One output; `path` is where the client puts it, `None` for standard output.
#[derive(Debug)]
pub struct Place {
    pub output: Output,
    pub path: Option<PathBuf>,
}

impl Place {
    /// An OCI layout as a directory.
    pub fn is_layout(&self) -> bool {
        let is_image = matches!(self.output.kind, OutputKind::Oci | OutputKind::Docker);
        let tar = self.output.attributes.get("tar");
        is_image && tar.is_some_and(|tar| matches!(tar.as_str(), "false" | "0"))
    }
}

pub fn read(call: &Call<'_>) -> Result<Vec<Place>> {
    let tags = call.matches.list("tag");
    for tag in &tags {
        ferry_image::Reference::parse_named(tag).map_err(|error| {
            let shown = ferry_kit::gofmt::quote(tag);
            Failure::new(format!("invalid tag {shown}: {error}"))
        })?;
    }
    let mut places = Vec::new();
    for text in call.matches.list("output") {
        places.push(one(call, &text)?);
    }
    let image = |push: bool| {
        let mut output = Output::default();
        if push {
            output.attributes.insert("push".to_owned(), "true".to_owned());
        }
        Place { output, path: None }
    };
    if call.matches.switch("push") {
        places.push(image(true));
    }
    let is_cache_only = call.matches.list("output").iter().any(|text| text == "type=cacheonly");
    if (places.is_empty() && !is_cache_only)
        || call.matches.switch("load") && places.iter().all(|place| place.output.kind != OutputKind::Image)
    {
        places.push(image(false));
    }
    for place in &mut places {
        let names = place.output.attributes.entry("name".to_owned()).or_default();
        if names.is_empty() {
            *names = tags.join(",");
        }
    }
    places.retain(|place| !place.output.attributes.contains_key("nothing"));
    Ok(places)
}

fn one(call: &Call<'_>, text: &str) -> Result<Place> {
    let directory = |path: &str| call.env.directory.join(path);
    let files = |kind, path| Place {
        output: Output {
            kind,
            ..Output::default()
        },
        path,
    };
    if text == "-" {
        return Ok(files(OutputKind::Tar, None));
    }
    if !text.contains('=') {
        return Ok(files(OutputKind::Local, Some(directory(text))));
    }
    let (mut kind, mut destination) = ("", None);
    let mut output = Output::default();
    let fields = mounts::fields(text).map_err(Failure::new)?;
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid value {field}")))?;
        match key {
            "type" => kind = value,
            "dest" => destination = Some(value),
            _ => drop(output.attributes.insert(key.to_owned(), value.to_owned())),
        }
    }
    output.kind = match kind {
        "image" => OutputKind::Image,
        "registry" => {
            output.attributes.insert("push".to_owned(), "true".to_owned());
            OutputKind::Image
        }
        "docker" if destination.is_none() => OutputKind::Image,
        "docker" => OutputKind::Docker,
        "oci" => OutputKind::Oci,
        "tar" => OutputKind::Tar,
        "local" => OutputKind::Local,
        "cacheonly" => {
            output.attributes.insert("nothing".to_owned(), String::new());
            OutputKind::Image
        }
        "" => return Err(Failure::new("type is required for output")),
        other => {
            return Err(Failure::new(format!(
                "unsupported output type {other}: there are image, registry, docker, oci, tar, local and cacheonly"
            )));
        }
    };
    const KNOWN: [&str; 4] = ["name", "push", "tar", "nothing"];
    if let Some(unknown) = output.attributes.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Failure::new(format!(
            "--output: {unknown} is not there yet: leave it out"
        )));
    }
    let path = match (output.kind, destination) {
        (OutputKind::Image, _) | (_, Some("-")) => None,
        (OutputKind::Local, None) => return Err(Failure::new("dest is required for local output")),
        (_, None) => None,
        (_, Some(path)) => Some(directory(path)),
    };
    let place = Place { output, path };
    match place.is_layout() && place.path.is_none() {
        true => Err(Failure::new("dest is required for tar=false")),
        false => Ok(place),
    }
}
