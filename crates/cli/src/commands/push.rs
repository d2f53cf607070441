use ferry_api::image::Aux;
use ferry_client::{Body, Client, Method, Query};

use crate::{
    commands::{Call, login::registry_auth, platform_checked, platform_json, pull, without_content_trust},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    progress,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "push",
    aliases: "image push, push",
    synopsis: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    arity: Arity::Exactly(1),
    flags: "\
-a, --all-tags | Push all tags of an image to the repository
--disable-content-trust | Skip image signing (default true)
--platform string | Push a platform-specific manifest as a single-platform image to the registry. Image index won't be pushed, \
meaning that other manifests, including attestations won't be preserved.
 'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)
-q, --quiet | Suppress verbose output",
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    without_content_trust(&call.matches).map_err(Failure::new)?;
    platform_checked(call.matches.text("platform"), "Invalid platform")?;
    let image = pull::named(&mut call)?;
    if image.digest.is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    let quiet = call.matches.switch("quiet");
    let auth = registry_auth(&mut call, image.domain()).await?;
    let platform = call.matches.text("platform");
    let platform = match platform {
        "" => String::new(),
        platform => platform_json(platform),
    };
    let path = Query::new()
        .text("platform", &platform)
        .text("tag", image.tag.as_deref().unwrap_or_default())
        .on(&format!("/images/{}/push", Client::escape(&image.name)));
    let headers = [("X-Registry-Auth", auth.as_str())];
    let response = call
        .client
        .request_with(Method::POST, &path, &headers, Body::Empty)
        .await?;
    let mut notes = Vec::new();
    let result = |aux: &Aux| notes.extend(note(aux));
    let outcome = match quiet {
        false => progress::watch(call.ui, Channel::Stdout, response.lines(), result).await,
        true => progress::hide(response.lines(), result).await,
    };
    if quiet && outcome.is_ok() {
        call.ui.line(&image.full());
    }
    for note in notes {
        call.ui.line("");
        call.ui.note(&note);
    }
    outcome
}

/// What a result has to say to people (docker/cli `command/image/push.go`, 28.5).
fn note(aux: &Aux) -> Option<String> {
    let Aux::OnlyPlatform {
        manifest_pushed_instead_of_index: true,
        original_index,
        selected_manifest,
    } = aux
    else {
        return None;
    };
    // Docker paints these wherever they go.
    let painted = |colour: &str, text: &str| format!("\x1b[{colour}m{text}\x1b[0m");
    Some(format!(
        "Not all multiplatform-content is present and only the available single-platform image was pushed\n{} -> {}",
        painted("31", &original_index.digest),
        painted("32", &selected_manifest.digest)
    ))
}
