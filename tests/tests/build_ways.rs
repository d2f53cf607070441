//! What the guide to building says besides: contexts by HTTP and in every compression, quiet builds, entitlements, pruning.

use std::time::Duration;

use ferry_testkit::{Run, Running, wait_until};

use crate::build::Place;

const FILE: &str = "FROM busybox\nCOPY said /\nRUN cat /said\n";

/// Serves the context's directory at `127.0.0.1:8000` in the engine's namespace.
fn serve(place: &Place) -> Running {
    let directory = place.path("").display().to_string();
    let line = ["busybox", "httpd", "-f", "-p", "127.0.0.1:8000", "-h", &directory];
    let server = place.engine.in_namespace(&line).time(Duration::from_secs(600)).spawn();
    wait_until("it serves", || {
        place
            .engine
            .in_namespace(&["curl", "-sf", "http://127.0.0.1:8000/said"])
            .output()
            .code
            == 0
    });
    server
}

/// An archive of the Dockerfile and its file, packed by an option of tar's.
fn pack(place: &Place, name: &str, option: &str) -> Vec<u8> {
    let path = place.path(name);
    let tar = Run::new("tar")
        .directory(place.path(""))
        .args(["-c", option, "-f"])
        .args([&path]);
    tar.args(["Dockerfile", "said"]).output().ok();
    std::fs::read(path).unwrap()
}

#[test]
fn a_context_comes_by_http_or_packed_in_any_way() {
    let place = Place::new();
    place.write("Dockerfile", FILE);
    for (name, option) in [
        ("context.tar", "--format=gnu"),
        ("context.tar.gz", "--gzip"),
        ("context.tar.bz2", "--bzip2"),
        ("context.tar.xz", "--xz"),
        ("context.tar.zst", "--zstd"),
    ] {
        place.write("said", &format!("by {name}"));
        let archive = pack(&place, name, option);
        let piped = place
            .command()
            .args(["build", "-t", "piped", "-"])
            .input(archive)
            .output();
        piped.ok();
        assert_eq!(place.inside("piped", "cat /said"), format!("by {name}"));
        let server = serve(&place);
        place
            .ferry(&format!("build -t fetched http://127.0.0.1:8000/{name}"))
            .ok();
        assert_eq!(place.inside("fetched", "cat /said"), format!("by {name}"));
        drop(server);
    }
    place.write("plain", "FROM busybox\nRUN echo alone > /alone\n");
    let _server = serve(&place);
    place.ferry("build -t alone http://127.0.0.1:8000/plain").ok();
    assert_eq!(place.inside("alone", "cat /alone"), "alone");
    place
        .ferry("build --build-context more=http://127.0.0.1:8000/context.tar -t named .")
        .ok();
    for (url, says) in [
        ("http://127.0.0.1:8000/nothing", "404"),
        ("http://127.0.0.1:1/x", "connection refused"),
        ("http://nowhere.invalid/x", "nowhere.invalid"),
        ("https://127.0.0.1:8000/context.tar", ""),
    ] {
        let said = place.ferry(&format!("build {url}")).fails(1);
        assert!(said.contains(says), "{url}: {said}");
    }
    place.is_clean();
}

#[test]
fn progress_of_none_is_none_and_failures_are_still_told() {
    let place = Place::new();
    place.write("Dockerfile", "FROM busybox\nRUN echo well\n");
    let output = place.ferry("build --progress none -t app .");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output:?}");
    output.ok();
    place.inside("app", "true");
    place.write("Dockerfile", "FROM busybox\nRUN echo before; exit 7\n");
    let said = place.ferry("build --progress none .").fails(1);
    assert!(said.contains("exit code: 7"), "{said}");
    let said = place.ferry("build --progress sideways .").fails(1);
    assert!(said.contains("sideways"), "{said}");
}

#[test]
fn the_hosts_network_is_for_who_allows_it() {
    let place = Place::new();
    let links = "ls /sys/class/net | tr '\\n' ' ' > /links";
    place.write("Dockerfile", &format!("FROM busybox\nRUN --network=host {links}\n"));
    let said = place.ferry("build .").fails(1);
    assert!(said.contains("network.host"), "{said}");
    place.ferry("build --allow network.host -t app .").ok();
    let host = place.engine.in_namespace(&["sh", "-c", "ip -o link | wc -l"]).ok();
    assert_eq!(place.inside("app", "wc -w < /links"), host);
    place.write(
        "Dockerfile",
        &format!("FROM busybox\nRUN {links}\nRUN --network=none ls /sys/class/net > /none\n"),
    );
    // Said on the command line, it is allowed by that, as with docker build.
    place.ferry("build --network host -t app .").ok();
    assert_eq!(place.inside("app", "wc -w < /links; cat /none"), format!("{host}\nlo"));
    let said = place.ferry("build --network nothing .").fails(1);
    assert!(said.contains("nothing"), "{said}");
    let said = place.ferry("build --allow everything .").fails(1);
    assert!(said.contains("everything"), "{said}");
}

#[test]
fn a_prune_of_everything_takes_what_builds_left() {
    let place = Place::new();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c head -c 3000000 /dev/zero > /c/f\nRUN head -c 2000000 /dev/zero > /big\n",
    );
    place.ferry("build -t app .").ok();
    place.ferry("rmi app").ok();
    let kept = || {
        place.engine.api("GET", "/system/df?type=build-cache", None).1["BuildCache"]
            .as_array()
            .unwrap()
            .len()
    };
    assert!(kept() >= 3, "{}", kept());
    let said = place.ferry("system prune -f").ok();
    assert!(said.contains("build cache"), "{said}");
    assert!(
        said.contains("Total reclaimed space: ") && !said.contains("space: 0B"),
        "{said}"
    );
    place.ferry("system prune -af --volumes").ok();
    assert_eq!(kept(), 0);
    place.is_clean();
    let left = Run::new("find")
        .args([place.engine.data_root()])
        .args(["-size", "+1000k", "-name", "f"])
        .ok();
    assert_eq!(left, "");
    place.engine.busybox();
    place.ferry("build -t app .").ok();
}

/// As one directory, for who copies from them or mounts them: on kernels before 6.7 that is a mount of its own kind.
#[test]
fn files_below_may_be_many_layers() {
    const LAYERS: usize = 60;
    let place = Place::new();
    let mut file = "FROM busybox AS many\n".to_owned();
    for number in 0..LAYERS {
        file += &format!("COPY <<EOF /many/{number}\n{number}\nEOF\n");
    }
    file += "RUN rm /many/7\nFROM busybox\nCOPY --from=many /many /copied\nRUN --mount=from=many,source=/many,target=/mounted \
             ls /mounted | wc -l > /seen && diff -r /mounted /copied >> /seen && cat /mounted/59 >> /seen\n";
    place.write("Dockerfile", &file);
    place.ferry("build --network none -t app .").ok();
    assert_eq!(place.inside("app", "cat /seen"), "59\n59");
}
