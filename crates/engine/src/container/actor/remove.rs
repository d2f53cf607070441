//! Removing a container with everything that is its own.

use ferry_storage::Batch;

use super::{Actor, Stopping, Then};
use crate::container::Answer;
use crate::container::record::Record;
use crate::container::state::{Status, Verb};

/// Whether a removal is on disk before anybody hears of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Urgency {
    /// Somebody asked for it, and is told.
    Now,
    /// The container's end brought it: a new daemon would find the end, and remove it again.
    Later,
}

impl Actor {
    pub(super) async fn remove_requested(&mut self, force: bool, volumes: bool, reply: Answer<()>) {
        if let Err(error) = self.permit(Verb::Remove { force }) {
            let _ = reply.send(Err(error));
            return;
        }
        self.restart = None;
        if !self.record.run.status.is_live() {
            self.remove(volumes, Urgency::Now).await;
            let _ = reply.send(Ok(()));
            return;
        }
        self.record.run.stopped = true;
        let then = Then::Remove { volumes, reply };
        match &mut self.stopping {
            Some(stopping) => {
                stopping.deadline = None;
                stopping.then.push(then);
            }
            None => {
                self.stopping = Some(Stopping {
                    deadline: None,
                    then: vec![then],
                });
            }
        }
        self.send_kill(libc::SIGKILL).await;
    }

    /// Forgets the container; its files follow in the background. The shim cleans up what is its own by itself.
    pub(super) async fn remove(&mut self, volumes: bool, urgency: Urgency) {
        self.record.run.status = Status::Removing;
        self.clients.clear();
        let id = self.record.id.clone();
        // Removal need not survive a power loss: an unreferenced directory, or a record without one, is collected.
        let mut batch = Batch::default();
        batch.delete::<Record>(&id);
        if !volumes {
            let own = crate::volumes::own(&self.record).into_iter();
            let mut kept = own.filter_map(|name| self.world.volumes.get(&name)?.stored.kept());
            if let Err(error) = kept.try_for_each(|kept| batch.put(&kept)) {
                tracing::error!(container = id, %error, "cannot keep the container's volumes");
            }
        }
        let deleted = self.world.store.db.commit_later(batch).await;
        let container = id.clone();
        let deleted = async move {
            if let Err(error) = deleted.await {
                tracing::error!(container, %error, "cannot delete the container's record");
            }
        };
        let later = match urgency {
            Urgency::Now => {
                deleted.await;
                None
            }
            Urgency::Later => Some(deleted),
        };
        self.world.containers.release_name(&self.record.name, &id);
        self.world.containers.remove(&id);
        self.world.ids.release(&id);
        for entry in std::mem::take(&mut self.execs) {
            self.world.execs.remove(&entry.id);
        }
        if volumes {
            let own = crate::volumes::own(&self.record);
            self.world.volumes.remove_unused(&self.world, &own).await;
        }
        self.event("destroy", &[]);
        self.removed = true;
        self.publish();
        // The files go after the record: a record without files would be a container that nobody can start.
        let recorded = async {
            if let Some(deleted) = later {
                deleted.await;
            }
        };
        self.world.remove_files(&id, recorded);
    }
}
