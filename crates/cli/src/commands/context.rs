//! `context` (docker/cli's cli/command/context, 28.5).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use ferry_archive::{Entry, Kind, Limits, Reader, Writer};
use serde_json::{Value, json};

use crate::{
    commands::Call,
    contexts::{self, Context, DEFAULT, DEFAULT_ABOUT, Endpoint, Store},
    failure::{Failure, Result, io_text},
    flags::{Arity, Spec},
    format::{Listing, indent, list, object, single},
};

macro_rules! about {
    ($what:literal, $command:literal) => {
        concat!(
            $what,
            "\n\nDocker endpoint config:\n\nNAME                DESCRIPTION\n\
             from                Copy named context's Docker endpoint configuration\n\
             host                Docker endpoint on which to connect\n\
             ca                  Trust certs signed only by this CA\n\
             cert                Path to TLS certificate file\n\
             key                 Path to TLS key file\n\
             skip-tls-verify     Skip TLS certificate validation\n\nExample:\n\n$ docker context ",
            $command,
            " my-context --description \"some description\" --docker \
             \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\""
        )
    };
}

pub const CREATE: Spec = Spec {
    name: "context create",
    synopsis: "[OPTIONS] CONTEXT",
    about: about!("Create a context", "create"),
    arity: Arity::Exactly(1),
    flags: "\
--description string | Description of the context
--docker stringToString | set the docker endpoint (default [])
--from string | create context from a named context",
    ..Spec::EMPTY
};

pub const EXPORT: Spec = Spec {
    name: "context export",
    synopsis: "[OPTIONS] CONTEXT [FILE|-]",
    about: "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    arity: Arity::Between(1, 2),
    ..Spec::EMPTY
};

pub const IMPORT: Spec = Spec {
    name: "context import",
    synopsis: "CONTEXT FILE|-",
    about: "Import a context from a tar or zip file",
    arity: Arity::Exactly(2),
    ..Spec::EMPTY
};

pub const INSPECT: Spec = Spec {
    name: "context inspect",
    synopsis: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Display detailed information on one or more contexts",
    arity: Arity::AtLeast(0),
    flags: crate::flags::plain_format!("-f, "),
    ..Spec::EMPTY
};

pub const LS: Spec = Spec {
    name: "context ls",
    aliases: "context ls, context list",
    synopsis: "[OPTIONS]",
    about: "List contexts",
    arity: Arity::None,
    flags: concat!(crate::flags::table_format!(), "\n-q, --quiet | Only show context names"),
    ..Spec::EMPTY
};

pub const RM: Spec = Spec {
    name: "context rm",
    aliases: "context rm, context remove",
    synopsis: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    arity: Arity::AtLeast(1),
    flags: "-f, --force | Force the removal of a context in use",
    ..Spec::EMPTY
};

pub const SHOW: Spec = Spec {
    name: "context show",
    about: "Print the name of the current context",
    arity: Arity::None,
    ..Spec::EMPTY
};

pub const UPDATE: Spec = Spec {
    name: "context update",
    synopsis: "[OPTIONS] CONTEXT",
    about: about!("Update a context", "update"),
    arity: Arity::Exactly(1),
    flags: "\
--description string | Description of the context
--docker stringToString | set the docker endpoint (default [])",
    ..Spec::EMPTY
};

pub const USE: Spec = Spec {
    name: "context use",
    synopsis: "CONTEXT",
    about: "Set the current docker context",
    arity: Arity::Exactly(1),
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 5] = [
    ("Name", "NAME"),
    ("Current", ""),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
];
const TABLE: &str = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
/// An archive of a context is three small files.
const ARCHIVE_MAX: u64 = 10 << 20;

pub async fn run(mut call: Call<'_>, command: &str) -> Result<u8> {
    match command {
        "context create" => create(&mut call),
        "context export" => export(&mut call),
        "context import" => import(&mut call),
        "context inspect" => inspect(&mut call),
        "context ls" => ls(&mut call),
        "context rm" => rm(&mut call),
        "context show" => {
            let name = call.context.clone();
            call.ui.line(&name);
            Ok(0)
        }
        "context update" => update(&mut call),
        _ => switch(&mut call),
    }
}

fn store(call: &Call<'_>) -> Store {
    Store::of(&call.config_directory())
}

/// What contexts are made from that are of no store's.
fn default_of(call: &Call<'_>) -> Context {
    let host = call.env.variable("DOCKER_HOST").unwrap_or(&call.env.default_host);
    Context {
        name: DEFAULT.to_owned(),
        endpoints: endpoint(Endpoint {
            host: host.to_owned(),
            skip_tls_verify: false,
        }),
        ..Context::default()
    }
}

fn load(call: &Call<'_>, name: &str) -> Result<Context> {
    match name {
        DEFAULT => Ok(default_of(call)),
        name => store(call).load(name),
    }
}

fn endpoint(endpoint: Endpoint) -> BTreeMap<String, Endpoint> {
    [("docker".to_owned(), endpoint)].into()
}

fn create(call: &mut Call<'_>) -> Result<u8> {
    let (name, store) = (call.matches.arguments[0].clone(), store(call));
    contexts::check_name(&name)?;
    if store.has(&name) {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    let from = call.matches.text("from").to_owned();
    let description = call.matches.text("description").to_owned();
    let (mut context, tls) = if !from.is_empty() {
        (load(call, &from)?, store.tls(&from))
    } else if call.matches.is_set("docker") {
        let (endpoint_, tls) = asked(call)?;
        let context = Context {
            endpoints: endpoint(endpoint_),
            ..Context::default()
        };
        (context, tls)
    } else {
        // As the current context is, its own description too.
        let current = call.context.clone();
        let mut context = load(call, &current)?;
        if current == DEFAULT {
            context.describe(DEFAULT_ABOUT);
        }
        (context, store.tls(&current))
    };
    if !description.is_empty() {
        context.describe(&description);
    }
    context.name.clone_from(&name);
    store.save(&context, &tls)?;
    done(call, &name, "Successfully created context")
}

fn update(call: &mut Call<'_>) -> Result<u8> {
    let (name, store) = (call.matches.arguments[0].clone(), store(call));
    contexts::check_name(&name)?;
    let mut context = store.load(&name)?;
    let mut tls = store.tls(&name);
    if call.matches.is_set("description") {
        context.describe(call.matches.text("description"));
    }
    if call.matches.is_set("docker") {
        let (endpoint_, files) = asked(call)?;
        (context.endpoints, tls) = (endpoint(endpoint_), files);
    }
    store.save(&context, &tls)?;
    done(call, &name, "Successfully updated context")
}

fn done(call: &mut Call<'_>, name: &str, what: &str) -> Result<u8> {
    call.ui.line(name);
    call.ui.error_line(&format!("{what} \"{name}\""));
    Ok(0)
}

/// The endpoint that `--docker` describes, and its files.
fn asked(call: &Call<'_>) -> Result<(Endpoint, BTreeMap<String, Vec<u8>>)> {
    let wrong = |why: String| Failure::new(format!("unable to create docker endpoint config: {why}"));
    let mut endpoint = Endpoint::default();
    let mut tls = BTreeMap::new();
    for (key, value) in call
        .matches
        .list("docker")
        .iter()
        .flat_map(|list| list.split(','))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match key {
            "from" => {
                endpoint = load(call, value)?.endpoint();
                tls = store(call).tls(value);
            }
            "host" => value.clone_into(&mut endpoint.host),
            "ca" | "cert" | "key" => {
                let path = expanded(call, value);
                let content =
                    contexts::read(&path).map_err(|error| wrong(format!("open {value}: {}", io_text(&error))))?;
                tls.insert(key.to_owned(), content);
            }
            "skip-tls-verify" => {
                endpoint.skip_tls_verify = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
            }
            other => return Err(wrong(format!("unrecognized config key: {other}"))),
        }
    }
    let invalid = |why: &str| wrong(format!("invalid docker endpoint options: {why}"));
    if !endpoint.host.is_empty() {
        let parsed = endpoint.host.parse::<ferry_client::Host>();
        parsed.map_err(|error| invalid(&error.to_string()))?;
    }
    for (file, what) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
        let pem = |content: &Vec<u8>| content.windows(11).any(|window| window == b"-----BEGIN ");
        if tls.get(file).is_some_and(|content| !pem(content)) {
            return Err(invalid(&format!(
                "failed to retrieve context tls info: {what} seems invalid"
            )));
        }
    }
    Ok((endpoint, tls))
}

fn expanded(call: &Call<'_>, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), call.env.variable("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => call.env.directory.join(path),
    }
}

fn switch(call: &mut Call<'_>) -> Result<u8> {
    let name = call.matches.arguments[0].clone();
    if name != DEFAULT {
        store(call).load(&name)?;
    }
    let chosen = (name != DEFAULT).then_some(name.as_str());
    choose(call, chosen)?;
    call.ui.line(&name);
    call.ui.error_line(&format!("Current context is now \"{name}\""));
    if name != DEFAULT && call.env.variable("DOCKER_HOST").is_some() {
        call.ui.error_line(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use \"{name}\", either set the global \
             --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}

/// Writes down which context is the current one.
fn choose(call: &Call<'_>, name: Option<&str>) -> Result<()> {
    let path = call.config_directory().join("config.json");
    let failed = |error: ferry_distribution::Error| Failure::new(error.to_string());
    let mut config = ferry_distribution::config::ConfigFile::load(&path).map_err(failed)?;
    config.set_text("currentContext", name);
    config.save().map_err(failed)
}

fn rm(call: &mut Call<'_>) -> Result<u8> {
    let store = store(call);
    let mut failures = Vec::new();
    for name in call.matches.arguments.clone() {
        let force = call.matches.switch("force");
        if name == DEFAULT {
            failures.push("context \"default\" cannot be removed".to_owned());
        } else if !force && !store.has(&name) {
            failures.push(format!("context \"{name}\" does not exist"));
        } else if name == call.context && !force {
            failures.push(format!("context \"{name}\" is in use, set -f flag to force remove"));
        } else {
            if call.config().current_context == name {
                choose(call, None)?;
            }
            store.remove(&name)?;
            call.ui.line(&name);
        }
    }
    match failures.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(failures.join("\n"))),
    }
}

fn ls(call: &mut Call<'_>) -> Result<u8> {
    let (mut all, wrong) = store(call).all();
    wrong
        .iter()
        .for_each(|wrong| call.ui.error_line(&format!("a context cannot be read: {wrong}")));
    let mut default = default_of(call);
    default.describe(DEFAULT_ABOUT);
    all.push(default);
    all.sort_by(|one, other| crate::format::natural(&one.name, &other.name));
    let mut rows: Vec<Value> = all.iter().map(|context| row(context, &call.context, "")).collect();
    // The current one is there even if it is not.
    if !all.iter().any(|context| context.name == call.context)
        && let Err(failure) = store(call).load(&call.context)
    {
        let missing = Context {
            name: call.context.clone(),
            ..Context::default()
        };
        rows.push(row(&missing, &call.context, &failure.message));
    }
    let listing = Listing {
        table: TABLE,
        headings: &HEADINGS,
        type_name: "*formatter.clientContextContext",
        method: None,
    };
    let format = match call.matches.text("format") {
        "" if call.matches.switch("quiet") => "{{.Name}}",
        "" => "table",
        format => format,
    };
    let text = list(&listing, format, &rows)?;
    call.ui.print(&text);
    if call.env.variable("DOCKER_HOST").is_some() {
        call.ui.error_line(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global \
             --context flag, or unset DOCKER_HOST environment variable.",
        );
    }
    Ok(0)
}

fn row(context: &Context, current: &str, error: &str) -> Value {
    json!({
        "Current": context.name == current,
        "Description": context.description(),
        "DockerEndpoint": context.endpoint().host,
        "Error": error,
        "Name": context.name,
    })
}

fn inspect(call: &mut Call<'_>) -> Result<u8> {
    let names = match call.matches.arguments.as_slice() {
        [] => vec![call.context.clone()],
        names => names.to_vec(),
    };
    let store = store(call);
    let (mut found, mut failure) = (Vec::new(), None);
    for name in &names {
        match load(call, name) {
            Ok(context) => found.push(shown(&context, &store)),
            Err(error) => failure = Some(error),
        }
    }
    match single(call.matches.text("format"))? {
        None => {
            let text = serde_json::to_vec(&found).map_err(|error| Failure::new(error.to_string()))?;
            let text = indent(&text, 0).replace('<', "\\u003c").replace('>', "\\u003e");
            call.ui.line(&text);
        }
        Some(template) => {
            for context in &found {
                let value = serde_json::to_value(context).map_err(|error| Failure::new(error.to_string()))?;
                let line = object(&template, &value)
                    .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
                call.ui.line(&line);
            }
        }
    }
    failure.map_or(Ok(0), Err)
}

/// In the order of docker's fields.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    metadata: serde_json::Map<String, Value>,
    endpoints: BTreeMap<String, Endpoint>,
    #[serde(rename = "TLSMaterial")]
    tls_material: BTreeMap<String, Vec<String>>,
    storage: Storage,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Storage {
    metadata_path: String,
    #[serde(rename = "TLSPath")]
    tls_path: String,
}

fn shown(context: &Context, store: &Store) -> Shown {
    let files: Vec<String> = store
        .tls(&context.name)
        .into_keys()
        .map(|key| format!("{key}.pem"))
        .collect();
    let path = |path: PathBuf| match context.name.as_str() {
        DEFAULT => "<IN MEMORY>".to_owned(),
        _ => path.display().to_string(),
    };
    Shown {
        name: context.name.clone(),
        metadata: context.metadata.clone(),
        endpoints: context.endpoints.clone(),
        tls_material: match files.is_empty() {
            true => BTreeMap::new(),
            false => [("docker".to_owned(), files)].into(),
        },
        storage: Storage {
            metadata_path: path(store.metadata_path(&context.name)),
            tls_path: path(store.tls_path(&context.name)),
        },
    }
}

fn export(call: &mut Call<'_>) -> Result<u8> {
    let name = call.matches.arguments[0].clone();
    let (context, tls) = (load(call, &name)?, store(call).tls(&name));
    let archive = packed(&context, &tls).map_err(|error| Failure::new(error.to_string()))?;
    let file = call.matches.arguments.get(1).cloned();
    if file.as_deref() == Some("-") {
        if call.ui.stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        let _ = call.ui.channel(crate::ui::Channel::Stdout).write_all(&archive);
        return Ok(0);
    }
    let file = file.unwrap_or_else(|| format!("{name}.dockercontext"));
    let failed = |error: std::io::Error| Failure::new(format!("open {file}: {}", io_text(&error)));
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(call.env.directory.join(&file));
    opened
        .and_then(|mut opened| opened.write_all(&archive))
        .map_err(failed)?;
    call.ui.error_line(&format!("Written file \"{file}\""));
    Ok(0)
}

fn packed(context: &Context, tls: &BTreeMap<String, Vec<u8>>) -> std::io::Result<Vec<u8>> {
    let mut archive = Writer::new(Vec::new());
    let entry = |path: &str, kind: Kind, mode: u32| Entry {
        mode,
        ..Entry::blank(path, kind)
    };
    let file = |path: &str, mode: u32, content: &[u8]| Entry {
        size: content.len() as u64,
        ..entry(path, Kind::File, mode)
    };
    let meta = serde_json::to_vec(context)?;
    archive.file(&file("meta.json", 0o644, &meta), &meta)?;
    archive.header(&entry("tls", Kind::Directory, 0o700))?;
    if !tls.is_empty() {
        archive.header(&entry("tls/docker", Kind::Directory, 0o700))?;
    }
    for (option, name) in contexts::TLS {
        if let Some(content) = tls.get(option) {
            archive.file(&file(&format!("tls/docker/{name}"), 0o600, content), content)?;
        }
    }
    archive.finish()
}

fn import(call: &mut Call<'_>) -> Result<u8> {
    let (name, store) = (call.matches.arguments[0].clone(), store(call));
    contexts::check_name(&name)?;
    if store.has(&name) {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    let file = call.matches.arguments[1].clone();
    let mut archive = Vec::new();
    let read = match (file.as_str(), call.ui.stdin) {
        ("-", Some(stdin)) => rustix::io::dup(stdin)
            .map_err(std::io::Error::from)
            .and_then(|fd| std::fs::File::from(fd).take(ARCHIVE_MAX).read_to_end(&mut archive)),
        _ => std::fs::File::open(call.env.directory.join(&file))
            .and_then(|opened| opened.take(ARCHIVE_MAX).read_to_end(&mut archive)),
    };
    read.map_err(|error| Failure::new(format!("open {file}: {}", io_text(&error))))?;
    if archive.starts_with(b"PK\x03\x04") {
        return Err(Failure::new("zip archives are not read: export the context as tar"));
    }
    let (mut context, tls) = unpacked(&archive).map_err(|error| Failure::new(format!("{file}: {error}")))?;
    context.name.clone_from(&name);
    store.save(&context, &tls)?;
    done(call, &name, "Successfully imported context")
}

fn unpacked(archive: &[u8]) -> std::result::Result<(Context, BTreeMap<String, Vec<u8>>), String> {
    let mut reader = Reader::new(archive, Limits::default());
    let (mut context, mut tls) = (None, BTreeMap::new());
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        let name = entry.path.to_string_lossy().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        let read = (&mut reader).take(ARCHIVE_MAX).read_to_end(&mut content);
        read.map_err(|error| error.to_string())?;
        let file = name.strip_prefix("tls/docker/");
        if name == "meta.json" {
            context = Some(serde_json::from_slice(&content).map_err(|error| format!("meta.json: {error}"))?);
        } else if let Some((option, _)) = contexts::TLS.into_iter().find(|(_, known)| Some(*known) == file) {
            tls.insert(option.to_owned(), content);
        }
    }
    let context = context.ok_or_else(|| "invalid context: no metadata found".to_owned())?;
    Ok((context, tls))
}
