use ferry_client::{Body, Method, Query};
use serde::Deserialize;

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    reference,
};

pub const SPEC: Spec = Spec {
    name: "commit",
    aliases: "container commit, commit",
    synopsis: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    arity: Arity::Between(1, 2),
    flags: "\
-a, --author string | Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")
-c, --change list | Apply Dockerfile instruction to the created image
-m, --message string | Commit message
-p, --pause | Pause container during commit (default true)",
    ..Spec::EMPTY
};

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

pub async fn run(call: Call<'_>) -> Result<u8> {
    let mut query = Query::new()
        .text("author", call.matches.text("author"))
        .text("comment", call.matches.text("message"))
        .with("container", call.matches.arguments[0].as_str());
    for change in call.matches.list("change") {
        query = query.with("changes", change);
    }
    if !call.matches.switch_or("pause", true) {
        query = query.with("pause", "0");
    }
    if let Some(name) = call.matches.arguments.get(1).filter(|name| !name.is_empty()) {
        let reference = reference::parse(name).map_err(Failure::new)?;
        if reference.digest.is_some() {
            return Err(Failure::new("refusing to create a tag with a digest reference"));
        }
        query = query
            .with("repo", reference.familiar_name())
            .with("tag", reference.tag_or_latest());
    }
    let response = call
        .client
        .request(Method::POST, &query.on("/commit"), Body::Empty)
        .await?;
    let created: Created = response.json().await?;
    call.ui.line(&created.id);
    Ok(0)
}
