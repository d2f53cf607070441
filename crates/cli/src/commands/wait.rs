use ferry_api::container::Wait;
use ferry_client::Method;
use ferry_client::{Body, Client};

use crate::{
    commands::Call,
    failure::{Result, describe},
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "wait",
    aliases: "container wait, wait",
    synopsis: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    arity: Arity::AtLeast(1),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let mut failed = false;
    for name in call.matches.arguments.clone() {
        let path = format!("/containers/{}/wait", Client::escape(&name));
        let waited = match call.client.request(Method::POST, &path, Body::Empty).await {
            Ok(response) => response.json::<Wait>().await,
            Err(error) => Err(error),
        };
        match waited {
            Ok(wait) => call.ui.line(&wait.status_code.to_string()),
            Err(error) => {
                failed = true;
                call.ui.error_line(&describe(&error));
            }
        }
    }
    Ok(failed.into())
}
