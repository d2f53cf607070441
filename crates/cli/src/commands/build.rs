//! `build`: an image from a Dockerfile. The engine reads the directories itself where it can; else they are sent.

mod agent;
mod converse;
mod layouts;
mod live;
mod outputs;
mod plain;
mod request;
mod show;

use std::ffi::OsString;
use std::io::Write as _;

use ferry_build::wire::{Failure as Why, FromClient};
use ferry_client::Client;

use crate::{
    commands::{Call, run as run_command},
    failure::{Failure, Result, io_text},
    flags::{Arity, Matches, Spec},
    ui::Channel,
};
use request::Wanted;
use show::Show;

pub const SPEC: Spec = Spec {
    name: "build",
    aliases: "build, image build, builder build, buildx build",
    synopsis: "[OPTIONS] PATH | URL | -",
    about: "Start a build",
    arity: Arity::Exactly(1),
    flags: "\
--add-host strings | Add a custom host-to-IP mapping (format: \"host:ip\")
--allow stringArray | Allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\", \"device\")
--annotation stringArray | Add annotation to the image
--attest stringArray | Attestation parameters (format: \"type=sbom,generator=image\")
--build-arg stringArray | Set build-time variables
--build-context stringArray | Additional build contexts (e.g., name=path)
--builder string | Override the configured builder instance
--cache-from stringArray | External cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\")
--cache-to stringArray | Cache export destinations (e.g., \"user/app:cache\", \"type=local,dest=path/to/dir\")
--call string | Set method for evaluating build (\"check\", \"outline\", \"targets\") (default \"build\")
--cgroup-parent string | Set the parent cgroup for the \"RUN\" instructions during build
--check | Shorthand for \"--call=check\"
--debug-on-error | Open a shell in the files of a step that failed
--explain | Tell for each step that is not cached what changed
-f, --file string | Name of the Dockerfile (default: \"PATH/Dockerfile\")
--iidfile string | Write the image ID to a file
--label stringArray | Set metadata for an image
--load | Shorthand for \"--output=type=docker\"
--metadata-file string | Write build result metadata to a file
--network string | Set the networking mode for the \"RUN\" instructions during build (default \"default\")
--no-cache | Do not use cache when building the image
--no-cache-filter stringArray | Do not cache specified stages
-o, --output stringArray | Output destination (format: \"type=local,dest=path\")
--platform stringArray | Set target platform for build
--progress string | Set type of progress output (\"auto\", \"none\",  \"plain\", \"quiet\", \"rawjson\", \"tty\"). Use plain to show container output (default \"auto\")
--provenance string | Shorthand for \"--attest=type=provenance\"
--pull | Always attempt to pull all referenced images
--push | Shorthand for \"--output=type=registry,unpack=false\"
-q, --quiet | Suppress the build output and print image ID on success
--sbom string | Shorthand for \"--attest=type=sbom\"
--secret stringArray | Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")
--shm-size bytes | Shared memory size for build containers
--ssh stringArray | SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")
-t, --tag stringArray | Image identifier (format: \"[registry/]repository[:tag]\")
--target string | Set the target build stage to build
--ulimit ulimit | Ulimit options (default [])",
    ..Spec::EMPTY
};

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let wanted = Wanted::read(&mut call)?;
    let mut show = Show::new(&call, &wanted)?;
    let mut talk = converse::begin(&call, &wanted).await?;
    let first = FromClient::Build {
        request: Box::new(wanted.request.clone()),
        outputs: wanted.outputs.iter().map(|output| output.output.clone()).collect(),
        caches: wanted.caches.to.clone(),
        directories: wanted
            .directories
            .iter()
            .map(|directory| directory.name.clone())
            .collect(),
    };
    let outcome = talk.run(&mut call, &wanted, first, &mut show).await?;
    show.end(call.ui);
    let (told, answers) = match outcome {
        Ok(done) => done,
        Err(failure) => return failed(call, show, failure).await,
    };
    if wanted.request.call.is_some() {
        return Ok(called(&mut call, &answers));
    }
    let id = told.get("containerimage.config.digest").cloned().unwrap_or_default();
    if let Some(path) = call.matches.get("iidfile") {
        write(&call, path, id.as_bytes())?;
    }
    if let Some(path) = call.matches.get("metadata-file") {
        let text = serde_json::to_string_pretty(&told).unwrap_or_default();
        write(&call, path, text.as_bytes())?;
    }
    if show.is_quiet() && !id.is_empty() {
        call.ui.line(&id);
    }
    Ok(0)
}

/// Shows why a build failed; opens a shell in what is left of it, if that was asked for.
async fn failed(call: Call<'_>, mut show: Show, why: Why) -> Result<u8> {
    let image = why.image.clone();
    let failure = show.explain(call.ui, why);
    let Some(image) = image else { return Err(failure) };
    call.ui.error_line(&failure.message);
    call.ui.error_line(
        "The step's files, as it left them; mounts of the instruction are not there. Leave the shell to end the build.",
    );
    let terminal = call.ui.stdin.is_some_and(rustix::termios::isatty) && call.ui.is_terminal(Channel::Stdout);
    let words = ["--rm", if terminal { "-it" } else { "-i" }, &image].map(OsString::from);
    let shell = match Matches::parse(&run_command::SPEC, &words) {
        Ok(matches) => {
            let shell = Call {
                ui: &mut *call.ui,
                client: call.client.clone(),
                matches,
                path: "run".to_owned(),
                ..call
            };
            run_command::run(shell).await
        }
        Err(_) => Ok(0),
    };
    let path = format!("/images/{}", Client::escape(&image));
    call.client.delete(&path).await?;
    if let Err(why) = shell {
        call.ui.error_line(&why.message);
    }
    Err(Failure {
        message: String::new(),
        ..failure
    })
}

fn write(call: &Call<'_>, path: &str, bytes: &[u8]) -> Result<()> {
    let written = std::fs::File::create(call.env.directory.join(path)).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Failure::new(format!("write {path}: {}", io_text(&error))))
}

/// What was asked of the Dockerfile, as text or as JSON.
fn called(call: &mut Call<'_>, answers: &std::collections::BTreeMap<String, String>) -> u8 {
    let is_json = call.matches.text("call").contains("format=json");
    let text = |name: &str| answers.get(name).map(String::as_str).unwrap_or_default();
    let status = text("result.statuscode").parse().unwrap_or(0);
    let is_check = call.matches.switch("check") || call.matches.text("call").starts_with("check");
    match (is_json, is_check, text("result.txt")) {
        (true, _, _) => call.ui.line(text("result.json")),
        (false, true, "") => call.ui.line("Check complete, no warnings found."),
        (false, true, found) => {
            let count = found.matches("\nWARNING: ").count();
            let plural = if count == 1 { "warning has" } else { "warnings have" };
            call.ui.line(&format!("Check complete, {count} {plural} been found!"));
            call.ui.print(found);
        }
        (false, false, found) => call.ui.print(found),
    }
    status
}
