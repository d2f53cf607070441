use ferry_client::{Body, Lines, Method, Query};

use crate::{
    commands::{Call, login::registry_auth, without_content_trust},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    progress, reference,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "pull",
    aliases: "image pull, pull",
    synopsis: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    arity: Arity::Exactly(1),
    flags: "\
-a, --all-tags | Download all tagged images in the repository
--disable-content-trust | Skip image verification (default true)
--platform string | Set platform if server is multi-platform capable
-q, --quiet | Suppress verbose output",
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    without_content_trust(&call.matches).map_err(Failure::new)?;
    let image = named(&mut call)?;
    let (all, quiet) = (call.matches.switch("all-tags"), call.matches.switch("quiet"));
    let platform = platform(&call);
    let lines = request(&mut call, &image, all, &platform).await?;
    match quiet {
        true => progress::hide(lines, |_| {}).await?,
        false => progress::show(call.ui, Channel::Stdout, lines).await?,
    };
    call.ui.line(&image.full());
    Ok(0)
}

/// The image that a line of pull or push names: with a tag or a digest, unless all tags are meant.
pub fn named(call: &mut Call<'_>) -> Result<reference::Reference> {
    let mut image = reference::parse(&call.matches.arguments[0]).map_err(Failure::new)?;
    match (call.matches.switch("all-tags"), image.is_name_only()) {
        (true, false) => return Err(Failure::new("tag can't be used with --all-tags/-a")),
        (false, true) => {
            let tag = image.tag_or_latest().to_owned();
            if !call.matches.switch("quiet") {
                call.ui.line(&format!("Using default tag: {tag}"));
            }
            image.tag = Some(tag);
        }
        _ => {}
    }
    Ok(image)
}

/// `--platform`, or what the environment says in its place.
pub fn platform(call: &Call<'_>) -> String {
    let platform = call.matches.get("platform");
    platform
        .or_else(|| call.env.variable("DOCKER_DEFAULT_PLATFORM"))
        .unwrap_or_default()
        .to_owned()
}

/// Asks the engine for an image, or for all of its name.
pub async fn request(call: &mut Call<'_>, image: &reference::Reference, all: bool, platform: &str) -> Result<Lines> {
    let auth = registry_auth(call, image.domain()).await?;
    let tag = match (all, &image.digest) {
        (true, _) => "",
        (_, Some(digest)) => digest,
        (_, None) => image.tag_or_latest(),
    };
    let path = Query::new()
        .with("fromImage", &image.name)
        .text("platform", &platform.to_lowercase())
        .text("tag", tag)
        .on("/images/create");
    let headers = [("X-Registry-Auth", auth.as_str())];
    let response = call
        .client
        .request_with(Method::POST, &path, &headers, Body::Empty)
        .await?;
    Ok(response.lines())
}
