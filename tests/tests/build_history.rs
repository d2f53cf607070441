//! What is told of builds afterwards, also by another engine.

use ferry_testkit::{Output, wait_until};

use crate::build::Place;

impl Place {
    fn builds(&self, dockerfile: &str) -> Output {
        self.write("Dockerfile", dockerfile);
        self.docker("build .")
    }

    /// The names of builds, the latest first.
    fn history(&self) -> Vec<String> {
        let listed = self.docker("buildx history ls --format {{.Ref}}").ok();
        let names = listed.lines().filter_map(|line| line.rsplit('/').next());
        names.map(|name| name.trim().to_owned()).collect()
    }
}

#[test]
fn builds_are_told_of_by_the_next_engine() {
    let Some(mut place) = Place::with_plugins() else { return };
    place.builds("FROM busybox\nRUN echo logged-one\n").ok();
    assert_eq!(place.builds("FROM busybox\nRUN echo logged-two; exit 3\n").code, 1);
    let before = place.history();
    assert_eq!(before.len(), 2, "{before:?}");
    let chosen = |filter: &str| {
        let listed = place
            .docker(&format!("buildx history ls --format {{{{.Ref}}}} --filter {filter}"))
            .ok();
        listed
            .lines()
            .map(|line| line.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen("status=error"), before[..1]);
    assert_eq!(chosen("status!=error"), before[1..]);
    assert_eq!(chosen(&format!("ref={}", before[1])), before[1..]);
    assert_eq!(chosen("startedAt>1h").len(), 2);
    assert_eq!(chosen("duration>1h").len(), 0);
    let dir = place.engine.data_root().join("builds/history");
    let files = || std::fs::read_dir(&dir).unwrap().count();
    wait_until("both are written down", || files() == 4);
    place.engine.restart();
    assert_eq!(place.history(), before);
    let [failed, built] = [&before[0], &before[1]];
    let logs = |name: &str| {
        let output = place.docker(&format!("buildx history logs --progress plain {name}"));
        output.stdout + &output.stderr
    };
    assert!(logs(built).contains("logged-one") && !logs(built).contains("logged-two"));
    assert!(logs(failed).contains("logged-two"));
    let inspected = place.docker(&format!("buildx history inspect {failed}")).ok();
    assert!(inspected.contains("exit code: 3"), "{inspected}");
    place.docker(&format!("buildx history rm {built}")).ok();
    assert_eq!(place.history(), std::slice::from_ref(failed));
    assert_eq!(files(), 2);
    place.engine.kill9();
    place.engine.start_again();
    assert_eq!(place.history(), std::slice::from_ref(failed));
    place.docker("buildx history rm --all").ok();
    assert_eq!((place.history().len(), files()), (0, 0));
}

#[test]
fn the_host_is_known_to_steps_by_the_name_it_is_given() {
    let Some(place) = Place::with_plugins() else { return };
    let (_, bridge) = place.engine.api("GET", "/networks/bridge", None);
    let gateway = bridge["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN grep -w up /etc/hosts && grep -w other /etc/hosts\n",
    );
    let hosts = "--no-cache --add-host up:host-gateway --add-host other:192.0.2.7 .";
    let shown = format!("{gateway}\tup");
    let by_ferry = place.ferry(&format!("build --progress plain {hosts}"));
    for built in [by_ferry, place.docker(&format!("build {hosts}"))] {
        assert!(
            built.stderr.contains(&shown) && built.stderr.contains("192.0.2.7\tother"),
            "{built:?}"
        );
        built.ok();
    }
}

#[test]
fn a_step_has_the_network_of_the_name_and_no_device() {
    let Some(place) = Place::with_plugins() else { return };
    place.ferry("network create --subnet 10.77.0.0/24 named").ok();
    place.write("Dockerfile", "FROM busybox\nRUN ip route\n");
    let built = place.ferry("build --progress plain --no-cache --network named .");
    assert!(built.stderr.contains("default via 10.77.0.1"), "{built:?}");
    built.ok();
    place.write("Dockerfile", "FROM busybox\nRUN --device=vendor.com/kind=one true\n");
    for options in ["--allow device .", "."] {
        for refused in [
            place.ferry(&format!("build {options}")),
            place.docker(&format!("buildx build {options}")),
        ] {
            assert!(refused.stderr.contains("device"), "{refused:?}");
            refused.fails(1);
        }
    }
}
