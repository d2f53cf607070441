//! Sets of patterns against what BuildKit sent of a directory (ignore/record.sh).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use ferry_dockerfile::Ignore;
use ferry_dockerfile::ignore::Matched;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ignore").join(name)).unwrap()
}

/// As one who reads directories: does not look into what can be skipped.
fn walk(ignore: &Ignore, paths: &[&str]) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    'paths: for path in paths {
        let mut above = Matched::default();
        let ends = path.match_indices('/').map(|(at, _)| at);
        for directory in ends.map(|end| &path[..end]) {
            let (ignored, matched) = ignore.look(directory, &above);
            if ignored && ignore.can_skip(directory) {
                continue 'paths;
            }
            above = matched;
        }
        if !ignore.look(path, &above).0 {
            sent.insert((*path).to_owned());
        }
    }
    sent
}

#[test]
fn what_is_sent_is_what_buildkit_sends() {
    let (paths, sets, sent) = (read("paths.txt"), read("sets.txt"), read("sent.txt"));
    let paths: Vec<&str> = paths.lines().collect();
    let sets: Vec<&str> = sets.split("\n\n").collect();
    let sent: Vec<&str> = sent.lines().collect();
    assert_eq!(sets.len(), sent.len());
    for (set, expected) in sets.iter().zip(sent) {
        let ignore = Ignore::parse(set.as_bytes()).unwrap();
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(walk(&ignore, &paths), expected, "{set}");
        let by_path = |path: &&&str| !ignore.ignores(path);
        let by_path: BTreeSet<String> = paths.iter().filter(by_path).map(|path| (*path).to_owned()).collect();
        assert_eq!(by_path, expected, "{set}");
    }
}
