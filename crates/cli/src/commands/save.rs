//! `save` and `export`: archives that arrive.

use std::fs::FileType;
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use ferry_client::{Client, Query, Response};
use ferry_image::Platform;
use ferry_kit::atomic::{AtomicFile, Durability};

use crate::{
    commands::{Call, platform_json},
    failure::{Failure, Result, io_text},
    flags::{Arity, Spec},
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "save",
    aliases: "image save, save",
    synopsis: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    arity: Arity::AtLeast(1),
    flags: "\
-o, --output string | Write to a file, instead of STDOUT
--platform string | Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ..Spec::EMPTY
};

pub const EXPORT: Spec = Spec {
    name: "export",
    aliases: "container export, export",
    synopsis: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    arity: Arity::Exactly(1),
    flags: "-o, --output string | Write to a file, instead of STDOUT",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let mut query = Query::new();
    let platform = call.matches.text("platform");
    if !platform.is_empty() {
        let parsed = platform.parse::<Platform>();
        let platform = parsed.map_err(|error| Failure::new(format!("invalid platform: {error}")))?;
        query = query.with("platform", platform_json(&platform.to_string()));
    }
    let target = Target::of(&call, "save image")?;
    let names = &call.matches.arguments;
    let path = match names.as_slice() {
        [name] => query.on(&format!("/images/{}/get", Client::escape(name))),
        names => names
            .iter()
            .fold(query, |query, name| query.with("names", name.as_str()))
            .on("/images/get"),
    };
    let response = call.client.get(&path).await?;
    target.receive(call, response).await
}

pub async fn export(call: Call<'_>) -> Result<u8> {
    let target = Target::of(&call, "export container")?;
    let path = format!("/containers/{}/export", Client::escape(&call.matches.arguments[0]));
    let response = call.client.get(&path).await?;
    target.receive(call, response).await
}

/// `volume export`.
pub async fn volume(call: Call<'_>) -> Result<u8> {
    let target = Target::of(&call, "export volume")?;
    let path = format!("/volumes/{}/export", Client::escape(&call.matches.arguments[0]));
    let response = call.client.get(&path).await?;
    target.receive(call, response).await
}

/// Where an archive goes.
struct Target {
    /// The name as it was given; stdout if it is empty.
    file: String,
    /// What fails.
    what: &'static str,
}

impl Target {
    /// Checked before anything is asked of the engine.
    fn of(call: &Call<'_>, what: &'static str) -> Result<Self> {
        let file = call.matches.text("output").to_owned();
        if !file.is_empty() {
            check(call, &file).map_err(|why| Failure::new(format!("failed to {what}: {why}")))?;
        } else if call.ui.stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        Ok(Self { file, what })
    }

    /// A file is there as a whole or not at all.
    async fn receive(self, call: Call<'_>, mut response: Response) -> Result<u8> {
        if self.file.is_empty() {
            while let Some(chunk) = response.chunk().await? {
                // Nobody reads on: neither does this.
                if let Err(error) = call.ui.channel(Channel::Stdout).write_all(&chunk) {
                    return match error.kind() {
                        io::ErrorKind::BrokenPipe => Ok(1),
                        _ => Err(Failure::new(format!("write /dev/stdout: {}", io_text(&error)))),
                    };
                }
            }
            return Ok(0);
        }
        let failed = |why: String| Failure::new(format!("failed to {}: {why}", self.what));
        let path = call.env.directory.join(&self.file);
        let mut file = AtomicFile::create(path, 0o600).map_err(|error| failed(ferry_kit::error::chain(&error)))?;
        while let Some(chunk) = response.chunk().await? {
            file.write_all(&chunk)
                .map_err(|error| failed(format!("write {}: {}", self.file, io_text(&error))))?;
        }
        file.commit(Durability::Process)
            .map_err(|error| failed(ferry_kit::error::chain(&error)))?;
        Ok(0)
    }
}

/// What a file can be renamed over, in the words of moby's atomicwriter.
fn check(call: &Call<'_>, file: &str) -> std::result::Result<(), String> {
    let parent = Path::new(file).parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        let shown = parent.display();
        let found = std::fs::metadata(call.env.directory.join(parent));
        let found = found.map_err(|error| format!("invalid output path: stat {shown}: {}", io_text(&error)))?;
        if !found.is_dir() {
            return Err(format!("invalid output path: stat {shown}: not a directory"));
        }
    }
    match std::fs::symlink_metadata(call.env.directory.join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("failed to stat output path: lstat {file}: {}", io_text(&error))),
        Ok(found) => match unfit(found.file_type()) {
            Some(what) => Err(format!("cannot write to a {what}")),
            None => Ok(()),
        },
    }
}

fn unfit(kind: FileType) -> Option<&'static str> {
    let kinds = [
        (kind.is_dir(), "directory"),
        (kind.is_symlink(), "symbolic link directly"),
        (kind.is_fifo(), "named pipe (FIFO)"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device(), "character device file"),
        (kind.is_block_device(), "block device file"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}
