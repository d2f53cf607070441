//! `pause` and `resume`.

use ferry_cgroup::Cgroup;

use super::id;
use crate::command_line::Context;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::state::Status;

pub(super) fn pause(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let cgroup = find(
        context,
        parsed,
        &[Status::Running, Status::Created],
        "container not running",
    )?;
    cgroup.freeze()?;
    Ok(0)
}

pub(super) fn resume(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let cgroup = find(context, parsed, &[Status::Paused], "container not paused")?;
    cgroup.thaw()?;
    Ok(0)
}

fn find(context: &Context<'_>, parsed: &Parsed, wanted: &[Status], otherwise: &str) -> Result<Cgroup> {
    let (directory, record) = context.root.load(id(parsed))?;
    if !wanted.contains(&record.status(&directory)) {
        return Err(Error::State(otherwise.to_owned()));
    }
    record
        .cgroup()?
        .ok_or_else(|| Error::State("the container has no control group".to_owned()))
}
