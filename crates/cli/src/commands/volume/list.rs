//! `volume ls`.

use ferry_api::volume::{List, Volume};
use ferry_client::Query;
use serde_json::{Value, json};

use crate::{
    commands::{Call, filters},
    failure::Result,
    format::{Listing, label, list, natural},
};

const HEADINGS: [(&str, &str); 10] = [
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let path = Query::new().text("filters", &filters(&call.matches)).on("/volumes");
    let found: List = call.client.get_json(&path).await?;
    let mut volumes = found.volumes.unwrap_or_default();
    volumes.sort_by(|one, other| natural(&one.name, &other.name));
    let quiet = call.matches.switch("quiet");
    let format = match call.matches.text("format") {
        "" if quiet => String::new(),
        "" => call.config().volumes_format.clone(),
        format => format.to_owned(),
    };
    let format = match format.as_str() {
        "" | "table" if quiet => "{{.Name}}",
        "raw" if quiet => "name: {{.Name}}",
        "raw" => "name: {{.Name}}\ndriver: {{.Driver}}\n",
        "" => "table",
        format => format,
    };
    let rows: Vec<Value> = volumes.iter().map(row).collect();
    let label = |index: usize, name: &str, arguments: &[Value]| label(volumes[index].labels.as_ref(), name, arguments);
    let listing = Listing {
        table: "{{.Driver}}\t{{.Name}}",
        headings: &HEADINGS,
        type_name: "*formatter.volumeContext",
        method: Some(&label),
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

/// What a list does not know, and what only volumes of a swarm have, is `N/A`.
fn row(volume: &Volume) -> Value {
    let labels = volume.labels.iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": "N/A",
        "Status": "N/A",
    })
}
