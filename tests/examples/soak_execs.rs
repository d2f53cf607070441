//! `cargo xtask soak --execs`: commands in one container through the engine, many at once: no byte lost, no wrong exit code, and
//! neither engine nor shim grows.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ferry_testkit::{TestDaemon, http};
use serde_json::{Value, json};

const USAGE: &str = "soak --execs [EXECS [AT-ONCE]]";
/// Of a process: what the allocator and the caches have reached when a tenth is done may grow by so much until the end.
const GROWTH_KIB: u64 = 4096;
const GROWTH_FILES: u64 = 16;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let (Ok(execs), Ok(at_once)) = (number(0, 100_000), number(1, 16)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let daemon = TestDaemon::start();
    daemon.sleeper("box", &[]);
    let next = AtomicU64::new(0);
    let begin = Instant::now();
    let run = |end: u64| {
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            break;
                        }
                        one(&daemon, number);
                    }
                });
            }
        });
        next.store(end, Ordering::Relaxed);
    };
    run(execs / 10);
    let early = weights(&daemon);
    run(execs);
    let late = weights(&daemon);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{execs} execs, {at_once} at once, in {seconds:.0} s ({:.2} ms each)",
        seconds * 1000.0 / f64::from(u32::try_from(execs).unwrap_or(u32::MAX))
    );
    for ((who, memory, files), (_, memory_late, files_late)) in early.iter().zip(&late) {
        println!(
            "{who}: {memory} kB and {files} files after a tenth, {memory_late} kB and {files_late} files at the end"
        );
        assert!(*memory_late <= memory + GROWTH_KIB, "{who} grows");
        assert!(*files_late <= files + GROWTH_FILES, "{who} keeps files open");
    }
    ExitCode::SUCCESS
}

/// Every seventh fails with a code of its own, every eleventh writes to both streams.
fn one(daemon: &TestDaemon, number: u64) {
    let (code, script) = match number {
        fails if fails % 7 == 0 => (fails % 200 + 1, format!("echo {number}; exit {}", fails % 200 + 1)),
        both if both % 11 == 0 => (0, format!("echo {number}; echo {number} >&2")),
        _ => (0, String::new()),
    };
    let line = match script.is_empty() {
        true => json!(["echo", number.to_string()]),
        false => json!(["sh", "-c", script]),
    };
    let create = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": line });
    let (status, made) = daemon.api("POST", "/containers/box/exec", Some(&create));
    assert_eq!(status, 201, "{number}: {made}");
    let id = made["Id"].as_str().unwrap().to_owned();
    let path = format!("/exec/{id}/start");
    let start = json!({ "Detach": false, "Tty": false }).to_string();
    let done = http::request(daemon.socket(), "POST", &path, "application/json", start.as_bytes()).unwrap();
    assert_eq!(done.status, 200, "{number}");
    let mut streams = [String::new(), String::new(), String::new()];
    let mut rest = done.body.as_slice();
    while let [stream, 0, 0, 0, a, b, c, d, after @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        streams[usize::from(*stream)].push_str(std::str::from_utf8(&after[..length]).unwrap());
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "{number}: {rest:?}");
    let text = format!("{number}\n");
    assert_eq!(streams[1], text, "{number}");
    let twice = !number.is_multiple_of(7) && number.is_multiple_of(11);
    assert_eq!(streams[2], if twice { text } else { String::new() }, "{number}");
    let (_, ended) = daemon.api("GET", &format!("/exec/{id}/json"), None);
    assert_eq!(
        (&ended["Running"], ended["ExitCode"].as_u64()),
        (&Value::Bool(false), Some(code)),
        "{number}"
    );
}

/// Engine and shim: resident memory in kB, open files.
fn weights(daemon: &TestDaemon) -> Vec<(&'static str, u64, u64)> {
    let of = |who, pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = resident.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        (who, memory, u64::try_from(files).unwrap())
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid("box"))).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let shim = parent.unwrap().trim().parse().unwrap();
    vec![of("engine", daemon.engine_pid()), of("shim", shim)]
}
