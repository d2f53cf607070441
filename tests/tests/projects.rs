//! Projects of the usual kinds (tests/projects), built with each command line on a Debian that mmdebstrap made, and run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_testkit::{Output, Program, Run, TestDaemon, images, peer};
use tempfile::TempDir;

/// A project, a source that is changed before it is built once more, and what it says when it is run.
struct Project {
    name: &'static str,
    source: &'static str,
    run: &'static [&'static str],
    says: &'static str,
}

const PROJECTS: [Project; 6] = [
    Project {
        name: "site",
        source: "pages/about.md",
        run: &["cat", "/www/about.html", "/www/index.html"],
        says: "<h1>About</h1>\n<h1>Home</h1>",
    },
    Project {
        name: "python",
        source: "app.py",
        run: &["you"],
        says: "hello &lt;you&gt; from True",
    },
    Project {
        name: "node",
        source: "server.js",
        run: &[],
        says: "an hour is 3600000 ms in production",
    },
    Project {
        name: "rust",
        source: "src/main.rs",
        run: &[],
        says: "hello number 42",
    },
    Project {
        name: "apt",
        source: "sum.bc",
        run: &[],
        says: "1024",
    },
    Project {
        name: "c",
        source: "main.c",
        run: &["you"],
        says: "hello you, this is 3",
    },
];

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A compiler is downloaded, and packages for Python and Node.
const PATIENCE: Duration = Duration::from_secs(200);

struct Place {
    engine: TestDaemon,
    projects: TempDir,
    toolchain: PathBuf,
}

impl Place {
    fn start() -> Option<Self> {
        let debian = images::debian_root()?;
        let engine = TestDaemon::online()?;
        engine.busybox();
        engine.ferry(["tag", "busybox", "busybox:test"]).ok();
        engine.ferry(["import", &debian.to_string_lossy(), "debian:test"]).ok();
        let projects = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("projects");
        Run::new("cp")
            .args(["-r"])
            .args([source.join(".")])
            .args([projects.path()])
            .ok();
        let toolchain = Run::new("rustc").args(["--print", "sysroot"]).ok();
        Some(Self {
            engine,
            projects,
            toolchain: toolchain.into(),
        })
    }

    /// So that nothing that copies the sources, or comes after, is remembered.
    fn change_sources(&self) {
        for project in &PROJECTS {
            let path = self.projects.path().join(project.name).join(project.source);
            let text = std::fs::read_to_string(&path).unwrap() + "\n";
            std::fs::write(path, text).unwrap();
        }
    }

    fn command(&self, program: Program) -> Run {
        self.engine
            .command(program)
            .directory(self.projects.path())
            .env("TOOLCHAIN", &self.toolchain)
            .env("CERTIFICATES", CERTIFICATES)
            .time(PATIENCE)
    }

    fn build(&self, command: Run, project: &Project, tag: &str) -> Output {
        let name = project.name;
        let mut words = format!("build --network host --allow network.host -t {name}:{tag} --progress plain");
        words += &format!(" --secret id=ca,src={CERTIFICATES} --build-arg VERSION=3");
        words += &format!(" --build-context toolchain={} {name}", self.toolchain.display());
        command.args(words.split(' ')).output()
    }

    fn runs(&self, project: &Project, tag: &str) {
        let image = format!("{}:{tag}", project.name);
        let words = ["run", "--rm", "--network", "none", &image].into_iter();
        let said = self.engine.ferry(words.chain(project.run.iter().copied())).ok();
        assert_eq!(said, project.says, "{image}");
    }
}

#[test]
fn slow_projects_of_every_kind_build_and_run() {
    let Some(place) = Place::start() else { return };
    for project in &PROJECTS {
        place.build(place.command(Program::Ferry), project, "ferry").ok();
        place.runs(project, "ferry");
    }
    let home = tempfile::tempdir().unwrap();
    if peer::link_plugins(home.path(), &["docker-buildx", "docker-compose"]).is_none() {
        return;
    }
    let docker = || place.command(Program::Docker).env("DOCKER_CONFIG", home.path());

    place.change_sources();
    for project in &PROJECTS {
        let built = place.build(docker(), project, "docker");
        assert!(built.stderr.contains("CACHED"), "{built:?}");
        built.ok();
        place.runs(project, "docker");
    }
    place.change_sources();
    docker().args(["compose", "build"]).output().ok();
    PROJECTS.iter().for_each(|project| place.runs(project, "compose"));
}
