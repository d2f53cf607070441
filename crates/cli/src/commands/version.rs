use serde_json::{Map, Value, json};

use crate::{
    commands::Call,
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    format::{object_of_type, single},
};

pub const SPEC: Spec = Spec {
    name: "version",
    synopsis: "[OPTIONS]",
    about: "Show the Docker version information",
    arity: Arity::None,
    flags: concat!(crate::flags::plain_format!("-f, ")),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let format = call.matches.text("format");
    let template = single(format).map_err(|failure| Failure {
        message: failure.message.replacen("template: :", "template: version:", 1),
        ..failure
    })?;
    let mut server = call.client.get_json::<Value>("/version").await;
    if let Ok(server) = &mut server {
        for component in server["Components"].as_array_mut().into_iter().flatten() {
            if let Some(Value::String(time)) = component["Details"].get_mut("BuildTime") {
                *time = built(time);
            }
        }
    }
    let build = &call.env.build;
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let client = json!({
        "Version": build.version,
        "ApiVersion": call.client.version(),
        "DefaultAPIVersion": ferry_client::API_VERSION,
        "GitCommit": build.commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "BuildTime": build.time,
        "Context": "default",
    });
    if let Some(template) = template {
        let mut value = json!({"Client": client, "Server": server.as_ref().cloned().unwrap_or(Value::Null)});
        // Templates name docker's Go fields, whose JSON keys differ in one place.
        for part in ["Client", "Server"] {
            if !format.contains("json")
                && let Some(version) = value[part].get("ApiVersion").cloned()
            {
                value[part]["APIVersion"] = version;
            }
        }
        match object_of_type(&template, &value, "system.versionInfo", &|_, _| None) {
            Ok(text) => call.ui.line(&text),
            Err(error) => {
                // docker ends the line it has begun.
                call.ui.print("\n");
                return Err(Failure::new(complaint(&error.to_string())));
            }
        }
    } else {
        let mut text = client_text(&client);
        if let Ok(server) = &server {
            text.push_str(&server_text(server));
        }
        call.ui.print(&text);
    }
    match server {
        Ok(_) => Ok(0),
        Err(error) => Err(Failure::new(describe(&error))),
    }
}

/// What Go says of a template of this name and of structs of these types.
fn complaint(error: &str) -> String {
    let text = error.replacen("template: :", "template: version:", 1);
    let text = text.replacen("executing \"\"", "executing \"version\"", 1);
    let Some((before, field)) = text.split_once("map has no entry for key \"") else {
        return text;
    };
    let kind = match before.contains("<.Server") {
        true => "*types.Version",
        false => "system.clientVersion",
    };
    format!(
        "{before}can't evaluate field {} in type {kind}",
        field.trim_end_matches('"')
    )
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// `Client:` and its lines.
fn client_text(client: &Value) -> String {
    let (version, newest) = (text(client, "ApiVersion"), text(client, "DefaultAPIVersion"));
    let api = if version == newest {
        version.to_owned()
    } else {
        format!("{version} (downgraded from {newest})")
    };
    let mut out = String::from("Client:\n");
    for (label, value) in [
        ("Version:", text(client, "Version")),
        ("API version:", &api),
        ("Git commit:", text(client, "GitCommit")),
        ("Built:", text(client, "BuildTime")),
        ("OS/Arch:", &format!("{}/{}", text(client, "Os"), text(client, "Arch"))),
        ("Context:", text(client, "Context")),
    ] {
        out.push_str(&format!(" {label:<19}{value}\n"));
    }
    out
}

/// `Server:`, with one paragraph a component.
fn server_text(server: &Value) -> String {
    let mut out = String::from("\nServer:");
    let platform = text(&server["Platform"], "Name");
    if !platform.is_empty() {
        out.push(' ');
        out.push_str(platform);
    }
    out.push('\n');
    for component in server["Components"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            " {}:\n  {:<18}{}\n",
            text(component, "Name"),
            "Version:",
            text(component, "Version")
        ));
        let none = Map::new();
        let details = component["Details"].as_object().unwrap_or(&none);
        let detail = |key: &str| details.get(key).and_then(Value::as_str).unwrap_or_default();
        let lines = if details.contains_key("ApiVersion") {
            vec![
                (
                    "API version:",
                    format!("{} (minimum version {})", detail("ApiVersion"), detail("MinAPIVersion")),
                ),
                ("Go version:", detail("GoVersion").to_owned()),
                ("Git commit:", detail("GitCommit").to_owned()),
                ("Built:", detail("BuildTime").to_owned()),
                ("OS/Arch:", format!("{}/{}", detail("Os"), detail("Arch"))),
                ("Experimental:", detail("Experimental").to_owned()),
            ]
        } else {
            details
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        for (label, value) in lines {
            let label = if label.ends_with(':') {
                label.to_owned()
            } else {
                format!("{label}:")
            };
            out.push_str(&format!("  {label:<18}{value}\n"));
        }
    }
    out
}

/// RFC 3339 as docker shows a build's time; anything else as it is.
fn built(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(
        |_| time.to_owned(),
        |at| {
            at.to_zoned(jiff::tz::TimeZone::UTC)
                .strftime("%a %b %e %H:%M:%S %Y")
                .to_string()
        },
    )
}
