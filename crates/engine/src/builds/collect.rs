//! Garbage collection: what is removed of what is kept, by itself.
//!
//! Some time after a build, not more often than once a minute, the rules are followed one after the other.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferry_build::output::{Kept, Prune};

use super::workshop::Shared;
use crate::config::Collection;
use crate::world::World;

/// After a build: who builds again at once is not disturbed.
const PAUSE: Duration = Duration::from_secs(1);
const AT_MOST_EVERY: Duration = Duration::from_secs(60);
const HOUR: u64 = 60 * 60;
const UNUSED_CONTENTS: Duration = Duration::from_secs(60 * 24 * HOUR);

/// When rules were followed last, and whether they are about to be.
#[derive(Debug, Default)]
pub(super) struct Collector(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_waiting: bool,
    last: Option<Instant>,
}

/// Who follows the rules, when it has waited. Dropped, however it ended, it is the next one's turn.
#[derive(Debug)]
struct Turn {
    collector: Arc<Collector>,
    pause: Duration,
}

impl Collector {
    /// `None`: somebody waits already.
    fn begin(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.is_waiting, true) {
            return None;
        }
        let since = state.last.map_or(AT_MOST_EVERY, |last| last.elapsed());
        Some(Turn {
            collector: Arc::clone(self),
            pause: AT_MOST_EVERY.saturating_sub(since).max(PAUSE),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.collector.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            is_waiting: false,
            last: Some(Instant::now()),
        };
    }
}

/// Follows the rules, soon.
pub(super) fn later(world: &Arc<World>, shared: &Arc<Shared>) {
    let rules = &world.config.builds.collection;
    if matches!(rules, Collection::Rules(rules) if rules.is_empty()) {
        return;
    }
    let Some(turn) = shared.collector.begin() else { return };
    let (world, shared) = (Arc::clone(world), Arc::clone(shared));
    tokio::spawn(async move {
        tokio::time::sleep(turn.pause).await;
        for rule in rules_of(&world.config.builds.collection, world.store.root()) {
            match super::kept::prune(&world, &shared, rule).await {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => tell(&gone),
                Err(error) => tracing::warn!(%error, "cannot remove what is kept of builds"),
            }
        }
        if let Err(error) = super::kept::forget_contents(&world, UNUSED_CONTENTS) {
            tracing::warn!(%error, "cannot forget the contents of files");
        }
        drop(turn);
    });
}

fn tell(gone: &[Kept]) {
    let bytes: u64 = gone.iter().map(|kept| kept.size).sum();
    tracing::info!(count = gone.len(), bytes, "removed what was kept of builds");
}

/// BuildKit's four: what is made again most easily goes first.
fn rules_of(collection: &Collection, root: &Path) -> Vec<Prune> {
    let (reserved, max_used, min_free) = match collection {
        Collection::Rules(rules) => return rules.clone(),
        Collection::Usual {
            reserved,
            max_used,
            min_free,
        } => (*reserved, *max_used, *min_free),
    };
    let mut caps = Prune {
        reserved,
        max_used,
        min_free,
        ..Prune::default()
    };
    if (reserved, max_used, min_free) == (0, 0, 0)
        && let Ok(disk) = rustix::fs::statvfs(root)
    {
        let tenth = disk.f_blocks.saturating_mul(disk.f_frsize) / 10;
        (caps.reserved, caps.max_used, caps.min_free) = (tenth, tenth * 8, tenth * 2);
    }
    let again = ["source.local", "exec.cachemount", "source.git.checkout"];
    vec![
        Prune {
            filters: again.map(|kind| format!("type=={kind}")).into(),
            keep_seconds: 48 * HOUR,
            max_used: 512 << 20,
            ..Prune::default()
        },
        Prune {
            keep_seconds: 60 * 24 * HOUR,
            ..caps.clone()
        },
        caps.clone(),
        Prune { all: true, ..caps },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_waits_and_not_for_long_the_first_time() {
        let collector = Arc::new(Collector::default());
        let turn = collector.begin().unwrap();
        assert_eq!(turn.pause, PAUSE);
        assert!(collector.begin().is_none());
        drop(turn);
        assert!(collector.begin().is_some_and(|turn| turn.pause > AT_MOST_EVERY / 2));
    }

    #[test]
    fn one_that_panics_does_not_keep_the_turn() {
        let collector = Arc::new(Collector::default());
        let turn = collector.begin().unwrap();
        let panics = std::thread::spawn(move || {
            let _turn = turn;
            panic!("on purpose");
        });
        assert!(panics.join().is_err());
        assert!(collector.begin().is_some());
    }

    #[test]
    fn the_usual_rules_know_the_disk() {
        let usual = |reserved| Collection::Usual {
            reserved,
            max_used: 0,
            min_free: 0,
        };
        let rules = rules_of(&usual(0), Path::new("/"));
        assert!(rules[1].max_used > rules[1].reserved && rules[1].reserved > 0);
        assert!(rules[3].all && !rules[2].all);
        let rules = rules_of(&usual(5), Path::new("/"));
        assert_eq!((rules[2].reserved, rules[2].max_used), (5, 0));
    }
}
