//! Why a step is done that could have been remembered: the first thing of what it is made of that is not as it was the last time.

use std::path::Path;

use super::{Probed, Solver};
use crate::graph::StepId;
use crate::progress::{Event, Explained};
use crate::workspace::{Earlier, Workspace};

impl<W: Workspace> Solver<W> {
    /// Tells it, if that was asked for. `changed` is the first file of a copy that is another one.
    pub(super) fn explain(&self, id: StepId, probed: &Probed<W::Layer>, changed: Option<&Path>) {
        if !self.job.request.explain {
            return;
        }
        let step = self.step(id);
        let why = match step.no_cache {
            true => "it was asked for by --no-cache".to_owned(),
            false => {
                let earlier = self.job.workspace.earlier(place(&step.name));
                reason(&step.name, &probed.made_of, earlier, changed)
            }
        };
        self.job.events.send(Event::Explained(Explained {
            vertex: self.vertices[id.0].clone(),
            name: step.name.clone(),
            why,
        }));
    }
}

/// `[build 2/5]` of `[build 2/5] RUN make`.
fn place(name: &str) -> &str {
    name.split_inclusive(']').next().unwrap_or_default()
}

fn reason(name: &str, made_of: &[(String, String)], earlier: Vec<Earlier>, changed: Option<&Path>) -> String {
    let same = |earlier: &Earlier| earlier.made_of.iter().filter(|part| made_of.contains(part)).count();
    let nearest = earlier
        .into_iter()
        .max_by_key(|earlier| (earlier.description == name, same(earlier), earlier.created));
    let Some(nearest) = nearest else {
        return "nothing is remembered of a step like it".to_owned();
    };
    if nearest.description != name {
        return format!(
            "the instruction is another one: it was {}",
            instruction(&nearest.description)
        );
    }
    let differs = |(what, value): &&(String, String)| {
        let then = nearest.made_of.iter().find(|(name, _)| name == what);
        then.is_none_or(|(_, then)| then != value)
    };
    match made_of.iter().find(differs) {
        Some((what, _)) if what == "instruction" => {
            "what it is run with is not the same: environment, arguments, user, directory or mounts".to_owned()
        }
        Some((what, _)) if what == "contents" => match changed {
            Some(path) => format!("{} is not as it was", path.display()),
            None => "the files it copies are not as they were".to_owned(),
        },
        Some((what, _)) => format!("{what} changed"),
        None => "what was remembered of it is gone".to_owned(),
    }
}

fn instruction(description: &str) -> &str {
    description[place(description).len()..].trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier(description: &str, parts: &[(&str, &str)]) -> Earlier {
        Earlier {
            description: description.to_owned(),
            made_of: made_of(parts),
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn made_of(parts: &[(&str, &str)]) -> Vec<(String, String)> {
        parts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_difference_is_named() {
        let step = "[a 2/3] RUN make";
        let now = made_of(&[("instruction", "1"), ("the files below", "2")]);
        let told = |earlier: Vec<Earlier>| reason(step, &now, earlier, None);
        assert_eq!(told(Vec::new()), "nothing is remembered of a step like it");
        assert_eq!(
            told(vec![earlier("[a 2/3] RUN make all", &[("the files below", "2")])]),
            "the instruction is another one: it was RUN make all"
        );
        let below = earlier(step, &[("instruction", "1"), ("the files below", "3")]);
        let older = earlier(step, &[("instruction", "7"), ("the files below", "8")]);
        assert_eq!(told(vec![older, below]), "the files below changed");
        let other = earlier(step, &[("instruction", "7"), ("the files below", "2")]);
        assert!(told(vec![other]).contains("environment"));
        let copied = made_of(&[("instruction", "1"), ("contents", "5")]);
        let then = || vec![earlier(step, &[("instruction", "1"), ("contents", "6")])];
        assert_eq!(
            reason(step, &copied, then(), Some(Path::new("a/b"))),
            "a/b is not as it was"
        );
        assert!(reason(step, &copied, then(), None).starts_with("the files it copies"));
    }
}
