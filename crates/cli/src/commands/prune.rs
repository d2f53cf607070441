//! `builder prune`, `container prune`, `image prune`, `system prune`.

use ferry_api::{Filters, container, image, network, system, volume};
use ferry_client::{Body, Method, Query};
use ferry_kit::units;
use serde::de::DeserializeOwned;

use crate::{
    commands::{Call, filters_text, given_filters},
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

pub const CONTAINER: Spec = Spec {
    name: "container prune",
    synopsis: "[OPTIONS]",
    about: "Remove all stopped containers",
    arity: Arity::None,
    flags: "\
--filter filter | Provide filter values (e.g. \"until=<timestamp>\")
-f, --force | Do not prompt for confirmation",
    ..Spec::EMPTY
};

pub const SYSTEM: Spec = Spec {
    name: "system prune",
    synopsis: "[OPTIONS]",
    about: "Remove unused data",
    arity: Arity::None,
    flags: "\
-a, --all | Remove all unused images not just dangling ones
--filter filter | Provide filter values (e.g. \"label=<key>=<value>\")
-f, --force | Do not prompt for confirmation
--volumes | Prune anonymous volumes",
    ..Spec::EMPTY
};

pub const BUILDER: Spec = Spec {
    name: "builder prune",
    aliases: "builder prune, buildx prune",
    synopsis: "[OPTIONS]",
    about: "Remove build cache",
    arity: Arity::None,
    flags: "\
-a, --all | Remove all unused build cache, not just dangling ones
--filter filter | Provide filter values (e.g. \"until=24h\")
-f, --force | Do not prompt for confirmation
--keep-storage bytes | Amount of disk space to keep for cache",
    ..Spec::EMPTY
};

pub async fn builder(mut call: Call<'_>) -> Result<u8> {
    let all = call.matches.switch("all");
    let warning = if all {
        "WARNING! This will remove all build cache."
    } else {
        "WARNING! This will remove all dangling build cache."
    };
    if !agreed(&mut call, warning).await? {
        return Ok(0);
    }
    let keep = call.matches.bytes("keep-storage");
    let freed = cache(&mut call, keep).await?;
    total(&mut call, freed);
    Ok(0)
}

pub async fn container(mut call: Call<'_>) -> Result<u8> {
    if !agreed(&mut call, "WARNING! This will remove all stopped containers.").await? {
        return Ok(0);
    }
    let freed = containers(&mut call).await?;
    total(&mut call, freed);
    Ok(0)
}

pub async fn image(mut call: Call<'_>) -> Result<u8> {
    let warning = if call.matches.switch("all") {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !agreed(&mut call, warning).await? {
        return Ok(0);
    }
    let freed = images(&mut call).await?;
    total(&mut call, freed);
    Ok(0)
}

pub async fn system(mut call: Call<'_>) -> Result<u8> {
    let (all, volumes) = (call.matches.switch("all"), call.matches.switch("volumes"));
    let given: Vec<String> = call.matches.list("filter").to_vec();
    if volumes && given.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut warning = "WARNING! This will remove:\n  - all stopped containers\n  \
                       - all networks not used by at least one container\n"
        .to_owned();
    if volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if all {
        "  - all images without at least one container associated to them\n  - all build cache\n"
    } else {
        "  - all dangling images\n  - unused build cache\n"
    });
    if !given.is_empty() {
        warning.push_str("\n  Items to be pruned will be filtered with:\n");
        given
            .iter()
            .for_each(|filter| warning.push_str(&format!("  - {filter}\n")));
    }
    if !agreed(&mut call, &warning).await? {
        return Ok(0);
    }
    let mut freed = containers(&mut call).await?;
    networks(&mut call).await?;
    if volumes {
        let filters = given_filters(&call.matches);
        freed = freed.saturating_add(self::volumes(&mut call, &filters).await?);
    }
    freed = freed.saturating_add(images(&mut call).await?);
    freed = freed.saturating_add(cache(&mut call, 0).await?);
    total(&mut call, freed);
    Ok(0)
}

/// Removes networks and lists them.
pub async fn networks(call: &mut Call<'_>) -> Result<()> {
    let pruned: network::Prune = ask(call, "/networks/prune", &given_filters(&call.matches)).await?;
    listed(call, "Networks", pruned.networks_deleted);
    Ok(())
}

/// Removes volumes and lists them; the bytes they had.
pub async fn volumes(call: &mut Call<'_>, filters: &Filters) -> Result<u64> {
    let pruned: volume::Prune = ask(call, "/volumes/prune", filters).await?;
    listed(call, "Volumes", pruned.volumes_deleted);
    Ok(pruned.space_reclaimed)
}

async fn containers(call: &mut Call<'_>) -> Result<u64> {
    let pruned: container::Prune = ask(call, "/containers/prune", &given_filters(&call.matches)).await?;
    listed(call, "Containers", pruned.containers_deleted);
    Ok(pruned.space_reclaimed)
}

async fn images(call: &mut Call<'_>) -> Result<u64> {
    let mut filters = given_filters(&call.matches);
    filters.add("dangling", (!call.matches.switch("all")).to_string());
    let pruned: image::Prune = ask(call, "/images/prune", &filters).await?;
    let deleted = pruned.images_deleted.unwrap_or_default();
    let line = |entry: &image::Deleted| match entry.untagged.as_str() {
        "" => format!("deleted: {}", entry.deleted),
        name => format!("untagged: {name}"),
    };
    listed(call, "Images", Some(deleted.iter().map(line).collect()));
    Ok(pruned.space_reclaimed)
}

/// Removes what is kept of builds, up to so many bytes that stay.
async fn cache(call: &mut Call<'_>, keep: i64) -> Result<u64> {
    let mut query = Query::new()
        .flag("all", call.matches.switch("all"))
        .text("filters", &filters_text(&given_filters(&call.matches)));
    if keep > 0 {
        query = query.text("reserved-space", &keep.to_string());
    }
    let path = query.on("/build/prune");
    let response = call.client.request(Method::POST, &path, Body::Empty).await?;
    let pruned: system::BuildPrune = response.json().await?;
    listed(call, "build cache objects", pruned.caches_deleted);
    Ok(pruned.space_reclaimed)
}

async fn ask<T: DeserializeOwned>(call: &Call<'_>, path: &str, filters: &Filters) -> Result<T> {
    let path = Query::new().text("filters", &filters_text(filters)).on(path);
    let response = call.client.request(Method::POST, &path, Body::Empty).await?;
    Ok(response.json().await?)
}

fn listed(call: &mut Call<'_>, what: &str, deleted: Option<Vec<String>>) {
    let Some(deleted) = deleted.filter(|deleted| !deleted.is_empty()) else {
        return;
    };
    call.ui.line(&format!("Deleted {what}:"));
    deleted.iter().for_each(|name| call.ui.line(name));
    call.ui.line("");
}

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
pub fn total(call: &mut Call<'_>, freed: u64) {
    call.ui
        .line(&format!("Total reclaimed space: {}", units::human_size(freed as f64)));
}

/// Whether the user wants it: by `--force`, or asked.
pub async fn agreed(call: &mut Call<'_>, warning: &str) -> Result<bool> {
    Ok(call.matches.switch("force") || confirm(call, warning).await?)
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
