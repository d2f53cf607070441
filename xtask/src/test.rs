//! `cargo xtask test`: set-up, one build, every test, and proof that nothing was left behind.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::peer::{Peer, SHARED_PEER};
use crate::shell::{self, step};
use crate::workspace::Workspace;
use crate::{setup, sweep, tidy, vm};

/// Returns whether everything passed; the closing line is printed either way.
pub fn run<'a>(workspace: &Workspace, ci: bool, filter: impl Iterator<Item = &'a String>) -> Result<bool> {
    let root = setup::is_root()?;
    if root {
        step("set-up", || setup::run(workspace))?;
    } else {
        println!(
            "not root: no set-up, and the tests that need the kernel are left out (run it as root for all of them)"
        );
    }
    if ci {
        step("fmt", || shell::run(shell::cargo().args(["fmt", "--all", "--check"])))?;
        step("tidy", || {
            if tidy::run(workspace)? {
                Ok(())
            } else {
                bail!("the repository is not tidy")
            }
        })?;
    }
    step("build", || {
        shell::run(shell::cargo().args(["build", "--release", "--workspace", "--all-targets"]))
    })?;
    if ci {
        step("the binary's shape", || {
            if tidy::binary(workspace)? {
                Ok(())
            } else {
                bail!("see above")
            }
        })?;
    }

    // nextest keeps its reports in the workspace, wherever the target directory is.
    let junit = workspace.root.join("target/nextest/default/junit.xml");
    let _ = fs::remove_file(&junit);
    let mut nextest = shell::cargo();
    nextest.args(["nextest", "run", "--release", "--workspace"]);
    if !root {
        nextest.args(["-E", "not (package(ferry-e2e) or test(/^root_|::root_/))"]);
    }
    let filter: Vec<&String> = filter.collect();
    let everything = filter.is_empty();
    nextest.args(filter);
    let tests = step("test", || shell::run(&mut nextest));
    if let Some(peer) = Peer::running(workspace, SHARED_PEER) {
        peer.stop()?;
    }
    let clean = step("nothing left behind", || sweep::run(false))?;
    let guest = if root && everything {
        step("the virtual machine", || vm::lane(workspace, ci))
    } else {
        Ok(())
    };

    let clippy = if ci {
        step("clippy", || {
            let args = [
                "clippy",
                "--release",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ];
            shell::run(shell::cargo().args(args))
        })
    } else {
        Ok(())
    };
    for error in [&tests, &guest, &clippy]
        .into_iter()
        .filter_map(|result| result.as_ref().err())
    {
        println!("{error:#}");
    }
    let (passed, failed) = counts(&fs::read_to_string(&junit).unwrap_or_default()).context("no test results")?;
    println!("{passed} passed, {failed} failed");
    Ok(tests.is_ok() && guest.is_ok() && clippy.is_ok() && clean)
}

/// Passed and failed, from the `<testsuites>` element of nextest's JUnit report.
fn counts(junit: &str) -> Option<(u32, u32)> {
    let element = junit.split("<testsuites ").nth(1)?.split('>').next()?;
    let number = |name: &str| -> Option<u32> {
        let value = element.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
        value.parse().ok()
    };
    let element_tests = number("tests")?;
    let failed = number("failures")? + number("errors")?;
    Some((element_tests - failed, failed))
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_read_from_the_report() {
        let junit = r#"<?xml version="1.0"?>
<testsuites name="nextest-run" tests="7" failures="2" errors="1" uuid="x"><testsuite tests="9"/></testsuites>"#;
        assert_eq!(super::counts(junit), Some((4, 3)));
        assert_eq!(super::counts(""), None);
    }
}
