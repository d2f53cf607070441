//! `--volume` and `--mount`.

use std::path::Path;

use ferry_api::volume::{BindOptions, Driver, ImageOptions, Mount, TmpfsOptions, VolumeOptions};
use ferry_kit::units;

use super::Result;

/// Splits `--volume` into what is bound and the paths that get an anonymous volume.
pub fn volumes(list: &[String], directory: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for spec in list {
        if spec.is_empty() {
            return Err("invalid empty volume spec".into());
        }
        // Docker takes a letter and a colon for a Windows drive, and what is this short for a target.
        if spec.chars().count() <= 2 {
            anonymous.push(spec.clone());
            continue;
        }
        let sections = sections(spec);
        if sections.iter().any(String::is_empty) {
            return Err(format!("invalid spec: {spec}: empty section between colons"));
        }
        if sections.len() > 3 {
            return Err(format!("invalid spec: {spec}: too many colons"));
        }
        match sections.split_first() {
            Some((source, rest)) if !rest.is_empty() => {
                let bind = format!("{}:{}", absolute(source, directory), rest.join(":"));
                if !binds.contains(&bind) {
                    binds.push(bind);
                }
            }
            _ => anonymous.push(spec.clone()),
        }
    }
    Ok((binds, anonymous))
}

fn sections(spec: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    for c in spec.chars() {
        let Some(section) = sections.last_mut() else { break };
        let drive = section.chars().count() == 1 && section.chars().all(char::is_alphabetic);
        if c == ':' && !drive {
            sections.push(String::new());
        } else {
            section.push(c);
        }
    }
    sections
}

/// A path that starts at `.` from the client's directory; everything else as it is.
fn absolute(source: &str, directory: &Path) -> String {
    if source != "." && !source.starts_with("./") {
        return source.to_owned();
    }
    let mut path = directory.to_path_buf();
    for part in source.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path.to_string_lossy().into_owned()
}

/// One line of comma-separated values, quoted as encoding/csv reads them.
pub fn fields(line: &str) -> Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = line.char_indices().map(|(index, c)| (index + 1, c)).peekable();
    while let Some((column, c)) = rest.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && rest.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => {
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("parse error on line 1, column 1: extraneous or missing \" in quoted-field".into());
    }
    Ok(fields)
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("invalid value for {key}: {value}")),
    }
}

/// `type=bind,source=/a,target=/b,readonly`.
pub fn parse(text: &str, directory: &Path) -> Result<Mount> {
    let text = text.trim();
    if text.is_empty() {
        return Err("EOF".into());
    }
    let mut mount = Mount {
        r#type: "volume".into(),
        ..Mount::default()
    };
    let mut bind: Option<BindOptions> = None;
    let mut volume: Option<VolumeOptions> = None;
    let mut tmpfs: Option<TmpfsOptions> = None;
    let mut image: Option<ImageOptions> = None;
    for field in fields(text)? {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        let switch = matches!(
            key.as_str(),
            "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src"
        );
        let Some(given) = value.or(switch.then_some("")) else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.as_str() {
            "type" => mount.r#type = given.to_lowercase(),
            "source" | "src" => mount.source = absolute(given, directory),
            "target" | "dst" | "destination" => mount.target = given.into(),
            "readonly" | "ro" => mount.read_only = boolean(&key, value)?,
            "consistency" => mount.consistency = given.to_lowercase(),
            "bind-propagation" => bind.get_or_insert_default().propagation = given.to_lowercase(),
            "bind-nonrecursive" => bind.get_or_insert_default().non_recursive = boolean(&key, value)?,
            "bind-create-src" => bind.get_or_insert_default().create_mountpoint = boolean(&key, value)?,
            "bind-recursive" => {
                let options = bind.get_or_insert_default();
                match given {
                    "enabled" => options.non_recursive = false,
                    "disabled" => options.non_recursive = true,
                    "writable" => options.read_only_non_recursive = true,
                    "readonly" => options.read_only_force_recursive = true,
                    other => {
                        return Err(format!(
                            "invalid value for {key}: {other} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                        ));
                    }
                }
            }
            "volume-subpath" => {
                let options = volume.get_or_insert_default();
                options.driver_config.get_or_insert_default();
                options.subpath = given.into();
            }
            "volume-nocopy" => volume.get_or_insert_default().no_copy = boolean(&key, value)?,
            "volume-label" => {
                let (name, label) = given.split_once('=').unwrap_or((given, ""));
                volume.get_or_insert_default().labels.insert(name.into(), label.into());
            }
            "volume-driver" => {
                volume
                    .get_or_insert_default()
                    .driver_config
                    .get_or_insert_with(Driver::default)
                    .name = given.into();
            }
            "volume-opt" => {
                let (name, option) = given.split_once('=').unwrap_or((given, ""));
                let driver = volume
                    .get_or_insert_default()
                    .driver_config
                    .get_or_insert_with(Driver::default);
                driver.options.insert(name.into(), option.into());
            }
            "image-subpath" => image.get_or_insert_default().subpath = given.into(),
            "tmpfs-size" => {
                let invalid = |_| format!("invalid value for {key}: {given}");
                tmpfs.get_or_insert_default().size_bytes = units::ram_in_bytes(given).map_err(invalid)?;
            }
            "tmpfs-mode" => {
                let invalid = |_| format!("invalid value for {key}: {given}");
                tmpfs.get_or_insert_default().mode = u32::from_str_radix(given, 8).map_err(invalid)?;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.r#type.is_empty() {
        return Err("type is required".into());
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    let kind = mount.r#type.as_str();
    for (present, prefix, belongs) in [
        (bind.is_some(), "bind", "bind"),
        (volume.is_some(), "volume", "volume"),
        (image.is_some(), "image", "image"),
        (tmpfs.is_some(), "tmpfs", "tmpfs"),
    ] {
        if present && kind != belongs {
            return Err(format!("cannot mix '{prefix}-*' options with mount type '{kind}'"));
        }
    }
    if bind.as_ref().is_some_and(|bind| bind.read_only_force_recursive) && !mount.read_only {
        return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".into());
    }
    if bind.as_ref().is_some_and(|bind| bind.read_only_non_recursive) && !mount.read_only {
        return Err("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".into());
    }
    mount.bind_options = bind;
    mount.volume_options = volume;
    mount.image_options = image;
    mount.tmpfs_options = tmpfs;
    Ok(mount)
}
