use ferry_client::{Client, Query};

use crate::{
    commands::Call,
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "rename",
    aliases: "container rename, rename",
    synopsis: "CONTAINER NEW_NAME",
    about: "Rename a container",
    arity: Arity::Exactly(2),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let [old, new] = [0, 1].map(|index| call.matches.arguments[index].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    let path = Query::new()
        .with("name", new)
        .on(&format!("/containers/{}/rename", Client::escape(old)));
    if let Err(error) = call.client.post(&path).await {
        call.ui.error_line(&describe(&error));
        return Err(Failure::new(format!("Error: failed to rename container named {old}")));
    }
    Ok(0)
}
