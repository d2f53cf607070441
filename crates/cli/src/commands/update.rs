use ferry_api::container::Updated;
use ferry_client::Client;

use crate::{
    commands::Call,
    failure::{Failure, Result, describe},
    flags::{Arity, Spec},
    options,
};

pub const SPEC: Spec = Spec {
    name: "update",
    aliases: "container update, update",
    synopsis: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    arity: Arity::AtLeast(1),
    flags: "\
--blkio-weight uint16 | Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
--cpu-period int | Limit CPU CFS (Completely Fair Scheduler) period
--cpu-quota int | Limit CPU CFS (Completely Fair Scheduler) quota
--cpu-rt-period int | Limit the CPU real-time period in microseconds
--cpu-rt-runtime int | Limit the CPU real-time runtime in microseconds
-c, --cpu-shares int | CPU shares (relative weight)
--cpus decimal | Number of CPUs
--cpuset-cpus string | CPUs in which to allow execution (0-3, 0,1)
--cpuset-mems string | MEMs in which to allow execution (0-3, 0,1)
-m, --memory bytes | Memory limit
--memory-reservation bytes | Memory soft limit
--memory-swap bytes | Swap limit equal to memory plus swap: -1 to enable unlimited swap
--pids-limit int | Tune container pids limit (set -1 for unlimited)
--restart string | Restart policy to apply when a container exits",
    own: "\
--net-burst bytes | Bytes that the container may receive or send at once after a pause
--net-rate rate | Limit what the container receives and what it sends, each (10mbit; 0 for no limit)
--net-rate-in rate | Limit what the container receives
--net-rate-out rate | Limit what the container sends
--publish-add list | Publish another port of the container (as --publish of run)
--publish-rm list | Publish a port no more ([ADDRESS:]HOST:CONTAINER, or CONTAINER for all its host ports)",
    check: options::check,
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let body = options::update(&call.matches).map_err(Failure::new)?;
    let mut failed = false;
    let mut warnings = Vec::new();
    for name in call.matches.arguments.clone() {
        let path = format!("/containers/{}/update", Client::escape(&name));
        match call.client.post_json::<Updated>(&path, &body).await {
            Ok(updated) => {
                call.ui.line(&name);
                warnings.extend(updated.warnings.unwrap_or_default());
            }
            Err(error) => {
                failed = true;
                call.ui.error_line(&describe(&error));
            }
        }
    }
    if !warnings.is_empty() {
        call.ui.line(&warnings.join("\n"));
    }
    Ok(failed.into())
}
