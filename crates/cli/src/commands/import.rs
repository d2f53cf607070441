use ferry_client::Method;
use ferry_client::{Body, Query};

use crate::{
    commands::Call,
    failure::{Failure, Result, io_text},
    flags::{Arity, Spec},
    progress, reference,
    session::Input,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "import",
    aliases: "image import, import",
    synopsis: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    arity: Arity::AtLeast(1),
    flags: "\
-c, --change list | Apply Dockerfile instruction to the created image
-m, --message string | Set commit message for imported image
--platform string | Set platform if server is multi-platform capable",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let source = &call.matches.arguments[0];
    let target = call.matches.arguments.get(1).map(String::as_str).unwrap_or_default();
    if !target.is_empty() {
        reference::parse(target).map_err(Failure::new)?;
    }
    let (from, body) = if source == "-" {
        (
            "-",
            call.ui.stdin.map_or(Body::Empty, |fd| Body::reader(Input::new(fd))),
        )
    } else if source.starts_with("http://") || source.starts_with("https://") {
        (source.as_str(), Body::Empty)
    } else {
        let opened = tokio::fs::File::open(call.env.directory.join(source)).await;
        let file = opened.map_err(|error| Failure::new(format!("open {source}: {}", io_text(&error))))?;
        ("-", Body::reader(file))
    };
    let mut query = Query::new()
        .with("fromSrc", from)
        .text("message", call.matches.text("message"))
        .text("platform", call.matches.text("platform"))
        .text("repo", target);
    for change in call.matches.list("change") {
        query = query.with("changes", change);
    }
    let response = call
        .client
        .request(Method::POST, &query.on("/images/create"), body)
        .await?;
    progress::show(call.ui, Channel::Stdout, response.lines()).await
}
