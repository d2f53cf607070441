use ferry_api::container::Change;
use ferry_client::Client;

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "diff",
    aliases: "container diff, diff",
    synopsis: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    arity: Arity::Exactly(1),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let name = Client::escape(&call.matches.arguments[0]);
    let changes: Option<Vec<Change>> = call.client.get_json(&format!("/containers/{name}/changes")).await?;
    for change in changes.unwrap_or_default() {
        call.ui.line(&format!("{} {}", change.kind.letter(), change.path));
    }
    Ok(0)
}
