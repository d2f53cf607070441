//! A daemon under load, killed at random moments, and what must hold after each: for `cargo xtask soak --kills` and, in
//! short, for a test.
//!
//! ```text
//! steady containers    write numbered lines, all the while
//! three clients        run, stop, rm, exec, create with a volume: again and again, whatever becomes of each
//! siege                sleep a moment ─▶ kill -9 ─▶ start ─▶ same processes, no ghost, right exit codes
//! ```
//! At the end no line of a log is missing, and dropping the daemon finds nothing left.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::daemon::TestDaemon;
use crate::images::BUSYBOX;
use crate::{Program, wait_for_none};

/// How long a daemon lives at most before it is killed.
const LIFE: u64 = 400;
/// Until it answers again, with everything found.
const BACK: Duration = Duration::from_secs(5);
const LINES: &str = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.5; done";

/// What happened, for people.
#[derive(Debug, Default)]
pub struct Outcome {
    pub kills: u64,
    /// Containers that ran to their end, whose exit code was looked at.
    pub ended: u64,
    pub lines: u64,
    /// From the start of a daemon until its answer, at most.
    pub back: Duration,
}

/// Lays siege to a daemon with `steady` containers, `kills` times. Panics at the first thing that does not hold.
pub fn lay(steady: usize, kills: u64, seed: u64) -> Outcome {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let names: Vec<String> = (0..steady).map(|number| format!("steady-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let network = ["bridge", "none"][number % 2];
        let run = [
            "run",
            "-d",
            "--name",
            name,
            "--network",
            network,
            BUSYBOX,
            "sh",
            "-c",
            LINES,
        ];
        daemon.cli(run).ok();
    }
    let before = identities(&daemon, &names);
    let mut outcome = Outcome::default();
    let mut chance = Chance(seed);
    let (over, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = daemon.run_dir().join("ferry.sock");
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        for worker in 0..3 {
            let (client, over, turns) = (Client::new(&socket, Program::Ferry), &over, &turns);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    work(&client, worker, turns.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(chance.below(LIFE)));
            daemon.kill9();
            let begin = Instant::now();
            daemon.start_again();
            assert_eq!(
                identities(&daemon, &names),
                before,
                "a container was lost or started anew"
            );
            outcome.back = outcome.back.max(begin.elapsed());
            assert!(outcome.back < BACK, "not back after {:?}", outcome.back);
            outcome.kills += 1;
            outcome.ended += look_at_codes(&daemon);
        }
    });
    outcome.ended += look_at_codes(&daemon);
    let stray: Vec<String> = listed(&daemon)
        .into_keys()
        .filter(|name| !names.contains(name))
        .collect();
    for name in stray {
        daemon.cli(["rm", "-f", "-v", &name]).ok();
    }
    wait_for_none("what belongs to no container", || daemon.ghosts());
    for name in &names {
        let log = daemon.cli(["logs", name]).ok();
        for (number, line) in (1..).zip(log.lines()) {
            assert_eq!(line, format!("line {number}"), "of {name}");
            outcome.lines += 1;
        }
    }
    daemon.cli(["volume", "prune", "-af"]).ok();
    daemon.finish();
    outcome
}

/// One thing that users do. Whatever the daemon's death makes of it is right, but for what stays behind.
fn work(client: &Client, worker: u64, turn: u64) {
    let code = turn % 100;
    let name = format!("w{worker}-{turn}-{code}");
    let script = format!("exit {code}");
    let lines: Vec<Vec<&str>> = match turn % 5 {
        // Kept until somebody has looked at the code.
        0 => vec![vec!["run", "-d", "--name", &name, BUSYBOX, "sh", "-c", &script]],
        1 => vec![vec!["run", "--rm", BUSYBOX, "true"]],
        2 => vec![
            vec!["run", "-d", "--name", &name, BUSYBOX, "sleep", "1000"],
            vec!["stop", "-t", "0", &name],
            vec!["rm", "-f", &name],
        ],
        3 => vec![vec!["exec", "steady-0", "true"]],
        _ => vec![
            vec!["create", "--name", &name, "-v", "/etc", BUSYBOX, "true"],
            vec!["rm", "-f", "-v", &name],
        ],
    };
    for line in lines {
        let mut command: Command = client.run(line).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
    std::thread::sleep(Duration::from_millis(5));
}

/// Of those that ended by themselves the code is that of their names. They are removed.
fn look_at_codes(daemon: &TestDaemon) -> u64 {
    let mut seen = 0;
    for (name, status) in listed(daemon) {
        let mut parts = name.strip_prefix('w').unwrap_or_default().split('-').skip(1);
        let (Some(turn), Some(code)) = (parts.next(), parts.next()) else {
            continue;
        };
        let ends = turn.parse::<u64>().is_ok_and(|turn| turn % 5 == 0);
        let Some(said) = status.strip_prefix("Exited (").filter(|_| ends) else {
            continue;
        };
        let said = said.split(')').next().unwrap_or_default();
        assert_eq!(said, code, "{name}: {status}");
        daemon.cli(["rm", &name]).ok();
        seen += 1;
    }
    seen
}

/// Names and what `ps` says of them.
fn listed(daemon: &TestDaemon) -> BTreeMap<String, String> {
    let list = daemon.cli(["ps", "-a", "--format", "{{.Names}}|{{.Status}}"]).ok();
    let split = |line: &str| {
        line.split_once('|')
            .map(|(name, status)| (name.to_owned(), status.to_owned()))
    };
    list.lines().filter_map(split).collect()
}

/// Process numbers and start times (clock ticks since boot, proc(5) field 22).
fn identities(daemon: &TestDaemon, names: &[String]) -> Vec<(u32, String)> {
    let one = |name: &String| {
        let pid = daemon.pid(name);
        let stat =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let start = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().to_owned();
        (pid, start)
    };
    names.iter().map(one).collect()
}

/// A panic of one thread ends the others.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// xorshift64: the same moments for the same seed, which is not 0.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
