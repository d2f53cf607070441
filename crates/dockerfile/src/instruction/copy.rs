//! `ADD` and `COPY`.

use super::flags::{Flags, Kind};
use crate::error::Problem;
use crate::source::heredoc::{self, Heredoc};
use crate::source::{Arguments, Node};

/// What is copied, from where, to where, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Paths and patterns, of `ADD` URLs and git repositories too.
    pub sources: Vec<String>,
    /// Files written in the Dockerfile itself.
    pub documents: Vec<Document>,
    pub destination: String,
    /// `--from`: a stage by name or number, an image or a named context. Only of `COPY`.
    pub from: Option<String>,
    /// `user[:group]`, by name or number.
    pub chown: Option<String>,
    /// See [`super::Chmod`].
    pub chmod: Option<String>,
    /// A layer of its own that does not depend on the ones below.
    pub link: bool,
    /// Keep the directories of sources. Only of `COPY`.
    pub parents: bool,
    pub exclude: Vec<String>,
    /// A digest of what a URL has, or a commit of a repository. Only of `ADD`.
    pub checksum: Option<String>,
    /// Only of `ADD`.
    pub keep_git_dir: Option<bool>,
    /// Unpack archives, or leave them. Without it local ones are unpacked and remote ones are not. Only of `ADD`.
    pub unpack: Option<bool>,
}

/// A here-document that becomes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub name: String,
    pub content: Vec<u8>,
    pub expands: bool,
}

/// Whether a source of `ADD` is fetched by HTTP. Git comes first: [`is_git`].
pub fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether a source is a repository: `git@host:path`, `git://`, `ssh://`, or a URL whose path ends in `.git`, before
/// `#fragment` and `?query`.
pub fn is_git(source: &str) -> bool {
    if source.starts_with("git://") || source.starts_with("ssh://") {
        return true;
    }
    if is_http(source) {
        let path = source.split(['#', '?']).next().unwrap_or_default();
        return path.ends_with(".git");
    }
    // `user@host:path`, with no slash before the colon.
    source
        .split_once(':')
        .and_then(|(host, _)| host.split_once('@'))
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('/') && !user.contains('/'))
}

const COPY: [(&str, Kind); 6] = [
    ("chmod", Kind::Text),
    ("chown", Kind::Text),
    ("exclude", Kind::Many),
    ("from", Kind::Text),
    ("link", Kind::Boolean),
    ("parents", Kind::Boolean),
];
const ADD: [(&str, Kind); 7] = [
    ("checksum", Kind::Text),
    ("chmod", Kind::Text),
    ("chown", Kind::Text),
    ("exclude", Kind::Many),
    ("keep-git-dir", Kind::Boolean),
    ("link", Kind::Boolean),
    ("unpack", Kind::Boolean),
];

pub(super) fn parse(node: &Node, instruction: &'static str) -> Result<Transfer, Problem> {
    let words = match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.as_slice(),
        _ => &[],
    };
    let [sources @ .., destination] = words else {
        return Err(Problem::NoDestination(instruction));
    };
    if sources.is_empty() {
        return Err(Problem::NoDestination(instruction));
    }
    let flags = Flags::parse(&node.flags, if instruction == "ADD" { &ADD } else { &COPY })?;
    // In a JSON array `<<` means nothing.
    let announced = |word: &str| match node.arguments {
        Arguments::Json(_) => None,
        _ => heredoc::parse(word),
    };
    if announced(destination).is_some() {
        return Err(Problem::invalid(format!(
            "{instruction} cannot accept a heredoc as a destination"
        )));
    }
    let mut transfer = Transfer {
        destination: destination.clone(),
        from: flags.text("from").filter(|from| !from.is_empty()),
        chown: flags.text("chown").filter(|text| !text.is_empty()),
        chmod: flags.text("chmod").filter(|text| !text.is_empty()),
        link: flags.is_set("link"),
        parents: flags.is_set("parents"),
        exclude: flags.all("exclude").collect(),
        checksum: flags.text("checksum").filter(|text| !text.is_empty()),
        keep_git_dir: flags.boolean("keep-git-dir"),
        unpack: flags.boolean("unpack"),
        ..Transfer::default()
    };
    // Documents come in the order of their words.
    let mut documents = node.heredocs.iter();
    for source in sources {
        match announced(source).and_then(|_| documents.next()) {
            Some(document) => transfer.documents.push(document.into()),
            None => transfer.sources.push(source.clone()),
        }
    }
    Ok(transfer)
}

impl From<&Heredoc> for Document {
    fn from(heredoc: &Heredoc) -> Self {
        Self {
            name: heredoc.name.clone(),
            content: heredoc.stripped(),
            expands: heredoc.expands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for (source, git, http) in [
            ("https://github.com/a/b.git", true, true),
            ("https://github.com/a/b.git#v1:dir", true, true),
            ("https://github.com/a/b.git?ref=x", true, true),
            ("https://example.com/a.tar", false, true),
            ("git@github.com:a/b.git", true, false),
            ("git://host/x", true, false),
            ("ssh://git@host/x", true, false),
            ("./a@b:c", false, false),
            ("github.com/a/b", false, false),
            ("a", false, false),
        ] {
            assert_eq!((is_git(source), is_http(source)), (git, http), "{source}");
        }
    }
}
