//! One file a command; this one finds it, and says what is wrong with a command line or prints its help.

use std::ffi::OsString;
use std::path::PathBuf;

use ferry_client::{Client, Connector, Host};

pub(crate) use self::help::members;
use crate::{
    config::Config,
    contexts,
    environment::Environment,
    failure::{Failure, Result, describe},
    flags::{Arity, Matches, Problem, Spec},
    hints, plugins, tls,
    ui::{Channel, Ui},
};

/// How a command line ends.
#[derive(Debug)]
pub enum Ending {
    Code(u8),
    /// The process is to become this program, a plugin of docker's.
    Become(std::process::Command),
}

mod attach;
mod build;
mod check;
mod commit;
mod completion;
mod context;
mod cp;
mod create;
mod df;
mod dial;
mod diff;
mod du;
mod events;
mod exec;
mod help;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod login;
mod logs;
mod man;
mod manifest;
mod network;
mod pause;
mod port;
mod ports;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod stop;
mod tag;
mod top;
mod update;
mod version;
mod volume;
mod wait;

/// A command under way.
#[derive(Debug)]
pub struct Call<'a> {
    pub ui: &'a mut Ui,
    pub env: &'a Environment,
    pub client: Client,
    pub matches: Matches,
    /// As its usage names it, without the program: `container ls`.
    pub path: String,
    /// The name of the context whose engine this is.
    pub context: String,
    config: Option<Config>,
    config_directory: PathBuf,
}

impl Call<'_> {
    /// `~/.docker/config.json`, read when first asked for.
    pub fn config(&mut self) -> &Config {
        if self.config.is_none() {
            self.config = Some(Config::load(&self.config_directory).unwrap_or_else(|warning| {
                self.ui.error_line(&warning);
                Config::default()
            }));
        }
        self.config.get_or_insert_default()
    }

    /// `~/.docker`, or what `--config` and `DOCKER_CONFIG` say.
    pub fn config_directory(&self) -> PathBuf {
        self.config_directory.clone()
    }

    /// A failure as `run` words it: with the program's name before and the way to the help behind.
    pub fn refused(&self, message: &str) -> Failure {
        let program = &self.env.program;
        let text = format!(
            "{program}: {message}\n\nRun '{program} {} --help' for more information",
            self.path
        );
        Failure {
            code: 125,
            message: text,
        }
    }
}

/// One request for each argument: prints the names it worked for, says what is wrong with the others, and goes on.
async fn each(call: &mut Call<'_>, request: impl AsyncFn(&Client, &str) -> ferry_client::Result<()>) -> Result<u8> {
    let mut failed = false;
    for name in call.matches.arguments.clone() {
        match request(&call.client, &name).await {
            Ok(()) => call.ui.line(&name),
            Err(error) => {
                failed = true;
                call.ui.error_line(&describe(&error));
            }
        }
    }
    Ok(failed.into())
}

/// `--disable-content-trust=false` asks for what Ferry has not.
fn without_content_trust(matches: &Matches) -> Result<(), String> {
    match matches.switch_or("disable-content-trust", true) {
        true => Ok(()),
        false => Err("content trust is not supported: name the image by its digest".into()),
    }
}

/// The platform as it is, if containerd's parser takes it; the complaint begins with `what`, if anything.
fn platform_checked<'p>(platform: &'p str, what: &str) -> Result<&'p str> {
    const SYSTEM: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
    const PART: &str = "^[A-Za-z0-9_.-]+$";
    if platform.is_empty() {
        return Ok(platform);
    }
    let of = |part: &str, more: &[u8]| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        !part.is_empty() && part.bytes().all(fine)
    };
    let system = |part: &str| match part.split_once('(') {
        Some((name, version)) => {
            of(name, b"_-") && version.strip_suffix(')').is_some_and(|version| of(version, b"_.%+-"))
        }
        None => of(part, b"_-"),
    };
    let whole = ferry_kit::gofmt::quote(platform);
    let parts: Vec<&str> = platform.split('/').collect();
    let bad = parts[1..].iter().find(|part| !of(part, b"_.-"));
    let complaint = if parts.len() > 3 {
        format!("{whole}: cannot parse platform specifier")
    } else if !system(parts[0]) {
        let part = ferry_kit::gofmt::quote(parts[0]);
        format!("{part} is an invalid OS component of {whole}: OSAndVersion specifier component must match {SYSTEM:?}")
    } else if let Some(part) = bad {
        let part = ferry_kit::gofmt::quote(part);
        format!("{part} is an invalid component of {whole}: platform specifier component must match {PART:?}")
    } else {
        return Ok(platform);
    };
    let what = if what.is_empty() {
        String::new()
    } else {
        format!("{what}: ")
    };
    Err(Failure::new(format!("{what}{complaint}: invalid argument")))
}

/// `linux/arm64/v8` as the API takes it.
fn platform_json(text: &str) -> String {
    let mut parts = text.splitn(3, '/');
    let [os, architecture, variant] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let mut platform = serde_json::Map::new();
    for (key, part) in [("architecture", architecture), ("os", os), ("variant", variant)] {
        if !part.is_empty() {
            platform.insert(key.into(), part.into());
        }
    }
    serde_json::Value::Object(platform).to_string()
}

/// The `filters` parameter of `--filter`: nothing when there are none.
fn filters(matches: &Matches) -> String {
    filters_text(&given_filters(matches))
}

fn given_filters(matches: &Matches) -> ferry_api::Filters {
    let mut filters = ferry_api::Filters::default();
    for filter in matches.list("filter") {
        if let Some((key, value)) = filter.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    filters
}

pub(crate) fn filters_text(filters: &ferry_api::Filters) -> String {
    match filters.is_empty() {
        true => String::new(),
        false => serde_json::to_string(filters).unwrap_or_default(),
    }
}

pub(crate) const SPECS: [&Spec; 85] = [
    &run::SPEC,
    &exec::SPEC,
    &ps::SPEC,
    &build::SPEC,
    &pull::SPEC,
    &push::SPEC,
    &images::SPEC,
    &login::SPEC,
    &login::LOGOUT,
    &search::SPEC,
    &version::SPEC,
    &info::SPEC,
    &attach::SPEC,
    &commit::SPEC,
    &completion::BASH,
    &completion::FISH,
    &completion::POWERSHELL,
    &completion::ZSH,
    &context::CREATE,
    &context::EXPORT,
    &context::IMPORT,
    &context::INSPECT,
    &context::LS,
    &context::RM,
    &context::SHOW,
    &context::UPDATE,
    &context::USE,
    &cp::SPEC,
    &create::SPEC,
    &check::SPEC,
    &df::SPEC,
    &dial::SPEC,
    &diff::SPEC,
    &events::SPEC,
    &history::SPEC,
    &import::SPEC,
    &inspect::SPEC,
    &inspect::CONTAINER,
    &inspect::IMAGE,
    &kill::SPEC,
    &load::SPEC,
    &logs::SPEC,
    &man::SPEC,
    &manifest::ANNOTATE,
    &manifest::CREATE,
    &manifest::INSPECT,
    &manifest::PUSH,
    &manifest::RM,
    &network::CONNECT,
    &network::CREATE,
    &network::DISCONNECT,
    &network::INSPECT,
    &network::LS,
    &network::PRUNE,
    &network::RM,
    &pause::SPEC,
    &pause::UNPAUSE,
    &port::SPEC,
    &ports::SPEC,
    &du::SPEC,
    &prune::BUILDER,
    &prune::CONTAINER,
    &prune::IMAGE,
    &prune::SYSTEM,
    &rename::SPEC,
    &restart::SPEC,
    &rm::SPEC,
    &rmi::SPEC,
    &save::SPEC,
    &save::EXPORT,
    &start::SPEC,
    &stats::SPEC,
    &stop::SPEC,
    &tag::SPEC,
    &top::SPEC,
    &update::SPEC,
    &volume::CREATE,
    &volume::EXPORT,
    &volume::IMPORT,
    &volume::INSPECT,
    &volume::LS,
    &volume::PRUNE,
    &volume::RM,
    &volume::UPDATE,
    &wait::SPEC,
];

/// The engine that is meant when TLS is asked for and nothing says where, as docker's.
const TLS_HOST: &str = "tcp://localhost:2376";

/// The only commands docker shows apart in its help.
const COMMON: usize = 12;

pub(crate) const GROUPS: [(&str, &str); 10] = [
    (COMPLETION, completion::ABOUT),
    ("builder", "Manage builds"),
    ("buildx", "Docker Buildx"),
    ("container", "Manage containers"),
    ("context", "Manage contexts"),
    ("image", "Manage images"),
    ("manifest", "Manage Docker image manifests and manifest lists"),
    ("network", "Manage networks"),
    ("system", "Manage Docker"),
    ("volume", "Manage volumes"),
];

/// The group that help does not list, as docker's does not.
pub(crate) const COMPLETION: &str = "completion";

/// Docker's commands that Ferry lacks, so that nobody takes them for typing errors, and what to do instead.
const MISSING: [(&str, &str); 17] = [
    ("bake", NOT_YET),
    ("init", NOT_YET),
    ("debug", NOT_YET),
    (
        "checkpoint",
        "Ferry saves no processes: containers outlive the engine without it",
    ),
    ("config", NO_SWARM),
    ("node", NO_SWARM),
    ("secret", NO_SWARM),
    ("service", NO_SWARM),
    ("stack", NO_SWARM),
    ("swarm", NO_SWARM),
    (
        "plugin",
        "Ferry has no managed plugins: run what they do as a container",
    ),
    ("trust", "Ferry has no content trust: name images by digest"),
    ("scout", ELSEWHERE),
    ("model", ELSEWHERE),
    ("mcp", ELSEWHERE),
    ("ai", ELSEWHERE),
    ("desktop", ELSEWHERE),
];
const NOT_YET: &str = "it is not there yet";
const NO_SWARM: &str = "Ferry has no swarm: use compose on one machine, and contexts for several";
const ELSEWHERE: &str = "it is a plugin of Docker's: put the program into ~/.docker/cli-plugins";

/// Docker's, where it is not hidden.
const HIDDEN: [&str; 2] = ["system dial-stdio", "volume update"];

/// Of logrus.
const LOG_LEVELS: [&str; 8] = ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];

pub(crate) const ROOT: Spec = Spec {
    synopsis: "[OPTIONS] COMMAND [ARG...]",
    about: "A self-sufficient runtime for containers",
    arity: Arity::AtLeast(0),
    flags: "\
--config string | Location of client config files (default \"~/.docker\")
-c, --context string | Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"docker context use\")
-D, --debug | Enable debug mode
-H, --host string | Daemon socket to connect to
-l, --log-level string | Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")
--tls | Use TLS; implied by --tlsverify
--tlscacert string | Trust certs signed only by this CA
--tlscert string | Path to TLS certificate file
--tlskey string | Path to TLS key file
--tlsverify | Use TLS and verify the remote
-v, --version | Print version information and quit",
    stops_at_argument: true,
    ..Spec::EMPTY
};

async fn call(spec: &Spec, mut call: Call<'_>) -> Result<u8> {
    match spec.name {
        "attach" => attach::run(call).await,
        "build" => build::run(call).await,
        "commit" => commit::run(call).await,
        name if name.starts_with("completion ") => completion::run(&mut call, name),
        name if name.starts_with("context ") => context::run(call, name).await,
        "cp" => cp::run(call).await,
        "create" => create::run(call).await,
        "events" => events::run(call).await,
        "exec" => exec::run(call).await,
        "export" => save::export(call).await,
        "history" => history::run(call).await,
        "builder du" => du::run(call).await,
        "builder prune" => prune::builder(call).await,
        "container prune" => prune::container(call).await,
        "diff" => diff::run(call).await,
        "image prune" => prune::image(call).await,
        "images" => images::run(call).await,
        "import" => import::run(call).await,
        "info" => info::run(call).await,
        "inspect" | "container inspect" | "image inspect" => inspect::run(call, spec.name).await,
        "kill" => kill::run(call).await,
        "load" => load::run(call).await,
        "login" => login::run(call).await,
        "logout" => login::logout(call).await,
        "logs" => logs::run(call).await,
        "man" => man::run(&mut call),
        name if name.starts_with("manifest ") => manifest::run(call, name).await,
        name if name.starts_with("network ") => network::run(call, name).await,
        "pause" | "unpause" => pause::run(call, spec.name).await,
        "port" => port::run(call).await,
        "ports" => ports::run(call).await,
        "ps" => ps::run(call).await,
        "pull" => pull::run(call).await,
        "push" => push::run(call).await,
        "rename" => rename::run(call).await,
        "restart" => restart::run(call).await,
        "rm" => rm::run(call).await,
        "rmi" => rmi::run(call).await,
        "run" => run::run(call).await,
        "save" => save::run(call).await,
        "search" => search::run(call).await,
        "start" => start::run(call).await,
        "stats" => stats::run(call).await,
        "stop" => stop::run(call).await,
        "system check" => check::run(call).await,
        "system dial-stdio" => dial::run(call).await,
        "system df" => df::run(call).await,
        "system prune" => prune::system(call).await,
        "tag" => tag::run(call).await,
        "top" => top::run(call).await,
        "update" => update::run(call).await,
        "version" => version::run(call).await,
        name if name.starts_with("volume ") => volume::run(call, name).await,
        "wait" => wait::run(call).await,
        name => Err(Failure::new(format!("{name} is not there yet"))),
    }
}

pub async fn dispatch(args: &[OsString], env: &Environment, ui: &mut Ui) -> Result<Ending> {
    let program = &env.program;
    if let Some(request) = args.first().and_then(|word| word.to_str())
        && let described @ ("__complete" | "__completeNoDesc") = request
    {
        return complete(&args[1..], described == "__complete", env, ui).await;
    }
    let global = match Matches::parse(&ROOT, args) {
        Ok(global) => global,
        Err(Problem::Help { .. }) => {
            // `--help ps` is `ps --help`.
            let words: Vec<OsString> = args.iter().filter(|word| *word != "--help").cloned().collect();
            if let Ok(global) = Matches::parse(&ROOT, &words)
                && !global.arguments.is_empty()
            {
                let first = words.len() - global.arguments.len();
                let asked = std::iter::once("help".into()).chain(words[first..].iter().cloned());
                return Box::pin(dispatch(&asked.collect::<Vec<_>>(), env, ui)).await;
            }
            let help = help::root(env, ui);
            ui.print(&help);
            return Ok(Ending::Code(0));
        }
        Err(Problem::Flag(complaint)) => return Err(help::bad_flag(program, "", &ROOT, &complaint)),
    };
    if let Some(level) = global.get("log-level")
        && !LOG_LEVELS.contains(&level.to_lowercase().as_str())
    {
        return Err(Failure::new(format!("Unable to parse logging level: {level}")));
    }
    if global.switch("version") && global.arguments.is_empty() {
        let commit = if env.build.commit.is_empty() {
            "unknown"
        } else {
            &env.build.commit
        };
        ui.line(&format!(
            "{} version {}, build {commit}",
            product(program),
            env.build.version
        ));
        return Ok(Ending::Code(0));
    }
    let mut words = &args[args.len() - global.arguments.len()..];
    let mut help = false;
    if global.arguments.first().is_some_and(|word| word == "help") {
        words = &words[1..];
        help = true;
    }
    let Some(first) = words.first().map(|word| word.to_string_lossy()) else {
        let help = help::root(env, ui);
        ui.print(&help);
        return Ok(Ending::Code(0));
    };
    let second = words
        .get(1)
        .map(|word| word.to_string_lossy())
        .filter(|word| !word.starts_with('-'));
    let group = GROUPS.iter().find(|(name, _)| *name == first);
    let (typed, rest) = match (group, &second) {
        (Some(_), Some(second)) => (format!("{first} {second}"), &words[2..]),
        (Some((name, about)), None) => {
            let text = help::group(program, name, about);
            if help || words.len() > 1 {
                ui.print(&text);
            } else {
                // What Docker prints for this one begins with an empty line.
                let first = if first == "manifest" { "\n" } else { "" };
                ui.error_line(&format!("{first}{}", text.trim_end()));
            }
            return Ok(Ending::Code(0));
        }
        (None, _) => (first.to_string(), &words[1..]),
    };
    let config_directory = global
        .get("config")
        .map_or_else(|| env.config_directory(), PathBuf::from);
    let asks_for_help = rest
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help");
    let Some((spec, path)) = find(&typed) else {
        let config = Config::load(&config_directory).unwrap_or_default();
        if let Some(plugin) = plugins::find(&typed, &config_directory, &config).filter(|_| group.is_none()) {
            let chosen = ["host", "context", "tls", "tlsverify"]
                .iter()
                .any(|flag| global.is_set(flag))
                || tls::is_in(env)
                || env.variable("DOCKER_HOST").is_some()
                || env.variable("DOCKER_CONTEXT").is_some()
                || !matches!(config.current_context.as_str(), "" | contexts::DEFAULT);
            let host = (!chosen).then_some(env.default_host.as_str());
            return Ok(Ending::Become(plugins::command(&plugin, args, env, host)));
        }
        if help {
            let unknown = second.as_deref().filter(|_| group.is_some()).unwrap_or(&typed);
            return Err(Failure::new(format!("unknown help topic: {unknown}")));
        }
        if asks_for_help && !is_missing(&typed) {
            let text = group.map_or_else(
                || help::root(env, ui),
                |(name, about)| help::group(program, name, about),
            );
            ui.print(&text);
            return Ok(Ending::Code(0));
        }
        let message = help::unknown(program, group.map(|(name, _)| *name), &typed);
        return Err(Failure::new(
            message + &help::meant(ui, || help::command_meant(program, group.is_some(), &typed)),
        ));
    };
    if help && !rest.is_empty() {
        let unknown: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
        return Err(Failure::new(format!("unknown help topic: {}", unknown.join(" "))));
    }
    if help {
        let text = help::command(program, &path, spec, ui.columns());
        ui.print(&text);
        return Ok(Ending::Code(0));
    }
    let matches = match Matches::parse(spec, rest) {
        Ok(matches) => matches,
        Err(Problem::Help { deprecated }) => {
            if deprecated {
                ui.line("Flag shorthand -h has been deprecated, use --help");
            }
            let text = help::command(program, &path, spec, ui.columns());
            ui.print(&text);
            return Ok(Ending::Code(0));
        }
        Err(Problem::Flag(complaint)) => {
            let mut failure = help::bad_flag(program, &path, spec, &complaint);
            failure.message += &help::meant(ui, || help::flag_meant(spec, &complaint));
            return Err(failure);
        }
    };
    for note in &matches.notes {
        ui.line(note);
    }
    help::check_arity(program, &path, spec, matches.arguments.len())?;
    let (context, client) = connect(&global, env, &config_directory, spec)?;
    let ended = call(
        spec,
        Call {
            ui: &mut *ui,
            env,
            client: client.clone(),
            matches,
            path,
            context,
            config: None,
            config_directory,
        },
    )
    .await;
    if !ui.is_terminal(Channel::Stderr) {
        return ended.map(Ending::Code);
    }
    // A person may have meant another name.
    let complaint = ui.complaint.take();
    match ended {
        Err(mut failure) => {
            if let Some(meant) = hints::name(&client, &failure.message).await {
                failure.message += &format!("\n{meant}");
            }
            Err(failure)
        }
        Ok(code) => {
            if let (1.., Some(complaint)) = (code, complaint)
                && let Some(meant) = hints::name(&client, &complaint).await
            {
                ui.error_line(&meant);
            }
            Ok(Ending::Code(code))
        }
    }
}

/// Answers a shell; a plugin answers for its own words.
async fn complete(words: &[OsString], described: bool, env: &Environment, ui: &mut Ui) -> Result<Ending> {
    let (before, _) = words.split_at(words.len().saturating_sub(1));
    if let Some((name, at)) = crate::completion::unknown_command(before) {
        let directory = config_directory(before, env);
        let config = Config::load(&directory).unwrap_or_default();
        if let Some(plugin) = plugins::find(&name, &directory, &config) {
            let request = if described { "__complete" } else { "__completeNoDesc" };
            let args: Vec<OsString> = std::iter::once(request.into())
                .chain(words[at..].iter().cloned())
                .collect();
            let host = env
                .variable("DOCKER_HOST")
                .is_none()
                .then_some(env.default_host.as_str());
            return Ok(Ending::Become(plugins::command(&plugin, &args, env, host)));
        }
    }
    let text = crate::completion::complete(words, env, described).await;
    ui.print(&text);
    Ok(Ending::Code(0))
}

/// The configuration directory these words mean.
pub(crate) fn config_directory(words: &[OsString], env: &Environment) -> PathBuf {
    let global = Matches::parse(&ROOT, words).ok();
    let given = global.as_ref().and_then(|global| global.get("config"));
    given.map_or_else(|| env.config_directory(), PathBuf::from)
}

/// The engine these words mean; nothing is opened yet.
pub(crate) fn engine(words: &[OsString], env: &Environment) -> Option<Client> {
    let global = Matches::parse(&ROOT, words).ok()?;
    let (_, client) = connect(&global, env, &config_directory(words, env), &ROOT).ok()?;
    Some(client)
}

fn product(program: &str) -> &str {
    if program == "docker" { "Docker" } else { "Ferry" }
}

/// The engine that is meant, and the name of the context that says so: `--host`, `--context`, the environment, the configuration,
/// in docker's order.
fn connect(
    global: &Matches,
    env: &Environment,
    config_directory: &std::path::Path,
    spec: &Spec,
) -> Result<(String, Client)> {
    let (host, context) = (global.get("host"), global.get("context"));
    if host.is_some() && context.is_some() {
        return Err(Failure::new(
            "conflicting options: cannot specify both --host and --context",
        ));
    }
    let host = host.or_else(|| env.variable("DOCKER_HOST"));
    let context = match (context, host, env.variable("DOCKER_CONTEXT")) {
        (Some(context), ..) => context.to_owned(),
        (None, Some(_), _) => contexts::DEFAULT.to_owned(),
        (None, None, Some(context)) => context.to_owned(),
        (None, None, None) => Some(Config::load(config_directory).unwrap_or_default().current_context)
            .filter(|context| !context.is_empty())
            .unwrap_or_else(|| contexts::DEFAULT.to_owned()),
    };
    let endpoint = match context.as_str() {
        contexts::DEFAULT => None,
        // These are to work with a context that is gone.
        _ if spec.name.starts_with("context ") => None,
        name => Some(contexts::Store::of(config_directory).load(name).map_err(|failure| {
            let why = format!(
                "Failed to initialize: unable to resolve docker endpoint: {}",
                failure.message
            );
            Failure::new(why)
        })?),
    };
    let (host, material) = match &endpoint {
        Some(context) => {
            let endpoint = context.endpoint();
            let tls = contexts::Store::of(config_directory).tls(&context.name);
            (Some(endpoint.host), tls::of_context(&tls, endpoint.skip_tls_verify))
        }
        // Commands on contexts ask no engine.
        None if spec.name.starts_with("context ") => (None, None),
        None => (host.map(str::to_owned), tls::of_options(global, env, config_directory)?),
    };
    let usual = match material.is_some() {
        true => TLS_HOST,
        false => env.default_host.as_str(),
    };
    let host = host.filter(|host| !host.is_empty());
    let host = Host::parse(host.as_deref().unwrap_or(usual), material.is_some()).map_err(Failure::from)?;
    let connector = material.map(|material| Connector::new(&material)).transpose();
    let connector = connector.map_err(|reason| tls::unusable(&reason))?;
    let version = env.variable("DOCKER_API_VERSION").map(str::to_owned);
    Ok((context, Client::connect(host, version).with_tls(connector)))
}

/// The command a path names, and the path as its usage prints it.
pub(crate) fn find(typed: &str) -> Option<(&'static Spec, String)> {
    for spec in SPECS {
        if spec.aliases.is_empty() {
            if spec.name == typed {
                return Some((spec, typed.to_owned()));
            }
            continue;
        }
        let mut paths = spec.aliases.split(", ");
        if paths.clone().any(|path| path == typed) {
            let group = typed.split_once(' ').map(|(group, _)| group);
            let same = paths.find(|path| path.split_once(' ').map(|(group, _)| group) == group);
            return Some((spec, same.unwrap_or(typed).to_owned()));
        }
    }
    None
}

fn instead(typed: &str) -> Option<&'static str> {
    let is = |name: &str| {
        typed
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let (_, instead) = MISSING.iter().find(|(name, _)| is(name))?;
    Some(instead)
}

/// Whether it is a command of docker's that Ferry lacks.
fn is_missing(typed: &str) -> bool {
    instead(typed).is_some()
}

#[cfg(test)]
mod tests;
