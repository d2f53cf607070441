mod typed;

use bytes::Bytes;
use ferry_client::{Client, Error, Query};
use ferry_kit::Template;
use serde_json::Value;

use crate::{
    commands::{Call, platform_checked, platform_json},
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    format::indent,
};

pub const SPEC: Spec = Spec {
    name: "inspect",
    synopsis: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on Docker objects",
    arity: Arity::AtLeast(1),
    flags: concat!(
        crate::flags::plain_format!("-f, "),
        "\n\
-s, --size | Display total file sizes if the type is container
--type string | Only inspect objects of the given type"
    ),
    ..Spec::EMPTY
};

pub const CONTAINER: Spec = Spec {
    name: "container inspect",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    arity: Arity::AtLeast(1),
    flags: concat!(
        crate::flags::plain_format!("-f, "),
        "\n\
-s, --size | Display total file sizes"
    ),
    ..Spec::EMPTY
};

pub const IMAGE: Spec = Spec {
    name: "image inspect",
    synopsis: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    arity: Arity::AtLeast(1),
    flags: concat!(
        crate::flags::plain_format!("-f, "),
        "\n\
--platform string | Inspect a specific platform of the multi-platform image.
 If the image or the server is not multi-platform capable, the command will error out if the platform does not match.
 'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)"
    ),
    ..Spec::EMPTY
};

const TYPES: [&str; 10] = [
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
];

/// `command` is which of the three this is.
pub async fn run(call: Call<'_>, command: &str) -> Result<u8> {
    let kind = match command {
        "container inspect" => "container",
        "image inspect" => "image",
        "network inspect" => "network",
        "volume inspect" => "volume",
        _ => call.matches.get("type").unwrap_or_default(),
    };
    if command == "inspect" && call.matches.is_set("type") && !TYPES.contains(&kind) {
        let known = TYPES.map(|kind| format!("\"{kind}\"")).join(", ");
        return Err(Failure::new(format!(
            "unknown type: {}: must be one of {known}",
            ferry_kit::gofmt::quote(kind)
        )));
    }
    let size =
        !matches!(command, "image inspect" | "network inspect" | "volume inspect") && call.matches.switch("size");
    let platform = match command {
        "image inspect" => platform_checked(call.matches.text("platform"), "")?,
        _ => "",
    };
    let verbose = command == "network inspect" && call.matches.switch("verbose");
    let format = call.matches.text("format");
    let template = match format {
        "" | "json" => None,
        format => Some(
            Template::parse(format)
                .map_err(|error| Failure::new(format!("template parsing error: {error}")).code(64))?,
        ),
    };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut printed = String::new();
    for name in &call.matches.arguments {
        let (of, raw) = match look_up(&call.client, kind, name, size, verbose, platform).await {
            Ok((of, raw)) => {
                if size && of != "container" {
                    call.ui.error_line(&format!("WARNING: --size ignored for {of}"));
                }
                (of, raw)
            }
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match &template {
            None => found.push(raw),
            Some(template) => {
                let value: Value = serde_json::from_slice(&raw).map_err(Error::from)?;
                match typed::text(template, format, of, &value) {
                    Ok(text) => printed.push_str(&(text + "\n")),
                    Err(error) => {
                        // docker ends the line it has begun.
                        printed.push('\n');
                        problems.push(format!("template parsing error: {error}"));
                        break;
                    }
                }
            }
        }
    }
    if template.is_none() {
        printed = objects(&found, format == "json");
    } else if printed.is_empty() {
        printed.push('\n');
    }
    call.ui.print(&printed);
    if problems.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(problems.join("\n")))
}

/// All of them as one JSON list.
fn objects(found: &[Bytes], compact: bool) -> String {
    let texts = found.iter().map(|raw| String::from_utf8_lossy(raw).trim().to_owned());
    let list = format!("[{}]", texts.collect::<Vec<_>>().join(","));
    if compact {
        list + "\n"
    } else {
        indent(list.as_bytes(), 0) + "\n"
    }
}

/// The first kind of object that has this name, and the daemon's own JSON of it; the error is what docker prints.
async fn look_up(
    client: &Client,
    kind: &str,
    name: &str,
    size: bool,
    verbose: bool,
    platform: &str,
) -> Result<(&'static str, Bytes), String> {
    let escaped = Client::escape(name);
    let paths = [
        (
            "container",
            Query::new()
                .flag("size", size)
                .on(&format!("/containers/{escaped}/json")),
        ),
        (
            "image",
            Query::new()
                .text(
                    "platform",
                    &if platform.is_empty() {
                        String::new()
                    } else {
                        platform_json(platform)
                    },
                )
                .on(&format!("/images/{escaped}/json")),
        ),
        (
            "network",
            Query::new()
                .text("verbose", if verbose { "true" } else { "" })
                .on(&format!("/networks/{escaped}")),
        ),
        ("volume", format!("/volumes/{escaped}")),
        ("plugin", format!("/plugins/{escaped}/json")),
    ];
    for (of, path) in paths {
        if !kind.is_empty() && kind != of {
            continue;
        }
        let answer = match client.get(&path).await {
            Ok(response) => response.bytes().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(raw) => return Ok((of, raw.into())),
            // Not this kind; a daemon without these objects says so in other ways.
            Err(Error::Api {
                status: 404 | 501 | 503,
                ..
            }) if kind.is_empty() => {}
            Err(error) => return Err(describe(&error)),
        }
    }
    if kind.is_empty() {
        return Err(format!("Error: No such object: {name}"));
    }
    Err(format!("Error: {kind}s are not there yet: {name}"))
}
