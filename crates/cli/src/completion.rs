//! `__complete`: what a shell may put where the cursor is, in cobra's protocol, so that docker's own scripts work as well.
//!
//! ```text
//! ferry __complete rm we        the words before the cursor, the last one as far as it is typed, or empty
//! web<TAB>                      one proposal a line, a tab, what it is
//! :4                            bits: 2 no blank behind it, 4 no files, 16 directories instead
//! ```
//!
//! It starts no engine, and waits for one no longer than [`names`] says.

pub mod names;
mod values;

use std::ffi::OsString;

use serde_json::Value;

use crate::{
    commands, contexts,
    environment::Environment,
    flags::{Flag, Spec},
};
use values::Choice;

const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;
const ONLY_DIRECTORIES: u8 = 16;

/// The scripts, in which PROGRAM is a placeholder.
const SCRIPTS: [(&str, &str); 4] = [
    ("bash", include_str!("completion/script.bash")),
    ("fish", include_str!("completion/script.fish")),
    ("powershell", include_str!("completion/script.ps1")),
    ("zsh", include_str!("completion/script.zsh")),
];

/// The script of a shell; `described` when proposals are to be explained.
pub fn script(shell: &str, program: &str, described: bool) -> Option<String> {
    let (_, text) = SCRIPTS.iter().find(|(name, _)| *name == shell)?;
    let request = if described { "__complete" } else { "__completeNoDesc" };
    Some(text.replace("PROGRAM", program).replace("REQUEST", request))
}

/// Proposals, and the bits behind the colon.
#[derive(Debug, Default)]
struct Answer {
    proposals: Vec<(String, String)>,
    directive: u8,
}

/// What `__complete` prints for these words, of which the last is the one at the cursor.
pub async fn complete(words: &[OsString], env: &Environment, described: bool) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| {
        (last.to_str().unwrap_or_default(), before)
    });
    let mut answer = answer(before, typed, env).await;
    let prefix = match typed.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => value,
        _ => typed,
    };
    answer.proposals.retain(|(text, _)| text.starts_with(prefix));
    answer.proposals.sort();
    answer.proposals.dedup();
    if answer.proposals.len() == 1 && answer.proposals[0].0.ends_with(['=', ':']) {
        answer.directive |= NO_SPACE;
    }
    let lines = answer.proposals.iter().map(|(text, about)| match about.as_str() {
        about if described && !about.is_empty() => format!("{text}\t{about}\n"),
        _ => format!("{text}\n"),
    });
    format!("{}:{}\n", lines.collect::<String>(), answer.directive)
}

/// How much of a command is typed.
#[derive(Debug, Clone, Copy)]
enum Place {
    Root,
    Group(&'static str),
    Command(&'static Spec),
    /// No command of ours.
    Unknown,
}

fn texts(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The command in these words, and the index of the word behind it.
fn place(words: &[String]) -> (Place, usize) {
    let root = Cursor::at(&commands::ROOT, words);
    let skipped = words.len() - root.arguments.len();
    let help = root.arguments.first() == Some(&"help");
    let (arguments, skipped) = match help {
        true => (&root.arguments[1..], skipped + 1),
        false => (&root.arguments[..], skipped),
    };
    let Some(first) = arguments.first() else {
        return (Place::Root, skipped);
    };
    let group = commands::GROUPS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| name == first);
    let (path, count) = match (group, arguments.get(1)) {
        (Some(group), None) => return (Place::Group(group), skipped + 1),
        (Some(group), Some(second)) => (format!("{group} {second}"), 2),
        (None, _) => ((*first).to_owned(), 1),
    };
    let place = commands::find(&path).map_or(Place::Unknown, |(spec, _)| Place::Command(spec));
    (place, skipped + count)
}

/// The first word that is no command of ours, and its index: a plugin's name, perhaps.
pub fn unknown_command(words: &[OsString]) -> Option<(String, usize)> {
    let words = texts(words);
    match place(&words) {
        (Place::Unknown, after) => Some((words[after - 1].clone(), after - 1)),
        _ => None,
    }
}

/// Commands at the top: those of one word, and groups.
fn top_level() -> Vec<(String, String)> {
    let specs = commands::SPECS.iter().filter(|spec| !spec.name.contains(' '));
    let groups = commands::GROUPS
        .iter()
        .filter(|(name, _)| *name != commands::COMPLETION);
    specs
        .map(|spec| (spec.name, spec.summary()))
        .chain(groups.copied())
        .chain([("help", "Help about the command")])
        .map(|(name, about)| (name.to_owned(), about.to_owned()))
        .collect()
}

fn members(group: &str) -> Vec<(String, String)> {
    commands::members(group)
        .into_iter()
        .map(|(name, about)| (name.to_owned(), about.to_owned()))
        .collect()
}

async fn answer(before: &[OsString], typed: &str, env: &Environment) -> Answer {
    let texts = texts(before);
    let (place, at) = place(&texts);
    // The command's own words, or those before any command.
    let (spec, words) = match place {
        Place::Command(spec) => (spec, &texts[at..]),
        Place::Unknown => return Answer::default(),
        Place::Root | Place::Group(_) => (&commands::ROOT, &texts[..]),
    };
    let cursor = Cursor::at(spec, words);
    let flag = |flag: &Flag| values::of_flag(spec.name, flag.name, flag.kind);
    if let Some(wanted) = &cursor.value_of {
        return choose(flag(wanted), env, before, typed, &[]).await;
    }
    if let (Some((name, _)), false) = (
        typed.strip_prefix("--").and_then(|rest| rest.split_once('=')),
        cursor.literal,
    ) && let Some(wanted) = spec.definitions().iter().find(|flag| flag.name == name)
    {
        return choose(flag(wanted), env, before, typed, &[]).await;
    }
    if typed.starts_with('-') && !cursor.literal {
        return flags(spec, typed);
    }
    match place {
        Place::Root => listed(top_level()),
        Place::Group(group) => listed(members(group)),
        Place::Unknown => Answer::default(),
        Place::Command(spec) => {
            let choice = values::of_argument(spec.name, spec.synopsis, cursor.arguments.len());
            choose(choice, env, before, typed, &cursor.arguments).await
        }
    }
}

/// What the words of a command have come to.
struct Cursor<'w> {
    arguments: Vec<&'w str>,
    /// The flag whose value is next.
    value_of: Option<Flag>,
    /// A dash begins no flag any more.
    literal: bool,
}

impl<'w> Cursor<'w> {
    fn at(spec: &Spec, words: &'w [String]) -> Self {
        let flags = spec.definitions();
        let mut cursor = Self {
            arguments: Vec::new(),
            value_of: None,
            literal: false,
        };
        for word in words {
            if cursor.value_of.take().is_some() {
                continue;
            }
            let flag = match word.strip_prefix("--") {
                _ if cursor.literal || !word.starts_with('-') || word.len() == 1 => {
                    cursor.arguments.push(word);
                    cursor.literal |= spec.stops_at_argument;
                    continue;
                }
                Some("") => {
                    cursor.literal = true;
                    continue;
                }
                Some(long) if long.contains('=') => continue,
                Some(long) => flags.iter().find(|flag| flag.name == long),
                // `-it`, `-eA=1`: the first that takes a value takes the rest, or the next word.
                None => {
                    let takes = |short: char| {
                        flags
                            .iter()
                            .find(|flag| flag.short == Some(short) && !flag.kind.is_empty())
                    };
                    let last = word.chars().last();
                    let inner = word.chars().skip(1).find_map(takes);
                    inner.filter(|flag| flag.short == last)
                }
            };
            cursor.value_of = flag.filter(|flag| !flag.kind.is_empty()).cloned();
        }
        cursor
    }
}

fn listed(entries: Vec<(String, String)>) -> Answer {
    Answer {
        proposals: entries,
        directive: NO_FILES,
    }
}

fn flags(spec: &Spec, typed: &str) -> Answer {
    let mut proposals = Vec::new();
    for flag in spec.definitions() {
        proposals.push((format!("--{}", flag.name), flag.text.to_owned()));
        if let (Some(short), "-") = (flag.short, typed) {
            proposals.push((format!("-{short}"), flag.text.to_owned()));
        }
    }
    proposals.push(("--help".to_owned(), "Print usage".to_owned()));
    proposals.dedup_by(|one, other| one.0 == other.0);
    listed(proposals)
}

async fn choose(choice: Choice, env: &Environment, before: &[OsString], typed: &str, given: &[&str]) -> Answer {
    let plain = |words: Vec<String>| listed(words.into_iter().map(|word| (word, String::new())).collect());
    match choice {
        Choice::Words(words) => plain(words.iter().map(|word| (*word).to_owned()).collect()),
        Choice::Names(kind, states) => {
            let Some(client) = commands::engine(before, env) else {
                return plain(Vec::new());
            };
            let mut found = names::of(&client, kind, states).await;
            found.retain(|name| !given.contains(&name.as_str()));
            if kind == names::Kind::Image {
                // Without a tag, too, until there is a colon.
                let bare = found
                    .iter()
                    .filter_map(|name| name.strip_suffix(":latest"))
                    .map(str::to_owned);
                let bare: Vec<String> = bare.filter(|_| !typed.contains(':')).collect();
                found.extend(bare);
            }
            plain(found)
        }
        Choice::Contexts => {
            let (contexts, _) = contexts::Store::of(&commands::config_directory(before, env)).all();
            let mut all: Vec<_> = contexts
                .iter()
                .map(|context| (context.name.clone(), context.description().to_owned()))
                .collect();
            all.push((contexts::DEFAULT.to_owned(), contexts::DEFAULT_ABOUT.to_owned()));
            listed(all)
        }
        Choice::Variables => plain(env.variables.keys().cloned().collect()),
        Choice::Known(pointer) => {
            let Some(client) = commands::engine(before, env) else {
                return plain(Vec::new());
            };
            let info: Value = names::info(&client).await;
            plain(match info.pointer(pointer) {
                Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                Some(Value::Object(names)) => names.keys().cloned().collect(),
                _ => Vec::new(),
            })
        }
        Choice::Files => Answer::default(),
        Choice::Directories => Answer {
            directive: ONLY_DIRECTORIES,
            ..Answer::default()
        },
        Choice::Nothing => plain(Vec::new()),
    }
}
