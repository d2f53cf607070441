//! Names of git repositories: `https://host/repo.git#ref:directory`, and with a query, `?ref=…&subdir=…`.
//!
//! What comes of it is given to `git` as arguments of its own, never as one line; and nothing that could be read as an option is
//! taken (CVE-2019-13139).

use crate::error::{Error, Result};
use crate::graph::Git;

impl Git {
    /// Reads the name of a repository.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!(
                "invalid git reference {}: {what}",
                ferry_kit::gofmt::quote(text)
            ))
        };
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut git = Self {
            remote: remote.to_owned(),
            reference: String::new(),
            subdirectory: String::new(),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
        };
        if !fragment.is_empty() {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            git.reference = reference.to_owned();
            git.subdirectory = directory.to_owned();
        }
        for (key, value) in pairs(query) {
            git.option(&key, value).map_err(|what| wrong(&what))?;
        }
        git.check().map_err(|what| wrong(&what))?;
        Ok(git)
    }

    /// Whether it is reached by the `ssh` program.
    pub fn is_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    /// Of a remote by HTTP: its name and port.
    pub fn host(&self) -> Option<&str> {
        let rest = self
            .remote
            .strip_prefix("https://")
            .or_else(|| self.remote.strip_prefix("http://"))?;
        let authority = rest.split('/').next()?;
        Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
    }

    fn option(&mut self, key: &str, value: String) -> std::result::Result<(), String> {
        let twice = |known: &str| match known.is_empty() || known == value {
            true => Ok(()),
            false => Err(format!("{key} is given twice")),
        };
        let switch = |value: &str| match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("invalid value {value} for {key}")),
        };
        match key {
            "ref" => {
                twice(&self.reference)?;
                self.reference = value;
            }
            "branch" | "tag" => {
                let prefix = if key == "tag" { "refs/tags/" } else { "refs/heads/" };
                if !self.reference.is_empty() {
                    return Err(format!("{key} conflicts with another reference"));
                }
                self.reference = match value.starts_with("refs/") {
                    true => value,
                    false => format!("{prefix}{value}"),
                };
            }
            "commit" | "checksum" => self.checksum = Some(value),
            "subdir" => {
                twice(&self.subdirectory)?;
                self.subdirectory = value;
            }
            "keep-git-dir" => self.keep_git_dir = switch(&value)?,
            "submodules" => self.submodules = switch(&value)?,
            _ => {
                return Err(format!(
                    "unexpected query {key}: ref, branch, tag, commit, checksum, subdir, submodules and keep-git-dir are known"
                ));
            }
        }
        Ok(())
    }

    fn check(&self) -> std::result::Result<(), String> {
        let is_option = |word: &str| word.starts_with('-');
        if self.remote.is_empty() || is_option(&self.remote) {
            return Err("it names no repository".to_owned());
        }
        if is_option(&self.reference) || self.reference.chars().any(|c| c.is_control() || c == ' ') {
            return Err("the reference is none that git can have".to_owned());
        }
        if self.subdirectory.split('/').any(|part| part == "..") {
            return Err("the subdirectory leads out of the repository".to_owned());
        }
        if let Some(commit) = &self.checksum
            && (commit.len() < 7 || commit.len() > 64 || !commit.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err("a checksum is 7 to 64 hexadecimal digits".to_owned());
        }
        Ok(())
    }
}

/// Names and values of a query, with `%XX` read.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let bytes = text.as_bytes();
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let hex = text
                .get(at + 1..at + 3)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok());
            match (bytes[at], hex) {
                (b'%', Some(byte)) => {
                    decoded.push(byte);
                    at += 3;
                    continue;
                }
                (b'+', _) => decoded.push(b' '),
                (byte, _) => decoded.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&decoded).into_owned()
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_in_two_ways() {
        let git = Git::parse("https://h/r.git#v1:docs").unwrap();
        assert_eq!(
            (git.remote.as_str(), git.reference.as_str(), git.subdirectory.as_str()),
            ("https://h/r.git", "v1", "docs")
        );
        let git = Git::parse("https://h/r.git?branch=main&subdir=a%2Fb&submodules=0&commit=0123456789").unwrap();
        assert_eq!(
            (git.reference.as_str(), git.subdirectory.as_str()),
            ("refs/heads/main", "a/b")
        );
        assert_eq!((git.submodules, git.checksum.as_deref()), (false, Some("0123456789")));
    }

    #[test]
    fn nothing_is_taken_for_an_option() {
        for text in [
            "https://h/r.git#--upload-pack=touch /x",
            "--upload-pack=x.git",
            "https://h/r.git#v1:../../etc",
            "https://h/r.git?x=1",
            "https://h/r.git?checksum=zz",
            "https://h/r.git#a b",
        ] {
            assert!(Git::parse(text).is_err(), "{text}");
        }
    }
}
