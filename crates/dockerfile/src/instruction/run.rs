//! `RUN`.

use super::flags::{Flags, Kind};
use super::mount;
use super::parse::command_line;
use super::{CommandLine, Expander, Mount};
use crate::error::Problem;
use crate::source::Node;
use crate::source::heredoc::{self, Heredoc};

/// A command with what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    /// In the order they are announced. [`Run::script`] is the command with them.
    pub documents: Vec<Heredoc>,
    /// As they are written: see [`Run::mounts`].
    pub mount_flags: Vec<String>,
    pub network: Network,
    pub security: Security,
    /// As they are written: see [`Run::devices`].
    pub device_flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the build has.
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Sandbox,
    /// Needs an entitlement.
    Insecure,
}

/// A device by its CDI name. Needs an entitlement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    /// Without it a device that is not there is none.
    pub required: bool,
}

/// What a `RUN` with here-documents runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// One document that begins with `#!` is a program, by the name of the document.
    Program { name: String, content: Vec<u8> },
    /// Text for the shell, with the documents behind it if it is more than one document.
    Shell(Vec<u8>),
}

const FLAGS: [(&str, Kind); 4] = [
    ("device", Kind::Many),
    ("mount", Kind::Many),
    ("network", Kind::Text),
    ("security", Kind::Text),
];

pub(super) fn parse(node: &Node) -> Result<Run, Problem> {
    let flags = Flags::parse(&node.flags, &FLAGS)?;
    let mount_flags: Vec<String> = flags.all("mount").collect();
    mount_flags.iter().try_for_each(|flag| mount::precheck(flag))?;
    let quoted = |value: &str| ferry_kit::gofmt::quote(value);
    Ok(Run {
        command: command_line(&node.arguments),
        documents: node.heredocs.clone(),
        mount_flags,
        network: match flags.text("network").as_deref() {
            None | Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                return Err(Problem::invalid(format!("invalid network mode {}", quoted(other))));
            }
        },
        security: match flags.text("security").as_deref() {
            None | Some("sandbox") => Security::Sandbox,
            Some("insecure") => Security::Insecure,
            Some(other) => {
                return Err(Problem::invalid(format!("security {} is not valid", quoted(other))));
            }
        },
        device_flags: flags.all("device").collect(),
    })
}

impl Run {
    /// Mounts with the values of variables.
    pub fn mounts(&self, expander: &mut Expander<'_>) -> Result<Vec<Mount>, Problem> {
        self.mount_flags
            .iter()
            .map(|flag| Mount::parse(flag, expander))
            .collect()
    }

    /// `--from` of each mount that has one. No variable can be in it.
    pub fn mount_sources(&self) -> impl Iterator<Item = String> {
        self.mount_flags.iter().filter_map(|flag| mount::source(flag))
    }

    pub fn devices(&self, expander: &mut Expander<'_>) -> Result<Vec<Device>, Problem> {
        self.device_flags.iter().map(|flag| device(flag, expander)).collect()
    }

    /// The command with its documents; `None` if it has none.
    pub fn script(&self) -> Option<Script> {
        let (first, CommandLine::Shell(line)) = (self.documents.first()?, &self.command) else {
            return None;
        };
        let alone = heredoc::parse(line).is_some();
        if alone && first.content.starts_with(b"#!") {
            return Some(Script::Program {
                name: first.name.clone(),
                content: first.stripped(),
            });
        }
        if alone {
            return Some(Script::Shell(first.stripped()));
        }
        // The shell reads the documents itself, tabs and all.
        let mut text = line.clone().into_bytes();
        for document in &self.documents {
            text.push(b'\n');
            text.extend_from_slice(&document.content);
            text.extend_from_slice(document.name.as_bytes());
        }
        Some(Script::Shell(text))
    }
}

/// `vendor.com/class=name`, `name=…`, `required`.
fn device(flag: &str, expander: &mut Expander<'_>) -> Result<Device, Problem> {
    let mut device = Device::default();
    for field in mount::fields(flag)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        match key.to_lowercase().as_str() {
            "required" => device.required = value.is_empty() || mount::boolean(key, &expander.word(value)?)?,
            "name" => device.name = expander.word(value)?,
            _ if device.name.is_empty() => device.name = expander.word(&field)?,
            _ => return Err(Problem::invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if device.name.is_empty() {
        return Err(Problem::invalid(
            "device name is required, as --device=vendor.com/class=name",
        ));
    }
    Ok(device)
}
