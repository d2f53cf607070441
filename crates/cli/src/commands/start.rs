use ferry_api::container::{Inspect, condition};
use ferry_client::Client;

use crate::{
    commands::{
        Call,
        attach::{check_terminal, connect},
        run::{detach_keys, wait_for},
    },
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    session::{End, RawMode, Screen, Signals, Typing, both, converse, follow_size},
};

pub const SPEC: Spec = Spec {
    name: "start",
    aliases: "container start, start",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    arity: Arity::AtLeast(1),
    flags: "\
-a, --attach | Attach STDOUT/STDERR and forward signals
--detach-keys string | Override the key sequence for detaching a container
-i, --interactive | Attach container's STDIN",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    if call.matches.switch("attach") || call.matches.switch("interactive") {
        if call.matches.arguments.len() > 1 {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        }
        return attached(call).await;
    }
    let mut failed = Vec::new();
    for name in call.matches.arguments.clone() {
        match call
            .client
            .post(&format!("/containers/{}/start", Client::escape(&name)))
            .await
        {
            Ok(_) => call.ui.line(&name),
            Err(error) => {
                call.ui.error_line(&describe(&error));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!(
        "Error: failed to start containers: {}",
        failed.join(", ")
    )))
}

async fn attached(mut call: Call<'_>) -> Result<u8> {
    let name = call.matches.arguments[0].clone();
    let keys = detach_keys(&mut call);
    let inspect: Inspect = call
        .client
        .get_json(&format!("/containers/{}/json", Client::escape(&name)))
        .await?;
    let path = format!("/containers/{}", inspect.id);
    let config = inspect.config.unwrap_or_default();
    let stdin = call.matches.switch("interactive") && config.open_stdin;
    check_terminal(&call, stdin && config.tty)?;
    let mut signals = if config.tty {
        Signals::default()
    } else {
        Signals::catch()
    };
    let stream = connect(&call.client, &path, &keys, stdin).await?;
    let auto_remove = inspect.host_config.is_some_and(|host_config| host_config.auto_remove);
    let until = if auto_remove {
        condition::REMOVED
    } else {
        condition::NEXT_EXIT
    };
    let waiting = wait_for(&call.client, &inspect.id, until).await?;
    let raw_mode = call.ui.stdin.filter(|_| stdin && config.tty).and_then(RawMode::enter);
    call.client.post(&format!("{path}/start")).await?;
    let typing = Typing::of(call.ui, stdin, config.tty, &keys);
    let client = call.client.clone();
    let screen = Screen::of(call.ui, &client, &path, config.tty);
    let mut control = std::pin::pin!(both(signals.forward(&client, &inspect.id), follow_size(screen)));
    let ended = converse(call.ui, stream, config.tty, typing, control.as_mut()).await;
    drop(raw_mode);
    if ended? == End::Detached {
        return Ok(0);
    }
    tokio::select! {
        code = waiting => code,
        never = control => match never {},
    }
}
