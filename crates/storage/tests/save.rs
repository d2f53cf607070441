//! What is saved is what Docker would have saved, and what was loaded.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::sync::Arc;

use ferry_archive::Reader;
use ferry_storage::{CommitOptions, Durability, Error, Image, ImportOptions, UpperOptions, apply_changes};
use serde_json::json;

mod support;
use support::{Bench, Fixture, gzip, sha256, tar};

fn save(bench: &Bench, names: &[&str]) -> Result<Vec<u8>, Error> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut archive = Vec::new();
    bench.store.images.save(&names, None)?.write(&mut archive)?;
    Ok(archive)
}

fn members(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive, ferry_archive::Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(format!("{} {} {}", entry.path.display(), entry.size, entry.mtime.secs));
    }
    names
}

/// `docker save small IMAGE registry.example:5000/team/small:two` of Docker Engine 28.5.2: imported and committed images, one
/// without a name, one with two, one that adds no layer.
#[test]
fn an_archive_is_dockers_byte_for_byte() {
    let golden = include_bytes!("golden/docker-save.tar");
    let bench = Bench::new();
    bench.load(golden).unwrap();
    let nameless = bench.store.images.list();
    let nameless = nameless.iter().find(|image| image.references.is_empty()).unwrap();
    let names = [
        "small",
        &nameless.id.to_string(),
        "registry.example:5000/team/small:two",
    ];
    for bench in [&bench, &Bench::new()] {
        if bench.store.images.list().is_empty() {
            // And once more from what Ferry itself wrote.
            bench.load(golden).unwrap();
        }
        let archive = save(bench, &names).unwrap();
        assert_eq!(members(&archive), members(golden));
        assert_eq!(archive.iter().zip(golden).position(|(a, b)| a != b), None);
        assert_eq!(archive.len(), golden.len());
    }
    let parents = bench
        .store
        .images
        .list()
        .iter()
        .filter(|image| image.parent.is_some())
        .count();
    assert_eq!(parents, 3);
}

#[test]
fn layers_come_out_as_they_went_in_however_they_came() {
    let odd = [
        tar(&[("a", b"one"), ("a", b"two"), ("d/x", b"1"), ("d", b"file")]),
        vec![0; 700],
        b"garbage".to_vec(),
    ]
    .concat();
    let fixture = Fixture::new("odd:1", &[odd.clone(), tar(&[(".wh.a", b""), ("b", b"x")])]);
    for compressed in [false, true] {
        let bench = Bench::new();
        if compressed {
            let (files, _) = fixture.oci(gzip, "+gzip");
            bench.load(&support::archive(&files)).unwrap();
        } else {
            bench.load(&support::pack(&fixture.docker_legacy())).unwrap();
        }
        let archive = save(&bench, &["odd:1"]).unwrap();
        let again = Bench::new();
        let loaded = again.load(&archive).unwrap();
        assert_eq!(loaded[0].image.id.to_string(), fixture.id());
        assert_eq!(loaded[0].references.len(), 1);
        let mut reader = Reader::new(&archive[..], ferry_archive::Limits::default());
        let mut found = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
            if let Some(hex) = entry
                .path
                .to_str()
                .unwrap()
                .strip_prefix("blobs/sha256/")
                .filter(|hex| !hex.is_empty())
            {
                assert_eq!(sha256(&bytes), format!("sha256:{hex}"));
                found += usize::from(bytes == odd);
            }
        }
        assert_eq!(found, 1);
        // Saving is the same every time, after a restart too.
        let bench = bench.reopen();
        assert!(save(&bench, &["odd:1"]).unwrap() == archive);
    }
}

#[test]
fn a_layer_that_was_changed_on_disk_is_an_error() {
    let fixture = Fixture::busybox("x:1");
    let bench = Bench::new();
    bench.load(&support::pack(&fixture.docker_legacy())).unwrap();
    let layers = bench.root().join("layers");
    let layer = layers.join(&sha256(&fixture.layers[0])[7..]);
    let file = layer.join("fs/bin/busybox");
    std::fs::write(&file, "BINARY").unwrap();
    let error = save(&bench, &["x:1"]).unwrap_err();
    assert!(error.to_string().contains("were changed on disk"), "{error}");
    std::fs::write(&file, "bin").unwrap();
    let error = save(&bench, &["x:1"]).unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
    std::fs::remove_file(layer.join("recipe")).unwrap();
    let error = save(&bench, &["x:1"]).unwrap_err();
    assert!(
        error.to_string().contains("load or pull the image once more"),
        "{error}"
    );
}

#[test]
fn what_is_not_there_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    bench
        .load(&support::pack(&Fixture::busybox("x:1").docker_legacy()))
        .unwrap();
    assert!(matches!(save(&bench, &["x:1", "y"]), Err(Error::NotFound { .. })));
    let arm = "linux/arm64".parse().unwrap();
    let refused = bench.store.images.save(&["x:1".to_owned()], Some(&arm)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no suitable export target found for platform linux/arm64"
    );
    let amd = "linux/amd64".parse().unwrap();
    bench.store.images.save(&["x".to_owned()], Some(&amd)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_stay_while_they_are_saved() {
    let bench = Bench::new();
    let archive = support::pack(&Fixture::busybox("x:1").docker_legacy());
    tokio::task::block_in_place(|| bench.load(&archive)).unwrap();
    let saving = bench.store.images.save(&["x:1".to_owned()], None).unwrap();
    let options = ferry_storage::RemoveOptions {
        force: true,
        prune: true,
    };
    bench.store.images.remove("x:1", options, Vec::new()).await.unwrap();
    let mut archive = Vec::new();
    tokio::task::block_in_place(|| saving.write(&mut archive)).unwrap();
    drop(saving);
    assert_eq!(tokio::task::block_in_place(|| bench.load(&archive)).unwrap().len(), 1);
}

async fn container(bench: &Bench, id: &str, image: &Arc<Image>) -> std::path::PathBuf {
    let prepared = bench
        .store
        .snapshots
        .prepare(id, image, Vec::new(), None, Default::default(), Durability::Process);
    prepared.await.unwrap().upper
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_has_the_layer_and_the_configuration_that_docker_makes() {
    let bench = Bench::new();
    let base = tar(&[("etc/motd", b"hi")]);
    let import = ImportOptions {
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV A=b".to_owned()],
        ..ImportOptions::default()
    };
    let image = tokio::task::block_in_place(|| bench.store.images.import(&base[..], &import)).unwrap();
    let upper = container(&bench, "c1", &image).await;
    std::fs::write(upper.join("new"), "x").unwrap();
    std::fs::write(upper.join(".dockerenv"), "").unwrap();
    let config = json!({ "Hostname": "h", "Cmd": ["sh"], "Env": ["A=b"], "Image": "base:1", "ExposedPorts": null });
    let options = CommitOptions {
        container: "c1".to_owned(),
        config: apply_changes(&config, &["LABEL x=y".to_owned()]).unwrap(),
        container_config: config.clone(),
        author: "me <x>".to_owned(),
        comment: "msg".to_owned(),
        reference: Some("com:1".parse().unwrap()),
        source: UpperOptions {
            made: vec![".dockerenv".into()],
            ..UpperOptions::default()
        },
        ..CommitOptions::default()
    };
    let committed = tokio::task::block_in_place(|| bench.store.images.commit(&image, &options)).unwrap();
    assert_eq!(committed.parent.as_ref(), Some(&image.id));
    assert_eq!(committed.layers.len(), 2);
    let text = String::from_utf8(committed.raw_config.clone()).unwrap();
    let created = committed.config.created().clone().unwrap();
    let config = r#"{"Hostname":"h","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=b"],"Cmd":["sh"],"Image":"base:1","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#;
    let first = image.config.created().clone().unwrap();
    let expected = format!(
        r#"{{"architecture":"amd64","author":"me \u003cx\u003e","config":{},"container":"c1","container_config":{config},"created":"{created}","history":[{{"created":"{first}","comment":"Imported from -"}},{{"created":"{created}","created_by":"sh","author":"me \u003cx\u003e","comment":"msg"}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
        config.replace(r#""Labels":null"#, r#""Labels":{"x":"y"}"#),
        committed.layers[0].diff_id,
        committed.layers[1].diff_id,
    );
    assert_eq!(text, expected);
    // Only the file is in the layer, and it can be saved.
    let archive = tokio::task::block_in_place(|| save(&bench, &["com:1"])).unwrap();
    assert_eq!(
        tokio::task::block_in_place(|| Bench::new().load(&archive))
            .unwrap()
            .len(),
        1
    );
    // Nothing changed: no layer.
    container(&bench, "c2", &image).await;
    let options = CommitOptions {
        container: "c2".to_owned(),
        ..options
    };
    let empty = tokio::task::block_in_place(|| bench.store.images.commit(&image, &options)).unwrap();
    assert_eq!(empty.layers.len(), 1);
    assert!(String::from_utf8_lossy(&empty.raw_config).contains(r#""empty_layer":true"#));
    let refused = apply_changes(&json!({}), &["RUN x".to_owned()]).unwrap_err();
    assert_eq!(refused.to_string(), "RUN is not a valid change command");
    let mut export = Vec::new();
    tokio::task::block_in_place(|| bench.store.images.export("c1", &UpperOptions::default(), &mut export)).unwrap();
    assert_eq!(
        members(&export)
            .iter()
            .map(|line| line.split(' ').next().unwrap())
            .collect::<Vec<_>>(),
        [".dockerenv", "etc/", "etc/motd", "new"]
    );
}
