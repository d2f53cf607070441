//! Many builds at once, and clients that make none of it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry_testkit::images::Layer;
use ferry_testkit::{signal, wait_for_none, wait_for_none_within, wait_until, wait_within};

use crate::build::Place;
use crate::evil_archives::most_memory;
use crate::overload::{descriptors, memory};

/// Dockerfiles, and builds of each.
const FILES: usize = 20;
const EACH: usize = 10;
/// Clients at a time; there are two cores.
const CLIENTS: usize = 40;

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn mounts(pid: u32) -> usize {
    std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        .unwrap()
        .lines()
        .count()
}

/// Every fourth fails, every fifth runs until its client is killed; the others are alike in their first steps.
fn dockerfile(number: usize) -> String {
    let last = match number {
        number if number % 5 == 4 => "RUN sleep 4567\n".to_owned(),
        number if number % 4 == 3 => "RUN exit 3\n".to_owned(),
        number => format!(
            "RUN cat /shared /number > /both && test \"$(cat /number)\" = {}\n",
            number % 7
        ),
    };
    format!(
        "FROM busybox\nRUN echo shared > /shared\nCOPY file /file\n\
         RUN --mount=type=cache,target=/c,sharing=locked echo {number} >> /c/all; echo {} > /number\n{last}",
        number % 7
    )
}

#[test]
fn two_hundred_builds_end_right_and_leave_the_engine_as_it_was() {
    let place = Place::new();
    place.write("file", "file");
    for number in 0..FILES {
        place.write(&format!("file{number}"), &dockerfile(number));
    }
    place.ferry("build -f file0 .").ok();
    let engine = place.engine.engine_pid();
    let rests = || {
        // Layers are sealed behind the builds, which is the disk's pace.
        wait_for_none_within(Duration::from_secs(60), "what is being made", || {
            let entries = std::fs::read_dir(place.engine.data_root().join("tmp")).unwrap();
            entries
                .map(|entry| entry.unwrap().path().display().to_string())
                .collect()
        });
    };
    rests();
    let before = (descriptors(engine), mounts(engine));
    let next = AtomicUsize::new(0);
    let build = |job: usize| {
        let number = job % FILES;
        let (file, tag) = (format!("file{number}"), format!("made{job}"));
        let run = place
            .command()
            .args(["build", "--progress", "plain", "-f", &file, "-t", &tag, "."]);
        let running = run.time(Duration::from_secs(100)).spawn();
        if number % 5 == 4 {
            std::thread::sleep(Duration::from_millis(200 + 37 * (job as u64 % 20)));
            running.signal(signal::KILL);
            running.finish();
            return;
        }
        let output = running.finish();
        match number % 4 {
            3 => assert!(
                output.code == 1 && output.stderr.contains("exit code: 3"),
                "{file}: {output:?}"
            ),
            _ => assert_eq!(output.code, 0, "{file}: {output:?}"),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= FILES * EACH {
                        break;
                    }
                    build(job);
                }
            });
        }
    });
    wait_until("no step runs", || place.processes(b"sleep\x004567") == 0);
    let made = place.ferry("images --format {{.Repository}}").ok();
    let made = made.lines().filter(|name| name.starts_with("made")).count();
    let right = (0..FILES).filter(|number| number % 5 != 4 && number % 4 != 3).count();
    assert_eq!(made, right * EACH);
    for number in [0, 6, 12] {
        for job in [number, number + 5 * FILES] {
            let says = place.inside(&format!("made{job}"), "cat /both /file");
            assert_eq!(says, format!("shared\n{}\nfile", number % 7), "made{job}");
        }
    }
    rests();
    wait_for_none("more than before", || {
        let now = [
            // Shims and namespaces that wait for the next container are a few more.
            ("descriptors", before.0 + 16, descriptors(engine)),
            ("mounts", before.1, mounts(engine)),
            // Those that wait for work go after two seconds.
            ("threads", 12, threads(engine)),
        ];
        let more = now.into_iter().filter(|(_, before, now)| now > before);
        more.map(|more| format!("{more:?}")).collect()
    });
    place.is_clean();
    let (after, most) = (memory(engine) >> 10, most_memory(&place.engine) >> 20);
    println!("the engine's memory: {most} MiB at most, {after} MiB of its own afterwards");
    // Twice what is seen, of a binary that was not optimized: a build costs well below a megabyte.
    assert!(most < 128 && after < 40, "{most} MiB at most, {after} MiB afterwards");
}

/// As many as there are threads for what blocks, and more: each sends a part of its context, or of an image, and then nothing.
#[test]
fn clients_that_send_no_more_of_their_contexts_hold_up_nobody() {
    let place = Place::new();
    let engine = place.engine.engine_pid();
    let part = Layer::new()
        .file("Dockerfile", b"FROM busybox\n", 0o644)
        .header_only("large", 1 << 20)
        .truncated();
    let head =
        "POST /build HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n";
    let before = descriptors(engine);
    let slow: Vec<UnixStream> = (0..150)
        .map(|_| {
            let mut stream = UnixStream::connect(place.engine.socket()).unwrap();
            stream
                .write_all(format!("{head}{:x}\r\n", part.len()).as_bytes())
                .unwrap();
            stream
                .write_all(&part)
                .and_then(|()| stream.write_all(b"\r\n"))
                .unwrap();
            stream
        })
        .collect();
    let load = head.replace("/build", "/images/load");
    let loads: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut stream = UnixStream::connect(place.engine.socket()).unwrap();
            stream.write_all(format!("{load}4\r\nabcd\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    let idle: Vec<_> = (0..20)
        .map(|_| place.command().args(["build", "-"]).open_stdin().spawn())
        .collect();
    wait_until("they are read", || descriptors(engine) > before + 200);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    place.write("Dockerfile", "FROM busybox\nCOPY Dockerfile /\nRUN true\n");
    place
        .command()
        .args(["build", "-t", "app", "."])
        .time(Duration::from_secs(20))
        .ok();
    place.inside("app", "true");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop((slow, loads, idle));
    wait_within(Duration::from_secs(20), "they are gone", || {
        descriptors(engine) <= before + 4
    });
    wait_for_none("what they sent", || {
        let entries = std::fs::read_dir(place.engine.data_root().join("tmp")).unwrap();
        entries
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    });
    place.is_clean();
}
