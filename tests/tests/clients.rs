//! Clients nobody wrote for Ferry: docker-py from PyPI, and bollard.

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Run, tools};
use futures_util::StreamExt;

const SCRIPT: &str = r#"
import docker, sys
client = docker.from_env()
assert client.ping()
client.version(); client.info()
out = client.containers.run("busybox:latest", ["echo", "hello"], remove=True)
assert out == b"hello\n", out
c = client.containers.run("busybox:latest", ["sh", "-c", "echo out; echo err >&2; exit 3"], detach=True,
                          name="py", environment={"A": "1"}, labels={"from": "py"}, mem_limit="64m")
result = c.wait()
assert result["StatusCode"] == 3, result
assert c.logs(stdout=True, stderr=False) == b"out\n", c.logs()
assert c.logs(stdout=False, stderr=True) == b"err\n", c.logs()
c.reload()
assert c.status == "exited" and c.attrs["State"]["ExitCode"] == 3
assert [x.name for x in client.containers.list(all=True, filters={"label": "from=py"})] == ["py"]
c.remove()
try:
    client.containers.get("py")
    sys.exit("still there")
except docker.errors.NotFound:
    pass
try:
    client.containers.run("busybox:latest", ["sh", "-c", "echo bad >&2; exit 4"], remove=True)
    sys.exit("no error")
except docker.errors.ContainerError as e:
    assert e.exit_status == 4 and e.stderr == b"bad\n", e
c = client.containers.run("busybox:latest", ["sleep", "1000"], detach=True)
code, output = c.exec_run(["sh", "-c", "echo from exec; exit 5"])
assert (code, output) == (5, b"from exec\n"), (code, output)
code, (stdout, stderr) = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert (stdout, stderr) == (b"o\n", b"e\n")
assert any("sleep" in " ".join(p) for p in c.top()["Processes"])
c.pause(); c.unpause(); c.rename("renamed"); c.restart(timeout=0); c.stop(timeout=0); c.start(); c.kill()
c.remove(force=True)
s = client.api.create_container("busybox:latest", ["cat"], stdin_open=True)
sock = client.api.attach_socket(s, params={"stdin": 1, "stdout": 1, "stream": 1})
client.api.start(s)
sock._sock.sendall(b"through\n")
assert sock._sock.recv(100) == b"\x01\0\0\0\0\0\0\x08through\n"
sock.close()
client.api.remove_container(s, force=True)
image = client.images.get("busybox:latest")
assert image.tag("py/tag", "v1")
assert "py/tag:v1" in [t for i in client.images.list() for t in i.tags]
client.images.remove("py/tag:v1")
print("done")
"#;

#[test]
fn docker_py_runs_reads_and_removes() {
    let engine = Engine::start();
    engine.busybox();
    let output = Run::new(tools::python())
        .args(["-c", SCRIPT])
        .env("DOCKER_HOST", engine.host())
        .output();
    assert_eq!(output.ok(), "done");
}

#[test]
fn bollard_runs_reads_and_removes() {
    let engine = Engine::start();
    engine.busybox();
    let socket = engine.socket().display().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let docker = Docker::connect_with_unix(&socket, 20, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        docker.ping().await.unwrap();
        let options = CreateContainerOptionsBuilder::default().name("bollard").build();
        let body = ContainerCreateBody {
            image: Some(BUSYBOX.to_owned()),
            cmd: Some(["sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned).into()),
            host_config: Some(HostConfig {
                memory: Some(64 << 20),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        docker.create_container(Some(options), body).await.unwrap();
        docker
            .start_container("bollard", None::<StartContainerOptions>)
            .await
            .unwrap();
        let ended = docker
            .wait_container("bollard", None::<WaitContainerOptions>)
            .next()
            .await
            .unwrap();
        // bollard makes an error of an exit code that is not 0.
        match ended {
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => assert_eq!(code, 3),
            other => panic!("{other:?}"),
        }
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let logs: Vec<String> = docker
            .logs("bollard", Some(options))
            .map(|part| part.unwrap().to_string())
            .collect()
            .await;
        assert_eq!(logs.concat().matches("out\n").count(), 1);
        assert_eq!(logs.concat().matches("err\n").count(), 1);
        let state = docker
            .inspect_container("bollard", None::<bollard::query_parameters::InspectContainerOptions>)
            .await
            .unwrap()
            .state
            .unwrap();
        assert_eq!((state.exit_code, state.running), (Some(3), Some(false)));
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        docker.remove_container("bollard", Some(options)).await.unwrap();
    });
    assert!(!engine.has_container("bollard"));
}
