//! Whether a container is well: what is checked, and Docker's rules of what follows from the results. Pure.
//!
//! ```text
//!             success                 retries failures in a row
//!  Starting ───────────▶ Healthy ───────────────────────────────▶ Unhealthy
//!     │                     ▲                 success                 │
//!     │                     └─────────────────────────────────────────┤
//!     └── retries failures after the start period ────────────────────▶
//! ```
//!
//! A failure within the start period does not count as long as no check has succeeded. The shim makes the checks and keeps
//! the health of the run, so it is right whether or not there is a daemon.

use std::net::SocketAddr;
use std::time::Duration;

use ferry_runtime::plan::Process;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Results that are remembered.
const RESULTS: usize = 5;
/// Bytes of a check's output that are kept; what was cut ends in `...`.
pub const OUTPUT: usize = 4096;
/// The exit code of a check that did not come to an end, or not to a start.
pub const NO_CODE: i32 = -1;

/// How a shim looks after its container's health.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Between the end of a check and the next one.
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
    /// The interval within the start period, until a check succeeds.
    pub start_interval: Duration,
    /// Failures in a row that make the container unhealthy; at least 1.
    pub retries: u32,
    /// Results of the run before, which stay in sight.
    #[serde(default)]
    pub past: Vec<ProbeResult>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Probe {
    /// A program in the container; well if it exits with 0.
    Exec(Box<Process>),
    /// A GET in the container's network; well if it is answered with 200 to 399.
    Http { address: SocketAddr, path: String },
    /// Well if somebody listens there, in the container's network.
    Tcp(SocketAddr),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How well a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: Vec<ProbeResult>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    pub start: Timestamp,
    pub end: Timestamp,
    /// 0 is well; [`NO_CODE`] without one.
    pub exit_code: i32,
    pub output: String,
}

impl Health {
    /// At the start of a run.
    pub fn new(past: Vec<ProbeResult>) -> Self {
        Self {
            log: past,
            ..Self::default()
        }
    }

    /// What follows from a result. `started`: the container's start.
    pub fn note(&mut self, result: ProbeResult, check: &HealthCheck, started: Timestamp) {
        let well = result.exit_code == 0;
        let age = Duration::try_from(result.start.duration_since(started)).unwrap_or_default();
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(RESULTS);
        self.log.drain(..surplus);
        if well {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || age >= check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
    }

    /// How long until the next check. `age`: of the container.
    pub fn interval(&self, check: &HealthCheck, age: Duration) -> Duration {
        if age < check.start_period && self.status == HealthStatus::Starting {
            check.start_interval
        } else {
            check.interval
        }
    }

    /// Nobody checks any more: Docker calls that unhealthy.
    pub fn stop(&mut self) {
        self.status = HealthStatus::Unhealthy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64, retries: u32) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp(SocketAddr::from(([127, 0, 0, 1], 80))),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::from_secs(5),
            retries,
            past: Vec::new(),
        }
    }

    /// The letters and streaks after results at seconds after the start.
    fn run(check: &HealthCheck, results: &[(i64, i32)]) -> Vec<(char, u32)> {
        let mut health = Health::default();
        let started = Timestamp::UNIX_EPOCH;
        let mut seen = Vec::new();
        for &(second, exit_code) in results {
            let start = Timestamp::from_second(second).unwrap();
            let result = ProbeResult {
                start,
                end: start,
                exit_code,
                output: String::new(),
            };
            health.note(result, check, started);
            let letter = health.status.name().chars().next().unwrap();
            seen.push((letter, health.failing_streak));
        }
        seen
    }

    #[test]
    fn the_states_follow_one_another_as_dockers_do() {
        let plain = check(0, 3);
        assert_eq!(
            run(&plain, &[(1, 1), (2, -1), (3, 1), (4, 1), (5, 0), (6, 1), (7, 0)]),
            [('s', 1), ('s', 2), ('u', 3), ('u', 4), ('h', 0), ('h', 1), ('h', 0)]
        );
        // Within the start period failures do not count, until a check has succeeded.
        let patient = check(10, 2);
        assert_eq!(
            run(&patient, &[(1, 1), (9, 1), (10, 1), (11, 1)]),
            [('s', 0), ('s', 0), ('s', 1), ('u', 2)]
        );
        assert_eq!(
            run(&patient, &[(1, 1), (2, 0), (3, 1), (4, 1)]),
            [('s', 0), ('h', 0), ('h', 1), ('u', 2)]
        );
    }

    #[test]
    fn checks_come_sooner_until_the_first_success_in_the_start_period() {
        let patient = check(10, 2);
        let mut health = Health::default();
        let seconds = |health: &Health, age| health.interval(&patient, Duration::from_secs(age)).as_secs();
        assert_eq!((seconds(&health, 0), seconds(&health, 10)), (5, 30));
        health.status = HealthStatus::Healthy;
        assert_eq!(seconds(&health, 0), 30);
    }

    #[test]
    fn five_results_are_remembered() {
        let plain = check(0, 3);
        let mut health = Health::default();
        for exit_code in 0..9 {
            let now = Timestamp::UNIX_EPOCH;
            let result = ProbeResult {
                start: now,
                end: now,
                exit_code,
                output: String::new(),
            };
            health.note(result, &plain, now);
        }
        let codes: Vec<_> = health.log.iter().map(|result| result.exit_code).collect();
        assert_eq!(codes, [4, 5, 6, 7, 8]);
    }
}
