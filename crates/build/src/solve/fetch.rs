//! Files that are fetched for `ADD`: their key is what was fetched.

use super::{Probed, Solver, key};
use crate::error::{Error, Result};
use crate::graph::{Op, StepId};
use crate::session::BoxFuture;
use crate::workspace::{Known, Made, Tree, Workspace};

impl<W: Workspace> Solver<'_, W> {
    /// A URL's files. What a checksum promises is not fetched again.
    pub(super) async fn fetch(&self, id: StepId) -> Result<Probed<W::Layer>> {
        let step = self.step(id);
        let workspace = &self.job.workspace;
        let promised = match &step.op {
            Op::Http(http) => http.checksum.as_ref(),
            // A commit is one if it is written whole.
            Op::Git(git) => git.checksum.as_ref().filter(|commit| commit.len() >= 40),
            _ => None,
        };
        let promised = promised.map(|identity| self.fetched_key(id, identity));
        if let Some(key) = promised.filter(|_| !step.no_cache)
            && let Some(found) = workspace.recall(&key)
            && found.files.is_known()
        {
            return Ok(remembered(key, found.files));
        }
        self.fetch_now(id).await
    }

    /// The same where a cache that was said to have the files does not.
    pub(super) fn fetch_again(&self, id: StepId) -> BoxFuture<'_, Result<Tree<W::Layer>>> {
        Box::pin(async move {
            let fetched = self.fetch_now(id).await?;
            let gone = || Error::Internal(format!("{} has no files", self.step(id).name));
            fetched.files.here().ok_or_else(gone)
        })
    }

    async fn fetch_now(&self, id: StepId) -> Result<Probed<W::Layer>> {
        let step = self.step(id);
        let workspace = &self.job.workspace;
        let running = self.start(id);
        let (kind, fetched) = match &step.op {
            Op::Http(http) => ("source.http", workspace.fetch_file(http, &self.job.session).await),
            Op::Git(git) => ("source.git.checkout", workspace.fetch_git(git, &self.job.session).await),
            _ => return Err(Error::Internal("a step that fetches nothing".to_owned())),
        };
        let fetched = running.end(fetched.map_err(|error| self.at(id, error)))?;
        let key = self.fetched_key(id, &fetched.identity);
        let turn = workspace.turn(&key).await;
        if let Some(tree) = workspace.recall(&key).and_then(|found| found.files.here()) {
            return Ok(remembered(key, Known::Here(tree)));
        }
        let layer = workspace.seal(fetched.draft, &Tree::default(), Vec::new()).await?;
        let tree = Tree { layers: vec![layer] };
        let made = Made {
            key: key.clone(),
            kind,
            description: step.name.clone(),
            ..Made::default()
        };
        self.remember(made, &tree, turn);
        Ok(remembered(key, Known::Here(tree)))
    }

    fn fetched_key(&self, id: StepId, identity: &str) -> String {
        let identity = [identity.to_owned()];
        match &self.step(id).op {
            Op::Http(http) => key::key("http", &http.name, &identity),
            Op::Git(git) => key::key("git", &(&git.subdirectory, git.keep_git_dir, git.submodules), &identity),
            _ => String::new(),
        }
    }
}

fn remembered<L>(key: String, files: Known<L>) -> Probed<L> {
    Probed {
        identity: key.clone(),
        key,
        aliases: Vec::new(),
        made_of: Vec::new(),
        files,
    }
}
