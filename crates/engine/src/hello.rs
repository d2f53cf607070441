//! `ferry/hello`: an image whose one layer is the engine's own binary, made when it is first asked for.

use std::path::PathBuf;
use std::sync::Arc;

use ferry_image::Reference;
use ferry_storage::{Image, Single};

use crate::error::{Error, Result};
use crate::world::World;

const NAME: &str = "docker.io/ferry/hello:latest";

/// Whether `name` means `ferry/hello`.
pub(crate) fn is(name: &str) -> bool {
    name.parse::<Reference>()
        .is_ok_and(|reference| reference.to_string() == NAME)
}

/// Makes the image, once for a data root: some ten milliseconds.
pub(crate) async fn make(world: &World) -> Result<Arc<Image>> {
    let reference = crate::images::parse_reference(NAME)?;
    let config = serde_json::json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Cmd": ["/ferry", "hello"],
            "Env": ["PATH=/"],
            "Labels": { "org.opencontainers.image.title": "ferry/hello" },
        },
    });
    let images = world.store.images.clone();
    let (source, path) = (PathBuf::from("/proc/self/exe"), PathBuf::from("/ferry"));
    let single = Single {
        reference,
        source,
        path,
        config,
    };
    match tokio::task::spawn_blocking(move || images.add_single_file(&single)).await {
        Ok(made) => made.map_err(|error| Error::internal("make the image ferry/hello", &error)),
        Err(error) => Err(Error::internal("make the image ferry/hello", &error)),
    }
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
