use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::Sender;
use super::*;

const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

fn receiver(dir: &Path) -> Receiver {
    let limits = Limits {
        entries: 100,
        names: 10_000,
        growth: 10,
    };
    Receiver::new(Root::open(dir).unwrap(), limits).unwrap()
}

fn announced(path: &str, mode: u32, size: i64) -> Packet {
    Packet {
        stat: Some(Stat {
            path: path.to_owned(),
            mode,
            size,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mod_time: 1_000_000_007,
            ..Stat::default()
        }),
        ..Packet::of(PacketType::PacketStat)
    }
}

fn linked(path: &str, mode: u32, target: &str) -> Packet {
    let mut packet = announced(path, mode, 0);
    packet.stat.as_mut().unwrap().linkname = target.to_owned();
    packet
}

fn data(id: u32, data: &'static str) -> Packet {
    Packet {
        id,
        data: data.into(),
        ..Packet::of(PacketType::PacketData)
    }
}

fn end() -> Packet {
    Packet::of(PacketType::PacketStat)
}

/// The first packet that is refused, and why.
fn refused(dir: &Path, packets: impl IntoIterator<Item = Packet>) -> String {
    let mut receiver = receiver(dir);
    for packet in packets {
        if let Err(error) = receiver.take(packet, &mut Vec::new()) {
            return error.to_string();
        }
    }
    panic!("nothing was refused");
}

/// From one directory into the other; the files that were asked for.
fn transfer(from: &Path, to: &Path) -> usize {
    let mut sender = Sender::new(Root::open(from).unwrap());
    let mut receiver = Receiver::new(Root::open(to).unwrap(), Limits::default()).unwrap();
    let mut packets = Vec::new();
    sender
        .list(&mut |packet| {
            packets.push(packet);
            Ok(())
        })
        .unwrap();
    let mut asked = 0;
    let mut answers = VecDeque::new();
    loop {
        for packet in packets.drain(..) {
            let mut told = Vec::new();
            if receiver.take(packet, &mut told).unwrap() {
                return asked;
            }
            answers.extend(told);
        }
        let answer: Packet = answers.pop_front().expect("an answer");
        asked += usize::from(answer.r#type == i32::from(PacketType::PacketReq));
        sender
            .take(&answer, &mut |packet| {
                packets.push(packet);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_directory_comes_over_and_then_only_what_changed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| std::fs::write(from.path().join(name), text).unwrap();
    std::fs::create_dir_all(from.path().join("d/e")).unwrap();
    for number in 0..200 {
        write(&format!("d/{number}"), &"x".repeat(number * 400));
    }
    write("d/e/f", "deep");
    std::fs::hard_link(from.path().join("d/e/f"), from.path().join("z")).unwrap();
    std::os::unix::fs::symlink("d/e/f", from.path().join("link")).unwrap();
    assert_eq!(transfer(from.path(), to.path()), 202 - 1);
    let there = |name: &str| std::fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!(there("d/199"), "x".repeat(199 * 400));
    assert_eq!(there("link"), "deep");
    let inode = |name: &str| std::fs::metadata(to.path().join(name)).unwrap().ino();
    assert_eq!(inode("z"), inode("d/e/f"));
    let time = |dir: &Path| std::fs::metadata(dir.join("d")).unwrap().modified().unwrap();
    assert_eq!(time(from.path()), time(to.path()));

    assert_eq!(transfer(from.path(), to.path()), 0);
    // Held, its number is not given to another file.
    let _held = std::fs::File::open(to.path().join("d/7")).unwrap();
    let before = inode("d/7");
    write("d/7", "another one");
    std::fs::remove_file(from.path().join("d/8")).unwrap();
    std::fs::remove_file(from.path().join("link")).unwrap();
    std::fs::create_dir(from.path().join("link")).unwrap();
    assert_eq!(transfer(from.path(), to.path()), 1);
    assert_eq!(there("d/7"), "another one");
    assert_ne!(inode("d/7"), before);
    assert!(!to.path().join("d/8").exists() && to.path().join("link").is_dir());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["../x", "/x", "a/../../x", "..", "", "a//b", "a\0"] {
        let text = refused(dir.path(), [announced(path, 0o644, 1)]);
        assert!(text.contains("invalid path"), "{path}: {text}");
    }
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    // Through a link to elsewhere, which is no directory that was announced.
    let text = refused(
        dir.path(),
        [linked("a", LINK | 0o777, target), announced("a/b", 0o644, 1)],
    );
    assert!(text.contains("in no directory"), "{text}");
    // A link that is there already is replaced by the directory.
    std::os::unix::fs::symlink(target, dir.path().join("d")).unwrap();
    let mut receiver = receiver(dir.path());
    let mut asked = Vec::new();
    for packet in [
        announced("d", DIRECTORY | 0o755, 0),
        announced("d/f", 0o644, 1),
        end(),
        data(1, "x"),
        data(1, ""),
    ] {
        receiver.take(packet, &mut asked).unwrap();
    }
    assert_eq!(std::fs::read(dir.path().join("d/f")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn hard_links_lead_to_files_that_came() {
    let dir = tempfile::tempdir().unwrap();
    for target in ["nothing", "z", "../x", "/etc/passwd", "d"] {
        let packets = [announced("d", DIRECTORY | 0o755, 0), linked("f", 0o644, target)];
        let text = refused(dir.path(), packets);
        assert!(
            text.contains("did not come before") || text.contains("invalid path"),
            "{target}: {text}"
        );
    }
    // Not through a link of the sender's own.
    let packets = [linked("a", LINK | 0o777, "/etc"), linked("b", 0o644, "a/passwd")];
    assert!(refused(dir.path(), packets).contains("did not come before"));
}

#[test]
fn what_is_out_of_order_or_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path| announced(path, 0o644, 1);
    let cases: [(Vec<Packet>, &str); 9] = [
        (vec![file("b"), file("a")], "out of order"),
        (vec![file("a"), file("a")], "out of order"),
        (vec![file("a"), file("a/b")], "in no directory"),
        (vec![file("x/y")], "in no directory"),
        (vec![data(0, "x")], "was not asked for"),
        (vec![file("a"), end(), end()], "second end"),
        (vec![file("a"), end(), file("b")], "after the last one"),
        (
            vec![file("a"), end(), Packet::of(PacketType::PacketFin)],
            "before everything was there",
        ),
        (vec![announced("s", 1 << 24 | 0o644, 0)], "no kind of file"),
    ];
    for (packets, why) in cases {
        let text = refused(dir.path(), packets);
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[test]
fn what_does_not_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut packets = vec![announced("a", 0o644, 3), end()];
    packets.extend((0..10).map(|_| data(0, "xxx")));
    assert!(refused(dir.path(), packets).contains("does not end"));
    let many = (0..101).map(|number| announced(&format!("f{number:03}"), DIRECTORY | 0o755, 0));
    assert!(refused(dir.path(), many).contains("more than 100 entries"));
    let long = (0..60).map(|number| announced(&format!("{number:02}{}", "x".repeat(200)), DIRECTORY | 0o755, 0));
    assert!(refused(dir.path(), long).contains("too long together"));
    let text = refused(dir.path(), [Packet::failure("no access allowed to dir")]);
    assert_eq!(text, "no access allowed to dir");
}

#[test]
fn no_more_is_asked_for_at_a_time_than_the_sender_can_take() {
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = receiver(dir.path());
    let mut answers = Vec::new();
    for number in 0..100 {
        receiver
            .take(announced(&format!("f{number:03}"), 0o644, 1), &mut answers)
            .unwrap();
    }
    assert_eq!(answers.len(), ASKED);
    receiver.take(data(0, ""), &mut answers).unwrap();
    assert_eq!(answers.len(), ASKED + 1);
}

#[test]
fn a_thousand_levels_need_no_more_stack_than_one() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let deepest = "d/".repeat(1000);
    std::fs::create_dir_all(from.path().join(&deepest)).unwrap();
    std::fs::write(from.path().join(&deepest).join("f"), "deep").unwrap();
    let with_little_stack = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(128 << 10);
            thread.spawn_scoped(scope, work).unwrap().join().unwrap();
        });
    };
    with_little_stack(&|| assert_eq!(transfer(from.path(), to.path()), 1));
    assert_eq!(std::fs::read(to.path().join(&deepest).join("f")).unwrap(), b"deep");
    std::fs::create_dir_all(from.path().join("d/".repeat(1100))).unwrap();
    with_little_stack(&|| {
        let mut sender = Sender::new(Root::open(from.path()).unwrap());
        let error = sender.list(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("too deep to be sent"), "{error}");
    });
}
