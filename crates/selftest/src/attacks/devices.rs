//! Terminals and device nodes.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::error::{During as _, Result};
use crate::lab::Lab;
use crate::outcome::{Attack, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "console-link",
        family: "F1",
        cves: &["2025-52565"],
        what: "the image's /dev/console or /dev/pts is a link when a terminal is put there",
        run: console,
    },
    Attack {
        name: "device-node",
        family: "F1",
        cves: &[],
        what: "a device node of the host's is made in the container and opened",
        run: node,
    },
];

fn console(lab: &Lab) -> Result<Outcome> {
    let host = lab.host();
    let up = format!("../../../../../../{}/made", host.display());
    let cases = [
        ("dev/console", "/etc/victim".to_owned()),
        ("dev/console", up),
        ("dev/console", host.join("made").display().to_string()),
        ("dev/pts", "/etc".to_owned()),
        ("dev/pts", host.display().to_string()),
    ];
    for (name, target) in cases {
        // The image's own /dev, with terminals mounted in it.
        let mut bundle = Bundle::new(lab)?
            .with("process.terminal", true.into())
            .without("/dev")
            .mount(
                "devpts",
                Path::new("devpts"),
                "/dev/pts",
                "newinstance,ptmxmode=0666,mode=0620",
            );
        let _ = fs::create_dir(bundle.rootfs().join("dev/pts"));
        let _ = std::os::unix::fs::symlink("pts/ptmx", bundle.rootfs().join("dev/ptmx"));
        bundle.file("etc/victim", "victim")?;
        bundle.link(name, &target)?;
        if lab.wrong {
            bundle = bundle.bind(&host, "/tmp").tmpfs("/tmp/made");
        }
        // The container's own word goes to its terminal, which nobody reads: what counts is where things are made.
        let socket = bundle.dir.join("console");
        let listener = UnixListener::bind(&socket).during(|| "listen for the terminal")?;
        let masters = std::thread::spawn(move || accept(&listener));
        let flags = ["--detach", "--console-socket", &socket.display().to_string()];
        let ended = bundle.run_with(&flags, &["sleep"]);
        // Ends the listener if nobody has come.
        let _ = std::os::unix::net::UnixStream::connect(&socket);
        let master = masters.join();
        let ended = ended?;
        if let Some(seen) = lab.host_changed()? {
            return Outcome::broken(format!("/{name} -> {target}: {seen}"));
        }
        if ended.code == 0 {
            let seen = bundle.exec(&[], &["terminal=/dev/console"])?;
            let kind = seen.of("terminal=/dev/console").unwrap_or_default().to_owned();
            if seen.ran() && kind != "terminal" && !kind.starts_with("error") {
                return Outcome::broken(format!("/{name} -> {target}: it runs, and /dev/console is {kind}"));
            }
        }
        drop(master);
    }
    Ok(Outcome::Held)
}

/// Takes the terminal's master, so that the runtime goes on; it stays open until the container is looked at.
fn accept(listener: &UnixListener) -> Option<(std::os::unix::net::UnixStream, Vec<OwnedFd>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let (stream, _) = listener.accept().ok()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Some((stream, fds))
}

/// Harmless to open: fuse and loop-control.
const CHARACTER: [&str; 2] = ["c:10:229", "c:10:237"];

fn node(lab: &Lab) -> Result<Outcome> {
    let table = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let disks = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
        Some(format!("b:{major}:{minor}"))
    });
    // One that could be opened but for the container.
    let path = lab.dir.join("node");
    let found = disks
        .chain(CHARACTER.map(str::to_owned))
        .find(|node| matches!(crate::probe::open_device(node, &path), Some(Ok(()))));
    let Some(found) = found else {
        return Outcome::skipped("no device of this machine can be opened");
    };
    let mut bundle = Bundle::new(lab)?;
    if lab.wrong {
        bundle = bundle.with("linux.resources.devices", json!([{ "allow": true, "access": "rwm" }]));
    }
    let step = format!("mknod={found}");
    let ended = bundle.must_run(&[&step])?;
    let answer = ended.of(&step).unwrap_or("the probe did not say");
    Ok((answer != "refused").then(|| format!("{found}: {answer}")).into())
}
