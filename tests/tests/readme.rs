//! The README's first command, as it stands, from a clean clone.

use std::path::Path;

use ferry_testkit::{Machine, Run, tools};
use serde_json::json;

/// Gives the clone's files that are the checkout's the checkout's times, so that cargo takes what it has built of them.
fn keep_times(checkout: &Path, clone: &Path) {
    let files = Run::new("git").args(["-C"]).args([clone]).args(["ls-files"]).ok();
    for file in files.lines() {
        let (original, copy) = (checkout.join(file), clone.join(file));
        let same = |a: &Path, b: &Path| std::fs::read(a).ok() == std::fs::read(b).ok();
        if same(&original, &copy) {
            let modified = std::fs::metadata(&original).and_then(|metadata| metadata.modified());
            let copy = std::fs::File::options().append(true).open(&copy);
            if let (Ok(modified), Ok(copy)) = (modified, copy) {
                copy.set_modified(modified).unwrap();
            }
        }
    }
}

/// What cargo tells tests of their package. Build scripts that look at it (ring's) would run again, and all above them be built
/// again, here and by the next cargo.
const OF_PACKAGE: &str = "CARGO_MANIFEST_DIR CARGO_MANIFEST_PATH CARGO_MANIFEST_LINKS CARGO_PKG_NAME CARGO_PKG_VERSION \
                          CARGO_PKG_VERSION_MAJOR CARGO_PKG_VERSION_MINOR CARGO_PKG_VERSION_PATCH CARGO_PKG_VERSION_PRE";

/// The clone stands in the checkout's place and uses its target directory, so nothing is built twice; what was forgotten to
/// be committed is missing all the same.
#[test]
fn slow_the_first_command_of_the_readme_works_from_a_clean_clone() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let git = |args: &[&str]| {
        // Git refuses the repository of another user unless its settings allow it; these are ours alone.
        let allow = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ];
        let run = Run::new("git").args(["-C"]).args([checkout]).args(args);
        allow
            .iter()
            .fold(run, |run, (name, value)| run.env(name, value))
            .output()
    };
    let status = git(&["status", "--porcelain"]);
    if status.code != 0 || !status.stdout.is_empty() {
        eprintln!(
            "skipped: {} is no checkout without changes:\n{}",
            checkout.display(),
            status.stdout
        );
        return;
    }
    let readme = std::fs::read_to_string(checkout.join("README.md")).unwrap();
    let line = "cargo run --release -- run --rm ferry/hello";
    assert!(
        readme.lines().any(|shown| shown.starts_with(line)),
        "the README has another first command"
    );

    let machine = Machine::start(json!({ "idle-exit": 2 }));
    let clone = machine.dir().join("clone");
    git(&["clone", "--quiet", "--no-hardlinks", ".", clone.to_str().unwrap()]).ok();
    keep_times(checkout, &clone);
    let target = tools::target();
    // A target directory inside the checkout has to be seen in the clone.
    let inside = target.strip_prefix(checkout).ok();
    if let Some(inside) = inside {
        std::fs::create_dir_all(clone.join(inside)).unwrap();
        machine.sh(&format!(
            "mount --bind {} {}",
            target.display(),
            clone.join(inside).display()
        ));
    }
    machine.sh(&format!("mount --rbind {} {}", clone.display(), checkout.display()));
    let output = machine
        .run("sh")
        .args([
            "-ec",
            &format!("unset {OF_PACKAGE}; cd {} && exec {line}", checkout.display()),
        ])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_NET_OFFLINE", "true")
        .time(std::time::Duration::from_secs(600))
        .output();
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("PID 1"), "{output:?}");
    // Alone, the binary takes tonic and tower with fewer features than with the tests: what lies below them was built for both.
    if cfg!(not(debug_assertions)) {
        assert!(
            !output.stderr.contains("Compiling ferry-storage"),
            "built twice: {output:?}"
        );
    }
    assert!(output.stderr.contains("ferry: started the engine"), "{output:?}");
    machine.wait_for_end(std::time::Duration::from_secs(15));
}
