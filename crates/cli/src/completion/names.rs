//! Names the engine knows.

use std::time::Duration;

use ferry_api::{Filters, container, image, network, volume};
use ferry_client::{Client, Query};

use crate::commands::filters_text;

/// Nobody waits longer for what a key completes.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
    Any,
}

/// All of a kind, containers only in these states if any are given; none when the engine does not answer at once.
pub async fn of(client: &Client, kind: Kind, states: &[&str]) -> Vec<String> {
    let found = tokio::time::timeout(PATIENCE, ask(client, kind, states)).await;
    found.unwrap_or_default()
}

async fn ask(client: &Client, kind: Kind, states: &[&str]) -> Vec<String> {
    match kind {
        Kind::Container => containers(client, states).await,
        Kind::Image => {
            let images: Vec<image::Summary> = client.get_json("/images/json").await.unwrap_or_default();
            let tags = images.into_iter().flat_map(|image| image.repo_tags.unwrap_or_default());
            tags.filter(|tag| !tag.starts_with("<none>")).collect()
        }
        Kind::Network => {
            let networks: Vec<network::Inspect> = client.get_json("/networks").await.unwrap_or_default();
            networks.into_iter().map(|network| network.name).collect()
        }
        Kind::Volume => {
            let found: volume::List = client.get_json("/volumes").await.unwrap_or_default();
            let volumes = found.volumes.unwrap_or_default();
            volumes.into_iter().map(|volume| volume.name).collect()
        }
        Kind::Any => {
            let mut all = Vec::new();
            for kind in [Kind::Container, Kind::Image, Kind::Network, Kind::Volume] {
                all.extend(Box::pin(ask(client, kind, states)).await);
            }
            all
        }
    }
}

async fn containers(client: &Client, states: &[&str]) -> Vec<String> {
    let mut filters = Filters::default();
    for state in states {
        filters.add("status", *state);
    }
    let query = Query::new().flag("all", true).text("filters", &filters_text(&filters));
    let found: Vec<container::Summary> = client.get_json(&query.on("/containers/json")).await.unwrap_or_default();
    let names = found
        .into_iter()
        .flat_map(|container| container.names.unwrap_or_default());
    let own = names.filter_map(|name| {
        name.strip_prefix('/')
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
    });
    own.collect()
}

/// What the engine says of itself, or nothing.
pub async fn info(client: &Client) -> serde_json::Value {
    let found = tokio::time::timeout(PATIENCE, client.get_json("/info")).await;
    found.ok().and_then(Result::ok).unwrap_or_default()
}
