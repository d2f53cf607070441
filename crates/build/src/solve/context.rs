//! Contexts of whoever asked: opened once, when a step wants their files.

use std::sync::PoisonError;

use ferry_dockerfile::Ignore;

use super::Solver;
use crate::error::{Error, Result};
use crate::frontend::Opened;
use crate::graph::{Context, StepId};
use crate::session::Wanted;
use crate::workspace::Workspace;

impl<W: Workspace> Solver<W> {
    pub(super) async fn open_context(&self, id: StepId, context: &Context) -> Result<Opened> {
        let known = self
            .contexts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&context.name)
            .cloned();
        let running = self.start(id);
        if let Some(opened) = known {
            return running.end(Ok(opened));
        }
        let opening = async {
            let ignore = Ignore::new(&context.exclude)
                .map_err(|error| Error::invalid(format!("failed parsing .dockerignore: {error}")))?;
            let wanted = Wanted {
                paths: wanted(&context.paths),
                exclude: context.exclude.clone(),
            };
            let report = crate::frontend::report(&self.job, &self.vertices[id.0], "transferring context:");
            let directory = self.job.session.directory(&context.name, &wanted, &report).await?;
            Ok(Opened::new(directory, ignore))
        };
        let opened: Result<Opened> = opening.await;
        running.end(opened)
    }
}

/// Paths as BuildKit's `followpaths`; none if one of them is everything.
fn wanted(paths: &[String]) -> Vec<String> {
    let mut wanted = Vec::new();
    for path in paths {
        let path = ferry_dockerfile::path::clean(path.trim_start_matches('/'));
        if path == "." {
            return Vec::new();
        }
        wanted.push(path);
    }
    wanted
}
