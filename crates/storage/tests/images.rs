//! Names, removal, import, single files, snapshots.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::os::unix::fs::MetadataExt as _;

use ferry_image::{Digest, Reference};
use ferry_storage::{Batch, Durability, Error, ImportOptions, RemoveOptions, Removed, Single, User};
use serde_json::json;
use support::{Bench, Fixture, gzip, names, pack, tar};

const PLAIN: RemoveOptions = RemoveOptions {
    force: false,
    prune: true,
};
const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    prune: true,
};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn id(fixture: &Fixture) -> Digest {
    fixture.id().parse().unwrap()
}

fn user(fixture: &Fixture, running: bool) -> User {
    User {
        image: id(fixture),
        container: "0123456789abcdef0123".to_owned(),
        running,
    }
}

fn untagged(name: &str) -> Removed {
    Removed::Untagged(name.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_the_last_name_removes_the_image_and_its_own_layers() {
    let bench = Bench::new();
    let base = tar(&[("base", b"0123456789")]);
    let one = Fixture::new("one:1", &[base.clone(), tar(&[("one", b"1")])]);
    let two = Fixture::new("two:1", &[base, tar(&[("two", b"2")])]);
    for fixture in [&one, &two] {
        tokio::task::block_in_place(|| bench.load(&pack(&fixture.docker_legacy()))).unwrap();
    }
    let image = bench.store.images.resolve("one:1").unwrap();
    let removed = bench.store.images.remove("one:1", PLAIN, Vec::new()).await.unwrap();
    let deleted = |digest: &Digest| Removed::Deleted(digest.to_string());
    assert_eq!(
        removed,
        [
            untagged("one:1"),
            deleted(&id(&one)),
            deleted(&image.layers[1].chain_id)
        ]
    );
    assert_eq!(names(&bench.root().join("layers")).len(), 2);
    assert_eq!(
        bench.store.images.resolve("one:1").unwrap_err().to_string(),
        "No such image: one:1"
    );
    let image = bench.store.images.resolve("two:1").unwrap();
    let removed = bench
        .store
        .images
        .remove(&two.id()[7..15], PLAIN, Vec::new())
        .await
        .unwrap();
    let chains = image.layers.iter().rev().map(|layer| deleted(&layer.chain_id));
    let expected: Vec<_> = [untagged("two:1"), deleted(&id(&two))]
        .into_iter()
        .chain(chains)
        .collect();
    assert_eq!(removed, expected);
    assert_eq!(bench.litter(), Vec::<String>::new());
    let bench = bench.reopen();
    assert!(bench.store.images.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_dockers_words() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    tokio::task::block_in_place(|| bench.load(&pack(&fixture.docker_legacy()))).unwrap();
    let images = &bench.store.images;
    let short = fixture.id()[7..19].to_owned();
    let error = |result: Result<Vec<Removed>, Error>| result.unwrap_err().to_string();
    assert_eq!(
        error(images.remove("busybox:1", PLAIN, vec![user(&fixture, false)]).await),
        format!(
            "conflict: unable to remove repository reference \"busybox:1\" (must force) - container 0123456789ab is using its referenced image {short}"
        )
    );
    assert_eq!(
        error(images.remove(&short, PLAIN, vec![user(&fixture, false)]).await),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    for options in [PLAIN, FORCE] {
        assert_eq!(
            error(images.remove(&short, options, vec![user(&fixture, true)]).await),
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
            )
        );
    }
    // By name and by force: the name goes, the image stays for the container.
    assert_eq!(
        images
            .remove("busybox:1", FORCE, vec![user(&fixture, true)])
            .await
            .unwrap(),
        [untagged("busybox:1")]
    );
    images.tag(&id(&fixture), &reference("a:1")).await.unwrap();
    images.tag(&id(&fixture), &reference("b:1")).await.unwrap();
    assert_eq!(
        error(images.remove(&short, PLAIN, Vec::new()).await),
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );
    assert_eq!(
        images.remove("a:1", PLAIN, vec![user(&fixture, true)]).await.unwrap(),
        [untagged("a:1")]
    );
    images.tag(&id(&fixture), &reference("a:1")).await.unwrap();
    let removed = images.remove(&short, FORCE, Vec::new()).await.unwrap();
    assert_eq!(removed[..2], [untagged("a:1"), untagged("b:1")]);
    assert_eq!(
        error(images.remove("busybox", PLAIN, Vec::new()).await),
        "No such image: busybox:latest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_survive_a_restart_and_can_be_taken_away() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    tokio::task::block_in_place(|| bench.load(&pack(&fixture.docker_legacy()))).unwrap();
    bench
        .store
        .images
        .tag(&id(&fixture), &reference("other:2"))
        .await
        .unwrap();
    bench.store.images.untag(&reference("busybox:1")).await.unwrap();
    assert!(matches!(
        bench.store.images.untag(&reference("busybox:1")).await,
        Err(Error::NotFound { .. })
    ));
    let bench = bench.reopen();
    let image = bench.store.images.resolve("other:2").unwrap();
    let all: Vec<_> = image.references.iter().map(Reference::familiar).collect();
    assert_eq!(all, ["other:2"]);
    assert!(image.last_tagged.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_keeps_its_layers_when_the_image_is_removed_by_force() {
    let bench = Bench::new();
    let fixture = Fixture::busybox("busybox:1");
    tokio::task::block_in_place(|| bench.load(&pack(&fixture.docker_legacy()))).unwrap();
    let image = bench.store.images.resolve("busybox:1").unwrap();
    let snapshot = bench
        .store
        .snapshots
        .prepare(
            "abc",
            &image,
            Vec::new(),
            Some((1000, 1001)),
            Batch::default(),
            Durability::Process,
        )
        .await
        .unwrap();
    assert_eq!(snapshot.layers.len(), 2);
    assert!(snapshot.layers[0].join("etc/hosts").exists(), "top first");
    let (upper, work) = (
        std::fs::metadata(&snapshot.upper).unwrap(),
        std::fs::metadata(&snapshot.work).unwrap(),
    );
    assert_eq!((upper.mode() & 0o777, upper.uid(), upper.gid()), (0o755, 1000, 1001));
    assert_eq!((work.mode() & 0o777, work.uid()), (0o700, 1000));
    assert!(
        bench
            .store
            .snapshots
            .prepare("abc", &image, Vec::new(), None, Batch::default(), Durability::Process)
            .await
            .is_err()
    );
    assert!(
        bench
            .store
            .snapshots
            .prepare(
                "../abc",
                &image,
                Vec::new(),
                None,
                Batch::default(),
                Durability::Process
            )
            .await
            .is_err()
    );

    std::fs::write(snapshot.upper.join("new"), "12345").unwrap();
    std::fs::hard_link(snapshot.upper.join("new"), snapshot.upper.join("same")).unwrap();
    let usage = bench.store.snapshots.usage("abc").await.unwrap();
    assert_eq!((usage.rw, usage.root_fs), (5, 5 + image.size));
    bench.store.snapshots.reset("abc").await.unwrap();
    assert_eq!(bench.store.snapshots.usage("abc").await.unwrap().rw, 0);

    let removed = bench
        .store
        .images
        .remove(&fixture.id(), FORCE, vec![user(&fixture, false)])
        .await
        .unwrap();
    assert_eq!(removed.len(), 2, "no layer: {removed:?}");
    let bench = bench.reopen();
    assert_eq!(bench.store.snapshots.get("abc").unwrap(), snapshot);
    assert!(snapshot.layers[1].join("bin/busybox").exists());
    bench.store.snapshots.remove("abc").await.unwrap();
    bench.store.snapshots.remove("abc").await.unwrap();
    assert!(bench.store.snapshots.get("abc").is_err());
    assert_eq!(bench.litter(), Vec::<String>::new());
    assert!(bench.reopen().store.snapshots.containers().is_empty());
}

#[test]
fn an_import_is_an_image_of_one_layer() {
    let bench = Bench::new();
    let options = ImportOptions {
        reference: Some(reference("imported:1")),
        changes: vec!["CMD [\"<a>\"]".to_owned(), "ENV A=1".to_owned()],
        engine_version: "28.5.2".to_owned(),
        ..ImportOptions::default()
    };
    let image = bench
        .store
        .images
        .import(&gzip(&tar(&[("f", b"123")]))[..], &options)
        .unwrap();
    assert_eq!((image.size, image.layers.len(), image.references.len()), (3, 1, 1));
    let text = String::from_utf8(image.raw_config.clone()).unwrap();
    assert!(
        text.starts_with(r#"{"architecture":""#)
            && text.contains(r#","comment":"Imported from -","config":{"Hostname":"""#),
        "{text}"
    );
    assert!(text.contains(r#""Cmd":["\u003ca\u003e"]"#), "{text}");
    assert!(
        text.contains(r#""docker_version":"28.5.2","history":[{"created":""#),
        "{text}"
    );
    let again = bench
        .store
        .images
        .import(&tar(&[("f", b"123")])[..], &ImportOptions::default())
        .unwrap();
    assert_eq!(again.layers[0].chain_id, image.layers[0].chain_id);
    assert!(again.references.is_empty());
    let bad = ImportOptions {
        changes: vec!["RUN x".to_owned()],
        ..ImportOptions::default()
    };
    assert_eq!(
        bench.store.images.import(&b""[..], &bad).unwrap_err().to_string(),
        "RUN is not a valid change command"
    );
    for bytes in [
        &b"not a tar, but long enough to be looked at as if it were one: 512 bytes are needed".repeat(10)[..],
        &gzip(&tar(&[("f", b"1")]))[..40],
    ] {
        assert!(matches!(
            bench.store.images.import(bytes, &ImportOptions::default()),
            Err(Error::Archive { .. })
        ));
    }
    assert_eq!(names(&bench.root().join("tmp")), Vec::<String>::new());
}

#[test]
fn a_single_file_makes_an_image_with_a_true_diff_id() {
    let bench = Bench::new();
    let source = bench.dir.path().join("binary");
    std::fs::write(&source, vec![7; 100_001]).unwrap();
    let single = Single {
        reference: reference("ferry/hello"),
        source: source.clone(),
        path: "/usr/bin/hello".into(),
        config: json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/usr/bin/hello"] } }),
    };
    let image = bench.store.images.add_single_file(&single).unwrap();
    let file = bench
        .store
        .root()
        .join("layers")
        .join(image.layers[0].chain_id.encoded())
        .join("fs/usr/bin/hello");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(image.size, 100_001);
    assert_eq!(bench.store.images.add_single_file(&single).unwrap().id, image.id);
    // GNU tar would make the very same layer of it: the tar that is hashed unpacks to what is on disk.
    std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let other = Bench::new();
    let linked = other.store.images.add_single_file(&single).unwrap();
    assert_eq!(linked.id, image.id);
    for path in ["", "/", "../x", "a/../b"] {
        let bad = Single {
            path: path.into(),
            ..single.clone()
        };
        assert!(other.store.images.add_single_file(&bad).is_err(), "{path}");
    }
    assert_eq!(names(&other.root().join("tmp")), Vec::<String>::new());
}
