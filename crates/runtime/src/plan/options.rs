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
    /// `bind` or `rbind`.
    pub bind: bool,
    pub recursive: bool,
    pub copy_up: bool,
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
        // The recursive forms (`rro`, `rnosuid`, …) change every mount below too.
        let (name, recursive) = match option.strip_prefix('r') {
            Some(name)
                if matches!(
                    name,
                    "ro" | "rw" | "nosuid" | "suid" | "nodev" | "dev" | "noexec" | "exec"
                ) =>
            {
                (name, true)
            }
            _ => (option, false),
        };
        match name {
            "ro" => self.set(RDONLY),
            "rw" => self.clear(RDONLY),
            "nosuid" => self.set(NOSUID),
            "suid" => self.clear(NOSUID),
            "nodev" => self.set(NODEV),
            "dev" => self.clear(NODEV),
            "noexec" => self.set(NOEXEC),
            "exec" => self.clear(NOEXEC),
            "nosymfollow" => self.set(NOSYMFOLLOW),
            "symfollow" => self.clear(NOSYMFOLLOW),
            "nodiratime" => self.set(NODIRATIME),
            "diratime" => self.clear(NODIRATIME),
            "noatime" => self.atime(NOATIME),
            "strictatime" => self.atime(STRICTATIME),
            "relatime" | "norelatime" | "atime" | "nostrictatime" => self.atime(RELATIME),
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "private" | "rprivate" => self.propagation = PRIVATE,
            "slave" | "rslave" => self.propagation = SLAVE,
            "shared" | "rshared" => self.propagation = SHARED,
            "unbindable" | "runbindable" => self.propagation = UNBINDABLE,
            "tmpcopyup" => self.copy_up = true,
            "defaults" | "async" | "sync" | "nomand" | "mand" | "remount" => {}
            _ => return false,
        }
        self.attributes.recursive |= recursive;
        true
    }

    fn set(&mut self, flag: u64) {
        self.attributes.set |= flag;
        self.attributes.clear &= !flag;
    }

    fn clear(&mut self, flag: u64) {
        self.attributes.clear |= flag;
        self.attributes.set &= !flag;
    }

    fn atime(&mut self, flag: u64) {
        self.attributes.set = self.attributes.set & !ATIME | flag;
        self.attributes.clear |= ATIME;
    }
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
    fn recursive_forms_reach_below() {
        let mode = parse(["rbind", "rro", "rslave"]);
        assert!(mode.bind && mode.recursive && mode.attributes.recursive);
        assert_eq!((mode.attributes.set, mode.propagation), (RDONLY, SLAVE));
        assert!(!parse(["rbind", "ro"]).attributes.recursive);
    }
}
