use ferry_client::{Client, Query};

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    reference,
};

pub const SPEC: Spec = Spec {
    name: "tag",
    aliases: "image tag, tag",
    synopsis: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    arity: Arity::Exactly(2),
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let [source, target] = [0, 1].map(|index| call.matches.arguments[index].as_str());
    let reference = reference::parse(target).map_err(|reason| {
        Failure::new(format!(
            "Error parsing reference: \"{target}\" is not a valid repository/tag: {reason}"
        ))
    })?;
    let path = Query::new()
        .with("repo", &reference.name)
        .with("tag", reference.tag_or_latest());
    call.client
        .post(&path.on(&format!("/images/{}/tag", Client::escape(source))))
        .await?;
    Ok(0)
}
