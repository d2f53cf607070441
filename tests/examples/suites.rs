//! `cargo xtask suites`: docker-py's own integration tests against an engine of their own. What they need of a registry, a swarm or
//! plugins is left out, and so is what the real engine fails too.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ferry_testkit::TestDaemon;
use ferry_testkit::images::BUSYBOX;

const USAGE: &str = "suites TESTS PYTHON [PYTEST-ARGUMENT...]";
/// What the tests call the image they use.
const NAMES: [&str; 3] = ["alpine:3.10", "alpine:latest", "busybox:musl"];

/// Files of it.
const FILES: [&str; 9] = [
    // Swarms.
    "api_config_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "api_swarm_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
    // Managed plugins.
    "api_plugin_test.py",
    // Programs of the client's machine.
    "credentials",
];

/// Single tests.
const TESTS: [&str; 23] = [
    // A swarm.
    "api_network_test.py::TestNetworks::test_create_inspect_network_with_scope",
    "api_network_test.py::TestNetworks::test_create_network_attachable",
    "api_network_test.py::TestNetworks::test_create_network_ingress",
    // A registry.
    "api_image_test.py::ImportImageTest::test_get_load_image",
    "api_image_test.py::InspectDistributionTest::test_inspect_distribution",
    "api_image_test.py::PruneImagesTest::test_prune_images",
    "api_image_test.py::PullImageTest::test_pull",
    "api_image_test.py::PullImageTest::test_pull_streaming",
    "models_containers_test.py::ContainerCollectionTest::test_run_with_image_that_does_not_exist",
    "models_images_test.py::ImageCollectionTest::test_list",
    "models_images_test.py::ImageCollectionTest::test_list_with_repository",
    "models_images_test.py::ImageCollectionTest::test_pull",
    "models_images_test.py::ImageCollectionTest::test_pull_multiple",
    "models_images_test.py::ImageCollectionTest::test_pull_with_sha",
    "models_images_test.py::ImageCollectionTest::test_pull_with_tag",
    "models_images_test.py::ImageCollectionTest::test_save_and_load_repo_name",
    "models_images_test.py::ImageTest::test_tag_and_remove",
    // What images have no more: the container they were made of.
    "api_image_test.py::CommitTest::test_commit",
    "api_image_test.py::CommitTest::test_commit_with_changes",
    // Users and directories of the real alpine.
    "api_exec_test.py::ExecTest::test_exec_command_as_user",
    "api_exec_test.py::ExecTest::test_exec_command_with_workdir",
    // Docker Engine 28 fails these two as well: a websocket of the client's, and another exit code.
    "api_container_test.py::AttachContainerTest::test_run_container_reading_socket_ws",
    "models_containers_test.py::ContainerTest::test_exec_run_failed",
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(tests), Some(python)) = (args.next().map(PathBuf::from), args.next()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let rest: Vec<String> = args.collect();
    let daemon = TestDaemon::start();
    daemon.busybox();
    for name in NAMES {
        daemon.cli(["tag", BUSYBOX, name]).ok();
    }
    let network = daemon.network();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.display())).arg(python);
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "120"]);
    command.args(FILES.map(|file| format!("--ignore=tests/integration/{file}")));
    command.args(TESTS.map(|test| format!("--deselect=tests/integration/{test}")));
    if !rest.iter().any(|argument| argument.starts_with("tests/")) {
        command.arg("tests/integration");
    }
    command.args(rest).current_dir(&tests);
    command.env("DOCKER_HOST", daemon.host()).env("HOME", daemon.dir());
    let passed = command.status().is_ok_and(|status| status.success());
    clear(&daemon);
    match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What tests left: they remove their containers as good as always.
fn clear(daemon: &TestDaemon) {
    let left = daemon.cli(["ps", "-aq"]).ok();
    for id in left.split_whitespace() {
        daemon.cli(["rm", "-fv", id]).ok();
    }
    daemon.cli(["network", "prune", "-f"]).ok();
    daemon.cli(["volume", "prune", "-af"]).ok();
}
