//! `--security-opt`.

use std::{fs, path::Path};

use super::Result;
use crate::failure::io_text;

#[derive(Debug, Default)]
pub struct Security {
    pub options: Vec<String>,
    /// `systempaths=unconfined`: nothing masked, nothing read-only.
    pub system_paths_unconfined: bool,
}

/// A seccomp profile is read here and sent as its JSON.
pub fn options(list: &[String], directory: &Path) -> Result<Security> {
    let mut security = Security::default();
    for option in list {
        let split = option.split_once('=').or_else(|| option.split_once(':'));
        let (key, value) = split.unwrap_or((option, ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {}", ferry_kit::gofmt::quote(option)));
        }
        if option == "systempaths=unconfined" {
            security.system_paths_unconfined = true;
            continue;
        }
        security.options.push(match (key, value) {
            ("seccomp", "unconfined" | "builtin") => option.clone(),
            ("seccomp", file) => {
                let text = fs::read(directory.join(file)).map_err(|error| {
                    format!(
                        "opening seccomp profile ({file}) failed: open {file}: {}",
                        io_text(&error)
                    )
                })?;
                let profile: serde_json::Value = serde_json::from_slice(&text)
                    .map_err(|error| format!("compacting json for seccomp profile ({file}) failed: {error}"))?;
                format!("seccomp={profile}")
            }
            _ => option.clone(),
        });
    }
    Ok(security)
}
