//! `system dial-stdio`: what an `ssh://` host runs on the other side.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
    session::Input,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "system dial-stdio",
    about: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    arity: Arity::None,
    ..Spec::EMPTY
};

const CHUNK: usize = 32 * 1024;

/// Until the engine has said its last; the end of the input is passed on to it.
pub async fn run(call: Call<'_>) -> Result<u8> {
    let stream = call.client.dial().await?;
    let (mut from, mut to) = tokio::io::split(stream);
    let (stdin, stdout) = (call.ui.stdin, call.ui.channel(Channel::Stdout));
    let input = async {
        if let Some(stdin) = stdin {
            let (mut input, mut chunk) = (Input::new(stdin), vec![0; CHUNK]);
            while let Ok(count @ 1..) = input.read(&mut chunk).await {
                if to.write_all(&chunk[..count]).await.is_err() {
                    break;
                }
            }
        }
        let _ = to.shutdown().await;
        std::future::pending::<()>().await;
    };
    let output = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if stdout.write_slowly(&chunk[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    Ok(0)
}
