//! What a runtime says of a failure: the last entry of its log.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use ferry_runtime::{Failure, Kind};
use serde::Deserialize;

/// Of a log's end, as much as is read.
const MOST: u64 = 16 * 1024;

const REASONS: [(&str, &str); 4] = [
    ("No such file or directory", "no such file or directory"),
    ("Permission denied", "permission denied"),
    ("Exec format error", "exec format error"),
    ("Is a directory", "is a directory"),
];

/// An entry of a log with `--log-format json`.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error in the log, or its last line; empty if it says nothing.
pub(super) fn read(log: &Path) -> String {
    let end = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    end().map(|text| last(&text)).unwrap_or_default()
}

fn last(text: &str) -> String {
    // Some write an entry on several lines, and of a long log the first entry is not whole.
    let whole = match text.starts_with('{') {
        true => text,
        false => text.find("\n{").map_or("", |at| &text[at + 1..]),
    };
    let entries = serde_json::Deserializer::from_str(whole).into_iter::<Entry>();
    let entries: Vec<Entry> = entries.map_while(Result::ok).collect();
    let of_error = |entry: &&Entry| matches!(entry.level.as_str(), "error" | "fatal" | "panic");
    let error = entries.iter().rev().find(of_error).or(entries.last());
    let line = || text.lines().next_back().unwrap_or_default().trim().to_owned();
    error.map_or_else(line, |entry| entry.msg.clone())
}

/// In the words that clients of Docker know, who look for the kernel's reasons as Go writes them: crun writes them as C does.
pub(super) fn failure(what: &str, code: i32, said: String) -> Failure {
    let mut said = match said.as_str() {
        "" => format!("exit status {code}, and nothing in its log"),
        _ => REASONS.iter().fold(said, |said, (c, go)| said.replace(c, go)),
    };
    // As dockerd tells them apart (`setExitCodeFromError`), and crun's own word.
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let kind = if has(&["not found", "no such file or directory"]) {
        Kind::NotFound
    } else if has(&[
        "permission denied",
        "exec format error",
        "is a directory",
        "not executable",
    ]) {
        Kind::NotExecutable
    } else {
        Kind::Setup
    };
    if said.contains("not executable") {
        said.push_str(": permission denied");
    }
    Failure::new(kind, format!("OCI runtime {what} failed: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_reason() {
        let log = "{\"level\":\"warning\",\"msg\":\"a\"}\n{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": executable file not found in $PATH\",\
                   \"time\":\"t\"}\n{\"level\":\"debug\",\"msg\":\"b\"}\n";
        let failed = failure("create", 1, last(log));
        assert_eq!(failed.kind, Kind::NotFound);
        assert_eq!(
            failed.message,
            "OCI runtime create failed: exec: \"x\": executable file not found in $PATH"
        );
        assert_eq!(last("plain words\n"), "plain words");
        assert_eq!(last("{\"msg\":\"only\"}\n"), "only");
        assert_eq!(
            last("n\"}\n{\n \"msg\": \"of crun\",\n \"level\": \"error\"\n}\n"),
            "of crun"
        );
        let of_crun = failure(
            "create",
            1,
            "executable file `x` not found in $PATH: No such file or directory".into(),
        );
        assert!(
            of_crun.message.ends_with("$PATH: no such file or directory"),
            "{of_crun}"
        );
        let silent = failure("exec", 7, last(""));
        assert_eq!(silent.kind, Kind::Setup);
        assert!(silent.message.contains("exit status 7"), "{}", silent.message);
    }
}
