//! `load`: every kind of archive, and what is wrong with one.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use ferry_storage::{Error, LoadOptions, Progress, Store};
use serde_json::json;
use support::{Bench, Fixture, archive, blob, gzip, index, names, pack, sha256, tar};

#[test]
fn a_docker_archive_becomes_an_image_with_unpacked_layers() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    let loaded = bench.load(&pack(&fixture.docker_legacy())).unwrap();
    assert_eq!(loaded.len(), 1);
    let image = &loaded[0].image;
    assert_eq!(image.id.to_string(), fixture.id());
    assert_eq!(image.raw_config, fixture.raw_config());
    assert_eq!(image.created.unwrap().to_string(), "2024-01-02T03:04:05.678Z");
    assert_eq!(image.size, 6 + 7 + 1);
    assert_eq!(loaded[0].references[0].reference.familiar(), "busybox:1");
    assert_eq!(image.layers[0].chain_id, image.layers[0].diff_id);
    let top = image.layers[1].chain_id.to_string();
    let below = image.layers[0].diff_id.to_string();
    assert_eq!(top, sha256(format!("{below} {}", image.layers[1].diff_id).as_bytes()));
    let fs = bench.root().join("layers").join(&top[7..]).join("fs");
    assert_eq!(std::fs::read(fs.join("etc/hosts")).unwrap(), b"x");
    assert!(
        std::fs::symlink_metadata(fs.join("bin/sh"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(image.layers[0].blob.is_none(), "a plain tar is not kept twice");
    for name in [
        "busybox:1",
        "docker.io/library/busybox:1",
        &fixture.id(),
        &fixture.id()[7..],
        &fixture.id()[7..17],
    ] {
        assert_eq!(bench.store.images.resolve(name).unwrap().id, image.id, "{name}");
    }
    assert_eq!(
        bench.store.images.resolve("nope").unwrap_err().to_string(),
        "No such image: nope:latest"
    );
    let before = names(&bench.root().join("layers"));
    let bench = bench.reopen();
    let image = bench.store.images.resolve("busybox:1").unwrap();
    assert_eq!(
        (image.raw_config.clone(), image.size, image.references.len()),
        (fixture.raw_config(), 14, 1)
    );
    assert_eq!(names(&bench.root().join("layers")), before);
    assert!(bench.store.problems().is_empty());
}

#[test]
fn the_order_of_entries_and_a_compression_around_them_do_not_matter() {
    let fixture = Fixture::busybox("busybox:1");
    let mut files = fixture.docker_legacy();
    for turn in 0..2 {
        files.reverse();
        let plain = pack(&files);
        for bytes in [plain.clone(), gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            let bench = Bench::new();
            assert_eq!(
                bench.load(&bytes).unwrap()[0].image.id.to_string(),
                fixture.id(),
                "{turn}"
            );
        }
    }
}

#[test]
fn a_layer_may_be_a_link_to_another_one() {
    let layer = tar(&[("f", b"1")]);
    let fixture = Fixture::new("twice:1", &[layer.clone(), layer]);
    let loaded = Bench::new().load(&pack(&fixture.docker_legacy())).unwrap();
    assert_eq!(loaded[0].image.layers.len(), 2);
    assert_ne!(loaded[0].image.layers[0].chain_id, loaded[0].image.layers[1].chain_id);
}

/// What `docker save` of 28.5.2 writes: manifest.json and index.json over the same blobs.
#[test]
fn the_combined_layout_of_docker_28_is_read_through_its_manifest_json() {
    let fixture = Fixture::busybox("busybox:1");
    let (mut files, _) = fixture.oci(<[u8]>::to_vec, "");
    let layers: Vec<_> = fixture
        .layers
        .iter()
        .map(|l| format!("blobs/sha256/{}", &sha256(l)[7..]))
        .collect();
    let manifest = json!([{ "Config": format!("blobs/sha256/{}", &fixture.id()[7..]), "RepoTags": ["busybox:1", "other:2"], "Layers": layers, "LayerSources": {} }]);
    files.insert("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap());
    files.insert("repositories".to_owned(), b"{}".to_vec());
    let bench = Bench::new();
    let loaded = bench.load(&archive(&files)).unwrap();
    assert_eq!(loaded[0].references.len(), 2);
    assert_eq!(
        bench.store.images.resolve("other:2").unwrap().id.to_string(),
        fixture.id()
    );
    assert_eq!(names(&bench.root().join("blobs/sha256")), [&fixture.id()[7..]]);
}

#[test]
fn an_oci_layout_keeps_its_manifest_and_its_compressed_layers() {
    type Compress = fn(&[u8]) -> Vec<u8>;
    let zstd: Compress = |bytes| zstd::encode_all(bytes, 3).unwrap();
    for (compress, suffix, name) in [(gzip as Compress, "+gzip", "gzip"), (zstd, "+zstd", "zstd")] {
        let bench = Bench::new();
        let fixture = Fixture::busybox("busybox:1");
        let (files, manifest) = fixture.oci(compress, suffix);
        let loaded = bench.load(&archive(&files)).unwrap();
        let image = &loaded[0].image;
        assert_eq!(image.id.to_string(), fixture.id());
        assert_eq!(image.manifest.as_ref().unwrap().to_string(), manifest);
        for (layer, tar) in image.layers.iter().zip(&fixture.layers) {
            let blob = layer.blob.as_ref().unwrap();
            assert_eq!(
                (blob.digest.to_string(), blob.compression.as_str()),
                (sha256(&compress(tar)), name)
            );
            assert_eq!(
                std::fs::read(bench.store.blob_path(&blob.digest)).unwrap(),
                compress(tar)
            );
        }
        assert_eq!(names(&bench.root().join("blobs/sha256")).len(), 4);
        let bench = bench.reopen();
        assert_eq!(names(&bench.root().join("blobs/sha256")).len(), 4);
        assert!(
            bench.store.images.resolve("busybox:1").unwrap().layers[0]
                .blob
                .is_some()
        );
    }
}

#[test]
fn an_index_of_several_platforms_gives_the_one_that_fits() {
    let amd = Fixture::new("x:1", &[tar(&[("amd", b"")])]);
    let mut arm = Fixture::new("x:1", &[tar(&[("arm", b"")])]);
    arm.config["architecture"] = "arm64".into();
    let mut files = BTreeMap::new();
    let mut entries = Vec::new();
    for (fixture, platform) in [
        (&arm, json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
        (&amd, json!({"os": "linux", "architecture": "amd64"})),
    ] {
        let (more, digest) = fixture.oci(gzip, "+gzip");
        let size = more[&format!("blobs/sha256/{}", &digest[7..])].len();
        files.extend(more);
        entries.push(json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": platform }));
    }
    entries.push(json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(b"attestation"), "size": 9,
        "platform": { "os": "unknown", "architecture": "unknown" }, "annotations": { "vnd.docker.reference.type": "attestation-manifest" } }));
    let nested = json!({ "schemaVersion": 2, "manifests": entries });
    let mut entry = blob(
        &mut files,
        serde_json::to_vec(&nested).unwrap(),
        "application/vnd.oci.image.index.v1+json",
    );
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "docker.io/library/x:1" });
    index(&mut files, &[entry]);
    let bytes = archive(&files);
    let load = |platform: Option<&str>| {
        let options = LoadOptions {
            platform: platform.map(|text| text.parse().unwrap()),
            ..LoadOptions::default()
        };
        Bench::new()
            .store
            .images
            .load(&bytes[..], &options, |_| {})
            .map(|loaded| loaded[0].image.id.to_string())
    };
    assert_eq!(load(None).unwrap(), amd.id());
    assert_eq!(load(Some("linux/arm64")).unwrap(), arm.id());
    assert!(
        load(Some("linux/s390x"))
            .unwrap_err()
            .to_string()
            .contains("linux/arm64")
    );
}

#[test]
fn several_images_share_what_they_share() {
    let bench = Bench::new();
    let base = tar(&[("base", b"0123456789")]);
    let one = Fixture::new("one:1", &[base.clone(), tar(&[("one", b"1")])]);
    let two = Fixture::new("two:1", &[base.clone(), tar(&[("two", b"2")])]);
    let mut seen = 0;
    for fixture in [&one, &two, &one] {
        let count = |progress| {
            if matches!(progress, Progress::Unpacking { total: 1.., .. }) {
                seen += 1;
            }
        };
        bench
            .store
            .images
            .load(&pack(&fixture.docker_legacy())[..], &LoadOptions::default(), count)
            .unwrap();
    }
    assert!(seen > 0);
    assert_eq!(names(&bench.root().join("layers")).len(), 3);
    assert_eq!(bench.store.images.list().len(), 2);
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let bench = Bench::new();
    let (old, new) = (Fixture::busybox("x:1"), Fixture::new("x:1", &[tar(&[("new", b"")])]));
    bench.load(&pack(&old.docker_legacy())).unwrap();
    let loaded = bench.load(&pack(&new.docker_legacy())).unwrap();
    assert_eq!(loaded[0].references[0].replaced.as_ref().unwrap().to_string(), old.id());
    assert!(bench.store.images.resolve(&old.id()).unwrap().references.is_empty());
    assert!(loaded[0].image.last_tagged.is_some());
}

#[test]
fn a_wrong_archive_leaves_nothing_behind() {
    let good = Fixture::busybox("busybox:1");
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let edit = |name: &str, bytes: &[u8]| {
        let mut files = good.docker_legacy();
        let file = files.iter_mut().find(|(known, _)| known.ends_with(name)).unwrap();
        file.1 = bytes.to_vec();
        pack(&files)
    };
    cases.push(("diff id", edit("1aaa/layer.tar", &tar(&[("other", b"")]))));
    cases.push(("no tar", edit("1aaa/layer.tar", &[b'x'; 4096])));
    cases.push(("evil layer", edit("1aaa/layer.tar", &tar(&[("../../../up", b"")]))));
    cases.push(("missing layer", edit("1aaa/layer.tar", b"->../nowhere")));
    cases.push(("link out", edit("1aaa/layer.tar", b"->../../../etc/passwd")));
    cases.push(("config", edit(".json", b"{}")));
    cases.push(("deep", edit("manifest.json", "[".repeat(100_000).as_bytes())));
    cases.push(("long manifest", edit("manifest.json", &vec![b' '; 5 << 20])));
    let with = |mut fixture: Fixture, key: &str, value| {
        fixture.config[key] = value;
        pack(&fixture.docker_legacy())
    };
    cases.push((
        "history",
        with(good.clone(), "history", json!([{}, {}, {}, { "empty_layer": true }])),
    ));
    cases.push((
        "counts",
        with(
            good.clone(),
            "rootfs",
            json!({ "type": "layers", "diff_ids": [sha256(b"")] }),
        ),
    ));
    for id in ["sha256:../../x", "sha999:00", "SHA256:AA", "x", &sha256(b"")[..20]] {
        cases.push((
            "digest",
            with(
                good.clone(),
                "rootfs",
                json!({ "type": "layers", "diff_ids": [id, id] }),
            ),
        ));
    }
    cases.push(("long config", with(good.clone(), "x", "y".repeat(9 << 20).into())));
    cases.push(("no manifest", tar(&[("f", b"x")])));
    cases.push(("empty", Vec::new()));
    let whole = pack(&good.docker_legacy());
    cases.push(("cut", whole[..whole.len() / 2].to_vec()));
    cases.push(("cut gzip", {
        let z = gzip(&whole);
        z[..z.len() - 20].to_vec()
    }));
    cases.push(("name", tar(&[("../manifest.json", b"[]")])));
    let mut bad_tag = good.clone();
    bad_tag.tags = vec!["UPPER CASE"];
    cases.push(("tag", pack(&bad_tag.docker_legacy())));

    let (oci, manifest) = good.oci(gzip, "+gzip");
    let layer = oci
        .keys()
        .find(|name| oci[*name].starts_with(&[0x1f, 0x8b]))
        .unwrap()
        .clone();
    let oci_with = |name: &str, bytes: Option<Vec<u8>>| {
        let mut files = oci.clone();
        match bytes {
            Some(bytes) => files.insert(name.to_owned(), bytes),
            None => files.remove(name),
        };
        archive(&files)
    };
    let manifest_name = format!("blobs/sha256/{}", &manifest[7..]);
    cases.push(("oci layer", oci_with(&layer, Some(gzip(b"changed")))));
    cases.push(("oci layer gone", oci_with(&layer, None)));
    cases.push(("oci manifest", oci_with(&manifest_name, Some(b"{}".to_vec()))));
    let text = String::from_utf8(oci["index.json"].clone()).unwrap();
    cases.push((
        "oci size",
        oci_with("index.json", Some(text.replace("\"size\":", "\"size\":1").into_bytes())),
    ));
    cases.push((
        "oci negative",
        oci_with("index.json", Some(text.replace("\"size\":", "\"size\":-").into_bytes())),
    ));
    let mut both = oci.clone();
    let twofold = blob(
        &mut both,
        br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{"digest":"x","size":1}}"#.to_vec(),
        "m",
    );
    let schema1 = blob(&mut both, br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), "m");
    for (name, entry) in [("both", twofold), ("schema 1", schema1)] {
        index(&mut both, &[entry]);
        cases.push((name, archive(&both)));
    }

    let bench = Bench::new();
    for (name, bytes) in cases {
        let error = bench.load(&bytes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Invalid(_) | Error::Archive { .. } | Error::TooLarge { .. }
            ),
            "{name}: {error:?}"
        );
        assert_eq!(bench.litter(), Vec::<String>::new(), "{name}");
        assert!(bench.store.images.list().is_empty(), "{name}");
    }
    bench.load(&whole).unwrap();
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    struct Cut<'a>(&'a [u8]);
    impl Read for Cut<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                count => Ok(count),
            }
        }
    }
    let bench = Bench::new();
    let whole = pack(&Fixture::busybox("busybox:1").docker_legacy());
    for cut in [0, 700, whole.len() / 2, whole.len()] {
        let error = bench
            .store
            .images
            .load(Cut(&whole[..cut]), &LoadOptions::default(), |_| {})
            .unwrap_err();
        assert!(matches!(error, Error::Archive { .. }), "{error:?}");
        assert_eq!(bench.litter(), Vec::<String>::new());
    }
}

#[test]
fn a_decompression_bomb_ends_early() {
    let bench = Bench::new();
    let bounds = ferry_storage::Expansion {
        free: 1 << 20,
        ratio: 100,
    };
    let options = LoadOptions {
        expansion: bounds,
        ..LoadOptions::default()
    };
    let mut zeros = gzip(&vec![0; 16 << 20]);
    let error = bench.store.images.load(&zeros[..], &options, |_| {}).unwrap_err();
    assert!(format!("{error:?}").contains("100 times"), "{error:?}");
    let mut fixture = Fixture::busybox("x:1");
    fixture.layers = vec![tar(&[("zeros", &vec![0; 16 << 20])])];
    zeros = archive(&fixture.oci(gzip, "+gzip").0);
    assert!(bench.store.images.load(&zeros[..], &options, |_| {}).is_err());
    assert_eq!(bench.litter(), Vec::<String>::new());
}

#[test]
fn loads_at_the_same_time_unpack_a_layer_once() {
    let bench = Bench::new();
    let base = tar(&[("base", &vec![b'x'; 1 << 20])]);
    let archives: Vec<_> = ["a:1", "b:1", "c:1", "d:1"]
        .into_iter()
        .map(|tag| pack(&Fixture::new(tag, &[base.clone(), tar(&[("own", tag.as_bytes())])]).docker_legacy()))
        .collect();
    std::thread::scope(|scope| {
        for archive in archives.iter().chain(&archives) {
            scope.spawn(|| bench.load(archive).unwrap());
        }
    });
    assert_eq!(bench.store.images.list().len(), 4);
    assert_eq!(names(&bench.root().join("layers")).len(), 5);
}

#[test]
fn a_start_collects_what_a_crash_left() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    bench.load(&pack(&fixture.docker_legacy())).unwrap();
    let root = bench.root();
    let before: Vec<_> = ["layers", "blobs/sha256"]
        .iter()
        .map(|dir| names(&root.join(dir)))
        .collect();
    for dir in ["tmp/half/fs/deep", "layers/00ff/fs", "containers/dead/upper"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::write(root.join("blobs/sha256/00ff"), "x").unwrap();
    let bench = bench.reopen();
    let after: Vec<_> = ["layers", "blobs/sha256"]
        .iter()
        .map(|dir| names(&root.join(dir)))
        .collect();
    assert_eq!(before, after);
    assert!(
        bench
            .litter()
            .iter()
            .all(|name| !name.contains("dead") && !name.starts_with("tmp"))
    );
}

#[test]
fn an_image_whose_files_are_damaged_is_named_and_the_others_work() {
    let bench = Bench::new();
    let (bad, good) = (Fixture::busybox("bad:1"), Fixture::new("good:1", &[tar(&[("g", b"")])]));
    bench.load(&pack(&bad.docker_legacy())).unwrap();
    bench.load(&pack(&good.docker_legacy())).unwrap();
    let path = bench.root().join("blobs/sha256").join(&bad.id()[7..]);
    std::fs::write(&path, "{}").unwrap();
    let bench = bench.reopen();
    let problems = bench.store.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].what.contains(&bad.id()), "{problems:?}");
    bench.store.images.resolve("good:1").unwrap();
    assert!(bench.store.images.resolve("bad:1").is_err());
    assert!(path.exists(), "left alone");
}

#[test]
fn a_data_root_belongs_to_one_engine_and_is_closed_to_others() {
    let bench = Bench::new();
    assert!(matches!(Store::open(&bench.root()), Err(Error::InUse { .. })));
    let mode = |path: &str| std::fs::metadata(bench.root().join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode(""), 0o710);
    for dir in ["layers", "containers", "volumes", "tmp", "blobs/sha256"] {
        assert_eq!(mode(dir) & 0o007, 0, "{dir}");
    }
    let clone = bench.store.clone();
    let Bench { dir, store } = bench;
    drop(store);
    assert!(matches!(
        Store::open(&dir.path().join("ferry")),
        Err(Error::InUse { .. })
    ));
    drop(clone);
    Store::open(&dir.path().join("ferry")).unwrap();
}

#[test]
fn the_compressed_form_of_a_layer_may_become_known_later() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    let (plain, oci) = (pack(&fixture.docker_legacy()), archive(&fixture.oci(gzip, "+gzip").0));
    let sharing = Fixture {
        tags: vec!["sharing:1"],
        ..fixture.clone()
    };
    let mut sharing = sharing;
    sharing.config["author"] = "somebody".into();
    bench.load(&pack(&sharing.docker_legacy())).unwrap();
    assert!(bench.load(&plain).unwrap()[0].image.layers[0].blob.is_none());
    let image = &bench.load(&oci).unwrap()[0].image;
    assert!(image.manifest.is_some());
    let blob = image.layers[0].blob.clone().unwrap();
    let bench = bench.reopen();
    {
        assert_eq!(
            bench.store.images.resolve("sharing:1").unwrap().layers[0].blob.as_ref(),
            Some(&blob)
        );
        assert!(bench.store.blob_path(&blob.digest).exists());
        bench.load(&plain).unwrap();
        assert!(bench.store.images.resolve("busybox:1").unwrap().manifest.is_some());
    }
}
