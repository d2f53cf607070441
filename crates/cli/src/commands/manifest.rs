//! `manifest`: lists of manifests, made here and pushed to a registry. The engine has no part in it.

mod lists;
mod remote;
mod text;

use ferry_api::image::Platform;
use ferry_image::{Reference, media};
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    reference,
};
use lists::{Entry, Lists};
use remote::Found;

/// What the help of the group says.
pub const ABOUT: &str = "\
The **docker manifest** command has subcommands for managing image manifests and
manifest lists. A manifest list allows you to use one name to refer to the same image
built for multiple architectures.

To see help for a subcommand, use:

    docker manifest CMD --help

For full details on using docker manifest lists, see the registry v2 specification.
";

pub const INSPECT: Spec = Spec {
    name: "manifest inspect",
    synopsis: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about: "Display an image manifest, or manifest list",
    arity: Arity::Between(1, 2),
    flags: "\
--insecure | Allow communication with an insecure registry
-v, --verbose | Output additional info including layers and platform",
    ..Spec::EMPTY
};

pub const CREATE: Spec = Spec {
    name: "manifest create",
    synopsis: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    about: "Create a local manifest list for annotating and pushing to a registry",
    arity: Arity::AtLeast(2),
    flags: "\
-a, --amend | Amend an existing manifest list
--insecure | Allow communication with an insecure registry",
    ..Spec::EMPTY
};

pub const ANNOTATE: Spec = Spec {
    name: "manifest annotate",
    synopsis: "[OPTIONS] MANIFEST_LIST MANIFEST",
    about: "Add additional information to a local image manifest",
    arity: Arity::Exactly(2),
    flags: "\
--arch string | Set architecture
--os string | Set operating system
--os-features strings | Set operating system feature
--os-version string | Set operating system version
--variant string | Set architecture variant",
    ..Spec::EMPTY
};

pub const PUSH: Spec = Spec {
    name: "manifest push",
    synopsis: "[OPTIONS] MANIFEST_LIST",
    about: "Push a manifest list to a repository",
    arity: Arity::Exactly(1),
    flags: "\
--insecure | Allow push to an insecure registry
-p, --purge | Remove the local manifest list after push",
    ..Spec::EMPTY
};

pub const RM: Spec = Spec {
    name: "manifest rm",
    synopsis: "MANIFEST_LIST [MANIFEST_LIST...]",
    about: "Delete one or more manifest lists from local storage",
    arity: Arity::AtLeast(1),
    ..Spec::EMPTY
};

/// Docker's combinations (docker/cli `manifest/util.go`, 28.5).
const PLATFORMS: [(&str, &str); 9] = [
    ("darwin", "386 amd64 arm arm64"),
    ("dragonfly", "amd64"),
    ("freebsd", "386 amd64 arm"),
    ("linux", "386 amd64 arm arm64 mips64 mips64le ppc64le riscv64 s390x"),
    ("netbsd", "386 amd64 arm"),
    ("openbsd", "386 amd64 arm"),
    ("plan9", "386 amd64"),
    ("solaris", "amd64"),
    ("windows", "386 amd64"),
];

pub async fn run(mut call: Call<'_>, name: &str) -> Result<u8> {
    match name {
        "manifest inspect" => inspect(&mut call).await,
        "manifest create" => create(&mut call).await,
        "manifest annotate" => annotate(&call),
        "manifest push" => push(&mut call).await,
        _ => remove(&mut call),
    }
}

async fn inspect(call: &mut Call<'_>) -> Result<u8> {
    let lists = lists(call);
    let verbose = call.matches.switch("verbose");
    let arguments = call.matches.arguments.clone();
    let (list, image) = match arguments.as_slice() {
        [list, image] => (Some(list), image),
        [image, ..] => (None, image),
        [] => return Ok(1),
    };
    let image = named(image)?;
    if let Some(list) = list {
        let entry = lists.get(&named(list)?.to_string(), &image.to_string())?;
        let entry = entry.ok_or_else(|| unknown(&image))?;
        return show(call, &entry, verbose);
    }
    if let Some(entries) = lists.list(&image.to_string())? {
        return show_list(call, &image, &entries, verbose);
    }
    match remote::find(call, &image).await? {
        Found::Image(entry) => show(call, &entry, verbose),
        // Docker looks at each entry, also where it shows only what the list says of it.
        Found::List(list) => {
            let entries = remote::entries(call, &image, &list).await?;
            show_list(call, &image, &entries, verbose)
        }
    }
}

fn show(call: &mut Call<'_>, entry: &Entry, verbose: bool) -> Result<u8> {
    let text = match verbose {
        true => text::indent(&entry.json()?, "\t"),
        false => text::indent(&String::from_utf8_lossy(&entry.raw), "\t"),
    };
    call.ui.line(&text);
    Ok(0)
}

fn show_list(call: &mut Call<'_>, list: &Reference, entries: &[Entry], verbose: bool) -> Result<u8> {
    let text = match verbose {
        true => {
            let entries = entries.iter().map(Entry::json).collect::<Result<Vec<_>>>()?;
            text::indent(&format!("[{}]", entries.join(",")), "\t")
        }
        false => {
            assemble(list, entries)
                .map_err(|error| Failure::new(format!("failed to assemble ManifestDescriptor: {}", error.message)))?
                .1
        }
    };
    call.ui.line(&text);
    Ok(0)
}

async fn create(call: &mut Call<'_>) -> Result<u8> {
    let lists = lists(call);
    let arguments = call.matches.arguments.clone();
    let Some((list, images)) = arguments.split_first() else {
        return Ok(1);
    };
    let list = named(list).map_err(|error| {
        Failure::new(format!(
            "error parsing name for manifest list {list}: {}",
            error.message
        ))
    })?;
    let key = list.to_string();
    if lists.list(&key)?.is_some() && !call.matches.switch("amend") {
        return Err(Failure::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    for image in images {
        let image = named(image)?;
        let entry = match lists.get(&key, &image.to_string())? {
            Some(entry) => entry,
            None => match remote::find(call, &image).await? {
                Found::Image(entry) => entry,
                Found::List(_) => return Err(Failure::new(format!("{image} is a manifest list"))),
            },
        };
        lists.save(&key, &image.to_string(), &entry)?;
    }
    call.ui.line(&format!("Created manifest list {list}"));
    Ok(0)
}

fn annotate(call: &Call<'_>) -> Result<u8> {
    let lists = lists(call);
    let [typed_list, typed_image] = call.matches.arguments.as_slice() else {
        return Ok(1);
    };
    let parsed = |what: &str, typed: &str| {
        named(typed).map_err(|error| {
            Failure::new(format!(
                "annotate: error parsing name for {what} {typed}: {}",
                error.message
            ))
        })
    };
    let list = parsed("manifest list", typed_list)?.to_string();
    let image = parsed("manifest", typed_image)?.to_string();
    let mut entry = lists.get(&list, &image)?.ok_or_else(|| {
        Failure::new(format!(
            "manifest for image {typed_image} does not exist in {typed_list}"
        ))
    })?;
    let platform = entry.descriptor.platform.get_or_insert_default();
    let (os, architecture) = (call.matches.text("os"), call.matches.text("arch"));
    for (given, kept) in [
        (os, &mut platform.os),
        (architecture, &mut platform.architecture),
        (call.matches.text("variant"), &mut platform.variant),
        (call.matches.text("os-version"), &mut platform.os_version),
    ] {
        if !given.is_empty() {
            given.clone_into(kept);
        }
    }
    for feature in call.matches.list("os-features").iter().flat_map(|list| list.split(',')) {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    if !is_platform(&platform.os, &platform.architecture) {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {os}/{architecture}"
        )));
    }
    lists.save(&list, &image, &entry)?;
    Ok(0)
}

fn is_platform(os: &str, architecture: &str) -> bool {
    PLATFORMS
        .iter()
        .any(|(known, architectures)| *known == os && architectures.split(' ').any(|one| one == architecture))
}

async fn push(call: &mut Call<'_>) -> Result<u8> {
    let lists = lists(call);
    let list = named(&call.matches.arguments[0])?;
    let entries = lists.list(&list.to_string())?.ok_or_else(|| unknown(&list))?;
    for entry in &entries {
        let platform = entry.descriptor.platform.as_ref();
        if platform.is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty()) {
            return Err(Failure::new(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.reference
            )));
        }
    }
    let (media_type, document) = assemble(&list, &entries)?;
    let target = remote::repository(call, &list).await?;
    for entry in &entries {
        let from = named(&entry.reference)?;
        if from.name() != list.name() {
            let digest = entry.descriptor.digest.parse();
            let digest = digest.map_err(|_| Failure::new(format!("{} has no digest", entry.reference)))?;
            let to = list.clone().without_tag_and_digest().with_digest(digest);
            let digest = remote::carry_over(&target, &from, &to, entry).await?;
            call.ui.line(&format!("Pushed ref {to} with digest: {digest}"));
        }
    }
    let digest = remote::put(&target, &list, media_type, document.into_bytes()).await?;
    call.ui.line(&digest);
    if call.matches.switch("purge") {
        lists.remove(&list.to_string())?;
    }
    Ok(0)
}

fn remove(call: &mut Call<'_>) -> Result<u8> {
    let lists = lists(call);
    let mut failures = Vec::new();
    for typed in &call.matches.arguments {
        let removed = named(typed).and_then(|list| match lists.list(&list.to_string())? {
            Some(_) => lists.remove(&list.to_string()),
            None => Err(unknown(&list)),
        });
        failures.extend(removed.err().map(|failure| failure.message));
    }
    match failures.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(failures.join("\n"))),
    }
}

/// The list's media type and bytes, as Docker writes them.
fn assemble(list: &Reference, entries: &[Entry]) -> Result<(&'static str, String)> {
    let mut manifests = Vec::new();
    for entry in entries {
        let from = named(&entry.reference)?;
        if from.domain() != list.domain() {
            return Err(Failure::new(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                from.domain(),
                list.domain()
            )));
        }
        let descriptor = &entry.descriptor;
        let size = u64::try_from(descriptor.size).unwrap_or_default();
        let platform = descriptor.platform.as_ref();
        manifests.push(listed(&descriptor.media_type, &descriptor.digest, size, platform));
    }
    // The first decides, as in Docker.
    let media_type = match entries.first() {
        Some(first) if first.descriptor.media_type == media::OCI_MANIFEST => media::OCI_INDEX,
        _ => media::DOCKER_INDEX,
    };
    Ok((media_type, document(media_type, &manifests)))
}

fn document(media_type: &str, manifests: &[String]) -> String {
    let text = format!(
        "{{\"schemaVersion\":2,\"mediaType\":{},\"manifests\":[{}]}}",
        Value::from(media_type),
        manifests.join(",")
    );
    text::indent(&text, "   ")
}

fn listed(media_type: &str, digest: &str, size: u64, platform: Option<&Platform>) -> String {
    let empty = Platform::default();
    let platform = serde_json::to_string(platform.unwrap_or(&empty)).unwrap_or_default();
    format!(
        "{{\"mediaType\":{},\"size\":{size},\"digest\":{},\"platform\":{platform}}}",
        Value::from(media_type),
        json!(digest),
    )
}

fn lists(call: &Call<'_>) -> Lists {
    Lists::new(&call.config_directory())
}

/// With its tag filled in, unless it has a digest.
fn named(text: &str) -> Result<Reference> {
    let parsed = reference::parse(text).map_err(Failure::new)?;
    let full = Reference::parse_named(&parsed.full()).map_err(|error| Failure::new(error.to_string()))?;
    Ok(full.tagged())
}

fn unknown(reference: &Reference) -> Failure {
    Failure::new(format!("No such manifest: {reference}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_dockers() {
        for (os, architecture) in [("linux", "s390x"), ("windows", "amd64"), ("plan9", "386")] {
            assert!(is_platform(os, architecture), "{os}/{architecture}");
        }
        for (os, architecture) in [("linux", "foo"), ("", "amd64"), ("linux", ""), ("linux", "amd64 arm")] {
            assert!(!is_platform(os, architecture), "{os}/{architecture}");
        }
    }
}
