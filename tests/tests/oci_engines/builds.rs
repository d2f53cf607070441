//! `docker build`: BuildKit calls `runc` by its name, without a daemon between.

use ferry_testkit::{Engines, wait_until};

#[test]
fn build_runs_its_steps_with_ferry() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.sh("mkdir -p /tmp/context /tmp/broken");
    let file = "FROM busybox\n\
                ARG GREETING\n\
                ENV A=1\n\
                RUN echo $GREETING $A > /told; id -u > /user\n\
                USER app\n\
                WORKDIR /home/app\n\
                RUN --mount=type=cache,target=/cache,uid=1000 touch /cache/x && pwd > made && id -u >> made\n\
                RUN --network=none --mount=type=tmpfs,target=/t ls /sys/class/net > links && sleep 2\n\
                CMD cat /told /user made links\n";
    std::fs::write(engines.path("/tmp/context/Dockerfile"), file).unwrap();
    let build = ["build", "-t", "built", "--build-arg", "GREETING=hello", "/tmp/context"];
    let build = engines.docker(build).spawn();
    // No container of dockerd is there: what has a state is a step of the build.
    let mut seen = Vec::new();
    wait_until("a step of the build runs", || {
        seen = engines.states();
        !seen.is_empty()
    });
    assert!(seen.iter().all(|(_, by_ferry)| *by_ferry), "{seen:?}");
    build.finish().ok();
    let printed = engines.docker(["run", "--rm", "built"]).ok();
    assert_eq!(printed, "hello 1\n0\n/home/app\n1000\nlo");

    std::fs::write(engines.path("/tmp/broken/Dockerfile"), "FROM busybox\nRUN exit 3\n").unwrap();
    let error = engines.docker(["build", "/tmp/broken"]).output().fails(1);
    assert!(error.contains("did not complete successfully: exit code: 3"), "{error}");
    std::fs::write(
        engines.path("/tmp/broken/Dockerfile"),
        "FROM busybox\nRUN [\"/nope\"]\n",
    )
    .unwrap();
    let error = engines.docker(["build", "/tmp/broken"]).output().fails(1);
    assert!(
        error.contains("exec: \"/nope\": stat /nope: no such file or directory"),
        "{error}"
    );
}

#[test]
fn a_build_that_is_given_up_leaves_nothing() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.sh("mkdir -p /tmp/context");
    std::fs::write(
        engines.path("/tmp/context/Dockerfile"),
        "FROM busybox\nRUN sleep 1000\n",
    )
    .unwrap();
    let build = engines.docker(["build", "/tmp/context"]).spawn();
    wait_until("the step runs", || !engines.states().is_empty());
    let (id, by_ferry) = engines.states().remove(0);
    assert!(by_ferry, "{id} is not run by Ferry");
    engines.sh("kill -INT $(pidof docker-buildx)");
    build.finish();
    wait_until("the step is gone", || engines.states().is_empty());
}
