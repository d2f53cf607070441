//! What dockerd answers to a build of its first builder that fails before it begins: statuses and words of 28.5.2.

use ferry_build::Error;
use ferry_build::Request as BuildRequest;
use ferry_build::request::Location;
use ferry_dockerfile::Problem;
use http::StatusCode;

use crate::failure::{Failure, Result};

/// What is wrong with a request before anything is read.
pub fn check(request: &BuildRequest) -> Result<()> {
    if let Location::Url(url) = &request.context
        && !ferry_dockerfile::instruction::is_git(url)
        && !ferry_dockerfile::instruction::is_http(url)
    {
        return Err(failed(format!("remoteURL ({url}) could not be recognized as URL")));
    }
    let name = &request.filename;
    match is_outside(name) {
        true => Err(failed(format!("forbidden path outside the build context: {name} ()"))),
        false => Ok(()),
    }
}

/// What became of a build whose Dockerfile was not read.
pub fn answer(error: Error, request: &BuildRequest) -> Failure {
    match (error, &request.context) {
        (Error::NoDockerfile(name), _) => failed(format!("Cannot locate specified Dockerfile: {name}")),
        (Error::Dockerfile(written), _) => {
            let name = &written.filename;
            let error = &written.error;
            Failure::invalid(match &error.problem {
                Problem::Empty => format!("the Dockerfile ({name}) cannot be empty"),
                Problem::NoStage | Problem::NoStages | Problem::Invalid(_) => error.to_string(),
                _ if error.instruction => error.to_string(),
                _ => format!("failed to parse Dockerfile: {error}"),
            })
        }
        (Error::NotFound(why), Location::Url(url)) => Failure::new(
            StatusCode::NOT_FOUND,
            format!("error downloading remote context {url}: {why}"),
        ),
        (error, Location::Url(url)) if !ferry_dockerfile::instruction::is_git(url) => {
            failed(format!("error downloading remote context {url}: {error}"))
        }
        (error, _) => failed(error.to_string()),
    }
}

fn failed(message: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// A relative path that leads out of where it begins.
fn is_outside(path: &str) -> bool {
    let mut depth = 0_usize;
    !path.starts_with('/')
        && path.split('/').any(|name| match name {
            "" | "." => false,
            ".." => {
                let is_out = depth == 0;
                depth = depth.saturating_sub(1);
                is_out
            }
            _ => {
                depth += 1;
                false
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_leads_out_is_outside() {
        for (path, outside) in [
            ("", false),
            ("Dockerfile", false),
            ("a/../Dockerfile", false),
            ("/../etc/passwd", false),
            ("..", true),
            ("../x", true),
            ("a/../../x", true),
            ("..x/..", false),
        ] {
            assert_eq!(is_outside(path), outside, "{path}");
        }
    }
}
