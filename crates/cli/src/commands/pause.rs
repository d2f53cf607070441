use ferry_client::Client;

use crate::{
    commands::{Call, each},
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "pause",
    aliases: "container pause, pause",
    synopsis: "CONTAINER [CONTAINER...]",
    about: "Pause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    ..Spec::EMPTY
};

pub const UNPAUSE: Spec = Spec {
    name: "unpause",
    aliases: "container unpause, unpause",
    synopsis: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    arity: Arity::AtLeast(1),
    ..Spec::EMPTY
};

/// `verb` is `pause` or `unpause`.
pub async fn run(mut call: Call<'_>, verb: &str) -> Result<u8> {
    each(&mut call, async |client, name| {
        client
            .post(&format!("/containers/{}/{verb}", Client::escape(name)))
            .await
            .map(|_| ())
    })
    .await
}
