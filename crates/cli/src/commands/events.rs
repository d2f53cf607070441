use ferry_client::Query;
use ferry_kit::Template;
use ferry_kit::moment;
use serde_json::{Map, Value};

use crate::{
    commands::{Call, filters},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::object_of_type,
};

pub const SPEC: Spec = Spec {
    name: "events",
    aliases: "system events, events",
    synopsis: "[OPTIONS]",
    about: "Get real time events from the server",
    arity: Arity::None,
    flags: concat!(
        "\
-f, --filter filter | Filter output based on conditions provided\n",
        crate::flags::plain_format!(),
        "\n\
--since string | Show all events created since timestamp
--until string | Stream events until this timestamp"
    ),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let template = match call.matches.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        format => Some(format),
    };
    let template = template
        .map(|format| {
            Template::parse(format).map_err(|error| Failure {
                code: 64,
                message: format!("Error parsing format: {error}"),
            })
        })
        .transpose()?;
    let time = |name: &str| match call.matches.text(name) {
        "" => Ok(String::new()),
        text => moment::parse(text).ok_or_else(|| {
            Failure::new(format!(
                "failed to parse value as time or duration: {}",
                ferry_kit::gofmt::quote(text)
            ))
        }),
    };
    let query = Query::new()
        .text("filters", &filters(&call.matches))
        .text("since", &time("since")?)
        .text("until", &time("until")?);
    let mut lines = call.client.get(&query.on("/events")).await?.lines();
    while let Some(event) = lines.json::<Value>().await? {
        let text = match &template {
            Some(template) => event_text(template, &event)
                .map_err(|error| Failure::new(format!("Error parsing format: {error}")).code(64))?,
            None => line(&event),
        };
        call.ui.line(&text);
    }
    Ok(0)
}

/// Go's fields and their JSON differ in some places.
fn event_text(template: &Template, event: &Value) -> std::result::Result<String, ferry_kit::Error> {
    object_of_type(template, event, "*events.Message", &|name, _| {
        let key = match name {
            "Status" => "status",
            "ID" => "id",
            "From" => "from",
            "Scope" => "scope",
            "Time" => "time",
            "TimeNano" => "timeNano",
            _ => return None,
        };
        let missing = if name.starts_with("Time") {
            Value::from(0)
        } else {
            Value::from("")
        };
        Some(Ok(event.get(key).cloned().unwrap_or(missing)))
    })
}

/// `2026-11-22T05:18:22.641074163Z container start ID (image=busybox, name=c1)`.
fn line(event: &Value) -> String {
    let mut out = String::new();
    let nanoseconds = event["timeNano"].as_i64().unwrap_or(0);
    if nanoseconds != 0 {
        let at = jiff::Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default();
        let at = at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%dT%H:%M:%S.%9f%:z")
            .to_string();
        out.push_str(&at.strip_suffix("+00:00").map_or(at.clone(), |utc| format!("{utc}Z")));
        out.push(' ');
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    out.push_str(
        &[
            text(&event["Type"]),
            text(&event["Action"]),
            text(&event["Actor"]["ID"]),
        ]
        .join(" "),
    );
    let none = Map::new();
    let attributes = event["Actor"]["Attributes"].as_object().unwrap_or(&none);
    if !attributes.is_empty() {
        let mut pairs: Vec<String> = attributes
            .iter()
            .map(|(key, value)| format!("{key}={}", text(value)))
            .collect();
        pairs.sort();
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}
