use ferry_api::container::{Wait, condition};
use ferry_client::Method;
use ferry_client::{Body, Client, Query};

use crate::{
    commands::{Call, create},
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    options,
    session::{End, RawMode, Screen, Signals, Typing, both, converse, follow_size},
};

pub const SPEC: Spec = Spec {
    name: "run",
    aliases: "container run, run",
    synopsis: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    short: "",
    arity: Arity::AtLeast(1),
    flags: concat!(
        options::container_flags!(),
        "\
-d, --detach | Run container in background and print container ID
--detach-keys string | Override the key sequence for detaching a container
--name string | Assign a name to the container
--platform string | Set platform if server is multi-platform capable
--pull string | Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")
-q, --quiet | Suppress the pull output
--sig-proxy | Proxy received signals to the process (default true)
--disable-content-trust | Skip image verification (default true)
--use-api-socket | Bind mount Docker API socket and required auth
--help | Print usage"
    ),
    own: options::OWN,
    hidden: options::HIDDEN,
    deprecated: &[],
    stops_at_argument: true,
    check: options::check,
};

/// docker's rule: what a failed start means is read out of the daemon's words. "exec format error" is Ferry's own: Docker
/// starts such a container, which then ends with 255.
pub fn start_code(message: &str) -> u8 {
    let any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if any(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if any(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        125
    }
}

/// A wait that has been asked for: its headers are here, its answer comes when the container ends.
pub async fn wait_for(
    client: &Client,
    id: &str,
    condition: &str,
) -> ferry_client::Result<impl Future<Output = Result<u8>> + use<>> {
    let path = Query::new()
        .with("condition", condition)
        .on(&format!("/containers/{}/wait", Client::escape(id)));
    let response = client.request(Method::POST, &path, Body::Empty).await?;
    Ok(async move {
        let wait: Wait = response
            .json()
            .await
            .map_err(|error| Failure::new(format!("error waiting for container: {}", describe(&error))).code(125))?;
        if let Some(error) = wait.error.filter(|error| !error.message.is_empty()) {
            return Err(Failure::new(format!("error waiting for container: {}", error.message)).code(125));
        }
        // An exit code is a byte; what does not fit is the engine's way to say that there is none.
        Ok(u8::try_from(wait.status_code & 0xff).unwrap_or(125))
    })
}

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let detach = call.matches.switch("detach");
    let mut request = create::request(&mut call).map_err(|message| call.refused(&message))?;
    let config = &mut request.config;
    if detach {
        if call.matches.is_set("attach") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        config.attach_stdin = false;
        config.attach_stdout = false;
        config.attach_stderr = false;
        config.stdin_once = false;
    } else if config.attach_stdin && config.tty && !call.ui.stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    if config.tty
        && let (Some((rows, columns)), Some(host_config)) = (call.ui.terminal_size(), &mut request.host_config)
    {
        host_config.console_size = [rows.into(), columns.into()];
    }
    let (tty, stdin, attached) = (
        request.config.tty,
        request.config.attach_stdin,
        request.config.attach_stdin || request.config.attach_stdout || request.config.attach_stderr,
    );
    let auto_remove = call.matches.switch("rm");
    let mut cidfile = create::CidFile::prepare(&call).map_err(|message| call.refused(&message))?;
    let keys = detach_keys(&mut call);
    let id = match create::send(&mut call, &request).await {
        Ok(id) => id,
        Err(failure) => return Err(call.refused(&failure.message)),
    };
    cidfile.write(&id).map_err(|message| call.refused(&message))?;
    let path = format!("/containers/{id}");
    if !attached {
        if let Err(error) = call.client.post(&format!("{path}/start")).await {
            let message = describe(&error);
            return Err(call.refused(&message).code(start_code(&message)));
        }
        call.ui.line(&id);
        return Ok(0);
    }
    let mut signals = if call.matches.switch_or("sig-proxy", true) && !detach {
        Signals::catch()
    } else {
        Signals::default()
    };
    let query = Query::new()
        .text("detachKeys", &keys)
        .flag("stderr", request.config.attach_stderr)
        .flag("stdin", stdin)
        .flag("stdout", request.config.attach_stdout)
        .with("stream", "1");
    let refuse = |call: &Call<'_>, error: &ferry_client::Error| call.refused(&describe(error));
    let stream = match call
        .client
        .upgrade(&query.on(&format!("{path}/attach")), Body::Empty)
        .await
    {
        Ok(stream) => stream,
        Err(error) => return Err(refuse(&call, &error)),
    };
    let until = if auto_remove {
        condition::REMOVED
    } else {
        condition::NEXT_EXIT
    };
    let waiting = match wait_for(&call.client, &id, until).await {
        Ok(waiting) => waiting,
        Err(error) => return Err(refuse(&call, &error)),
    };
    let terminal = call.ui.stdin.filter(|_| stdin && tty && call.ui.stdin_is_terminal());
    let raw_mode = terminal.and_then(RawMode::enter);
    if let Err(error) = call.client.post(&format!("{path}/start")).await {
        drop(raw_mode);
        let message = describe(&error);
        if auto_remove {
            // The name is free again when the command ends.
            let _ = waiting.await;
        }
        return Err(call.refused(&message).code(start_code(&message)));
    }
    let typing = Typing::of(call.ui, stdin, tty, &keys);
    let client = call.client.clone();
    let screen = Screen::of(call.ui, &client, &path, tty);
    let mut control = std::pin::pin!(both(signals.forward(&client, &id), follow_size(screen)));
    match converse(call.ui, stream, tty, typing, control.as_mut()).await {
        Ok(End::Closed) => {}
        Ok(End::Detached) => return Ok(0),
        Err(failure) => return Err(failure),
    }
    drop(raw_mode);
    tokio::select! {
        code = waiting => code,
        never = control => match never {},
    }
}

/// Of the flag, else of the configuration file.
pub fn detach_keys(call: &mut Call<'_>) -> String {
    match call.matches.get("detach-keys") {
        Some(keys) => keys.to_owned(),
        None => call.config().detach_keys.clone(),
    }
}
