//! What of the benchmark to run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::engines::Engine;
use super::make::Image;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Pull,
    Again,
    Push,
    Save,
    Load,
    Remove,
}

impl Op {
    pub const ALL: [Self; 6] = [
        Self::Pull,
        Self::Again,
        Self::Push,
        Self::Save,
        Self::Load,
        Self::Remove,
    ];
    /// In this order, each as the one before it left the store.
    pub const AFTER_A_PULL: [Self; 4] = [Self::Again, Self::Push, Self::Save, Self::Remove];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Again => "pull again",
            Self::Push => "push",
            Self::Save => "save",
            Self::Load => "load",
            Self::Remove => "rmi",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Again => "again",
            other => other.name(),
        }
    }
}

#[derive(Debug)]
pub struct Options {
    pub images: Vec<Image>,
    pub ops: Vec<Op>,
    /// Ferry is always the first.
    pub engines: Vec<Engine>,
    pub rounds: usize,
    pub write: bool,
    /// For work on the benchmark itself: how much of the images, and a binary that is there.
    pub scale: f64,
    pub binary: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            images: Image::ALL.to_vec(),
            ops: Op::ALL.to_vec(),
            engines: Engine::ALL.to_vec(),
            rounds: 3,
            write: false,
            scale: 1.0,
            binary: None,
        };
        let mut rest = arguments.iter().map(String::as_str).peekable();
        while let Some(argument) = rest.next() {
            if argument == "--write" {
                options.write = true;
                continue;
            }
            let value = rest.next_if(|next| !next.starts_with("--"));
            let needed = || value.with_context(|| format!("{argument} needs a value"));
            match argument {
                "--images" => {
                    if let Some(list) = value {
                        options.images = chosen(list, &Image::ALL, Image::letter)?;
                    }
                }
                "--ops" => options.ops = chosen(needed()?, &Op::ALL, Op::word)?,
                "--engines" => options.engines = chosen(needed()?, &Engine::ALL, Engine::word)?,
                "--rounds" => options.rounds = needed()?.parse().context("--rounds")?,
                "--scale" => options.scale = needed()?.parse().context("--scale")?,
                "--binary" => options.binary = Some(PathBuf::from(needed()?)),
                other => bail!("bench --images does not know {other}"),
            }
        }
        if options.rounds == 0 || !(options.scale > 0.0 && options.scale <= 1.0) {
            bail!("there is at least one round, and a scale is more than 0 and at most 1");
        }
        if !options.engines.contains(&Engine::Ferry) {
            bail!("everything is compared with ferry: it belongs into --engines");
        }
        if options.write && (options.scale < 1.0 || options.binary.is_some()) {
            bail!("only whole images, moved by the binary that is shipped, are for the document: no --write");
        }
        Ok(options)
    }

    /// Only (b) is more than pulled: the others show nothing there that it does not.
    pub fn does(&self, image: Image, op: Op) -> bool {
        self.images.contains(&image) && self.ops.contains(&op) && (image == Image::B || op == Op::Pull)
    }
}

/// Those of `all` that a list names, in the order of `all`.
fn chosen<T: Copy + PartialEq>(list: &str, all: &[T], word: fn(T) -> &'static str) -> Result<Vec<T>> {
    let known = |name: &str| all.iter().any(|one| word(*one) == name);
    if let Some(wrong) = list.split(',').find(|name| !known(name)) {
        let words: Vec<_> = all.iter().map(|one| word(*one)).collect();
        bail!("{wrong:?} is none of {}", words.join(", "));
    }
    let named = |one: &&T| list.split(',').any(|name| word(**one) == name);
    Ok(all.iter().filter(named).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::{Engine, Image, Op, Options};

    fn parse(line: &str) -> anyhow::Result<Options> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn lists_restrict_what_runs() {
        let all = parse("--images").unwrap();
        assert_eq!((all.images.len(), all.ops.len(), all.rounds), (3, 6, 3));
        assert!(all.does(Image::B, Op::Save) && !all.does(Image::C, Op::Save) && all.does(Image::C, Op::Pull));
        let some = parse("--images c,b --ops rmi,pull --engines docker,ferry --rounds 5 --write").unwrap();
        assert_eq!(
            (some.images, some.ops),
            (vec![Image::B, Image::C], vec![Op::Pull, Op::Remove])
        );
        assert_eq!((some.engines, some.rounds), (vec![Engine::Ferry, Engine::Docker], 5));
        assert!(some.write);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (line, word) in [
            ("--images d", "\"d\""),
            ("--images --ops", "--ops"),
            ("--images --rounds 0", "round"),
            ("--images --quick", "--quick"),
            ("--images --engines ctr", "ferry"),
            ("--images --scale 0.1 --write", "--write"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
