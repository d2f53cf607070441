//! What was probably meant: commands, flags and names that are nearly what was typed. Only on a terminal, below docker's words:
//! what a script reads is docker's, byte for byte.

use ferry_client::Client;

use crate::completion::names::{self, Kind};

/// Longer words are compared with nothing.
const LONGEST: usize = 128;
/// Sentences of the engine's that name what is not there: what stands before the name, what behind, and what it is.
const SENTENCES: [(&str, &str, Kind); 5] = [
    ("No such container: ", "", Kind::Container),
    ("No such image: ", "", Kind::Image),
    ("No such object: ", "", Kind::Any),
    ("daemon: network ", " not found", Kind::Network),
    ("daemon: get ", ": no such volume", Kind::Volume),
];

/// The candidate that is nearest, if any is near: a third of the letters may be others.
pub fn nearest<'c>(typed: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if typed.is_empty() || typed.len() > LONGEST {
        return None;
    }
    let most = (typed.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != typed && candidate.len() <= LONGEST)
        .map(|candidate| (strsim::osa_distance(typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= most && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

pub fn question(meant: &str) -> String {
    format!("help: did you mean '{meant}'?")
}

/// For a message about a name that is not there, the names that are.
pub async fn name(client: &Client, message: &str) -> Option<String> {
    let (typed, kind) = missing(message)?;
    let known = names::of(client, kind, &[]).await;
    // `busybx` for `busybox:latest`
    let bare = typed.strip_suffix(":latest").unwrap_or(typed);
    let known = known.iter().map(|name| name.strip_suffix(":latest").unwrap_or(name));
    nearest(bare, known).map(question)
}

fn missing(message: &str) -> Option<(&str, Kind)> {
    let line = message.lines().next()?;
    SENTENCES.iter().find_map(|(before, behind, kind)| {
        let rest = line.split_once(before)?.1;
        let name = rest.strip_suffix(behind)?;
        (!name.is_empty() && !name.contains(' ')).then_some((name, *kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        let nearest = |typed| nearest(typed, ["ps", "pull", "push", "images", "inspect", "run"]);
        assert_eq!(nearest("pss"), Some("ps"));
        assert_eq!(nearest("imagse"), Some("images"));
        assert_eq!(nearest("rnu"), Some("run"));
        for far in ["x", "frobnicate", "", "run", &"x".repeat(1 << 20)] {
            assert_eq!(nearest(far), None, "{far}");
        }
    }

    #[test]
    fn the_name_is_read_from_what_the_engine_says() {
        for (message, want) in [
            (
                "Error response from daemon: No such container: webb",
                Some(("webb", Kind::Container)),
            ),
            (
                "Error response from daemon: network x not found",
                Some(("x", Kind::Network)),
            ),
            (
                "Error response from daemon: get x: no such volume",
                Some(("x", Kind::Volume)),
            ),
            ("Error: No such object: x", Some(("x", Kind::Any))),
            ("Error response from daemon: conflict", None),
        ] {
            assert_eq!(missing(message), want, "{message}");
        }
    }
}
