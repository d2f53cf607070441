//! A step's way to the user's SSH agent: it may ask for keys and for signatures, as with BuildKit. It may not add, remove or lock
//! what is the user's.

use std::io::{ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{receive, send};
use super::{FAILURE, REQUEST_IDENTITIES, SIGN_REQUEST};

/// Passes requests on, one after the other, until one of the two ends.
pub async fn pass(
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a step hears that sends `bytes` and then nothing, and what the agent is asked.
    async fn talk(bytes: &[u8], answers: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut step, of_step) = tokio::io::duplex(1 << 20);
        let (mut agent, of_agent) = tokio::io::duplex(1 << 20);
        step.write_all(bytes).await.unwrap();
        step.shutdown().await.unwrap();
        agent.write_all(answers).await.unwrap();
        agent.shutdown().await.unwrap();
        let _ = pass(of_step, of_agent).await;
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
