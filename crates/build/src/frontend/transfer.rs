//! `COPY` and `ADD`.

use ferry_dockerfile::instruction::{Instruction, Transfer, is_git, is_http};
use ferry_dockerfile::{Problem, path};

use super::Making;
use super::names::shown;
use super::stage::{Noted, Stage};
use crate::error::{Error, Result};
use crate::graph::{Action, Copy, Files, Git, Http, Op, Step, StepId};
use crate::workspace::Workspace;

impl<W: Workspace> Making<'_, W> {
    pub async fn transfer(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        transfer: &Transfer,
        keyword: &'static str,
    ) -> Result<()> {
        let wrong = |what: String| Error::from(Problem::Invalid(what).at(instruction.range));
        let is_add = keyword == "ADD";
        let destination = destination(&stage.workdir, &transfer.destination);
        let from = match &transfer.from {
            Some(from) => {
                let origin = self
                    .scope
                    .copied_from(from)
                    .map_err(|problem| Error::from(problem.at(instruction.range)))?;
                let step = self.from(origin, from, &stage.platform, instruction.range).await?;
                Some(step.ok_or_else(|| wrong(format!("{from} has no files to copy")))?)
            }
            None => None,
        };
        // `--link` changes nothing, as in Docker's own engine: links of the files below count.
        let base = stage.files;
        let mut inputs: Vec<StepId> = base.into_iter().collect();
        let mut actions = Vec::new();
        let mut local: Option<Copy> = None;
        for source in &transfer.sources {
            if is_add && (is_git(source) || is_http(source)) {
                actions.extend(local.take().map(Action::Copy));
                actions.push(self.remote(stage, instruction, transfer, source, &destination, &mut inputs)?);
                continue;
            }
            let cleaned = match transfer.parents {
                true => source.trim_start_matches('/').to_owned(),
                false => path::join("/", source).trim_start_matches('/').to_owned(),
            };
            let copy = match &mut local {
                Some(copy) => copy,
                None => {
                    let step = match from {
                        Some(step) => step,
                        None => self.context(&cleaned),
                    };
                    inputs.push(step);
                    local.insert(Copy {
                        input: inputs.len() - 1,
                        unpack: is_add && transfer.unpack.unwrap_or(true),
                        ..copied(transfer, &destination)
                    })
                }
            };
            let step = inputs[copy.input];
            self.use_path(step, &cleaned);
            copy.sources.push(cleaned);
        }
        actions.extend(local.take().map(Action::Copy));
        if !transfer.documents.is_empty() {
            let files = transfer.documents.iter();
            actions.push(Action::Documents {
                files: files.map(|file| (file.name.clone(), file.content.clone())).collect(),
                destination: destination.clone(),
                chmod: transfer.chmod.clone(),
                owner: transfer.chown.clone(),
            });
        }
        let name = stage.numbering.next(&shown(&instruction.text, &stage.variables));
        let written = self.add(Step {
            op: Op::Files(Files {
                base: base.map(|_| 0),
                actions,
            }),
            inputs,
            name,
            ranges: vec![instruction.range],
            no_cache: stage.no_cache,
        });
        stage.files = Some(written);
        stage.note(history(transfer, keyword), Noted::Files);
        Ok(())
    }

    fn remote(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        transfer: &Transfer,
        source: &str,
        destination: &str,
        inputs: &mut Vec<StepId>,
    ) -> Result<Action> {
        let (op, copied_source, title) = match is_git(source) {
            true => {
                let mut git = Git::parse(source).map_err(|error| match error {
                    Error::Invalid(what) => Error::from(Problem::Invalid(what).at(instruction.range)),
                    other => other,
                })?;
                git.keep_git_dir |= transfer.keep_git_dir.unwrap_or(false);
                git.checksum = transfer.checksum.clone().or(git.checksum);
                (Op::Git(git), String::new(), source.to_owned())
            }
            false => {
                let name = file_name(source);
                let http = Http {
                    url: source.to_owned(),
                    checksum: transfer.checksum.clone(),
                    name: name.clone(),
                };
                (Op::Http(http), name, source.to_owned())
            }
        };
        let is_git = matches!(op, Op::Git(_));
        let step = self.add(Step {
            op,
            inputs: Vec::new(),
            name: title,
            ranges: vec![instruction.range],
            no_cache: stage.no_cache,
        });
        inputs.push(step);
        Ok(Action::Copy(Copy {
            input: inputs.len() - 1,
            sources: vec![copied_source],
            literal: true,
            unpack: !is_git && transfer.unpack.unwrap_or(false),
            ..copied(transfer, destination)
        }))
    }
}

/// What all copies of an instruction have in common.
fn copied(transfer: &Transfer, destination: &str) -> Copy {
    Copy {
        destination: destination.to_owned(),
        owner: transfer.chown.clone(),
        chmod: transfer.chmod.clone(),
        parents: transfer.parents,
        exclude: transfer.exclude.clone(),
        keep_owner: transfer.from.is_some(),
        ..Copy::default()
    }
}

/// Absolute; a slash or a dot at the end says that it is a directory.
fn destination(workdir: &str, written: &str) -> String {
    let joined = path::join(workdir, written);
    let is_directory = written.ends_with('/') || written.ends_with("/.") || matches!(written, "." | "");
    match is_directory && joined != "/" {
        true => format!("{joined}/"),
        false => joined,
    }
}

/// What a file at a URL is called.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let name = match path.split_once('/') {
        Some((_, path)) => path.trim_end_matches('/').rsplit('/').next().unwrap_or_default(),
        None => "",
    };
    match name {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn history(transfer: &Transfer, keyword: &str) -> String {
    let mut text = keyword.to_owned();
    if transfer.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in &transfer.sources {
        text.push_str(&format!(" {source}"));
    }
    for document in &transfer.documents {
        text.push_str(&format!(" <<{}", document.name));
    }
    format!("{text} {}", transfer.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_their_slash() {
        for (written, expected) in [
            (".", "/app/"),
            ("./", "/app/"),
            ("x", "/app/x"),
            ("x/", "/app/x/"),
            ("/", "/"),
            ("/y/../z/", "/z/"),
            ("..", "/"),
        ] {
            assert_eq!(destination("/app", written), expected, "{written}");
        }
    }

    #[test]
    fn urls_have_file_names() {
        for (url, expected) in [
            ("https://h/a/b.tgz?x=/y#z", "b.tgz"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/d/", "d"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }
}
