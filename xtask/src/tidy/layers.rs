//! A crate depends only on layers strictly below its own, and only some crates know HTTP, clap or tokio.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Findings;

/// Layer of every crate, by folder name (ARCHITECTURE.md).
const LAYERS: [(&str, u8); 31] = [
    ("ferry", 6),
    ("cli", 5),
    ("server", 5),
    ("cri", 5),
    ("dashboard", 5),
    ("selftest", 5),
    ("client", 4),
    ("engine", 4),
    ("storage", 3),
    ("distribution", 3),
    ("registry", 3),
    ("network", 3),
    ("build", 3),
    ("supervise", 3),
    ("oci", 3),
    ("runtime", 2),
    ("netlink", 1),
    ("cgroup", 1),
    ("seccomp", 1),
    ("archive", 1),
    ("dns", 1),
    ("dockerfile", 1),
    ("buildkit", 1),
    ("tls", 1),
    ("api", 0),
    ("image", 0),
    ("kit", 0),
    ("sys", 0),
    // Never part of the binary: they may see everything, and nothing that ships may depend on them.
    ("testkit", TOOL),
    ("e2e", TOOL),
    ("xtask", TOOL),
];

const TOOL: u8 = u8::MAX;

/// Foreign crates that only some of ours may use.
const RESERVED: [(&str, &[&str], &str); 9] = [
    ("clap", &["cli", "ferry"], "only the front ends know the command line"),
    ("indicatif", &["cli"], "only cli knows the terminal"),
    ("axum", HTTP, "only these know HTTP"),
    ("hyper", HTTP, "only these know HTTP"),
    ("hyper-util", HTTP, "only these know HTTP"),
    ("http", HTTP, "only these know HTTP"),
    ("reqwest", HTTP, "only these know HTTP"),
    ("tonic", GRPC, "only these know gRPC"),
    (
        "anyhow",
        &["cli", "ferry"],
        "libraries have an error enum; anyhow is for the edges",
    ),
];

const GRPC: &[&str] = &["server", "cri", "buildkit"];
const HTTP: &[&str] = &["server", "cri", "registry", "distribution", "client", "dashboard"];

pub fn check(metadata: &Value, findings: &mut Findings) {
    let layers: BTreeMap<&str, u8> = LAYERS.into();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(name) = package["name"].as_str() else { continue };
        let Some(&layer) = layers.get(folder(name)) else {
            findings.error(format!(
                "crate {name} has no layer: add it to xtask/src/tidy/layers.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        if layer == TOOL {
            continue;
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // `kind` is null for what ends up in the binary, else "dev" or "build".
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let Some(target) = dependency["name"].as_str() else {
                continue;
            };
            if dependency["path"].is_string() {
                own(name, layer, target, &layers, findings);
            } else {
                foreign(folder(name), layer, target, findings);
            }
        }
    }
}

fn own(name: &str, layer: u8, target: &str, layers: &BTreeMap<&str, u8>, findings: &mut Findings) {
    match layers.get(folder(target)) {
        None => findings.error(format!("{name} depends on {target}, which has no layer")),
        Some(&TOOL) => findings.error(format!("{name} depends on {target}, which is for tests only")),
        Some(&below) if below >= layer => {
            findings.error(format!(
                "{name} (layer {layer}) depends on {target} (layer {below}): only strictly below"
            ));
        }
        Some(_) => {}
    }
}

fn foreign(crate_folder: &str, layer: u8, target: &str, findings: &mut Findings) {
    // What servers and clients share of TLS is below them all, and nothing of the runtime uses it.
    let is_tls = crate_folder == "tls";
    if layer <= 2 && !is_tls && (target == "tokio" || target == "tokio-util") {
        findings.error(format!(
            "{crate_folder} depends on {target}: runtime and all below it know no tokio"
        ));
    }
    for (reserved, allowed, why) in RESERVED {
        if target == reserved && !allowed.contains(&crate_folder) {
            findings.error(format!(
                "{crate_folder} depends on {target}: {why} ({})",
                allowed.join(", ")
            ));
        }
    }
}

/// `ferry-engine` is `engine`; the binary and xtask keep their names.
fn folder(package: &str) -> &str {
    package.strip_prefix("ferry-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::{Findings, check};

    fn findings(packages: &serde_json::Value) -> Vec<String> {
        let mut findings = Findings::default();
        check(&serde_json::json!({ "packages": packages }), &mut findings);
        findings.errors
    }

    #[test]
    fn an_arrow_that_runs_up_or_sideways_is_found() {
        let found = findings(&serde_json::json!([
            { "name": "ferry-kit", "dependencies": [{ "name": "ferry-engine", "path": "/x", "kind": null }] },
            { "name": "ferry-storage", "dependencies": [{ "name": "ferry-network", "path": "/x", "kind": null }] },
            { "name": "ferry-engine", "dependencies": [{ "name": "ferry-kit", "path": "/x", "kind": null }] },
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn testkit_is_a_dev_dependency_only() {
        let found = findings(&serde_json::json!([
            { "name": "ferry-kit", "dependencies": [{ "name": "ferry-testkit", "path": "/x", "kind": "dev" }] },
            { "name": "ferry-sys", "dependencies": [{ "name": "ferry-testkit", "path": "/x", "kind": null }] },
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn an_unknown_crate_and_tokio_in_the_runtime_are_found() {
        let found = findings(&serde_json::json!([
            { "name": "ferry-misc", "dependencies": [] },
            { "name": "ferry-runtime", "dependencies": [{ "name": "tokio", "kind": null }] },
            { "name": "ferry-engine", "dependencies": [{ "name": "hyper", "kind": null }] },
        ]));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
