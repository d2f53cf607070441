use std::time::Duration;

use ferry_api::exec::{Create, Created, Inspect, Start};
use ferry_client::{Body, Client};

use crate::{
    commands::{Call, run::detach_keys},
    failure::{Failure, Result},
    flags::{Arity, Spec},
    options,
    session::{End, RawMode, Screen, Typing, converse, follow_size},
};

/// After how many milliseconds a command is asked for its exit code again, when its connection has ended and it has not. One that has closed
/// its streams and goes on is not waited for longer.
const ENDS: [u64; 4] = [0, 50, 150, 400];

pub const SPEC: Spec = Spec {
    name: "exec",
    aliases: "container exec, exec",
    synopsis: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    arity: Arity::AtLeast(2),
    flags: "\
-d, --detach | Detached mode: run command in the background
--detach-keys string | Override the key sequence for detaching a container
-e, --env list | Set environment variables
--env-file list | Read in a file of environment variables
-i, --interactive | Keep STDIN open even if not attached
--privileged | Give extended privileges to the command
-t, --tty | Allocate a pseudo-TTY
-u, --user string | Username or UID (format: \"<name|uid>[:<group|gid>]\")
-w, --workdir string | Working directory inside the container",
    stops_at_argument: true,
    check: options::check,
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let container = call.matches.arguments[0].clone();
    let (detach, tty) = (call.matches.switch("detach"), call.matches.switch("tty"));
    let stdin = call.matches.switch("interactive") && !detach;
    if stdin && tty && !call.ui.stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let keys = detach_keys(&mut call);
    let console_size = call
        .ui
        .terminal_size()
        .filter(|_| tty)
        .map(|(rows, columns)| [rows.into(), columns.into()]);
    let request = Create {
        user: call.matches.text("user").into(),
        privileged: call.matches.switch("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: keys.clone(),
        env: options::exec_variables(&call.matches, call.env).map_err(Failure::new)?,
        working_dir: call.matches.text("workdir").into(),
        cmd: Some(call.matches.arguments[1..].to_vec()),
        ..Create::default()
    };
    let path = format!("/containers/{}/exec", Client::escape(&container));
    let created: Created = call.client.post_json(&path, &request).await?;
    let path = format!("/exec/{}", created.id);
    let start = Start {
        detach,
        tty,
        console_size,
    };
    if detach {
        call.client
            .request(
                ferry_client::Method::POST,
                &format!("{path}/start"),
                Body::json(&start)?,
            )
            .await?
            .bytes()
            .await?;
        return Ok(0);
    }
    let stream = call
        .client
        .upgrade(&format!("{path}/start"), Body::json(&start)?)
        .await?;
    let raw_mode = call.ui.stdin.filter(|_| stdin && tty).and_then(RawMode::enter);
    let typing = Typing::of(call.ui, stdin, tty, &keys);
    let client = call.client.clone();
    let screen = Screen::of(call.ui, &client, &path, tty);
    let ended = converse(call.ui, stream, tty, typing, follow_size(screen)).await;
    drop(raw_mode);
    if ended? == End::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    // Where the container's supervisor has died, the connection ends before its command does.
    let mut code = None;
    for pause in ENDS {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let inspect: Inspect = call.client.get_json(&format!("{path}/json")).await?;
        code = inspect.exit_code;
        if code.is_some() {
            break;
        }
    }
    Ok(u8::try_from(code.unwrap_or(0) & 0xff).unwrap_or(1))
}
