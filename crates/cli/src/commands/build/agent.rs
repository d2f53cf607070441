//! `--ssh`: agents of the user's, and one of our own for keys in files, which is there as long as the build. It tells which keys it
//! has and signs; a key itself never leaves this process, and nothing that is asked of it changes what it has
//! ([protocol](https://www.rfc-editor.org/rfc/rfc9987)).

mod key;
mod passed;
mod wire;

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::DuplexStream;

use crate::commands::Call;
use crate::failure::{Failure, Result, io_text};
use key::Key;
pub use passed::pass;
use wire::take;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// What an id of `--ssh` stands for. Clones are the same one.
#[derive(Debug, Clone)]
pub enum Agent {
    Socket(PathBuf),
    Keys(Arc<[Key]>),
}

/// Reads `--ssh ID[=SOCKET|KEY[,KEY]]`; errors in buildx's words.
pub fn read(call: &Call<'_>) -> Result<BTreeMap<String, Agent>> {
    let mut agents = BTreeMap::new();
    for text in call.matches.list("ssh") {
        let (id, paths) = text.split_once('=').unwrap_or((&text, ""));
        let id = if id.is_empty() { "default" } else { id };
        let from_environment = call.env.variable("SSH_AUTH_SOCK").unwrap_or_default();
        let paths = match paths.trim_matches(',') {
            "" => from_environment,
            _ => paths,
        };
        if paths.is_empty() {
            return Err(Failure::new(
                "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or give --ssh ID=SOCKET",
            ));
        }
        let paths: Vec<&str> = paths.split(',').collect();
        let found = find(&call.env.directory, &paths);
        let found =
            found.map_err(|why| Failure::new(format!("failed to convert agent config for ID: \"{id}\": {why}")));
        if agents.insert(id.to_owned(), found?).is_some() {
            return Err(Failure::new(format!("duplicate agent ID \"{id}\"")));
        }
    }
    Ok(agents)
}

/// A socket, or keys.
fn find(directory: &Path, paths: &[&str]) -> Result<Agent, String> {
    let mut keys = Vec::new();
    for text in paths {
        let path = directory.join(text);
        let missing = |error: io::Error| format!("stat {text}: {}", io_text(&error));
        match std::fs::metadata(&path).map_err(missing)? {
            found if !is_socket(&found) => keys.push(Key::read(&path, text)?),
            _ if paths.len() > 1 => return Err("only single socket allowed".to_owned()),
            _ => return Ok(Agent::Socket(path)),
        }
    }
    Ok(Agent::Keys(keys.into()))
}

fn is_socket(found: &Metadata) -> bool {
    found.file_type().is_socket()
}

/// Answers who is at the other end, until they are gone or say what makes no sense.
pub async fn serve(keys: Arc<[Key]>, mut stream: DuplexStream) -> io::Result<()> {
    while let Some(message) = wire::receive(&mut stream).await? {
        let answer = answer(&keys, &message).unwrap_or_else(|| vec![FAILURE]);
        wire::send(&mut stream, &answer).await?;
    }
    Ok(())
}

/// `None` for what is refused.
fn answer(keys: &[Key], message: &[u8]) -> Option<Vec<u8>> {
    let (kind, mut rest) = message.split_first()?;
    match *kind {
        REQUEST_IDENTITIES => {
            let mut out = vec![IDENTITIES_ANSWER];
            out.extend(u32::try_from(keys.len()).ok()?.to_be_bytes());
            for key in keys {
                wire::string(&mut out, &key.public);
                wire::string(&mut out, key.comment.as_bytes());
            }
            Some(out)
        }
        SIGN_REQUEST => {
            let (public, data) = (take(&mut rest)?, take(&mut rest)?);
            let flags = wire::take_count(&mut rest)?;
            let key = keys.iter().find(|key| key.public == public)?;
            let mut out = vec![SIGN_RESPONSE];
            wire::string(&mut out, &key.sign(data, flags)?);
            Some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for message in [
            &[][..],
            &[0],
            &[SIGN_REQUEST],
            &[SIGN_REQUEST, 0, 0, 0, 9, 1],
            &[SIGN_REQUEST, 0xff, 0xff, 0xff, 0xff],
            // Of a key that is not there.
            &[SIGN_REQUEST, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            // Add, remove, lock.
            &[17],
            &[19],
            &[22, 0, 0, 0, 0],
        ] {
            assert_eq!(answer(&[], message), None, "{message:?}");
        }
        assert_eq!(
            answer(&[], &[REQUEST_IDENTITIES]),
            Some(vec![IDENTITIES_ANSWER, 0, 0, 0, 0])
        );
    }

    #[tokio::test]
    async fn a_message_of_any_claimed_length_takes_no_memory() {
        let (mut client, agent) = tokio::io::duplex(64);
        let serving = tokio::spawn(serve(Arc::default(), agent));
        client.write_u32(u32::MAX).await.unwrap();
        assert_eq!(serving.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
