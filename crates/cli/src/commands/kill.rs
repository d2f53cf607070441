use ferry_client::{Client, Query};

use crate::{
    commands::{Call, each},
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "kill",
    aliases: "container kill, kill",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    arity: Arity::AtLeast(1),
    flags: "\
-s, --signal string | Signal to send to the container",
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let query = Query::new().text("signal", call.matches.text("signal"));
    each(&mut call, async |client, name| {
        client
            .post(&query.clone().on(&format!("/containers/{}/kill", Client::escape(name))))
            .await
            .map(|_| ())
    })
    .await
}
