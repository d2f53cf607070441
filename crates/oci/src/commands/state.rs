//! `state`: what the specification says a container's state is.

use super::id;
use crate::command_line::{Context, print};
use crate::error::{Error, Result};
use crate::flags::Parsed;

pub(super) fn state(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (directory, record) = context.root.load(id(parsed))?;
    let status = record.status(&directory);
    let report = record.report(status, String::new());
    let text = serde_json::to_string_pretty(&report).map_err(|error| Error::Invalid(error.to_string()))?;
    print(&text);
    Ok(0)
}
