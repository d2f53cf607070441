//! `network ls`.

use ferry_api::network::Inspect;
use ferry_client::Query;
use serde_json::{Value, json};

use crate::{
    commands::{Call, filters},
    failure::Result,
    format::{Listing, go_instant, label, list, natural, short_id},
};

const HEADINGS: [(&str, &str); 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let path = Query::new().text("filters", &filters(&call.matches)).on("/networks");
    let mut networks: Vec<Inspect> = call.client.get_json(&path).await?;
    networks.sort_by(|one, other| natural(&one.name, &other.name));
    let quiet = call.matches.switch("quiet");
    let format = match call.matches.text("format") {
        "" if quiet => String::new(),
        "" => call.config().networks_format.clone(),
        format => format.to_owned(),
    };
    let format = match format.as_str() {
        "" | "table" if quiet => "{{.ID}}",
        "raw" if quiet => "network_id: {{.ID}}",
        "raw" => "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        "" => "table",
        format => format,
    };
    let whole = call.matches.switch("no-trunc");
    let rows: Vec<Value> = networks.iter().map(|network| row(network, whole)).collect();
    let label = |index: usize, name: &str, arguments: &[Value]| label(networks[index].labels.as_ref(), name, arguments);
    let listing = Listing {
        table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        headings: &HEADINGS,
        type_name: "*network.networkContext",
        method: Some(&label),
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

fn row(network: &Inspect, whole: bool) -> Value {
    let labels = network.labels.iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "CreatedAt": go_instant(network.created),
        "Driver": network.driver,
        "ID": if whole { &network.id } else { short_id(&network.id) },
        "IPv4": network.enable_ipv4.to_string(),
        "IPv6": network.enable_ipv6.to_string(),
        "Internal": network.internal.to_string(),
        "Labels": labels.join(","),
        "Name": network.name,
        "Scope": network.scope,
    })
}
