//! A step's way to the user's SSH agent: it may ask for keys and for signatures, as with BuildKit. It may not add, remove or lock
//! what is the user's.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What OpenSSH's agent takes, and its client.
const MAX_MESSAGE: usize = 256 << 10;

/// `SSH_AGENTC_…` of draft-ietf-sshm-ssh-agent: of the requests that change nothing, those that clients make.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const FAILURE: u8 = 5;

/// Passes requests on, one after the other, until one of the two ends.
pub async fn serve(
    mut step: impl AsyncRead + AsyncWrite + Unpin,
    mut agent: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<()> {
    while let Some(request) = receive(&mut step).await? {
        let answer = match request.first() {
            Some(&REQUEST_IDENTITIES | &SIGN_REQUEST) => {
                send(&mut agent, &request).await?;
                let answer = receive(&mut agent).await?;
                answer.ok_or(ErrorKind::UnexpectedEof)?
            }
            _ => vec![FAILURE],
        };
        send(&mut step, &answer).await?;
    }
    Ok(())
}

/// A message without its length; `None`: there are no more.
async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let length = match from.read_u32().await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        length => usize::try_from(length?).unwrap_or(usize::MAX),
    };
    if length > MAX_MESSAGE {
        return Err(Error::other(format!(
            "a message of {length} bytes is none of an agent's"
        )));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn send(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<()> {
    let length = u32::try_from(message.len()).map_err(Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step hears that sends `bytes` and then nothing, and what the agent is asked.
    async fn talk(bytes: &[u8], answers: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut step, of_step) = tokio::io::duplex(1 << 20);
        let (mut agent, of_agent) = tokio::io::duplex(1 << 20);
        step.write_all(bytes).await.unwrap();
        step.shutdown().await.unwrap();
        agent.write_all(answers).await.unwrap();
        agent.shutdown().await.unwrap();
        let _ = serve(of_step, of_agent).await;
        let (mut heard, mut asked) = (Vec::new(), Vec::new());
        step.read_to_end(&mut heard).await.unwrap();
        agent.read_to_end(&mut asked).await.unwrap();
        (heard, asked)
    }

    #[tokio::test]
    async fn keys_and_signatures_are_asked_for_and_nothing_is_changed() {
        // REMOVE_ALL_IDENTITIES, REQUEST_IDENTITIES, LOCK, SIGN_REQUEST, EXTENSION, and an empty message.
        let asks: &[&[u8]] = &[&[19], &[11], &[22, 0, 0, 0, 0], &[13, 1, 2], &[27], &[]];
        let mut bytes = Vec::new();
        for ask in asks {
            send(&mut bytes, ask).await.unwrap();
        }
        let (heard, asked) = talk(&bytes, b"\0\0\0\x05\x0c\0\0\0\0\0\0\0\x02\x0e!").await;
        assert_eq!(asked, b"\0\0\0\x01\x0b\0\0\0\x03\x0d\x01\x02");
        let refused = b"\0\0\0\x01\x05";
        let keys = b"\0\0\0\x05\x0c\0\0\0\0";
        let signature = b"\0\0\0\x02\x0e!";
        assert_eq!(
            heard,
            [&refused[..], keys, refused, signature, refused, refused].concat()
        );
    }

    #[tokio::test]
    async fn a_message_is_no_longer_than_an_agent_takes() {
        let (heard, asked) = talk(b"\xff\xff\xff\xff\x0b", b"").await;
        assert!(heard.is_empty() && asked.is_empty());
        // An agent that goes says nothing, and nothing is made up for it.
        let (heard, asked) = talk(b"\0\0\0\x01\x0b", b"").await;
        assert!(heard.is_empty() && asked == b"\0\0\0\x01\x0b");
    }
}
