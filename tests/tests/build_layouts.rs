//! OCI layouts of builds: as contexts and as results, by `ferry build` and by buildx.

use std::path::Path;

use ferry_testkit::{Output, Program, TestDaemon};
use serde_json::Value;

use crate::build::Place;

impl Place {
    fn build(&self, program: Program, line: &str) -> Output {
        let run = match program {
            Program::Ferry => self.command(),
            Program::Docker => self.docker_command(),
        };
        run.args(["build", "--progress", "plain"])
            .args(line.split(' '))
            .output()
    }

    fn images(&self) -> String {
        self.engine.ferry(["images", "-aq"]).ok()
    }

    fn round(&self, program: Program) {
        self.write("Dockerfile", "FROM busybox\nRUN echo made > /made\nENV MADE=yes\n");
        self.build(program, "-t made:1 -o type=oci,tar=false,dest=layout .")
            .ok();
        let entries = index(&self.path("layout"));
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["annotations"]["org.opencontainers.image.ref.name"], "1");
        assert_eq!(entries[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(std::fs::read_dir(self.path("layout/blobs/sha256")).unwrap().count(), 4);
        self.engine.ferry(["builder", "prune", "-af"]).ok();
        let before = self.images();

        self.write(
            "Dockerfile",
            "FROM base\nRUN echo $MADE > /env\nFROM busybox\nCOPY --from=0 /env /made /\nCOPY --from=other /made /again\n",
        );
        let contexts = "--build-context base=oci-layout://layout:1 --build-context other=oci-layout://layout:1";
        self.build(program, &format!("{contexts} -t app .")).ok();
        assert_eq!(self.inside("app", "cat /env /made /again"), "yes\nmade\nmade");
        // The base is none of the engine's images.
        assert_eq!(self.images().lines().count(), before.lines().count() + 1);
        let again = self.build(program, &format!("{contexts} -t app ."));
        assert!(again.stderr.matches("CACHED").count() >= 3, "{again:?}");
        again.ok();
    }
}

fn index(layout: &Path) -> Vec<Value> {
    let bytes = std::fs::read(layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(layout.join("oci-layout").exists());
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn ferry_builds_from_layouts_and_makes_them() {
    let place = Place::new();
    place.round(Program::Ferry);
    place.write("Dockerfile", "FROM base\n");
    let missing = place.build(Program::Ferry, "--build-context base=oci-layout://layout:2 .");
    assert!(missing.stderr.contains("could not be resolved"), "{missing:?}");
    missing.fails(1);
    place
        .build(
            Program::Ferry,
            "--build-context base=oci-layout://layout -o type=docker,tar=false,dest=second .",
        )
        .ok();
    assert_eq!(
        index(&place.path("second"))[0]["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
}

#[test]
fn buildx_builds_from_layouts_and_makes_them() {
    let Some(place) = Place::with_plugins() else { return };
    place.round(Program::Docker);
}

#[test]
fn a_layout_is_believed_nothing() {
    let mut place = Place::new();
    place.write("Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    place.build(Program::Ferry, "-o type=oci,tar=false,dest=layout .").ok();
    place.write("Dockerfile", "FROM base\nRUN cat /made\n");
    let blobs = std::fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
    for blob in blobs.map(|entry| entry.unwrap().path()) {
        // It has nothing of the layout yet.
        place.engine = TestDaemon::start();
        let refuses = || {
            let refused = place.build(Program::Ferry, "--build-context base=oci-layout://layout .");
            assert!(
                refused.stderr.contains("the OCI layout of base"),
                "{}: {refused:?}",
                blob.display()
            );
            refused.fails(1);
        };
        let kept = std::fs::read(&blob).unwrap();
        let mut changed = kept.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&blob, &changed).unwrap();
        refuses();
        std::fs::remove_file(&blob).unwrap();
        refuses();
        let elsewhere = place.path("elsewhere");
        std::fs::write(&elsewhere, &kept).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &blob).unwrap();
        refuses();
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, &kept).unwrap();
    }
    place
        .build(Program::Ferry, "--build-context base=oci-layout://layout .")
        .ok();
    assert_eq!(place.engine.ferry(["system", "check"]).code, 0);
}
