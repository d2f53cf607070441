//! Caches of builds that are kept elsewhere: where they come from and where they go.

use std::collections::BTreeMap;

use ferry_image::Digest;
use ferry_image::media::Compression;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The argument that asks for a cache in the image itself, from before there was `--cache-to`.
pub const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";
const TAG: &str = "latest";

pub type Attributes = BTreeMap<String, String>;

/// One `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheSource {
    /// A cache in a registry, or an image that holds one.
    Registry(String),
    Local(Layout),
}

/// An OCI layout in a directory of the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub path: String,
    /// Of the manifest in its index.
    pub tag: String,
    /// The manifest's; one that is written has none.
    pub digest: Option<Digest>,
}

/// One `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDestination {
    pub place: Place,
    /// All steps of the build, not only those whose layers the result has.
    pub is_max: bool,
    pub packing: Packing,
    /// A manifest; else an index, as BuildKit wrote it first.
    pub is_manifest: bool,
    /// OCI's media types; else Docker's.
    pub is_oci: bool,
    /// The build is none the worse if it cannot be written.
    pub ignore_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The configuration of the image that is built.
    Inline,
    Registry(String),
    Local(Layout),
}

/// How layers travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    pub compression: Compression,
    pub level: Option<i32>,
    /// Also those that are packed otherwise already.
    pub force: bool,
}

impl Layout {
    /// What its content store is called in the client's session.
    pub fn store(&self) -> String {
        format!("local:{}", self.path)
    }
}

impl CacheSource {
    /// Reads what is between the commas of an option: a reference, or pairs.
    pub fn parse(fields: &[String]) -> Result<Self> {
        match reference_of(fields) {
            Some(reference) => Self::new("registry", Attributes::from([("ref".to_owned(), reference)])),
            None => {
                let (kind, attributes) = pairs("--cache-from", fields)?;
                Self::new(&kind, attributes)
            }
        }
    }

    pub fn new(kind: &str, attributes: Attributes) -> Result<Self> {
        let mut given = Given::new("--cache-from", kind, attributes)?;
        let source = match kind {
            "registry" => Self::Registry(given.required("ref")?),
            "local" => {
                let digest = given.take("digest");
                let digest = digest.map(|text| text.parse().map_err(|_| given.wrong("digest", &text)));
                Self::Local(Layout {
                    digest: digest.transpose()?,
                    path: given.required("src")?,
                    tag: given.take("tag").unwrap_or_else(|| TAG.to_owned()),
                })
            }
            "inline" => {
                return Err(Error::invalid(
                    "--cache-from type=inline: name the image that holds the cache: type=registry,ref=IMAGE",
                ));
            }
            other => return Err(unknown("--cache-from", other)),
        };
        given.end(source)
    }
}

impl CacheDestination {
    /// Reads what is between the commas of an option: a reference, or pairs.
    pub fn parse(fields: &[String]) -> Result<Self> {
        match reference_of(fields) {
            Some(reference) => Self::new("registry", Attributes::from([("ref".to_owned(), reference)])),
            None => {
                let (kind, attributes) = pairs("--cache-to", fields)?;
                Self::new(&kind, attributes)
            }
        }
    }

    pub fn inline() -> Self {
        Self {
            place: Place::Inline,
            is_max: false,
            packing: Packing::default(),
            is_manifest: true,
            is_oci: true,
            ignore_error: false,
        }
    }

    pub fn new(kind: &str, attributes: Attributes) -> Result<Self> {
        let mut given = Given::new("--cache-to", kind, attributes)?;
        let place = match kind {
            "inline" => Place::Inline,
            "registry" => Place::Registry(given.required("ref")?),
            "local" => Place::Local(Layout {
                path: given.required("dest")?,
                tag: given.take("tag").unwrap_or_else(|| TAG.to_owned()),
                digest: None,
            }),
            other => return Err(unknown("--cache-to", other)),
        };
        let is_max = match given.take("mode").as_deref() {
            None | Some("min") => false,
            Some("max") if place == Place::Inline => {
                return Err(Error::invalid(
                    "--cache-to type=inline,mode=max: an image holds its own layers only: use type=registry for all",
                ));
            }
            Some("max") => true,
            Some(other) => return Err(given.wrong("mode", other)),
        };
        let ignore_error = given.flag("ignore-error")?.unwrap_or(false);
        if place == Place::Inline {
            let inline = Self {
                ignore_error,
                ..Self::inline()
            };
            return given.end(inline);
        }
        let is_oci = given.flag("oci-mediatypes")?.unwrap_or(true);
        let is_manifest = given.flag("image-manifest")?.unwrap_or(is_oci);
        if is_manifest && !is_oci {
            return Err(Error::invalid(
                "--cache-to: image-manifest=true goes with oci-mediatypes=true only",
            ));
        }
        let packing = given.packing()?;
        given.end(Self {
            place,
            is_max,
            packing,
            is_manifest,
            is_oci,
            ignore_error,
        })
    }
}

/// The name of an image, instead of pairs.
fn reference_of(fields: &[String]) -> Option<String> {
    match fields {
        [only] if !only.contains('=') => Some(only.clone()),
        _ => None,
    }
}

fn pairs(option: &str, fields: &[String]) -> Result<(String, Attributes)> {
    let (mut kind, mut attributes) = (String::new(), Attributes::new());
    for field in fields {
        let wrong = || Error::invalid(format!("{option}: invalid value {field}: give NAME=VALUE"));
        let (name, value) = field.split_once('=').ok_or_else(wrong)?;
        match name.to_lowercase().as_str() {
            "type" => value.clone_into(&mut kind),
            name => drop(attributes.insert(name.to_owned(), value.to_owned())),
        }
    }
    match kind.as_str() {
        "" => Err(Error::invalid(format!(
            "{option}: type is required: {}",
            fields.join(",")
        ))),
        _ => Ok((kind, attributes)),
    }
}

fn unknown(option: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "{option}: there is no cache of type {kind}: use type=registry,ref=IMAGE or type=local, or type=inline with --cache-to"
    ))
}

/// Attributes that nobody has read yet.
struct Given<'a> {
    option: &'a str,
    kind: &'a str,
    left: Attributes,
}

impl<'a> Given<'a> {
    fn new(option: &'a str, kind: &'a str, left: Attributes) -> Result<Self> {
        /// Bytes of a value.
        const MOST: usize = 4096;
        match left.iter().find(|(_, value)| value.len() > MOST) {
            Some((name, _)) => Err(Error::invalid(format!("{option}: {name} has more than {MOST} bytes"))),
            None => Ok(Self { option, kind, left }),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str) -> Result<String> {
        let (option, kind) = (self.option, self.kind);
        let missing = || Error::invalid(format!("{option} type={kind}: {name} is required"));
        self.take(name).ok_or_else(missing)
    }

    fn wrong(&self, name: &str, value: &str) -> Error {
        Error::invalid(format!("{} type={}: invalid {name}: {value}", self.option, self.kind))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            value => Err(self.wrong(name, value)),
        }
    }

    fn packing(&mut self) -> Result<Packing> {
        let (compression, levels) = match self.take("compression").as_deref() {
            None | Some("gzip") => (Compression::Gzip, 0..=9),
            Some("zstd") => (Compression::Zstd, 1..=22),
            Some("uncompressed") => (Compression::None, 0..=0),
            Some(other) => {
                return Err(self.wrong("compression", &format!("{other}: there are gzip, zstd, uncompressed")));
            }
        };
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => {
                let level = text.parse().ok().filter(|level| levels.contains(level));
                Some(level.ok_or_else(|| self.wrong("compression-level", &text))?)
            }
        };
        Ok(Packing {
            compression,
            level,
            force: self.flag("force-compression")?.unwrap_or(false),
        })
    }

    /// Refuses what nobody has read.
    fn end<T>(self, read: T) -> Result<T> {
        match self.left.keys().next() {
            None => Ok(read),
            Some(name) => Err(Error::invalid(format!(
                "{} type={}: there is no attribute {name}: leave it out",
                self.option, self.kind
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn from(text: &str) -> Result<CacheSource> {
        CacheSource::parse(&fields(text))
    }

    fn to(text: &str) -> Result<CacheDestination> {
        CacheDestination::parse(&fields(text))
    }

    #[test]
    fn sources_are_read() {
        let registry = CacheSource::Registry("user/app:cache".to_owned());
        assert_eq!(from("user/app:cache").unwrap(), registry);
        assert_eq!(from("type=registry,ref=user/app:cache").unwrap(), registry);
        let CacheSource::Local(layout) = from("type=local,src=dir").unwrap() else {
            panic!("not local");
        };
        assert_eq!(
            (layout.store().as_str(), layout.tag.as_str(), layout.digest),
            ("local:dir", "latest", None)
        );
    }

    #[test]
    fn destinations_are_read() {
        let min = to("user/app:cache").unwrap();
        assert!(!min.is_max && min.is_manifest && min.is_oci && min.packing.compression == Compression::Gzip);
        let max = to(
            "type=local,dest=d,tag=t,mode=max,compression=zstd,compression-level=22,force-compression=true,ignore-error=1",
        );
        let max = max.unwrap();
        assert!(max.is_max && max.packing.force && max.ignore_error && max.packing.level == Some(22));
        assert!(!to("type=registry,ref=x,oci-mediatypes=false").unwrap().is_manifest);
        assert_eq!(to("type=inline").unwrap(), CacheDestination::inline());
        assert_eq!(to("type=inline,mode=min").unwrap().place, Place::Inline);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (read, text) in [
            (from("type=gha,scope=x").err(), "gha"),
            (from("type=inline").err(), "type=registry,ref=IMAGE"),
            (from("type=local").err(), "src is required"),
            (from("type=local,src=x,digest=y").err(), "invalid digest: y"),
            (from("type=registry,ref=x,mode=max").err(), "no attribute mode"),
            (from("ref=x").err(), "type is required"),
            (from("type=local,x").err(), "invalid value x"),
            (to("type=s3,bucket=x").err(), "s3"),
            (to("type=azblob").err(), "azblob"),
            (to("type=registry").err(), "ref is required"),
            (to("type=inline,mode=max").err(), "type=registry"),
            (to("type=inline,compression=zstd").err(), "no attribute compression"),
            (to("type=registry,ref=x,mode=all").err(), "invalid mode: all"),
            (to("type=registry,ref=x,compression=estargz").err(), "estargz"),
            (
                to("type=registry,ref=x,compression-level=10").err(),
                "compression-level: 10",
            ),
            (
                to("type=registry,ref=x,oci-mediatypes=0,image-manifest=1").err(),
                "oci-mediatypes",
            ),
            (to("type=registry,ref=x,force-compression=maybe").err(), "maybe"),
            (to("type=local,dest=x,token=secret").err(), "no attribute token"),
        ] {
            let error = read.unwrap().to_string();
            assert!(error.contains(text), "{text}: {error}");
        }
    }
}
