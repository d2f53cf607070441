//! `spec`: a configuration to begin with: runc's own, with what Docker hides besides (`/proc/interrupts`, powercap:
//! CVE-2018-10892 and its kin).

use std::io::Write as _;

use serde_json::{Value, json};

use crate::command_line::Context;
use crate::error::{During as _, Error, Result};
use crate::flags::Parsed;

const DEFAULT: &str = include_str!("spec/default.json");

pub(super) fn spec(_: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    if let Some(bundle) = parsed.get("bundle").filter(|bundle| !bundle.is_empty()) {
        rustix::process::chdir(bundle).during(|| format!("chdir {bundle}"))?;
    }
    let text = if parsed.is_set("rootless") {
        rootless()?
    } else {
        DEFAULT.to_owned()
    };
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).open("config.json") {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::Invalid("File config.json exists. Remove it first".to_owned()))
        }
        done => {
            let mut file = done.during(|| "open config.json")?;
            file.write_all(text.trim_end().as_bytes())
                .during(|| "write config.json")?;
            Ok(0)
        }
    }
}

/// What a user without privileges can run: a user namespace with himself as root, and nothing that needs the host's.
fn rootless() -> Result<String> {
    let invalid = |error: serde_json::Error| Error::Invalid(error.to_string());
    let mut spec: Value = serde_json::from_str(DEFAULT).map_err(invalid)?;
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.shift_remove("resources");
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys");
        for mount in mounts.iter_mut() {
            if let Some(options) = mount["options"].as_array_mut() {
                let owner = |option: &Value| {
                    option
                        .as_str()
                        .is_some_and(|text| text.starts_with("gid=") || text.starts_with("uid="))
                };
                options.retain(|option| !owner(option));
            }
        }
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        let sys = json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
        let before = mounts.iter().position(|mount| mount["destination"] == "/sys/fs/cgroup");
        mounts.insert(before.unwrap_or(mounts.len()), sys);
    }
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    serde::Serialize::serialize(&spec, &mut serializer).map_err(invalid)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Host, of};

    #[test]
    fn both_can_be_run() {
        for text in [DEFAULT.to_owned(), rootless().unwrap()] {
            let config = crate::config::parse(text.as_bytes()).unwrap();
            of(&config, std::path::Path::new("/b"), Host::default(), &mut Vec::new()).unwrap();
        }
    }
}
