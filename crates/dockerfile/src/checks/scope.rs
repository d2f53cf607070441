//! Which stages a build needs, and what each is based on: for the solver.

use std::collections::HashMap;

use ferry_image::Platform;

use super::bases::{self, Parent};
use super::walk::{self, Origin};
use super::{Options, Settings, Warnings};
use crate::error::{Problem, Result};
use crate::file::Dockerfile;
use crate::words::Variables;

/// A file with the arguments of one build.
#[derive(Debug)]
pub struct Scope {
    /// What `FROM` knows, and what stages inherit by `ARG NAME`.
    pub globals: Variables,
    /// In the order of stages.
    pub stages: Vec<Based>,
    /// The stage that is built.
    pub target: usize,
    by_name: HashMap<String, usize>,
}

/// What a stage is based on.
#[derive(Debug)]
pub struct Based {
    pub on: On,
    pub platform: Platform,
    /// The target needs it, as far as the file itself says.
    pub needed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// An earlier stage.
    Stage(usize),
    Scratch,
    /// The name of an image, or of a named context.
    Image(String),
}

/// Where `--from` points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Stage(usize),
    /// An image, or a named context.
    Elsewhere,
}

impl Scope {
    /// Fails for stages that need each other in a circle, a target that is none, and what is wrong before the first stage.
    pub fn of(file: &Dockerfile, options: &Options<'_>) -> Result<Self> {
        let mut nobody = Warnings {
            settings: Settings::default(),
            found: Vec::new(),
        };
        let found = bases::find(file, options, &mut nobody)?;
        let (target, needed) = walk::needed(file, &found, options, &mut nobody)?;
        let based = |(found, needed): (bases::Found, bool)| Based {
            on: match found.base {
                Parent::Stage(index) => On::Stage(index),
                Parent::Image(name) if name == "scratch" => On::Scratch,
                Parent::Image(name) => On::Image(name),
            },
            platform: found.platform,
            needed,
        };
        let mut by_name = HashMap::new();
        for (index, stage) in file.stages.iter().enumerate() {
            by_name.extend(stage.name.clone().map(|name| (name, index)));
        }
        Ok(Self {
            globals: found.globals,
            stages: found.of.into_iter().zip(needed).map(based).collect(),
            target,
            by_name,
        })
    }

    /// `--from` of `COPY`: a number is a stage's.
    pub fn copied_from(&self, from: &str) -> Result<From, Problem> {
        walk::copy_origin(from, self.stages.len(), |name| self.mounted_from(name).into()).map(std::convert::Into::into)
    }

    /// `from` of a mount.
    pub fn mounted_from(&self, from: &str) -> From {
        match self.by_name.get(&from.to_lowercase()) {
            Some(index) => From::Stage(*index),
            None => From::Elsewhere,
        }
    }
}

impl std::convert::From<Origin> for From {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Stage(index) => Self::Stage(index),
            Origin::Elsewhere => Self::Elsewhere,
        }
    }
}

impl std::convert::From<From> for Origin {
    fn from(from: From) -> Self {
        match from {
            From::Stage(index) => Self::Stage(index),
            From::Elsewhere => Self::Elsewhere,
        }
    }
}
