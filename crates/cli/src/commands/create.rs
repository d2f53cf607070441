use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use ferry_api::container::{Create, Created};
use ferry_client::Query;

use crate::{
    commands::{Call, platform_checked, pull, without_content_trust},
    failure::{Failure, Result, describe, io_text},
    flags::{Arity, Spec},
    options, progress, reference,
    ui::Channel,
};

pub const SPEC: Spec = Spec {
    name: "create",
    aliases: "container create, create",
    synopsis: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    short: "",
    arity: Arity::AtLeast(1),
    flags: concat!(
        options::container_flags!(),
        "\
--name string | Assign a name to the container
--platform string | Set platform if server is multi-platform capable
--pull string | Pull image before creating (\"always\", \"|missing\", \"never\") (default \"missing\")
-q, --quiet | Suppress the pull output
--disable-content-trust | Skip image verification (default true)
--use-api-socket | Bind mount Docker API socket and required auth
--help | Print usage"
    ),
    own: options::OWN,
    hidden: options::HIDDEN,
    deprecated: &[],
    stops_at_argument: true,
    check: options::check,
};

/// The request the flags describe; the error is what docker says about it.
pub fn request(call: &mut Call<'_>) -> Result<Create, String> {
    let pull = call.matches.get("pull").unwrap_or("missing");
    if !matches!(pull, "always" | "missing" | "never") {
        return Err(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        ));
    }
    without_content_trust(&call.matches)?;
    if call.matches.switch("use-api-socket") {
        let host = call.client.host().to_string();
        let socket = host.strip_prefix("unix://").unwrap_or("/run/ferry/ferry.sock");
        return Err(format!(
            "--use-api-socket is not supported: mount the socket with -v {socket}:/var/run/docker.sock"
        ));
    }
    let (image, command) = call.matches.arguments.split_first().ok_or("no image")?;
    let mut request = options::create(&call.matches, call.env, image, command)?;
    let host = call.client.host().to_string();
    let proxies = call.config().proxy_variables(&host);
    if !proxies.is_empty() {
        let variables = request.config.env.get_or_insert_default();
        let missing = proxies.into_iter().filter(|proxy| {
            let name = proxy.split('=').next().unwrap_or_default();
            !variables
                .iter()
                .any(|variable| variable.split('=').next() == Some(name))
        });
        let missing: Vec<String> = missing.collect();
        variables.extend(missing);
    }
    Ok(request)
}

/// Creates the container and gives its id; warnings go to stderr.
pub async fn send(call: &mut Call<'_>, request: &Create) -> Result<String> {
    let image = request.config.image.clone();
    // Images named by digest or id are the daemon's to find.
    let named = reference::parse(&image);
    if let Err(reason) = &named
        && !reason.contains("64-byte")
    {
        return Err(Failure::new(reason.clone()).code(125));
    }
    let named = named.ok();
    let platform = pull::platform(call);
    platform_checked(&platform, "error parsing specified platform")?;
    if call.matches.text("pull") == "always" {
        fetch(call, named.as_ref()).await?;
    }
    let path = Query::new()
        .text("name", call.matches.text("name"))
        .text("platform", &platform)
        .on("/containers/create");
    let created: Created = match call.client.post_json(&path, request).await {
        Ok(created) => created,
        Err(error) if error.is_not_found() && is_missing(call, &error) => {
            if !call.matches.switch("quiet") {
                let shown = named.as_ref().map_or(image, reference::Reference::familiar);
                call.ui.error_line(&format!("Unable to find image '{shown}' locally"));
            }
            fetch(call, named.as_ref()).await?;
            call.client.post_json(&path, request).await?
        }
        Err(error) => return Err(error.into()),
    };
    for warning in created.warnings.unwrap_or_default() {
        call.ui.error_line(&format!("WARNING: {warning}"));
    }
    Ok(created.id)
}

/// Whether the image is what is not there, and may be pulled.
fn is_missing(call: &Call<'_>, error: &ferry_client::Error) -> bool {
    let text = describe(error);
    // An image for another platform than the one that is wanted is as good as none.
    let missing = text.contains("No such image") || text.contains("does not provide the specified platform");
    call.matches.text("pull") != "never" && missing
}

/// What is seen of it goes to stderr: stdout is the container's.
async fn fetch(call: &mut Call<'_>, image: Option<&reference::Reference>) -> Result<()> {
    let Some(image) = image else { return Ok(()) };
    let platform = pull::platform(call);
    let lines = pull::request(call, image, false, &platform).await?;
    match call.matches.switch("quiet") {
        true => progress::hide(lines, |_| {}).await?,
        false => progress::show(call.ui, Channel::Stderr, lines).await?,
    };
    Ok(())
}

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let request = request(&mut call).map_err(|message| call.refused(&message))?;
    let mut cidfile = CidFile::prepare(&call).map_err(Failure::new)?;
    let id = match send(&mut call, &request).await {
        Ok(id) => id,
        Err(failure) if failure.code == 125 => return Err(call.refused(&failure.message)),
        Err(failure) => return Err(failure),
    };
    cidfile.write(&id).map_err(Failure::new)?;
    call.ui.line(&id);
    Ok(0)
}

/// `--cidfile`: opened before anything is created, removed again when nothing was.
#[derive(Debug, Default)]
pub struct CidFile {
    path: PathBuf,
    file: Option<fs::File>,
}

impl CidFile {
    pub fn prepare(call: &Call<'_>) -> Result<Self, String> {
        let name = call.matches.text("cidfile");
        if name.is_empty() {
            return Ok(Self::default());
        }
        let path = call.env.directory.join(name);
        if path.exists() {
            return Err(format!(
                "container ID file found, make sure the other container isn't running or delete {name}"
            ));
        }
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&path);
        let file = file.map_err(|error| {
            format!(
                "failed to create the container ID file: open {name}: {}",
                io_text(&error)
            )
        })?;
        Ok(Self { path, file: Some(file) })
    }

    pub fn write(&mut self, id: &str) -> Result<(), String> {
        match self.file.take() {
            Some(mut file) => file
                .write_all(id.as_bytes())
                .map_err(|error| format!("failed to write the container ID to the file: {}", io_text(&error))),
            None => Ok(()),
        }
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
