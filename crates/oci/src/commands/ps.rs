//! `ps`: the container's processes, as pids or through the host's own ps(1).

use std::process::Command;

use super::id;
use crate::command_line::{Context, print};
use crate::error::{During as _, Error, Result};
use crate::flags::Parsed;

pub(super) fn ps(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (_, record) = context.root.load(id(parsed))?;
    let pids = match record.cgroup()? {
        Some(cgroup) => cgroup.pids()?,
        None => Vec::new(),
    };
    match parsed.get("format").unwrap_or("table") {
        "json" => {
            let text = serde_json::to_string(&pids).map_err(|error| Error::Invalid(error.to_string()))?;
            print(&format!("{text}\n"));
            return Ok(0);
        }
        "table" => {}
        _ => return Err(Error::Invalid("invalid format option".to_owned())),
    }
    let given = parsed.positional.get(1..).unwrap_or_default();
    let options = if given.is_empty() { &["-ef".to_owned()] } else { given };
    // The host's program on the host's processes: nothing of the container is run.
    let output = Command::new("ps").args(options).output().during(|| "ps")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Invalid(format!("{}: {text}", output.status)));
    }
    print(&only(&String::from_utf8_lossy(&output.stdout), &pids)?);
    Ok(0)
}

/// The header and the lines about `pids`.
fn only(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::Invalid("couldn't find PID field in ps output".to_owned()))?;
    let mut text = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_container_s_lines_are_kept() {
        let table = "UID  PID PPID CMD\nroot 1 0 init 5\nroot 5 1 sleep 1\n";
        assert_eq!(
            super::only(table, &[5]).unwrap(),
            "UID  PID PPID CMD\nroot 5 1 sleep 1\n"
        );
        assert!(super::only("UID CMD\n", &[5]).is_err());
    }
}
