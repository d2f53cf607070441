//! Indexes and attestations that travel with an image, `manifest`, and `search`. `docker` is the real one's client; where it
//! speaks with the registry itself, it runs beside Ferry's against the same one.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;

use ferry_testkit::images::{Compression, Image, Layer, above_busybox, sha256};
use ferry_testkit::{Output, Registry, Run, TestDaemon, tools};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const REPOSITORY: &str = "127.0.0.1:5000/team/app";

/// The blobs of an OCI image layout.
#[derive(Default)]
struct Layout {
    blobs: Vec<Vec<u8>>,
}

impl Layout {
    fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let descriptor =
            json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len() });
        self.blobs.push(bytes);
        descriptor
    }

    fn manifest(&mut self, config: &[u8], layers: Vec<(&str, Vec<u8>)>) -> Value {
        let config = self.put("application/vnd.oci.image.config.v1+json", config.to_vec());
        let layers: Vec<Value> = layers.into_iter().map(|(kind, bytes)| self.put(kind, bytes)).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
        self.put(OCI_MANIFEST, manifest.to_string().into_bytes())
    }

    fn image(&mut self, image: &Image) -> Value {
        let layers = image.blobs().into_iter();
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let mut manifest = self.manifest(&image.configuration(), layers.map(|blob| (kind, blob)).collect());
        manifest["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
        manifest
    }

    /// As BuildKit writes it.
    fn attestation(&mut self, about: &Value, statement: &str) -> Value {
        let config = json!({ "architecture": "unknown", "os": "unknown", "about": about["digest"] }).to_string();
        let mut manifest = self.manifest(
            config.as_bytes(),
            vec![("application/vnd.in-toto+json", statement.as_bytes().to_vec())],
        );
        manifest["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
        manifest["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about["digest"],
        });
        manifest
    }

    /// The tar, without the blob that is left out, and the index's digest.
    fn archive(mut self, name: &str, manifests: Vec<Value>, without: Option<&Value>) -> (Vec<u8>, String) {
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let mut index = self.put(OCI_INDEX, index.to_string().into_bytes());
        let digest = index["digest"].as_str().unwrap().to_owned();
        index["annotations"] = json!({ "io.containerd.image.name": name });
        let mut tar = Layer::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
        tar = tar.dir("blobs", 0o755).dir("blobs/sha256", 0o755);
        let left_out = without.and_then(|without| without["digest"].as_str());
        for blob in &self.blobs {
            let hex = sha256(blob);
            if left_out != Some(&*format!("sha256:{hex}")) {
                tar = tar.file(&format!("blobs/sha256/{hex}"), blob, 0o644);
            }
        }
        let top = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index] });
        (
            tar.file("index.json", top.to_string().as_bytes(), 0o644).finish(),
            digest,
        )
    }
}

fn image(architecture: &str) -> Image {
    let layer = Layer::new().file("content", architecture.as_bytes(), 0o644);
    let mut image = above_busybox("unused:1", layer).compression(Compression::Gzip);
    architecture.clone_into(&mut image.architecture);
    image
}

/// One platform and its attestation.
fn built(name: &str) -> (Vec<u8>, String) {
    let mut layout = Layout::default();
    let own = layout.image(&image("amd64"));
    let attestation = layout.attestation(&own, r#"{"_type":"https://in-toto.io/Statement/v0.1"}"#);
    layout.archive(name, vec![own, attestation], None)
}

fn load(daemon: &TestDaemon, archive: &[u8]) {
    daemon.run(["load", "-q"]).input(archive).ok();
}

fn clean(daemon: &TestDaemon) {
    let said = daemon.cli(["system", "check"]).ok();
    assert!(said.ends_with("nothing is wrong"), "{said}");
}

fn blobs(daemon: &TestDaemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.data_root().join("blobs/sha256")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The digest in the last line but one of a push.
fn pushed(output: &Output) -> String {
    let at = output
        .stdout
        .find(": digest: sha256:")
        .unwrap_or_else(|| panic!("{output:?}"))
        + 10;
    output.stdout[at..at + 71].to_owned()
}

/// In the daemon's network namespace, with a home of its own.
fn beside(daemon: &TestDaemon, program: &std::path::Path, home: &str, args: &[&str]) -> Output {
    let home = daemon.dir().join(home);
    std::fs::create_dir_all(&home).unwrap();
    let mut line = vec![program.to_str().unwrap()];
    line.extend(args);
    let run: Run = daemon.in_namespace(&line);
    run.env("HOME", &home).env("DOCKER_HOST", "unix:///nowhere").output()
}

#[test]
fn an_index_goes_where_its_image_goes_with_its_attestations() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let (archive, index) = built(&format!("{REPOSITORY}:1"));
    load(&daemon, &archive);
    assert_eq!(pushed(&daemon.cli(["push", &format!("{REPOSITORY}:1")])), index);
    clean(&daemon);
    daemon.cli(["rmi", &format!("{REPOSITORY}:1")]).ok();
    assert_eq!(blobs(&daemon), [""; 0]);

    daemon.cli(["pull", "-q", &format!("{REPOSITORY}:1")]).ok();
    let text = daemon.cli(["image", "inspect", &format!("{REPOSITORY}:1")]).ok();
    let inspected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected[0]["RepoDigests"], json!([format!("{REPOSITORY}@{index}")]));
    // Index, manifest, configuration, two layers; manifest, configuration and statement of the attestation.
    assert_eq!(blobs(&daemon).len(), 8);
    clean(&daemon);
    let elsewhere = "127.0.0.1:5000/else/where:2";
    daemon.cli(["tag", &format!("{REPOSITORY}:1"), elsewhere]).ok();
    assert_eq!(pushed(&daemon.docker(["push", elsewhere])), index);
    // A platform that is asked for goes alone, without a word.
    let alone = "127.0.0.1:5000/a/lone:3";
    daemon.cli(["tag", elsewhere, alone]).ok();
    let output = daemon.cli(["push", "--platform", "linux/amd64", alone]);
    assert_ne!(pushed(&output), index);
    assert!(!output.stdout.contains("Info"), "{output:?}");
    // What the registry has of it is whole.
    daemon
        .cli(["rmi", "-f", elsewhere, alone, &format!("{REPOSITORY}:1")])
        .ok();
    assert_eq!(blobs(&daemon), [""; 0]);
    daemon.cli(["pull", "-q", elsewhere]).ok();
    assert_eq!(blobs(&daemon).len(), 8);
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

/// What one name was pulled by is what it is pushed by, also when the same image came otherwise since.
#[test]
fn an_image_of_several_indexes_is_pushed_by_the_one_of_its_name() {
    let mut daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let (other, third) = ("127.0.0.1:5000/other/app:2", format!("{REPOSITORY}:3"));
    let names = [format!("{REPOSITORY}:1"), other.to_owned(), third];
    let mut digests = Vec::new();
    for (name, statement) in names.iter().zip(["first", "second", "third"]) {
        let mut layout = Layout::default();
        let own = layout.image(&image("amd64"));
        let attestation = layout.attestation(&own, statement);
        let (archive, index) = layout.archive(name, vec![own, attestation], None);
        load(&daemon, &archive);
        assert_eq!(pushed(&daemon.cli(["push", name])), index);
        daemon.cli(["rmi", name]).ok();
        digests.push(index);
    }
    for name in &names {
        daemon.cli(["pull", "-q", name]).ok();
    }
    let ids = daemon.cli(["images", "-q", "--no-trunc"]).ok();
    assert!(ids.lines().all(|id| Some(id) == ids.lines().next()), "one image: {ids}");
    let everything = |daemon: &TestDaemon| {
        for (name, digest) in names.iter().zip(&digests) {
            assert_eq!(pushed(&daemon.cli(["push", name])), *digest, "{name}");
        }
    };
    everything(&daemon);
    // A name that is given is of the way of the name it was given by.
    let copies = [0, 1, 2].map(|at| format!("127.0.0.1:5000/copy{at}/app:1"));
    for (name, copy) in names.iter().zip(&copies) {
        daemon.cli(["tag", name, copy]).ok();
    }
    daemon.kill9();
    daemon.start_again();
    everything(&daemon);
    for (copy, digest) in copies.iter().zip(&digests) {
        assert_eq!(pushed(&daemon.docker(["push", copy])), *digest, "{copy}");
    }
    clean(&daemon);
    // What only a removed name had goes with it: the index, and of the attestation the manifest and the statement.
    let before = blobs(&daemon).len();
    daemon.cli(["rmi", &names[1], &copies[1]]).ok();
    assert_eq!(blobs(&daemon).len(), before - 3);
    clean(&daemon);
    assert_eq!(pushed(&daemon.cli(["push", &names[0]])), digests[0]);
    // And of what is damaged only that.
    let path = daemon.data_root().join("blobs/sha256").join(&digests[0][7..]);
    std::fs::write(path, "{}").unwrap();
    daemon.cli(["system", "check", "--repair"]);
    clean(&daemon);
    assert_eq!(pushed(&daemon.cli(["push", &names[2]])), digests[2]);
    assert_ne!(pushed(&daemon.cli(["push", &names[0]])), digests[0]);
    daemon.cli(["rmi", &names[0], &names[2], &copies[0], &copies[2]]).ok();
    assert_eq!(blobs(&daemon), [""; 0]);
    drop(registry);
    daemon.finish();
}

#[test]
fn an_index_that_cannot_be_whole_stays_behind_and_is_named() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let (mut both, mut arm) = (Layout::default(), Layout::default());
    let own = both.image(&image("amd64"));
    let other = both.image(&image("arm64"));
    let own_digest = own["digest"].as_str().unwrap().to_owned();
    let (archive, index) = both.archive(&format!("{REPOSITORY}:1"), vec![own, other], None);
    load(&daemon, &archive);
    let note = |red: &str, green: &str| {
        format!(
            "\n\n Info -> Not all multiplatform-content is present and only the available single-platform image was pushed\n         \
             {red}{index}{} -> {green}{own_digest}{}",
            "\x1b[0m", "\x1b[0m"
        )
    };
    let first = daemon.cli(["push", &format!("{REPOSITORY}:1")]);
    assert_eq!(pushed(&first), own_digest);
    assert!(
        first.stdout.trim_end().ends_with(&note("\x1b[31m", "\x1b[32m")),
        "{first:?}"
    );
    // The same as Docker's own client says of it.
    // Layers come in any order.
    let after = |output: Output| output.stdout.split_once("\n1: digest").unwrap().1.to_owned();
    assert_eq!(
        after(daemon.cli(["push", &format!("{REPOSITORY}:1")])),
        after(daemon.docker(["push", &format!("{REPOSITORY}:1")]))
    );
    // The registry gets the other platform from somebody else: now all of it is there.
    let other = arm.image(&image("arm64"));
    let (archive, _) = arm.archive(&format!("{REPOSITORY}:arm"), vec![other], None);
    daemon
        .run(["load", "-q", "--platform", "linux/arm64"])
        .input(archive.as_slice())
        .ok();
    daemon.cli(["push", &format!("{REPOSITORY}:arm")]).ok();
    let whole = daemon.cli(["push", &format!("{REPOSITORY}:1")]);
    assert_eq!(pushed(&whole), index);
    assert!(!whole.stdout.contains("Info"), "{whole:?}");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

#[test]
fn an_image_does_without_attestations_that_are_not_there() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let mut layout = Layout::default();
    let own = layout.image(&image("amd64"));
    let lost = layout.attestation(&own, "lost");
    let without = lost.clone();
    let (archive, _) = layout.archive(&format!("{REPOSITORY}:1"), vec![own, lost], Some(&without));
    load(&daemon, &archive);
    let output = daemon.cli(["push", &format!("{REPOSITORY}:1")]);
    assert!(output.stdout.contains("Info -> Not all"), "{output:?}");
    // A damaged part of the index is found, and what is repaired is pushed.
    daemon.cli(["rmi", &format!("{REPOSITORY}:1")]).ok();
    let (archive, index) = built(&format!("{REPOSITORY}:2"));
    load(&daemon, &archive);
    let path = daemon.data_root().join("blobs/sha256").join(&index[7..]);
    std::fs::write(&path, "{}").unwrap();
    let check = daemon.cli(["system", "check"]);
    assert!(format!("{check:?}").contains("without its index"), "{check:?}");
    daemon.cli(["system", "check", "--repair"]);
    clean(&daemon);
    assert!(!path.exists());
    assert_ne!(pushed(&daemon.cli(["push", &format!("{REPOSITORY}:2")])), index);
    drop(registry);
    daemon.finish();
}

#[test]
fn lists_are_made_annotated_pushed_and_shown_as_docker_does() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &["--allow-delete"]);
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut layout = Layout::default();
        let own = layout.image(&image(architecture));
        manifests.push(own.clone());
        let name = format!("{REPOSITORY}:{architecture}");
        let (archive, _) = layout.archive(&name, vec![own], None);
        let platform = format!("linux/{architecture}");
        daemon.run(["load", "-q", "--platform", &platform]).input(archive).ok();
        daemon.cli(["push", "-q", "--platform", &platform, &name]).ok();
    }
    let (ferry, docker) = (tools::ferry(), tools::docker());
    let list = format!("{REPOSITORY}:list");
    let (amd, arm) = (format!("{REPOSITORY}:amd64"), format!("{REPOSITORY}:arm64"));
    let other = "127.0.0.1:5000/other/list:1";
    for line in [
        vec!["inspect", "--insecure", &amd],
        vec!["inspect", "--insecure", "-v", &amd],
        vec!["inspect", "--insecure", "127.0.0.1:5000/team/app:none"],
        vec!["inspect", "--insecure", "Bad"],
        vec!["create", "--insecure", &list, &amd, &arm],
        vec!["create", "--insecure", &list, &amd],
        vec!["create", "--insecure", "--amend", &list, &amd],
        vec![
            "annotate",
            &list,
            &arm,
            "--variant",
            "v8",
            "--os-features",
            "a,b",
            "--os-version",
            "1",
        ],
        vec!["annotate", &list, &arm, "--arch", "nonsense"],
        vec!["annotate", &list, "127.0.0.1:5000/team/app:none", "--os", "linux"],
        vec!["inspect", &list],
        vec!["inspect", "-v", &list],
        vec!["inspect", &list, &arm],
        vec!["inspect", &list, "127.0.0.1:5000/team/app:none"],
        vec!["push", "--insecure", &list],
        vec!["create", "--insecure", "127.0.0.1:5000/team/app:again", &list],
        vec!["create", "--insecure", other, &amd, &arm],
        vec!["push", "--insecure", "--purge", other],
        vec!["push", "--insecure", other],
        vec!["rm", &list, other],
        vec!["inspect", "--insecure", &list],
        vec!["inspect", "--insecure", "-v", &list],
        vec!["create", "docker.io/library/x:1"],
    ] {
        let line: Vec<&str> = ["manifest"].into_iter().chain(line).collect();
        let theirs = beside(&daemon, &docker, "docker", &line);
        let ours = beside(&daemon, &ferry, "ferry", &line);
        let renamed = ours.stderr.replace("ferry", "docker");
        assert_eq!(
            (ours.code, &ours.stdout),
            (theirs.code, &theirs.stdout),
            "{line:?}: {ours:?}"
        );
        assert_eq!(renamed, theirs.stderr, "{line:?}");
    }
    // One reads what the other has written.
    let (here, there) = (daemon.dir().join("ferry/.docker"), daemon.dir().join("docker/.docker"));
    beside(
        &daemon,
        &ferry,
        "ferry",
        &["manifest", "create", "--insecure", &list, &amd, &arm],
    )
    .ok();
    std::fs::remove_dir_all(there.join("manifests")).unwrap();
    std::fs::rename(here.join("manifests"), there.join("manifests")).unwrap();
    let theirs = beside(&daemon, &docker, "docker", &["manifest", "inspect", "-v", &list]).ok();
    std::fs::rename(there.join("manifests"), here.join("manifests")).unwrap();
    let ours = beside(&daemon, &ferry, "ferry", &["manifest", "inspect", "-v", &list]).ok();
    assert_eq!(ours, theirs);
    // A list whose first entry is one of Docker's types and the list is not, one with a list in it, and one with an entry that is
    // gone: what is shown, and why nothing is.
    let url = format!("http://{}/v2/team/app/manifests", Registry::ADDRESS);
    let put = |tag: &str, content: &Value| {
        let (kind, body) = (format!("Content-Type: {OCI_INDEX}"), content.to_string());
        let at = format!("{url}/{tag}");
        let line = [
            "curl",
            "-fsS",
            "-o",
            "/dev/null",
            "-X",
            "PUT",
            "-H",
            &kind,
            "-d",
            &body,
            &at,
        ];
        daemon.in_namespace(&line).ok();
    };
    let both =
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "annotations": { "k": "v" }, "manifests": manifests });
    put("both", &both);
    let inner = json!({ "mediaType": OCI_INDEX, "size": both.to_string().len(), "digest": format!("sha256:{}", sha256(both.to_string().as_bytes())) });
    put(
        "nested",
        &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner] }),
    );
    let show = |tag: &str| {
        for flags in [&["--insecure"][..], &["--insecure", "-v"]] {
            let name = format!("{REPOSITORY}:{tag}");
            let line: Vec<&str> = ["manifest", "inspect"]
                .iter()
                .chain(flags)
                .copied()
                .chain([name.as_str()])
                .collect();
            let theirs = beside(&daemon, &docker, "docker", &line);
            let ours = beside(&daemon, &ferry, "ferry", &line);
            assert_eq!(
                (ours.code, &ours.stdout),
                (theirs.code, &theirs.stdout),
                "{line:?}: {ours:?} {theirs:?}"
            );
            assert_eq!(ours.stderr, theirs.stderr, "{line:?}");
        }
    };
    show("both");
    show("nested");
    let gone = format!("{url}/{}", manifests[1]["digest"].as_str().unwrap());
    daemon.in_namespace(&["curl", "-fsS", "-X", "DELETE", &gone]).ok();
    show("both");
    // A file that was tampered with is refused.
    let dir = here.join("manifests/127.0.0.1-5000_team_app-list");
    let path = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    std::fs::write(path, "{").unwrap();
    let bad = beside(&daemon, &ferry, "ferry", &["manifest", "push", &list]).fails(1);
    assert!(bad.contains("is no manifest of a list"), "{bad}");
    drop(registry);
    daemon.finish();
}

const ANSWER: &str = r#"{"num_results":3,"query":"web","results":[
    {"name":"nginx","description":"Official build of Nginx, with a description\nthat goes on and on for ever","star_count":20000,"is_official":true,"is_automated":false},
    {"name":"team/web","description":"","star_count":12,"is_official":false,"is_automated":true},
    {"name":"x/web","description":null,"star_count":3,"is_official":false}]}"#;

/// An index that answers as Docker Hub's does, once for each element: docker.io cannot be reached from here.
fn index(daemon: &TestDaemon, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
    let network = std::fs::File::open(daemon.network()).unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:5002").unwrap();
        ready.send(()).unwrap();
        let mut asked = Vec::new();
        while asked.len() < answers.len() {
            let (mut client, _) = listener.accept().unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
                // TLS, which is tried first.
                if head[0] != b'G' {
                    break;
                }
            }
            if head.first() == Some(&b'G') {
                let line = String::from_utf8_lossy(&head).lines().next().unwrap().to_owned();
                let answer = &answers[asked.len()];
                asked.push(line);
                client.write_all(answer.as_bytes()).unwrap();
            }
        }
        asked
    });
    is_ready.recv().unwrap();
    thread
}

#[test]
fn search_shows_what_the_index_finds() {
    let daemon = TestDaemon::start();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let fine = answer("200 OK", ANSWER);
    let answers = vec![
        fine.clone(),
        fine.clone(),
        fine.clone(),
        fine.clone(),
        fine.clone(),
        fine.clone(),
        answer("404 Not Found", "no"),
        answer("200 OK", "<html>"),
    ];
    let asked = index(&daemon, answers);
    let term = "127.0.0.1:5002/web";
    let table = daemon.cli(["search", term]);
    assert_eq!(
        table.ok(),
        "NAME       DESCRIPTION                                     STARS     OFFICIAL\n\
         nginx      Official build of Nginx, with a description …   20000     [OK]\n\
         team/web                                                   12        \n\
         x/web                                                      3"
    );
    for line in [
        vec!["search", "--no-trunc", "--limit", "7", "--filter", "stars=10", term],
        vec!["search", "--format", "{{json .}}", "-f", "is-official=false", term],
    ] {
        assert_eq!(daemon.cli(&line).stdout, daemon.docker(&line).stdout, "{line:?}");
    }
    assert_eq!(
        daemon
            .cli(["search", "--format", "{{.Name}}", "-f", "is-official=true", term])
            .ok(),
        "nginx"
    );
    let error = daemon.cli(["search", term]).fails(1);
    assert!(error.contains("Unexpected status code 404"), "{error}");
    let error = daemon.cli(["search", term]).fails(1);
    assert!(error.contains("error decoding registry search results"), "{error}");
    let asked = asked.join().unwrap();
    assert_eq!(asked[0], "GET /v1/search?q=web&n=25 HTTP/1.1");
    assert_eq!(asked[1], "GET /v1/search?q=web&n=7 HTTP/1.1");
    // What asks nobody.
    for (line, said) in [
        (
            vec!["search", "--limit", "101", term],
            "limit 101 is outside the range of [1, 100]",
        ),
        (vec!["search", "-f", "nope=1", term], "invalid filter 'nope'"),
        (vec!["search", "-f", "stars=x", term], "invalid filter 'stars=[x]'"),
        (vec!["search", "http://x/y"], "should not have a scheme"),
    ] {
        let error = daemon.cli(&line).fails(1);
        assert!(error.contains(said), "{line:?}: {error}");
    }
    assert_eq!(
        daemon
            .cli(["search", "--format", "{{.Name}}", "-f", "is-automated=true", term])
            .ok(),
        ""
    );
    // Without a network.
    let error = daemon.cli(["search", "web"]).fails(1);
    assert!(error.contains("index.docker.io"), "{error}");
    daemon.finish();
}
