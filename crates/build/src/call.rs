//! `--call`: what is asked of a Dockerfile instead of building it, as BuildKit's frontend answers.

use std::collections::BTreeMap;

use base64::Engine as _;
use ferry_dockerfile::checks::{self, On, Options, Scope};
use ferry_dockerfile::instruction::{Command, MountKind};
use ferry_dockerfile::{Dockerfile, Range};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::frontend::{Job, Loaded, load_only};
use crate::request::Call;
use crate::workspace::Workspace;

/// Results by name: `result.json`, `result.txt`, `result.statuscode`, `version`.
pub type Answers = BTreeMap<String, Vec<u8>>;

/// Answers a call.
pub async fn answer<W: Workspace>(job: &Job<W>, call: Call) -> Result<Answers> {
    if call == Call::Describe {
        return describe();
    }
    let loaded = load_only(job).await?;
    match call {
        Call::Check => check(job, &loaded),
        Call::Targets => targets(job, &loaded),
        Call::Outline | Call::Describe => outline(job, &loaded),
    }
}

#[derive(Serialize)]
struct Source {
    filename: String,
    /// All of the file, base64.
    data: String,
    language: &'static str,
}

#[derive(Serialize, Clone)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Span>,
}

#[derive(Serialize, Clone)]
struct Span {
    start: Place,
    end: Place,
}

#[derive(Serialize, Clone)]
struct Place {
    line: u32,
}

fn location(ranges: &[Range]) -> Location {
    let place = |position: ferry_dockerfile::Position| Place { line: position.line };
    let span = |range: &Range| Span {
        start: place(range.start),
        end: place(range.end),
    };
    Location {
        ranges: ranges.iter().map(span).collect(),
    }
}

fn sources(loaded: &Loaded) -> Vec<Source> {
    vec![Source {
        filename: loaded.filename.clone(),
        data: base64::engine::general_purpose::STANDARD.encode(&loaded.bytes),
        language: "Dockerfile",
    }]
}

/// In these answers it is the files alone.
fn texts(loaded: &Loaded) -> Vec<String> {
    vec![base64::engine::general_purpose::STANDARD.encode(&loaded.bytes)]
}

fn options<'a, W: Workspace>(job: &'a Job<W>, loaded: &'a Loaded) -> Options<'a> {
    let host = job.workspace.platform();
    Options {
        arguments: job.request.build_args.clone(),
        target: Some(job.request.target.as_str()).filter(|target| !target.is_empty()),
        target_platform: job.request.platform.clone().unwrap_or_else(|| host.clone()),
        build_platform: host,
        settings: None,
        ignore: loaded.ignore.as_ref(),
        base: &|_, _| None,
    }
}

fn done(json: &impl Serialize, text: String, status: u8) -> Result<Answers> {
    let json = serde_json::to_vec_pretty(json).map_err(|error| Error::internal("write the answer", &error))?;
    Ok(BTreeMap::from([
        ("result.json".to_owned(), json),
        ("result.txt".to_owned(), text.into_bytes()),
        ("result.statuscode".to_owned(), status.to_string().into_bytes()),
        ("version".to_owned(), b"1.0.0".to_vec()),
    ]))
}

fn check<W: Workspace>(job: &Job<W>, loaded: &Loaded) -> Result<Answers> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Warning {
        rule_name: &'static str,
        description: &'static str,
        url: String,
        detail: String,
        location: Location,
    }
    #[derive(Serialize)]
    struct Wrong {
        message: String,
        location: Location,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Lint {
        warnings: Vec<Warning>,
        sources: Vec<Source>,
        #[serde(skip_serializing_if = "Option::is_none")]
        build_error: Option<Wrong>,
    }
    let report = checks::run(&loaded.bytes, &options(job, loaded));
    let mut text = String::new();
    let mut warnings = Vec::new();
    for warning in &report.warnings {
        let (name, url) = (warning.rule.name(), warning.rule.url());
        text.push_str(&format!("\nWARNING: {name} - {url}\n{}\n", warning.detail));
        text.push_str(&crate::solve::excerpt(
            &loaded.filename,
            &loaded.bytes,
            &[warning.range],
        ));
        text.push('\n');
        warnings.push(Warning {
            rule_name: name,
            description: warning.rule.description(),
            url,
            detail: warning.detail.clone(),
            location: location(&[warning.range]),
        });
    }
    let build_error = report.error.as_ref().map(|error| Wrong {
        message: error.to_string(),
        location: location(&error.ranges),
    });
    let status = u8::from(!warnings.is_empty() || build_error.is_some());
    let lint = Lint {
        warnings,
        sources: sources(loaded),
        build_error,
    };
    done(&lint, text, status)
}

fn parsed<W: Workspace>(job: &Job<W>, loaded: &Loaded) -> Result<(Dockerfile, Scope)> {
    let file = Dockerfile::parse(&loaded.bytes).map_err(|error| loaded.explain(error))?;
    let scope = Scope::of(&file, &options(job, loaded)).map_err(|error| loaded.explain(error))?;
    Ok((file, scope))
}

fn targets<W: Workspace>(job: &Job<W>, loaded: &Loaded) -> Result<Answers> {
    #[derive(Serialize)]
    struct Target {
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        default: bool,
        #[serde(skip_serializing_if = "String::is_empty")]
        description: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        base: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        platform: String,
        location: Location,
    }
    #[derive(Serialize)]
    struct List {
        targets: Vec<Target>,
        sources: Vec<String>,
    }
    let (file, scope) = parsed(job, loaded)?;
    let mut text = "TARGET\tDESCRIPTION\n".to_owned();
    let mut targets = Vec::new();
    for (index, (stage, based)) in file.stages.iter().zip(&scope.stages).enumerate() {
        let default = index + 1 == file.stages.len();
        let name = stage.name.clone().unwrap_or_default();
        let shown = match (name.as_str(), default) {
            ("", true) => "(default)".to_owned(),
            ("", false) => continue,
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        text.push_str(&format!("{shown}\t{}\n", stage.description));
        targets.push(Target {
            name,
            default,
            description: stage.description.clone(),
            base: match &based.on {
                On::Stage(base) => file.stages[*base].title(*base),
                On::Scratch => "scratch".to_owned(),
                On::Image(name) => name.clone(),
            },
            platform: stage.platform.clone().unwrap_or_default(),
            location: location(&[stage.range]),
        });
    }
    let list = List {
        targets,
        sources: texts(loaded),
    };
    done(&list, text, 0)
}

fn outline<W: Workspace>(job: &Job<W>, loaded: &Loaded) -> Result<Answers> {
    #[derive(Serialize)]
    struct Arg {
        name: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        description: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        location: Location,
    }
    #[derive(Serialize)]
    struct Mounted {
        name: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        required: bool,
        location: Location,
    }
    #[derive(Serialize)]
    struct Outline {
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        description: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        args: Vec<Arg>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<Mounted>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ssh: Vec<Mounted>,
        sources: Vec<String>,
    }
    let (file, scope) = parsed(job, loaded)?;
    let target = &file.stages[scope.target];
    let mut outline = Outline {
        name: target.name.clone().unwrap_or_default(),
        description: target.description.clone(),
        args: Vec::new(),
        secrets: Vec::new(),
        ssh: Vec::new(),
        sources: texts(loaded),
    };
    let given = &job.request.build_args;
    let arg = |argument: &ferry_dockerfile::instruction::Argument, range: Range| Arg {
        name: argument.name.clone(),
        description: argument.description.clone(),
        value: given.get(&argument.name).or(argument.default.as_ref()).cloned(),
        location: location(&[range]),
    };
    for global in &file.arguments {
        outline.args.push(arg(&global.argument, global.range));
    }
    let nothing = ferry_dockerfile::words::Variables::new();
    for (stage, _) in file.stages.iter().zip(&scope.stages).filter(|(_, based)| based.needed) {
        for instruction in &stage.instructions {
            match &instruction.command {
                Command::Arg(arguments) => {
                    for argument in arguments {
                        if !outline.args.iter().any(|known| known.name == argument.name) {
                            outline.args.push(arg(argument, instruction.range));
                        }
                    }
                }
                Command::Run(run) => {
                    let mut expander = ferry_dockerfile::instruction::Expander::new(file.escape, &nothing);
                    let mounts = run.mounts(&mut expander).unwrap_or_default();
                    for mount in mounts {
                        let list = match mount.kind {
                            MountKind::Secret => &mut outline.secrets,
                            MountKind::Ssh => &mut outline.ssh,
                            _ => continue,
                        };
                        let name = [&mount.source, &mount.id].into_iter().find(|id| !id.is_empty());
                        list.push(Mounted {
                            name: name.cloned().unwrap_or_else(|| "default".to_owned()),
                            required: mount.required,
                            location: location(&[instruction.range]),
                        });
                    }
                }
                _ => {}
            }
        }
    }
    let mut text = String::new();
    if !outline.name.is_empty() {
        text.push_str(&format!("TARGET:\t{}\n", outline.name));
    }
    if !outline.description.is_empty() {
        text.push_str(&format!("DESCRIPTION:\t{}\n", outline.description));
    }
    if !outline.args.is_empty() {
        text.push_str("\nBUILD ARG\tVALUE\tDESCRIPTION\n");
        for arg in &outline.args {
            let value = arg.value.clone().unwrap_or_default();
            text.push_str(&format!("{}\t{value}\t{}\n", arg.name, arg.description));
        }
    }
    done(&outline, text, 0)
}

fn describe() -> Result<Answers> {
    #[derive(Serialize)]
    struct Name {
        name: &'static str,
    }
    #[derive(Serialize)]
    struct Request {
        name: &'static str,
        version: &'static str,
        r#type: &'static str,
        description: &'static str,
        opts: Option<Vec<Name>>,
        metadata: Vec<Name>,
    }
    let request = |name, description| Request {
        name,
        version: "1.0.0",
        r#type: "rpc",
        description,
        opts: None,
        metadata: ["result.json", "result.txt"].map(|name| Name { name }).into(),
    };
    let requests = [
        request("frontend.outline", "List all parameters current build target supports"),
        request("frontend.targets", "List all targets current build supports"),
        request("frontend.lint", "Lint a Dockerfile"),
        request("frontend.subrequests.describe", "List available subrequest types"),
    ];
    let lines = requests
        .iter()
        .map(|request| format!("{}\t{}\n", request.name, request.description));
    done(&requests, lines.collect(), 0)
}
