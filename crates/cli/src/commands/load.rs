use ferry_client::Method;
use ferry_client::{Body, Query};

use crate::{
    commands::{Call, platform_checked, platform_json},
    failure::{Failure, Result, io_text},
    flags::{Arity, Spec},
    progress,
    session::Input,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "load",
    aliases: "image load, load",
    synopsis: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    arity: Arity::None,
    flags: "\
-i, --input string | Read from tar archive file, instead of STDIN
--platform string | Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")
-q, --quiet | Suppress the load output",
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let file = call.matches.text("input");
    let body = if file.is_empty() {
        if call.ui.stdin_is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        call.ui.stdin.map_or(Body::Empty, |fd| Body::reader(Input::new(fd)))
    } else {
        let path = call.env.directory.join(file);
        let opened = tokio::fs::File::open(path).await;
        Body::reader(opened.map_err(|error| Failure::new(format!("open {file}: {}", io_text(&error))))?)
    };
    // Progress is for people: a terminal gets it, a file does not.
    let quiet = call.matches.switch("quiet") || !call.ui.stdout_is_terminal();
    let mut query = Query::new().with("quiet", if quiet { "1" } else { "0" });
    for platform in call.matches.list("platform") {
        query = query.with(
            "platform",
            platform_json(platform_checked(&platform, "invalid platform")?),
        );
    }
    let response = call
        .client
        .request(Method::POST, &query.on("/images/load"), body)
        .await?;
    if response.header("content-type").starts_with("application/json") {
        return progress::show(call.ui, Channel::Stdout, response.lines()).await;
    }
    let text = response.bytes().await?;
    call.ui.print(&String::from_utf8_lossy(&text));
    Ok(0)
}
