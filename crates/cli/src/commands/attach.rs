use ferry_api::container::{Inspect, condition};
use ferry_client::{Body, Client, Query, Upgraded};

use crate::{
    commands::{
        Call,
        run::{detach_keys, wait_for},
    },
    failure::{Failure, Result},
    flags::{Arity, Spec},
    session::{End, RawMode, Screen, Signals, Typing, both, converse, follow_size},
};

pub const SPEC: Spec = Spec {
    name: "attach",
    aliases: "container attach, attach",
    synopsis: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    arity: Arity::Exactly(1),
    flags: "\
--detach-keys string | Override the key sequence for detaching a container
--no-stdin | Do not attach STDIN
--sig-proxy | Proxy all received signals to the process (default true)",
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let name = call.matches.arguments[0].clone();
    let path = format!("/containers/{}", Client::escape(&name));
    let keys = detach_keys(&mut call);
    // Asked for first, so that an exit during all this is not missed.
    let waiting = wait_for(&call.client, &name, condition::NOT_RUNNING).await?;
    let inspect: Inspect = call.client.get_json(&format!("{path}/json")).await?;
    let state = inspect.state.unwrap_or_default();
    if !state.running {
        return Err(Failure::new("You cannot attach to a stopped container, start it first"));
    }
    if state.paused {
        return Err(Failure::new(
            "You cannot attach to a paused container, unpause it first",
        ));
    }
    if state.restarting {
        return Err(Failure::new(
            "You cannot attach to a restarting container, wait until it is running",
        ));
    }
    let config = inspect.config.unwrap_or_default();
    let stdin = config.open_stdin && !call.matches.switch("no-stdin");
    check_terminal(&call, stdin && config.tty)?;
    let mut signals = if call.matches.switch_or("sig-proxy", true) && !config.tty {
        Signals::catch()
    } else {
        Signals::default()
    };
    let stream = connect(&call.client, &path, &keys, stdin).await?;
    let raw_mode = call.ui.stdin.filter(|_| stdin && config.tty).and_then(RawMode::enter);
    let typing = Typing::of(call.ui, stdin, config.tty, &keys);
    let client = call.client.clone();
    let screen = Screen {
        redraw: true,
        ..Screen::of(call.ui, &client, &path, config.tty)
    };
    let control = both(signals.forward(&client, &name), follow_size(screen));
    let ended = converse(call.ui, stream, config.tty, typing, control).await;
    drop(raw_mode);
    if ended? == End::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    waiting.await
}

/// The streams of the container at `path`: output, and input if wanted.
pub async fn connect(client: &Client, path: &str, keys: &str, stdin: bool) -> ferry_client::Result<Upgraded> {
    let query = Query::new()
        .text("detachKeys", keys)
        .with("stderr", "1")
        .flag("stdin", stdin)
        .with("stdout", "1")
        .with("stream", "1");
    client.upgrade(&query.on(&format!("{path}/attach")), Body::Empty).await
}

/// What is typed at a pipe cannot go to a terminal.
pub fn check_terminal(call: &Call<'_>, wanted: bool) -> Result<()> {
    match wanted && !call.ui.stdin_is_terminal() {
        true => Err(Failure::new("the input device is not a TTY")),
        false => Ok(()),
    }
}
