//! What this builder says of itself.

use std::collections::BTreeMap;

use ferry_buildkit::apicaps::ApiCap;
use ferry_buildkit::frontend::PongResponse;
use ferry_buildkit::pb::Platform;
use ferry_buildkit::types::{BuildkitVersion, WorkerRecord};

/// Clients take this one to have an image store of its own, which exports archives, pushes and knows all kinds of outputs.
const SNAPSHOTTER: &str = "org.mobyproject.buildkit.worker.snapshotter";
const EXECUTOR: &str = "org.mobyproject.buildkit.worker.executor";
const HOSTNAME: &str = "org.mobyproject.buildkit.worker.hostname";
const NETWORK: &str = "org.mobyproject.buildkit.worker.network";
/// What `host-gateway` is in `--add-host`.
const GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// The version of BuildKit whose protocol this is: clients compare it.
const PROTOCOL: &str = "v0.25.1";

/// What a frontend may ask of the daemon.
const FRONTEND: [&str; 17] = [
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "readfile",
    "readdir",
    "statfile",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What can be asked of a build. Attestations, and graphs of a client's own, are not there.
const BUILD: [&str; 13] = [
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.git",
    "source.http",
    "source.ocilayout",
    "platform",
    "constraints",
    "exporter.multiple",
    "exporter.sourcedateepoch",
    "gc.freespacefilter",
];

fn capability(id: &&str) -> ApiCap {
    ApiCap {
        id: (*id).to_owned(),
        enabled: true,
        ..ApiCap::default()
    }
}

pub fn pong(worker: WorkerRecord) -> PongResponse {
    PongResponse {
        frontend_api_caps: FRONTEND.iter().map(capability).collect(),
        llb_caps: BUILD.iter().map(capability).collect(),
        workers: vec![worker],
    }
}

pub fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "ferry".to_owned(),
        version: PROTOCOL.to_owned(),
        revision: String::new(),
    }
}

/// The one worker there is.
pub fn record(id: &str, hostname: &str, gateway: Option<String>) -> WorkerRecord {
    let host = ferry_image::Platform::host();
    let platform = Platform {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant,
        ..Platform::default()
    };
    let mut labels = BTreeMap::from([
        (EXECUTOR.to_owned(), "ferry".to_owned()),
        (HOSTNAME.to_owned(), hostname.to_owned()),
        (NETWORK.to_owned(), "bridge".to_owned()),
        (SNAPSHOTTER.to_owned(), "overlayfs".to_owned()),
    ]);
    labels.extend(gateway.map(|address| (GATEWAY.to_owned(), address)));
    WorkerRecord {
        id: id.to_owned(),
        labels,
        platforms: vec![platform],
        gc_policy: Vec::new(),
        buildkit_version: Some(version()),
    }
}
