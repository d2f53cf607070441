use ferry_client::{Client, Query};

use crate::{
    commands::Call,
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "rm",
    aliases: "container rm, container remove, rm",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    arity: Arity::AtLeast(1),
    flags: "\
-f, --force | Force the removal of a running container (uses SIGKILL)
-l, --link | Remove the specified link
-v, --volumes | Remove anonymous volumes associated with the container",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let force = call.matches.switch("force");
    let query = Query::new()
        .flag("force", force)
        .flag("link", call.matches.switch("link"))
        .flag("v", call.matches.switch("volumes"));
    let mut failed = false;
    for name in call.matches.arguments.clone() {
        let name = name.trim_matches('/');
        if name.is_empty() {
            return Err(Failure::new("Container name cannot be empty"));
        }
        match call
            .client
            .delete(&query.clone().on(&format!("/containers/{}", Client::escape(name))))
            .await
        {
            Ok(_) => call.ui.line(name),
            Err(error) => {
                // What is gone is what was wanted.
                failed |= !(force && error.is_not_found());
                call.ui.error_line(&describe(&error));
            }
        }
    }
    Ok(failed.into())
}
