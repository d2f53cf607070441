//! `image prune`.

use ferry_api::{Filters, image::Prune};
use ferry_client::{Body, Method, Query};
use ferry_kit::units;

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    session::Input,
};

pub const IMAGE: Spec = Spec {
    name: "image prune",
    synopsis: "[OPTIONS]",
    about: "Remove unused images",
    arity: Arity::None,
    flags: "\
-a, --all | Remove all unused images, not just dangling ones
--filter filter | Provide filter values (e.g. \"until=<timestamp>\")
-f, --force | Do not prompt for confirmation",
    ..Spec::EMPTY
};

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
pub async fn image(mut call: Call<'_>) -> Result<u8> {
    let all = call.matches.switch("all");
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !call.matches.switch("force") && !confirm(&mut call, warning).await? {
        return Ok(0);
    }
    let mut filters = Filters::default();
    for filter in call.matches.list("filter") {
        if let Some((key, value)) = filter.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    filters.add("dangling", (!all).to_string());
    let filters = serde_json::to_string(&filters).map_err(|error| Failure::new(error.to_string()))?;
    let path = Query::new().text("filters", &filters).on("/images/prune");
    let response = call.client.request(Method::POST, &path, Body::Empty).await?;
    let pruned: Prune = response.json().await?;
    let deleted = pruned.images_deleted.unwrap_or_default();
    if !deleted.is_empty() {
        call.ui.line("Deleted Images:");
        for entry in deleted {
            call.ui.line(&match entry.untagged.as_str() {
                "" => format!("deleted: {}", entry.deleted),
                name => format!("untagged: {name}"),
            });
        }
        call.ui.line("");
    }
    let freed = units::human_size(pruned.space_reclaimed as f64);
    call.ui.line(&format!("Total reclaimed space: {freed}"));
    Ok(0)
}

/// Anything but a yes, the end of input included, is a no.
async fn confirm(call: &mut Call<'_>, warning: &str) -> Result<bool> {
    use tokio::io::AsyncReadExt as _;
    /// Nobody says yes in more.
    const MOST: usize = 4096;
    call.ui
        .print(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let Some(stdin) = call.ui.stdin else { return Ok(false) };
    let (mut input, mut line) = (Input::new(stdin), Vec::new());
    while line.len() < MOST {
        match input.read_u8().await {
            Ok(b'\n') | Err(_) => break,
            Ok(byte) => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim().eq_ignore_ascii_case("y"))
}
