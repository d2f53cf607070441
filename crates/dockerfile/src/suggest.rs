//! The nearest of some names, for `did you mean`.

/// Up to two letters away: farther is no slip of the finger. Of names that are equally near it is the one that begins most
/// alike. `None` too if the name is among them: then it was not the name that was wrong.
pub fn nearest<'a>(name: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const FAR: usize = 3;
    let length = name.chars().count();
    let mut best: Option<(usize, usize, &str)> = None;
    for candidate in among {
        if candidate == name {
            return None;
        }
        // A distance is never less than the difference of lengths; names of a hostile file may be megabytes long.
        let is_far = candidate.len() > 4 * (length + FAR) || candidate.chars().count().abs_diff(length) >= FAR;
        if candidate.is_empty() || is_far {
            continue;
        }
        let distance = strsim::levenshtein(name, candidate);
        let differs = name.chars().zip(candidate.chars()).position(|(a, b)| a != b);
        let found = (distance, usize::MAX - differs.unwrap_or(length), candidate);
        if distance < FAR && best.is_none_or(|(distance, alike, _)| (found.0, found.1) < (distance, alike)) {
            best = Some(found);
        }
    }
    best.map(|(_, _, candidate)| candidate)
}

/// The nearest of upper-case names to one in any case; in lower case unless that one is in upper case too.
pub(crate) fn nearest_in_case(name: &str, among: &[&'static str]) -> Option<String> {
    let found = nearest(&name.to_uppercase(), among.iter().copied())?;
    Some(if name == name.to_uppercase() {
        found.to_owned()
    } else {
        found.to_lowercase()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_within_two_letters_are_suggested() {
        assert_eq!(nearest("traget", ["source", "target"]), Some("target"));
        assert_eq!(nearest("zzzzzz", ["source", "target"]), None);
        assert_eq!(nearest("target", ["targets", "target"]), None);
        assert_eq!(nearest("FR", ["ARG", "FROM", "RUN"]), Some("FROM"));
        assert_eq!(nearest(&"x".repeat(1_000_000), ["target"]), None);
        assert_eq!(nearest_in_case("copi", &["COPY"]).as_deref(), Some("copy"));
        assert_eq!(nearest_in_case("RUNN", &["RUN"]).as_deref(), Some("RUN"));
    }
}
