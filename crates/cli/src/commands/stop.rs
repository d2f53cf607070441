use ferry_client::{Client, Query};

use crate::{
    commands::{Call, each},
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "stop",
    aliases: "container stop, stop",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    arity: Arity::AtLeast(1),
    flags: "\
-s, --signal string | Signal to send to the container
-t, --timeout int | Seconds to wait before killing the container",
    hidden: &[("time", "timeout")],
    deprecated: &["time"],
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    end(call, "stop").await
}

/// `stop` or `restart`, which are asked for in the same way.
pub async fn end(mut call: Call<'_>, action: &str) -> Result<u8> {
    let timeout = call
        .matches
        .int("timeout")
        .map(|seconds| seconds.to_string())
        .unwrap_or_default();
    let query = Query::new()
        .text("signal", call.matches.text("signal"))
        .text("t", &timeout);
    each(&mut call, async |client, name| {
        let path = format!("/containers/{}/{action}", Client::escape(name));
        client.post(&query.clone().on(&path)).await.map(|_| ())
    })
    .await
}
