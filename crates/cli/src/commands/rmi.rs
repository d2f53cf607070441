use ferry_api::image::Deleted;
use ferry_client::{Client, Query};

use crate::{
    commands::{Call, platform_checked, platform_json},
    failure::{Result, describe},
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "rmi",
    aliases: "image rm, image remove, rmi",
    synopsis: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    arity: Arity::AtLeast(1),
    flags: "\
-f, --force | Force removal of the image
--no-prune | Do not delete untagged parents
--platform strings | Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let force = call.matches.switch("force");
    let mut query = Query::new()
        .flag("force", force)
        .flag("noprune", call.matches.switch("no-prune"));
    for platform in call.matches.list("platform").iter().flat_map(|list| list.split(',')) {
        query = query.with("platforms", platform_json(platform_checked(platform, "")?));
    }
    let mut failed = false;
    for name in call.matches.arguments.clone() {
        let path = query.clone().on(&format!("/images/{}", Client::escape(&name)));
        let removed = match call.client.delete(&path).await {
            Ok(response) => response.json::<Vec<Deleted>>().await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(removed) => {
                for entry in removed {
                    let line = if entry.deleted.is_empty() {
                        format!("Untagged: {}", entry.untagged)
                    } else {
                        format!("Deleted: {}", entry.deleted)
                    };
                    call.ui.line(&line);
                }
            }
            Err(error) => {
                failed |= !(force && error.is_not_found());
                call.ui.error_line(&describe(&error));
            }
        }
    }
    Ok(failed.into())
}
