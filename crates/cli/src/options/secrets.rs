//! `--secret`: a file in memory, from a file or a variable of the client's.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_api::container::{Secret, SecretData};

use super::{Result, mounts};
use crate::environment::Environment;
use crate::failure::io_text;

/// What the engine takes, and one byte.
const SIZE_READ: u64 = 500 * 1000 + 1;

/// Where a secret is read from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    File(String),
    Variable(String),
}

/// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`, with `target=`, `uid=`, `gid=` and `mode=`.
pub fn parse(text: &str) -> Result<(Secret, Source)> {
    let fail = |why: &str| format!("invalid --secret {text:?}: {why}");
    let mut secret = Secret::default();
    let (mut id, mut target, mut source) = (String::new(), None, None);
    for field in mounts::fields(text)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| fail("it is made of key=value, for instance id=token,src=./token.txt"))?;
        let number = || value.parse().map_err(|_| fail(&format!("{key} is a number")));
        match key {
            "id" => value.clone_into(&mut id),
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => {}
            "src" | "source" | "env" if source.is_some() => return Err(fail("it comes from one place, src= or env=")),
            "src" | "source" => source = Some(Source::File(value.to_owned())),
            "env" => source = Some(Source::Variable(value.to_owned())),
            "uid" => secret.uid = Some(number()?),
            "gid" => secret.gid = Some(number()?),
            "mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| fail("mode is octal, for instance 0440"))?;
                secret.mode = Some(mode);
            }
            _ => {
                return Err(fail(&format!(
                    "there is no {key}: use id, src, env, target, uid, gid and mode"
                )));
            }
        }
    }
    if id.is_empty() {
        return Err(fail("its name is missing: id="));
    }
    let target = target.map(|path: String| path.trim_start_matches("/run/secrets/").to_owned());
    secret.name = target.unwrap_or(id);
    if secret.name.contains('/') {
        return Err(fail(
            "secrets lie right below /run/secrets: make a link, or mount a file with -v",
        ));
    }
    let source = source.ok_or_else(|| fail("what it says is missing: src=FILE or env=VARIABLE"))?;
    Ok((secret, source))
}

/// The secrets of a request, read.
pub fn read(list: &[String], env: &Environment) -> Result<Vec<Secret>> {
    let one = |text: &String| {
        let (mut secret, source) = parse(text)?;
        let data = content(&source, env).map_err(|why| format!("--secret {}: {why}", secret.name))?;
        secret.data = SecretData(STANDARD.encode(data));
        Ok(secret)
    };
    list.iter().map(one).collect()
}

/// What a secret says.
pub fn content(source: &Source, env: &Environment) -> Result<Vec<u8>> {
    match source {
        Source::Variable(name) => match env.variables.get(name) {
            Some(value) => Ok(value.clone().into_bytes()),
            None => Err(format!("there is no variable {name}")),
        },
        Source::File(path) => {
            let mut data = Vec::new();
            std::fs::File::open(env.directory.join(path))
                .and_then(|file| file.take(SIZE_READ).read_to_end(&mut data))
                .map_err(|error| format!("open {path}: {}", io_text(&error)))?;
            Ok(data)
        }
    }
}

/// A build's: its name, and where it comes from if that is said.
pub fn named(text: &str) -> Result<(String, Option<Source>)> {
    let (mut id, mut source, mut kind) = (String::new(), None, "");
    let fields = mounts::fields(text)?;
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "id" => value.clone_into(&mut id),
            "type" if matches!(value, "file" | "env") => kind = if value == "env" { "env" } else { "file" },
            "src" | "source" if kind == "env" => source = Some(Source::Variable(value.to_owned())),
            "src" | "source" => source = Some(Source::File(value.to_owned())),
            "env" => source = Some(Source::Variable(value.to_owned())),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    match (id.as_str(), kind, source) {
        ("", ..) => Err(format!("invalid secret {text}: its name is missing: id=")),
        (_, "env", None) => Ok((id.clone(), Some(Source::Variable(id)))),
        (_, _, source) => Ok((id, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_name_and_where_it_comes_from() {
        let (secret, source) = parse("id=token,src=./t,uid=5,gid=6,mode=0440").unwrap();
        assert_eq!(source, Source::File("./t".into()));
        assert_eq!(
            (secret.name.as_str(), secret.uid, secret.gid, secret.mode),
            ("token", Some(5), Some(6), Some(0o440))
        );
        let (secret, source) = parse("id=a,env=TOKEN,target=/run/secrets/b").unwrap();
        assert_eq!((secret.name.as_str(), source), ("b", Source::Variable("TOKEN".into())));
    }

    #[test]
    fn what_makes_no_secret_says_why() {
        for (text, why) in [
            ("token", "key=value"),
            ("src=x", "id="),
            ("id=a", "src=FILE or env=VARIABLE"),
            ("id=a,src=x,env=Y", "one place"),
            ("id=a,src=x,target=/etc/a", "/run/secrets"),
            ("id=a,src=x,mode=9", "octal"),
            ("id=a,src=x,uid=me", "number"),
            ("id=a,src=x,size=3", "there is no size"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
