//! `list`: every container below the root.

use ferry_kit::table::TabWriter;

use crate::command_line::{Context, print};
use crate::error::{Error, Result};
use crate::flags::Parsed;

pub(super) fn list(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let ids = context.root.ids()?;
    if parsed.is_set("quiet") {
        print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
        return Ok(0);
    }
    let mut found = Vec::new();
    for id in ids {
        match context.root.load(&id) {
            Ok((directory, record)) => {
                let status = record.status(&directory);
                found.push((record, status));
            }
            // Removed meanwhile, or not yet complete.
            Err(Error::NotFound) => {}
            Err(error) => context.log.error(&format!("load container {id}: {}", error.text())),
        }
    }
    let reports: Vec<_> = found
        .iter()
        .map(|(record, status)| record.report(*status, user(record.owner)))
        .collect();
    match parsed.get("format").unwrap_or("table") {
        "json" => {
            let text = serde_json::to_string(&reports).map_err(|error| Error::Invalid(error.to_string()))?;
            // As Go prints a nil slice.
            print(&format!("{}\n", if reports.is_empty() { "null" } else { &text }));
        }
        "table" => {
            let mut table = TabWriter::new(12, 3);
            table.row(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
            for report in reports {
                let (pid, bundle) = (report.pid.to_string(), report.bundle.display().to_string());
                table.row([report.id, &pid, report.status, &bundle, report.created, &report.owner]);
            }
            print(&table.finish());
        }
        _ => return Err(Error::Invalid("invalid format option".to_owned())),
    }
    Ok(0)
}

/// The host's name for a user, or `#1000`.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
