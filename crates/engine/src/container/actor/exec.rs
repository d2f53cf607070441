//! Further processes in the container.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ferry_supervise::{Attach, Exec};

use super::Actor;
use crate::container::exec::Entry;
use crate::container::plan;
use crate::container::state::Verb;
use crate::error::{Error, Kind, Result, StartFailure};

impl Actor {
    pub(super) fn add_exec(&mut self, entry: Arc<Entry>) -> Result<()> {
        self.permit(Verb::Exec)?;
        self.event(
            &format!("exec_create: {}", entry.command_line()),
            &[("execID", entry.id.clone())],
        );
        self.world.execs.insert(Arc::clone(&entry));
        self.execs.push(entry);
        self.publish();
        Ok(())
    }

    /// Returns when the program runs.
    pub(super) async fn run_exec(
        &mut self,
        entry: Arc<Entry>,
        size: Option<(u16, u16)>,
        client: Option<(Attach, OwnedFd)>,
    ) -> Result<()> {
        self.permit(Verb::Exec)?;
        let cwd = &entry.request.working_dir;
        if !cwd.is_empty() && !cwd.starts_with('/') {
            entry.ended(128);
            self.forget_exec(&entry.id);
            return Err(Error::new(
                Kind::Start(StartFailure::Setup),
                "Cwd must be an absolute path",
            ));
        }
        let exec = Exec {
            id: entry.id.clone(),
            process: plan::exec_process(&self.record, &entry.request, size, &self.world)?,
            seccomp: match entry.request.privileged {
                true => Vec::new(),
                false => crate::seccomp::filter(&self.record, &self.world)?.to_vec(),
            },
            stdin: entry.request.attach_stdin,
            client,
        };
        self.event(
            &format!("exec_start: {}", entry.command_line()),
            &[("execID", entry.id.clone())],
        );
        match self.task()?.exec(exec).await {
            Ok(pid) => {
                entry.started(pid);
                Ok(())
            }
            Err(error) => {
                let error = Error::from(error);
                entry.ended(error.exit_code());
                self.forget_exec(&entry.id);
                Err(error)
            }
        }
    }

    pub(super) async fn on_exec_exit(&mut self, exec: String, code: i32) {
        if let Some(entry) = self.execs.iter().find(|entry| entry.id == exec) {
            entry.ended(code);
        }
        self.forget_exec(&exec);
        let more = [("execID", exec.clone()), ("exitCode", code.to_string())];
        self.event("exec_die", &more);
        if let Some(task) = &self.task {
            task.noted(Some(exec)).await;
        }
    }

    /// It no longer shows in `inspect`; its own record stays for a while, for whoever asks for the code.
    fn forget_exec(&mut self, exec: &str) {
        self.execs.retain(|entry| entry.id != exec);
        self.world.execs.expire(exec);
        self.publish();
    }
}
