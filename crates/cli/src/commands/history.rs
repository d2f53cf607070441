use ferry_api::image::History;
use ferry_client::{Client, Query};
use ferry_kit::units;
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
    format::{Listing, ago, ellipsis, list, short_id},
};

pub const SPEC: Spec = Spec {
    name: "history",
    aliases: "image history, history",
    synopsis: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    arity: Arity::Exactly(1),
    flags: concat!(
        crate::flags::table_format!(),
        "\n\
-H, --human | Print sizes and dates in human readable format (default true)
--no-trunc | Don't truncate output
--platform string | Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")
-q, --quiet | Only show image IDs"
    ),
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

pub async fn run(call: Call<'_>) -> Result<u8> {
    let image = Client::escape(&call.matches.arguments[0]);
    let platform = match call.matches.text("platform") {
        "" => String::new(),
        platform => super::platform_json(super::platform_checked(platform, "invalid platform")?),
    };
    let path = Query::new()
        .text("platform", &platform)
        .on(&format!("/images/{image}/history"));
    let history: Vec<History> = call.client.get_json(&path).await?;
    let (human, truncate) = (call.matches.switch_or("human", true), !call.matches.switch("no-trunc"));
    let rows: Vec<Value> = history.iter().map(|entry| row(entry, human, truncate)).collect();
    let format = match (call.matches.text("format"), call.matches.switch("quiet")) {
        ("" | "table", true) => "{{.ID}}",
        ("", false) => "table",
        (format, _) => format,
    };
    let created = if human { "CreatedSince" } else { "CreatedAt" };
    let table = format!("{{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    let listing = Listing {
        table: &table,
        headings: &HEADINGS,
        type_name: "*image.historyContext",
        method: None,
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    Ok(0)
}

#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn row(entry: &History, human: bool, truncate: bool) -> Value {
    let created_by = entry.created_by.replace('\t', " ");
    let at = jiff::Timestamp::from_second(entry.created).unwrap_or_default();
    let at = at
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%dT%H:%M:%S%:z")
        .to_string();
    json!({
        "Comment": entry.comment,
        "CreatedAt": at.strip_suffix("+00:00").map_or(at.clone(), |utc| format!("{utc}Z")),
        "CreatedBy": if truncate { ellipsis(&created_by, 45) } else { created_by },
        // What no base image dates has no age.
        "CreatedSince": if entry.created <= 0 { "N/A".to_owned() } else { ago(entry.created) },
        "ID": if truncate { short_id(&entry.id) } else { &entry.id },
        "Size": if human { units::human_size_with_precision(entry.size as f64, 3) } else { entry.size.to_string() },
    })
}
