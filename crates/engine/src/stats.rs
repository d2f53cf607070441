//! What containers use: Docker's `stats`.
//!
//! Whoever asks within half a second gets the same sample, so it does not matter how many watch. Times of CPUs are compared
//! with those of an earlier moment: the last time that somebody asked, or that [`Sampler::tend`] looked, which does so every
//! ten seconds, or the container's start. So there is always an earlier moment, and nobody waits for a second one.

mod host;
mod sample;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferry_api::container::Stats;
use ferry_cgroup::Cpu;
use jiff::Timestamp;

use crate::container::{Handle, Snapshot};
use crate::error::{Error, Result};
use crate::world::{World, blocking};

/// A sample this old is as good as a new one.
const FRESH: Duration = Duration::from_millis(500);
/// What is nearer to each other says little of the load: the kernel counts in ticks of 10 ms.
const APART: Duration = Duration::from_millis(900);
/// How often the times of all containers are noted.
const TEND: Duration = Duration::from_secs(10);
/// How often a stream has a sample.
const PACE: Duration = Duration::from_secs(1);

/// The last samples of containers that run.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    slots: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Slot>>>>,
}

/// Of one container. `newer` and `older` are at least [`APART`] from each other.
#[derive(Debug, Default)]
struct Slot {
    older: Option<Point>,
    newer: Option<Point>,
    sample: Option<(Instant, Arc<Stats>)>,
}

/// The times of CPUs at one moment.
#[derive(Debug, Clone)]
struct Point {
    at: Instant,
    read: Timestamp,
    /// The start of the run that it is of.
    run: Option<Timestamp>,
    cpu: Cpu,
    host: host::Times,
}

/// A container whose statistics somebody watches.
#[derive(Debug)]
pub struct Watch {
    world: Arc<World>,
    handle: Handle,
    /// When the next sample of a stream is due.
    due: Option<tokio::time::Instant>,
}

impl Watch {
    pub(crate) fn new(world: Arc<World>, handle: Handle) -> Self {
        Self {
            world,
            handle,
            due: None,
        }
    }

    /// One sample. `alone`: without an earlier moment to compare it with.
    pub async fn once(&self, alone: bool) -> Result<Stats> {
        let snapshot = self.handle.snapshot();
        let mut stats = match self.world.stats.sample(&self.world, &snapshot).await? {
            Some(stats) => (*stats).clone(),
            None => Stats::default(),
        };
        if alone {
            stats.preread = ferry_api::Timestamp::ZERO;
            stats.precpu_stats = ferry_api::container::CpuStats::default();
        }
        stats.name = format!("/{}", snapshot.record.name);
        stats.id.clone_from(&snapshot.record.id);
        Ok(stats)
    }

    /// The next sample of a stream, one a second; `None` when the container is gone. One that does not run has samples too,
    /// with nothing in them.
    pub async fn next(&mut self) -> Option<Stats> {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
        }
        let now = tokio::time::Instant::now();
        self.due = Some(self.due.map_or(now, |due| due.max(now - PACE)) + PACE);
        if self.handle.snapshot().removed {
            return None;
        }
        // It may have ended while it was looked at.
        self.once(false).await.ok()
    }
}

impl Sampler {
    /// `None` for a container that does not run.
    pub async fn sample(&self, world: &Arc<World>, snapshot: &Snapshot) -> Result<Option<Arc<Stats>>> {
        let record = &snapshot.record;
        if !record.run.status.is_live() {
            return Ok(None);
        }
        let mut slot = self.slot(&record.id).lock_owned().await;
        if let Some((at, sample)) = &slot.sample
            && at.elapsed() < FRESH
            && slot
                .newer
                .as_ref()
                .is_some_and(|point| point.run == record.run.started_at)
        {
            return Ok(Some(Arc::clone(sample)));
        }
        let cgroup = world.cgroup_of(record)?;
        let (source, memory) = (sample::Source::of(&world.networks, record), world.host.memory);
        let run = record.run.started_at;
        let read = blocking("read the container's statistics", move || {
            let usage = cgroup.usage()?;
            let point = Point::now(usage.cpu.clone(), run);
            Ok::<_, ferry_cgroup::Error>((sample::of(usage, &source, memory), point))
        });
        let (mut stats, point) = match read.await? {
            Ok(read) => read,
            // It ended meanwhile.
            Err(ferry_cgroup::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(Error::internal("read the container's statistics", &error)),
        };
        let before = slot.before(&point).unwrap_or_else(|| point.start());
        (stats.read, stats.cpu_stats) = (ferry_api::Timestamp(point.read), point.shown());
        (stats.preread, stats.precpu_stats) = (ferry_api::Timestamp(before.read), before.shown());
        let stats = Arc::new(stats);
        slot.note(point);
        slot.sample = Some((Instant::now(), Arc::clone(&stats)));
        Ok(Some(stats))
    }

    fn slot(&self, id: &str) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id.to_owned()).or_default())
    }

    /// Notes the times of every container that runs, for as long as the engine does.
    pub async fn tend(world: Arc<World>) {
        let mut pace = tokio::time::interval(TEND);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = world.closing.cancelled() => return,
            }
            let mut looked_at = Vec::new();
            for handle in world.containers.all() {
                let snapshot = handle.snapshot();
                if snapshot.record.run.status.is_live()
                    && let Ok(cgroup) = world.cgroup_of(&snapshot.record)
                {
                    looked_at.push((handle.id().to_owned(), snapshot.record.run.started_at, cgroup));
                }
            }
            if looked_at.is_empty() {
                world.stats.note(Vec::new()).await;
                continue;
            }
            let points = blocking("note what containers use", move || {
                let point = |(id, run, cgroup): (String, _, ferry_cgroup::Cgroup)| {
                    Some((id, Point::now(cgroup.cpu().ok()?, run)))
                };
                looked_at.into_iter().filter_map(point).collect::<Vec<_>>()
            });
            let points = points.await.unwrap_or_default();
            world.stats.note(points).await;
        }
    }

    async fn note(&self, points: Vec<(String, Point)>) {
        let known: std::collections::HashSet<String> = points.iter().map(|(id, _)| id.clone()).collect();
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, slot| known.contains(id) || Arc::strong_count(slot) > 1);
        for (id, point) in points {
            self.slot(&id).lock().await.note(point);
        }
    }
}

impl Slot {
    /// The latest moment that is far enough from `point`, of the same run.
    fn before(&self, point: &Point) -> Option<Point> {
        let fits = |old: &&Point| old.run == point.run && point.at.saturating_duration_since(old.at) >= APART;
        self.newer
            .as_ref()
            .filter(fits)
            .or_else(|| self.older.as_ref().filter(fits))
            .cloned()
    }

    fn note(&mut self, point: Point) {
        let same = |old: &Point| old.run == point.run;
        if !self.newer.as_ref().is_some_and(same) {
            self.older = None;
            self.sample = None;
        } else if let Some(newer) = self
            .newer
            .take_if(|old| point.at.saturating_duration_since(old.at) >= APART)
        {
            self.older = Some(newer);
        }
        self.newer = Some(point);
    }
}

impl Point {
    fn now(cpu: Cpu, run: Option<Timestamp>) -> Self {
        Self {
            at: Instant::now(),
            read: Timestamp::now(),
            run,
            cpu,
            host: host::Times::read(),
        }
    }

    /// What it must have been when the run began: nothing used, and as much less of the host's time as has passed.
    fn start(&self) -> Self {
        let began = self.run.unwrap_or(self.read);
        let passed = self.read.duration_since(began).as_nanos().max(0);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let host = host::Times {
            total: self
                .host
                .total
                .saturating_sub(passed.saturating_mul(self.host.cpus.into())),
            cpus: self.host.cpus,
        };
        Self {
            at: self.at,
            read: began,
            run: self.run,
            cpu: Cpu {
                per_cpu: vec![0; self.cpu.per_cpu.len()],
                ..Cpu::default()
            },
            host,
        }
    }

    fn shown(&self) -> ferry_api::container::CpuStats {
        sample::cpu(&self.cpu, &self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: Instant, run: i64, total: u64) -> Point {
        Point {
            at,
            read: Timestamp::UNIX_EPOCH,
            run: Timestamp::from_second(run).ok(),
            cpu: Cpu {
                total,
                ..Cpu::default()
            },
            host: host::Times::default(),
        }
    }

    #[test]
    fn a_sample_is_compared_with_one_that_is_far_enough() {
        let start = Instant::now();
        let at = |milliseconds: u64, run, total| point(start + Duration::from_millis(milliseconds), run, total);
        let mut slot = Slot::default();
        assert!(slot.before(&at(0, 1, 0)).is_none());
        slot.note(at(0, 1, 1));
        assert!(slot.before(&at(600, 1, 0)).is_none());
        assert_eq!(slot.before(&at(1000, 1, 0)).unwrap().cpu.total, 1);
        slot.note(at(1000, 1, 2));
        // Soon after: not the newest, but the one before it.
        assert_eq!(slot.before(&at(1500, 1, 0)).unwrap().cpu.total, 1);
        slot.note(at(1500, 1, 3));
        assert_eq!(slot.before(&at(1600, 1, 0)).unwrap().cpu.total, 1);
        assert_eq!(slot.before(&at(2400, 1, 0)).unwrap().cpu.total, 3);
        // Another run has nothing to do with this one.
        assert!(slot.before(&at(9000, 2, 0)).is_none());
        slot.note(at(9000, 2, 4));
        assert!(slot.before(&at(9100, 2, 0)).is_none());
    }

    #[test]
    fn the_start_of_a_run_is_known_without_having_been_seen() {
        let point = Point {
            at: Instant::now(),
            read: Timestamp::from_second(110).unwrap(),
            run: Timestamp::from_second(100).ok(),
            cpu: Cpu {
                total: 5_000_000_000,
                per_cpu: vec![2, 3],
                ..Cpu::default()
            },
            host: host::Times {
                total: 100_000_000_000,
                cpus: 2,
            },
        };
        let start = point.start();
        assert_eq!((start.host.total, start.cpu.total), (80_000_000_000, 0));
        assert_eq!(start.cpu.per_cpu, [0, 0]);
    }
}
