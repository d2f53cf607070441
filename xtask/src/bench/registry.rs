//! `ferry registry serve` beside the CNCF's registry: what a request costs the server, in processor time, since wall time
//! is mostly the client's.

pub mod load;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::table::{self, Bar, Row, Unit};
use crate::peer::Peer;
use crate::shell;

const CONNECTIONS: &str = "16";
const SECONDS: &str = "3";
/// USER_HZ, in which proc(5) counts.
const TICKS: f64 = 100.0;

const CONFIGURATION: &str = "version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\n\
    storage: {filesystem: {rootdirectory: /tmp/rb-cncf}}\nhttp: {addr: 127.0.0.1:5102}\n";

/// Pushes an image of one layer of 1 MB; prints the digests of its manifest and its layer.
const FILL: &str = r#"set -e; cd /tmp
put() { d=sha256:$(sha256sum < "$1" | cut -d' ' -f1)
  l=$(curl -fsSi -X POST "$U/v2/bench/uploads/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  case "$l" in /*) l="$U$l";; esac; case "$l" in *\?*) l="$l&";; *) l="$l?";; esac
  curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary @"$1" "${l}digest=$d" >/dev/null; echo $d; }
head -c 1000000 /dev/urandom > rb-layer; echo '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}' > rb-config
l=$(put rb-layer); c=$(put rb-config)
t=application/vnd.docker.distribution.manifest.v2+json
printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":"%s"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":1000000,"digest":"%s"}]}' $t $(stat -c %s rb-config) $c $l > rb-manifest
curl -fsS -X PUT -H "Content-Type: $t" --data-binary @rb-manifest "$U/v2/bench/uploads/manifests/latest"
echo sha256:$(sha256sum < rb-manifest | cut -d' ' -f1) $l; rm -f rb-layer rb-config rb-manifest"#;

struct Server {
    address: &'static str,
    process: Child,
    manifest: String,
    layer: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn page(binary: &Path, peer: &Peer, rounds: usize, heading: &str) -> Result<String> {
    let copy = peer.share.join("ferry-bench");
    fs::copy(binary, &copy).context("copy the binary to the peers")?;
    let page = measure(peer, rounds, heading);
    let _ = fs::remove_file(copy);
    shell::run(
        peer.command()
            .args(["rm", "-rf", "/tmp/rb-ferry", "/tmp/rb-cncf", "/tmp/rb.yml"]),
    )?;
    page
}

fn measure(peer: &Peer, rounds: usize, heading: &str) -> Result<String> {
    let write = format!("printf '%s' '{CONFIGURATION}' > /tmp/rb.yml; mkdir -p /tmp/rb-ferry");
    shell::run(peer.command().args(["sh", "-c", &write]))?;
    let version = shell::output(peer.command().args(["docker-registry", "--version"]))?;
    let ferry = [
        "/host/ferry-bench",
        "registry",
        "serve",
        "--no-access-log",
        "--root",
        "/tmp/rb-ferry",
        "--listen",
        "127.0.0.1:5101",
    ];
    let servers = [
        start(peer, "127.0.0.1:5101", &ferry)?,
        start(peer, "127.0.0.1:5102", &["docker-registry", "serve", "/tmp/rb.yml"])?,
    ];
    let mut rows = Vec::new();
    type Path = fn(&Server) -> String;
    let requests: [(&str, &str, Path, f64); 4] = [
        (
            "GET a manifest by its digest",
            "GET",
            |s| format!("manifests/{}", s.manifest),
            8.0,
        ),
        (
            "GET a manifest by its tag",
            "GET",
            |_| "manifests/latest".to_owned(),
            8.0,
        ),
        ("HEAD a blob", "HEAD", |s| format!("blobs/{}", s.layer), 8.0),
        ("GET a blob of 1 MB", "GET", |s| format!("blobs/{}", s.layer), 2.0),
    ];
    for (what, method, path, times) in requests {
        let mut samples = vec![Vec::new(), Vec::new()];
        for _ in 0..rounds.min(7) {
            for (server, samples) in servers.iter().zip(&mut samples) {
                samples.push(cost(peer, server, method, &path(server))?);
            }
        }
        let row = Row::new(
            &format!("{what}, processor time"),
            Unit::Microseconds,
            Bar::Times(times),
            samples,
        );
        println!("{}", row.line());
        rows.push(row);
    }
    let memory = servers.iter().map(|server| Ok(vec![peak(server.process.id())?]));
    rows.push(Row::new(
        "most resident memory in all of this",
        Unit::MiB,
        Bar::Times(1.0),
        memory.collect::<Result<_>>()?,
    ));
    let version = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let other = format!("docker-registry {}", version.unwrap_or_default());
    Ok(table::page_beside(&rows, heading, other.trim()))
}

fn start(peer: &Peer, address: &'static str, line: &[&str]) -> Result<Server> {
    let process = peer
        .command()
        .args(line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", line.join(" ")))?;
    let mut server = Server {
        address,
        process,
        manifest: String::new(),
        layer: String::new(),
    };
    let url = format!("http://{address}");
    for _ in 0..100 {
        let answers = ["curl", "-fsS", &format!("{url}/v2/")];
        if shell::succeeds(peer.command().args(answers)) {
            let said = shell::output(peer.command().env("U", &url).args(["sh", "-c", FILL]))?;
            let (manifest, layer) = said
                .trim()
                .split_once(' ')
                .with_context(|| format!("{address} said {said}"))?;
            (server.manifest, server.layer) = (manifest.to_owned(), layer.to_owned());
            return Ok(server);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("{} does not answer", line.join(" "))
}

/// Microseconds of the server's processor time for a request.
fn cost(peer: &Peer, server: &Server, method: &str, path: &str) -> Result<f64> {
    let this = std::env::current_exe().context("find this program")?;
    let before = spent(server.process.id())?;
    let path = format!("/v2/bench/uploads/{path}");
    let mut load: Command = peer.on_its_network();
    let load = load.arg(this).arg("load");
    let said = shell::output(load.args([server.address, CONNECTIONS, SECONDS, method, &path]))?;
    let answers: f64 = said.trim().parse().with_context(|| format!("the load said {said:?}"))?;
    Ok((spent(server.process.id())? - before) * 1e6 / answers)
}

/// Seconds of processor time of a process.
fn spent(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server has ended")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}

/// MiB that were resident at most.
fn peak(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmHWM")?;
    Ok(kilobytes.parse::<f64>()? / 1024.0)
}
