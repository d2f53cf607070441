//! `network` and its commands beside docker's own client, both against a server that says the same to both and writes down
//! what it was asked: the same requests, the same bytes on both streams, the same exit codes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ferry_testkit::tools;
use serde_json::Value;

use crate::compat::split;

type Log = Arc<Mutex<Vec<String>>>;

const NETWORKS: &str = r#"[
{"Name":"n10","Id":"86370a30818295b1a91cf8a6bf7a7333dadd360b9b2a03c5bfb18ff2eff26d38","Created":"2026-11-28T16:32:22.284513424Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.1"},{"Subnet":"fd00::/64","IPRange":"fd00::/80","AuxiliaryAddresses":{"x":"fd00::5"}}]},"Internal":true,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{"a":"b"},"Labels":{"x":"y"}},
{"Name":"n9","Id":"f02a6dd94d9b44e3df8112407a028d48dd5b60aa4822e2b01c048509e8c7bac4","Created":"2026-11-28T16:31:54.5Z","Scope":"local","Driver":"macvlan","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"0f":{"Name":"web","EndpointID":"1f","MacAddress":"02:42:0a:09:00:02","IPv4Address":"10.9.0.2/24","IPv6Address":""}},"Options":{},"Labels":{}},
{"Name":"none","Id":"385ba4ed601f45078bb9f620c8b2b4cb6948e29ddd1e07eea7d2fb5fc6f79405","Created":"2026-11-28T16:31:54Z","Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":null},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":null}
]"#;

const PORTS: &str = r#"[
{"HostIP":"0.0.0.0","HostPort":8080,"HostPortEnd":8080,"Protocol":"tcp","Container":{"ID":"86370a30818295b1a91cf8a6bf7a7333","Name":"web","Port":80}},
{"HostIP":"::","HostPort":10000,"HostPortEnd":20000,"Protocol":"udp","Container":{"ID":"f02a6dd94d9b44e3df8112407a028d48","Name":"game","Port":10000},"Process":{"Pid":0,"Name":"","Uid":0}},
{"HostIP":"127.0.0.1","HostPort":53,"HostPortEnd":53,"Protocol":"udp","Process":{"Pid":7,"Name":"dnsmasq","Uid":101}}
]"#;

/// The status and body for a request.
fn answer(method: &str, path: &str) -> (u16, String) {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/v1.51").unwrap_or(path);
    let missing = || (404, r#"{"message":"network nothere not found"}"#.to_owned());
    let named = |name: &str| {
        let all: Vec<Value> = serde_json::from_str(NETWORKS).unwrap();
        all.into_iter().find(|network| network["Name"] == name)
    };
    match (method, path) {
        (_, "/_ping") => (200, "OK".into()),
        // docker drops a warning, which Ferry says: there is none here.
        ("POST", "/networks/create") => (201, r#"{"Id":"abc","Warning":""}"#.into()),
        ("POST", "/networks/prune") => (200, r#"{"NetworksDeleted":["a","b"]}"#.into()),
        ("GET", "/ports") => (200, PORTS.into()),
        ("GET", "/networks") => (200, NETWORKS.into()),
        ("POST", path) if path.starts_with("/networks/refused/") => (403, r#"{"message":"it is refused"}"#.into()),
        ("POST", "/containers/create") => (201, r#"{"Id":"abc","Warnings":[]}"#.into()),
        ("POST", "/containers/c/update") => (200, r#"{"Warnings":null}"#.into()),
        ("POST", _) => (200, String::new()),
        ("DELETE", "/networks/nothere") => missing(),
        ("DELETE", "/networks/busy") => (
            403,
            r#"{"message":"error while removing network: network busy has active endpoints"}"#.into(),
        ),
        ("DELETE", _) => (204, String::new()),
        (_, path) => {
            named(path.trim_start_matches("/networks/")).map_or_else(missing, |found| (200, found.to_string()))
        }
    }
}

fn serve(stream: UnixStream, log: &Log) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        while chunked {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            chunked = size > 0;
        }
        if !path.ends_with("_ping") {
            let body = String::from_utf8_lossy(&body);
            log.lock().unwrap().push(format!("{method} {path} {}", body.trim()));
        }
        let (status, body) = answer(&method, &path);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} Whatever\r\nApi-Version: 1.51\r\nOstype: linux\r\nContent-Type: application/json\r\n"
        );
        let length = if status == 204 {
            String::new()
        } else {
            format!("Content-Length: {length}\r\n")
        };
        let body = if method == "HEAD" { "" } else { &body };
        stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).ok()?;
    }
}

/// What one client did: its requests, its streams, its exit code.
fn run(program: &Path, line: &str, socket: &Path, log: &Log) -> String {
    log.lock().unwrap().clear();
    let output = Command::new(program)
        .args(split(line))
        .env_clear()
        .env("HOME", socket.parent().unwrap())
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut requests = log.lock().unwrap().clone();
    // docker asks first whether it is a swarm's network, of which Ferry has none.
    if line.starts_with("network rm") || line.starts_with("network remove") {
        requests.retain(|request| !request.starts_with("GET "));
    }
    format!(
        "exit {:?}\nrequests: {requests:#?}\nstdout: {}\nstderr: {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const LINES: &[&str] = &[
    "network",
    "network --help",
    "network foo",
    "network create --help",
    "network connect --help",
    "network disconnect --help",
    "network inspect --help",
    "network ls --help",
    "network list --help",
    "network prune --help",
    "network rm --help",
    "network remove --help",
    "help network create",
    "network create",
    "network create a b",
    "network create n",
    "network create ''",
    "network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.128/25 --aux-address x=10.9.0.5 --ipv6 \
     --label a=b --label c -o k=v -o z --opt = --attachable --internal --scope local --ingress --config-only --config-from q \
     -d foo --ipam-driver ii --ipam-opt a=b --ipam-opt c n",
    "network create --ipv4=false --ipv6=false --subnet '' --label x=y=z n",
    "network create --subnet '10.9.0.0/24,\"\"' n",
    "network create --subnet 10.9.0.0/33 n",
    "network create --subnet x --gateway 1.2.3.4 n",
    "network create --subnet x --subnet y n",
    "network create --subnet 10.9.0.0/24 --subnet 10.9.0.0/25 n",
    "network create --subnet fd00::/64 --subnet fd00::/80 n",
    "network create --gateway 1.2.3.4 n",
    "network create --ip-range 10.0.0.0/24 n",
    "network create --subnet 10.9.0.0/24 --gateway 10.8.0.1 n",
    "network create --subnet 10.9.0.0/24 --gateway x n",
    "network create --subnet 10.9.0.0/24 --gateway ::ffff:10.9.0.1 n",
    "network create --subnet 10.9.0.0/24 --ip-range x n",
    "network create --subnet 10.9.0.0/24 --ip-range 10.9.0.0/16 n",
    "network create --subnet 10.9.0.0/24 --ip-range 10.8.0.0/24 n",
    "network create --subnet 10.9.0.0/24 --aux-address a=10.9.0.5 --aux-address b=10.9.0.6 --aux-address b=10.9.0.7 n",
    "network create --aux-address x n",
    "network create --aux-address x=1.2.3.4 n",
    "network create --subnet 'a\"b' n",
    "network create --label =x n",
    "network create --label 'a b' n",
    "network create --ipv6=x n",
    "network create --driver",
    "network create --foo n",
    "network connect",
    "network connect n",
    "network connect n c",
    "network connect --alias a,b --alias c --driver-opt k=v,l=w --gw-priority -3 --ip 1.2.3.4 --ip6 ::1 --link x:y --link z \
     --link-local-ip 169.254.1.1 n c",
    "network connect --ip 999 --alias '' n c",
    "network connect --driver-opt a n c",
    "network connect --driver-opt =a n c",
    "network connect --driver-opt ' k = v ' n c",
    "network connect --gw-priority x n c",
    "network connect --link a:b:c n c",
    "network connect --link '' n c",
    "network connect '' c",
    "network connect 'a b' c",
    "network connect n/x c",
    "network connect refused c",
    "network disconnect n c",
    "network disconnect -f n c",
    "network disconnect '' c",
    "network disconnect refused c",
    "network inspect",
    "network inspect n10",
    "network inspect n9 nothere none",
    "network inspect --verbose n9",
    "network inspect -f json n9 n10",
    "network inspect -f '{{json .}}' n9",
    "network inspect -f '{{.ID}}' n10",
    "network inspect -f '{{.Id}}' n10",
    "network inspect -f '{{.IPAM}} {{.ConfigFrom}} {{.Containers}} {{.Options}}' n10",
    "network inspect -f '{{.IPAM}} {{.Labels}}{{.IPAM.Options}} {{.Scope}}' none",
    "network inspect -f '{{.IPAM.Config}} {{.Containers}} {{range .Containers}}{{.Name}}={{.IPv4Address}};{{end}}' n9",
    "network inspect -f '{{.Name}} {{.IPAM.Config}} {{.EnableIPv6}} {{.Labels}} {{.Created}}' n10",
    "network inspect -f '{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}};{{end}}' n10",
    "network inspect -f '{{index .Options \"a\"}}{{len .Containers}}' n10",
    "network inspect -f '{{.Foo}}' n10",
    "network inspect -f '{{.Name' n10",
    "network ls",
    "network ls -q",
    "network ls --no-trunc",
    "network ls -q --no-trunc",
    "network ls --format json",
    "network ls --format table",
    "network ls -q --format table",
    "network ls --format raw",
    "network ls -q --format raw",
    "network ls --format '{{.Label \"x\"}} {{.Labels}} {{.IPv6}} {{.CreatedAt}} {{.Internal}}'",
    "network ls --format 'table {{.ID}}\\t{{.Label \"a.b-c\"}}\\t{{.Labels}}\\t{{.CreatedAt}}\\t{{.IPv4}}\\t{{.IPv6}}\\t{{.Internal}}'",
    "network ls --format '{{.Foo}}'",
    "network ls -f driver=bridge -f 'Type = custom' -f label=a=b",
    "network ls -f x",
    "network list extra",
    "network rm",
    "network rm a",
    "network rm a nothere b",
    "network rm busy",
    "network rm -f nothere a",
    "network rm ''",
    "network remove",
    "network prune",
    "network prune -f",
    "network prune --force --filter until=1h --filter label!=x",
    "network prune --filter x",
    "network prune x",
    "create --network n --ip 10.9.0.5 --network-alias a busybox",
    "update --cpus 2 c",
];

#[test]
fn every_network_command_is_dockers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    // Called docker, it speaks of itself as docker.
    let ours = directory.path().join("docker");
    std::os::unix::fs::symlink(tools::ferry(), &ours).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let log = Log::default();
    let writing = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, log) = (stream.unwrap(), Arc::clone(&writing));
            std::thread::spawn(move || serve(stream, &log));
        }
    });
    let mut differences = Vec::new();
    for line in LINES {
        let [ours, theirs] = [&ours, &tools::docker()].map(|program| run(program, line, &socket, &log));
        if ours != theirs {
            differences.push(format!("=== {line}\n--- docker\n{theirs}\n--- ferry\n{ours}\n"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        LINES.len(),
        differences.join("\n")
    );
}

#[test]
fn ferrys_own_flags_are_sent_and_docker_sends_the_same_without_them() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let log = Log::default();
    let writing = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &writing);
        }
    });
    for (line, expected) in [
        (
            "create --net-rate 10mbit --net-burst 64k busybox",
            r#""NetRate":{"In":1250000,"Out":1250000,"Burst":65536}"#,
        ),
        ("create --net-rate-in 1gbit busybox", r#""NetRate":{"In":125000000}"#),
        (
            "create --net-rate 1gbit --net-rate-out 8mbit busybox",
            r#""NetRate":{"In":125000000,"Out":1000000}"#,
        ),
        ("update --net-rate 0 c", r#""NetRate":{"In":0,"Out":0}"#),
        (
            "update --publish-add 127.0.0.1:8080:80 --publish-add 53:53/udp c",
            r#""PublishAdd":{"53/udp":[{"HostIp":"","HostPort":"53"}],"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}"#,
        ),
        (
            "update --publish-rm 80 c",
            r#""PublishRemove":{"80/tcp":[{"HostIp":"","HostPort":""}]}"#,
        ),
        ("create --net-rate 5MB busybox", "would be bytes: say it in bits"),
        ("update --publish-add x c", "Invalid containerPort: x"),
    ] {
        let said = run(&tools::ferry(), line, &socket, &log);
        let plain = said.replace("\\\"", "\"");
        assert!(plain.contains(expected), "{line}: {said}");
    }
    let table = "\
ADDRESS     PORT          PROTOCOL   CONTAINER   TARGET        PROCESS
0.0.0.0     8080          tcp        web         80            
::          10000-20000   udp        game        10000-20000   unknown
127.0.0.1   53            udp                                  dnsmasq (7)
";
    let said = run(&tools::ferry(), "ports", &socket, &log);
    assert!(said.contains(table), "{said}");
    let said = run(
        &tools::ferry(),
        "ports --format '{{.Port}}:{{.ContainerID}}:{{.UID}}'",
        &socket,
        &log,
    );
    assert!(
        said.contains("8080:86370a308182:\n10000-20000:f02a6dd94d9b:0\n53::101\n"),
        "{said}"
    );
    for line in ["run --help", "create --help", "update --help"] {
        assert!(run(&tools::ferry(), line, &socket, &log).contains("\nOptions of Ferry's own:\n"));
    }
}
