use ferry_api::container::Inspect;
use ferry_client::{Client, Query};

use ferry_kit::moment;

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    session::Demultiplexer,
};

pub const SPEC: Spec = Spec {
    name: "logs",
    aliases: "container logs, logs",
    synopsis: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    arity: Arity::Exactly(1),
    flags:
        "\
--details | Show extra details provided to logs
-f, --follow | Follow log output
--since string | Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)
-n, --tail string | Number of lines to show from the end of the logs (default \"all\")
-t, --timestamps | Show timestamps
--until string | Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let time = |name: &str| match call.matches.text(name) {
        "" => Ok(String::new()),
        text => moment::parse(text).ok_or_else(|| {
            let text = ferry_kit::gofmt::quote(text);
            Failure::new(format!(
                "invalid value for \"{name}\": failed to parse value as time or duration: {text}"
            ))
        }),
    };
    let path = format!("/containers/{}", Client::escape(&call.matches.arguments[0]));
    let query = Query::new()
        .flag("details", call.matches.switch("details"))
        .flag("follow", call.matches.switch("follow"))
        .text("since", &time("since")?)
        .with("stderr", "1")
        .with("stdout", "1")
        .with("tail", call.matches.get("tail").unwrap_or("all"))
        .flag("timestamps", call.matches.switch("timestamps"))
        .text("until", &time("until")?);
    let mut response = call.client.get(&query.on(&format!("{path}/logs"))).await?;
    let raw = match response.header("content-type") {
        "application/vnd.docker.raw-stream" => true,
        "application/vnd.docker.multiplexed-stream" => false,
        // A daemon from before API 1.42 leaves it to the container's configuration.
        _ => {
            let inspect: Inspect = call.client.get_json(&format!("{path}/json")).await?;
            inspect.config.unwrap_or_default().tty
        }
    };
    let mut demultiplexer = Demultiplexer::new(raw);
    while let Some(chunk) = response.chunk().await? {
        demultiplexer.write(call.ui, &chunk).await?;
    }
    Ok(0)
}
