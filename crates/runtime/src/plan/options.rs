//! Mount options as OCI configurations and `mount(8)` write them.

use ferry_sys::mount::{
    ATIME, Attributes, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, PRIVATE, RDONLY, RELATIME, SHARED,
    SLAVE, STRICTATIME, UNBINDABLE,
};

/// What a mount's options amount to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mode {
    pub attributes: Attributes,
    pub propagation: u64,
    /// Without an `r` before it: of the mount itself only.
    pub propagation_top: bool,
    /// Some attribute was named, be it one that is so anyway.
    pub names_attributes: bool,
    /// `bind` or `rbind`.
    pub bind: bool,
    pub recursive: bool,
    pub copy_up: bool,
    /// What the recursive forms (`rro`, …) say.
    pub below: Attributes,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// What is left for the file system itself, `key=value` split.
    pub data: Vec<(String, String)>,
}

/// Reads the options of one mount; a later option wins over an earlier one.
pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Mode {
    let mut mode = Mode::default();
    for option in options {
        if !mode.flag(option) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            mode.data.push((key.to_owned(), value.to_owned()));
        }
    }
    mode
}

impl Mode {
    fn flag(&mut self, option: &str) -> bool {
        if let Some(name) = option.strip_prefix('r')
            && attribute(name, &mut self.below)
        {
            self.below.recursive = true;
            return true;
        }
        // What is so by default; against what a source has it has never had an effect (mount(8)).
        if matches!(option, "atime" | "norelatime" | "nostrictatime" | "diratime") {
            self.names_attributes = true;
            return true;
        }
        if attribute(option, &mut self.attributes) {
            self.names_attributes = true;
            return true;
        }
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "private" | "slave" | "shared" | "unbindable" | "rprivate" | "rslave" | "rshared" | "runbindable" => {
                self.propagation = match option.trim_start_matches('r') {
                    "private" => PRIVATE,
                    "slave" => SLAVE,
                    "shared" => SHARED,
                    _ => UNBINDABLE,
                };
                self.propagation_top = !option.starts_with('r');
            }
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            // Of the file system, not of the mount.
            "sync" | "dirsync" | "lazytime" | "mand" => self.data.push((option.to_owned(), String::new())),
            "defaults" | "async" | "nolazytime" | "nomand" | "remount" | "loud" | "silent" | "iversion"
            | "noiversion" => {}
            _ => return false,
        }
        true
    }
}

/// Applies an option that is an attribute of a mount.
fn attribute(option: &str, attributes: &mut Attributes) -> bool {
    let (flag, on) = match option {
        "ro" => (RDONLY, true),
        "rw" => (RDONLY, false),
        "nosuid" => (NOSUID, true),
        "suid" => (NOSUID, false),
        "nodev" => (NODEV, true),
        "dev" => (NODEV, false),
        "noexec" => (NOEXEC, true),
        "exec" => (NOEXEC, false),
        "nosymfollow" => (NOSYMFOLLOW, true),
        "symfollow" => (NOSYMFOLLOW, false),
        "nodiratime" => (NODIRATIME, true),
        "diratime" => (NODIRATIME, false),
        // One setting of three values, which mount_setattr(2) wants cleared before it is set.
        "noatime" | "strictatime" | "relatime" | "norelatime" | "atime" | "nostrictatime" => {
            let value = match option {
                "noatime" => NOATIME,
                "strictatime" => STRICTATIME,
                _ => RELATIME,
            };
            attributes.set = attributes.set & !ATIME | value;
            attributes.clear |= ATIME;
            return true;
        }
        _ => return false,
    };
    if on {
        attributes.set |= flag;
        attributes.clear &= !flag;
    } else {
        attributes.clear |= flag;
        attributes.set &= !flag;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win_and_data_is_kept() {
        let mode = parse([
            "nosuid",
            "ro",
            "rw",
            "mode=755",
            "size=64k",
            "strictatime",
            "newinstance",
        ]);
        assert_eq!(mode.attributes.set, NOSUID | STRICTATIME);
        assert_eq!(mode.attributes.clear, RDONLY | ATIME);
        let data: Vec<_> = mode
            .data
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(data, [("mode", "755"), ("size", "64k"), ("newinstance", "")]);
    }

    #[test]
    fn the_default_access_times_are_named_without_effect() {
        let mode = parse(["bind", "norelatime"]);
        assert!(mode.names_attributes && mode.attributes == Attributes::default());
        assert!(!parse(["bind", "rprivate"]).names_attributes);
        assert!(parse(["private"]).propagation_top && !parse(["rprivate"]).propagation_top);
    }

    #[test]
    fn recursive_forms_reach_below() {
        let mode = parse(["rbind", "rro", "rslave"]);
        assert!(mode.bind && mode.recursive && mode.below.recursive);
        assert_eq!(
            (mode.attributes.set, mode.below.set, mode.propagation),
            (0, RDONLY, SLAVE)
        );
        let mode = parse(["rbind", "ro", "rnosuid", "rrw", "rrelatime"]);
        assert_eq!((mode.attributes.set, mode.below.set), (RDONLY, NOSUID));
        assert_eq!(mode.below.clear, RDONLY | ATIME);
        assert!(mode.data.is_empty());
    }
}
