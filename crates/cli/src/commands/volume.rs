//! `volume` and its commands.

mod list;

use ferry_api::volume::{Create, Volume};
use ferry_client::{Body, Client, Method, Query};

use crate::{
    commands::{
        Call, given_filters,
        prune::{agreed, total, volumes},
    },
    failure::{Failure, Result, describe, io_text},
    flags::{Arity, Spec},
    options,
    session::Input,
};

pub const CREATE: Spec = Spec {
    name: "volume create",
    synopsis: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    arity: Arity::AtMost(1),
    flags: "\
-d, --driver string | Specify volume driver name (default \"local\")
--label list | Set metadata for a volume
-o, --opt map | Set driver specific options (default map[])",
    own: "--name string | Specify volume name (as old scripts do; the argument is the same)",
    check,
    ..Spec::EMPTY
};

pub const INSPECT: Spec = Spec {
    name: "volume inspect",
    synopsis: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    arity: Arity::AtLeast(1),
    flags: crate::flags::plain_format!("-f, "),
    ..Spec::EMPTY
};

pub const LS: Spec = Spec {
    name: "volume ls",
    aliases: "volume ls, volume list",
    synopsis: "[OPTIONS]",
    about: "List volumes",
    arity: Arity::None,
    flags: concat!(
        "-f, --filter filter | Provide filter values (e.g. \"dangling=true\")\n",
        crate::flags::table_format!(),
        "\n\
-q, --quiet | Only display volume names"
    ),
    ..Spec::EMPTY
};

pub const PRUNE: Spec = Spec {
    name: "volume prune",
    synopsis: "[OPTIONS]",
    about: "Remove unused local volumes",
    arity: Arity::None,
    flags: "\
-a, --all | Remove all unused volumes, not just anonymous ones
--filter filter | Provide filter values (e.g. \"label=<label>\")
-f, --force | Do not prompt for confirmation",
    ..Spec::EMPTY
};

pub const RM: Spec = Spec {
    name: "volume rm",
    aliases: "volume rm, volume remove",
    synopsis: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    short: "Remove one or more volumes",
    arity: Arity::AtLeast(1),
    flags: "-f, --force | Force the removal of one or more volumes",
    ..Spec::EMPTY
};

pub const UPDATE: Spec = Spec {
    name: "volume update",
    synopsis: "[OPTIONS] [VOLUME]",
    about: "Update a volume (cluster volumes only)",
    arity: Arity::Exactly(1),
    flags: "",
    ..Spec::EMPTY
};

pub const EXPORT: Spec = Spec {
    name: "volume export",
    synopsis: "[OPTIONS] VOLUME",
    about: "Export a volume's content as a tar archive (streamed to STDOUT by default)",
    arity: Arity::Exactly(1),
    flags: "-o, --output string | Write to a file, instead of STDOUT",
    ..Spec::EMPTY
};

pub const IMPORT: Spec = Spec {
    name: "volume import",
    synopsis: "VOLUME file|-",
    about: "Unpack a tar archive, which may be compressed, into a volume",
    arity: Arity::Exactly(2),
    flags: "",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>, name: &str) -> Result<u8> {
    match name {
        "volume create" => create(call).await,
        "volume export" => super::save::volume(call).await,
        "volume import" => import(call).await,
        "volume inspect" => super::inspect::run(call, name).await,
        "volume ls" => list::run(call).await,
        "volume prune" => prune(call).await,
        "volume update" => update(call).await,
        _ => remove(call).await,
    }
}

fn check(flag: &str, value: &str) -> std::result::Result<(), String> {
    match flag {
        "label" => options::label(value),
        _ => Ok(()),
    }
}

async fn create(call: Call<'_>) -> Result<u8> {
    let matches = &call.matches;
    let mut name = matches.get("name").unwrap_or_default().to_owned();
    if let Some(given) = matches.arguments.first() {
        if !name.is_empty() {
            return Err(Failure::new(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        name.clone_from(given);
    }
    let body = Create {
        name,
        driver: matches.get("driver").unwrap_or("local").to_owned(),
        driver_opts: options::pairs(&matches.list("opt")),
        labels: options::pairs(&matches.list("label")),
        ..Create::default()
    };
    let volume: Volume = call.client.post_json("/volumes/create", &body).await?;
    call.ui.line(&volume.name);
    Ok(0)
}

async fn remove(call: Call<'_>) -> Result<u8> {
    let query = Query::new().flag("force", call.matches.switch("force"));
    let mut problems = Vec::new();
    for name in &call.matches.arguments {
        if name.trim().is_empty() {
            problems.push("invalid volume name or ID: value is empty".to_owned());
            continue;
        }
        let path = query.clone().on(&format!("/volumes/{}", Client::escape(name)));
        match call.client.delete(&path).await {
            Ok(_) => call.ui.line(name),
            Err(error) => problems.push(describe(&error)),
        }
    }
    match problems.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(problems.join("\n"))),
    }
}

async fn import(call: Call<'_>) -> Result<u8> {
    let (name, source) = (&call.matches.arguments[0], &call.matches.arguments[1]);
    let body = if source == "-" {
        call.ui.stdin.map_or(Body::Empty, |fd| Body::reader(Input::new(fd)))
    } else {
        let opened = tokio::fs::File::open(call.env.directory.join(source)).await;
        Body::reader(opened.map_err(|error| Failure::new(format!("open {source}: {}", io_text(&error))))?)
    };
    let path = format!("/volumes/{}/import", Client::escape(name));
    call.client.request(Method::POST, &path, body).await?;
    Ok(0)
}

async fn update(call: Call<'_>) -> Result<u8> {
    let path = format!("/volumes/{}", Client::escape(&call.matches.arguments[0]));
    let _: Volume = call.client.get_json(&path).await?;
    // None can be one here: those are a swarm's.
    Err(Failure::new("can only update cluster volumes"))
}

async fn prune(mut call: Call<'_>) -> Result<u8> {
    let all = call.matches.switch("all");
    let mut filters = given_filters(&call.matches);
    if all && let Some(value) = filters.values("all").next() {
        return Err(Failure::new(format!(
            "conflicting options: cannot specify both --all and --filter all={value}"
        )));
    }
    let warning = if all {
        filters.add("all", "true");
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if agreed(&mut call, warning).await? {
        let freed = volumes(&mut call, &filters).await?;
        total(&mut call, freed);
    }
    Ok(0)
}
