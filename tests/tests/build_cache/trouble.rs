//! Caches that are broken, lie, or should not be there at all.

use std::path::Path;

use ferry_testkit::Run;
use serde_json::Value;

use super::{BOTH, Cached, at, has};
use crate::build::Place;

#[test]
fn a_cache_that_is_broken_breaks_no_build() {
    let mut place = Cached::new();
    let cache = at("app:cache");
    place.builds(&format!("--cache-to type=registry,ref={cache},mode=max"));
    let manifest = place.get("app/manifests/cache");
    let config = manifest["config"]["digest"].as_str().unwrap();
    let records = place.get(&format!("app/blobs/{config}"));
    let described = |record: &&Value| record["description"].as_str().unwrap().contains("COPY src");
    let copied = records["ferry"]["records"].as_array().unwrap().iter().find(described);
    let copied = copied.unwrap()["layers"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_u64()
        .unwrap();
    let diff_id = &records["ferry"]["diff_ids"][usize::try_from(copied).unwrap()];
    let entries = records["layers"].as_array().unwrap().iter();
    let mut blobs = entries.filter(|entry| entry["annotations"]["diffID"] == *diff_id);
    let blob = blobs.next().unwrap()["blob"].as_str().unwrap().to_owned();
    place.lose(&blob);
    place.empty();
    let second = place.builds(&format!("-t app --cache-from {cache}"));
    // What stands on the missing layer is made again, as is that layer; what it stands on is fetched.
    has(&second, "is made again: the cache");
    assert_eq!(place.inside("app", "cat /both"), BOTH);
    assert!(Place::remembered(&second) >= 1, "{second:?}");

    place.empty();
    let third = place.builds(&format!("-t app --cache-from {}", at("none:1")));
    has(&third, "none:1 not found: manifest unknown");
    assert_eq!(Place::remembered(&third), 0, "{third:?}");
    let nowhere = "type=registry,ref=127.0.0.1:9/x:1";
    let failed = place.build(&format!("--cache-to {nowhere}"));
    assert_eq!(failed.code, 1, "{failed:?}");
    has(&failed, "connection refused");
    place.builds(&format!("--cache-to {nowhere},ignore-error=true"));
    place.is_clean();
}

/// Stages that are independent of each other would ask one after another, and each wait for as long as a client tries again.
#[test]
fn a_registry_that_fails_in_the_middle_of_a_build_is_asked_once() {
    let mut place = Cached::new();
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN echo {name} > /{name}\n");
    let copy = |name: &str| format!("COPY --from={name} /{name} /{name}\n");
    let names = ["a", "b", "c", "d"];
    let dockerfile: String =
        names.map(stage).concat() + "FROM busybox\nARG last\nRUN echo $last\n" + &names.map(copy).concat();
    place.write("Dockerfile", &dockerfile);
    let cache = at("app:cache");
    place.builds(&format!("--cache-to type=registry,ref={cache},mode=max"));
    for layer in place.get("app/manifests/cache")["layers"].as_array().unwrap() {
        place.spoil(layer["digest"].as_str().unwrap());
    }
    place.empty();
    let second = place.builds(&format!("-t app --build-arg last=other --cache-from {cache}"));
    assert_eq!(
        second.stderr.matches("is made again: the cache").count(),
        1,
        "{second:?}"
    );
    has(&second, "cannot be read, and is asked no more");
    assert_eq!(place.inside("app", "cat /a /b /c /d"), "a\nb\nc\nd");
    place.is_clean();
}

#[test]
fn what_a_url_has_is_fetched_again_if_the_cache_lost_it() {
    let mut place = Cached::new();
    let url = format!("http://{}/v2/", ferry_testkit::Registry::ADDRESS);
    let content = place.engine.in_namespace(&["curl", "-fsS", &url]).ok();
    let sum = Run::new("sha256sum").input(content.clone()).ok();
    let sum = sum.split(' ').next().unwrap();
    place.write(
        "Dockerfile",
        &format!("FROM busybox\nADD --checksum=sha256:{sum} {url} /added\n"),
    );
    let cache = at("app:cache");
    place.builds(&format!("--cache-to type=registry,ref={cache},mode=max"));
    let manifest = place.get("app/manifests/cache");
    for layer in manifest["layers"].as_array().unwrap() {
        place.lose(layer["digest"].as_str().unwrap());
    }
    place.empty();
    let second = place.builds(&format!("-t app --cache-from {cache}"));
    assert_eq!(
        second.stderr.matches("is made again: the cache").count(),
        2,
        "{second:?}"
    );
    assert_eq!(place.inside("app", "cat /added"), content);
}

/// Writes a cache in a directory whose configuration is another one, with digests that are right.
fn forge(dir: &Path, change: impl FnOnce(&mut Value)) {
    let blob = |digest: &Value| dir.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let write = |entry: &mut Value, content: &Value| {
        let text = content.to_string();
        let sum = Run::new("sha256sum").input(text.clone()).ok();
        entry["digest"] = format!("sha256:{}", sum.split(' ').next().unwrap()).into();
        entry["size"] = text.len().into();
        std::fs::write(blob(&entry["digest"]), text).unwrap();
    };
    let mut index = read(&dir.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    change(&mut config);
    write(&mut manifest["config"], &config);
    write(&mut index["manifests"][0], &manifest);
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn a_cache_that_lies_is_not_believed() {
    let mut place = Cached::new();
    place.write(".dockerignore", "*\n!src\n");
    place.builds("--cache-to type=local,dest=cache,mode=max");
    let copy = |name: &str| {
        Run::new("cp")
            .args(["-r", "cache", name])
            .directory(place.context.path())
            .ok();
        place.path(name)
    };
    forge(&copy("cyclic"), |config| {
        let records = config["ferry"]["records"].as_array_mut().unwrap();
        let last = records.last().unwrap()["key"].clone();
        records[0]["parents"] = serde_json::json!([last]);
    });
    forge(&copy("malformed"), |config| {
        config["ferry"]["records"][0]["layers"] = "x".into();
    });
    forge(&copy("foreign"), |config| {
        drop(config.as_object_mut().unwrap().remove("ferry"));
    });
    // All layers are said to be the first one.
    forge(&copy("swapped"), |config| {
        let first = config["layers"][0]["blob"].clone();
        let layers = config["layers"].as_array_mut().unwrap();
        layers.iter_mut().for_each(|entry| entry["blob"] = first.clone());
    });
    forge(&copy("huge"), |config| config["padding"] = "x".repeat(9 << 20).into());
    let changed = copy("changed");
    for file in Run::new("find")
        .args([changed.join("blobs")])
        .args(["-size", "-9", "-type", "f"])
        .ok()
        .lines()
    {
        let mut bytes = std::fs::read(file).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(file, bytes).unwrap();
        }
    }
    for (name, text, most) in [
        ("cyclic", "which it is made of", 0),
        ("malformed", "its configuration is malformed", 0),
        ("foreign", "the cache is BuildKit's and has nothing for this builder", 0),
        ("swapped", "invalid diffID for layer", 1),
        ("huge", "are the most there may be", 0),
        ("changed", "is made again: the cache", 1),
    ] {
        place.empty();
        let built = place.builds(&format!("-t app --cache-from type=local,src={name}"));
        has(&built, text);
        assert!(Place::remembered(&built) <= most, "{name}: {built:?}");
        assert_eq!(place.inside("app", "cat /both"), BOTH, "{name}");
        place.is_clean();
    }
}

#[test]
fn a_secret_is_in_no_cache() {
    const SECRET: &str = "5f0c1d77-nobody-may-see-this";
    let mut place = Cached::new();
    place.write("token", SECRET);
    place.write(".dockerignore", "token\ncache\n");
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=token,required wc -c < /run/secrets/token > /size\n",
    );
    let options = "--secret id=token,src=token -t app";
    place.builds(&format!(
        "{options} --cache-to type=local,dest=cache,mode=max,compression=uncompressed"
    ));
    let found = Run::new("grep")
        .args(["-rlF", SECRET])
        .args([place.path("cache")])
        .output();
    assert_eq!(found.stdout, "", "{found:?}");
    // The layer is in it as it is.
    let size = Run::new("grep")
        .args(["-rlx", &SECRET.len().to_string()])
        .args([place.path("cache")])
        .output();
    assert_ne!(size.stdout, "", "{size:?}");
    place.empty();
    let second = place.builds(&format!("{options} --cache-from type=local,src=cache"));
    assert_eq!(Place::remembered(&second), 1, "{second:?}");
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let place = Cached::new();
    for (options, text) in [
        (
            "--cache-to type=gha",
            "there is no cache of type gha: use type=registry",
        ),
        ("--cache-from type=s3,bucket=x", "there is no cache of type s3"),
        ("--cache-to type=local", "dest is required"),
        ("--cache-to type=registry,ref=x,mode=all", "invalid mode: all"),
        ("--cache-to type=registry,ref=x,token=1", "there is no attribute token"),
        ("--cache-to type=inline,mode=max", "use type=registry"),
        ("--cache-to type=inline -o out", "nothing of this build is an image"),
    ] {
        let refused = place.build(options);
        has(&refused, text);
        assert_eq!(refused.code, 1, "{options}: {refused:?}");
    }
}
