//! Names for containers that were given none: `quirky_lovelace`.

use crate::Id;

mod words;

/// Docker's tries before it gives up on two words alone; from the second on a digit follows.
const TRIES: usize = 6;

/// A name of two words, and a digit or more when `taken` says it is in use.
pub fn generate(taken: impl Fn(&str) -> bool) -> String {
    for attempt in 0..TRIES {
        let name = candidate(attempt > 0);
        if !taken(&name) {
            return name;
        }
    }
    format!("{}_{}", candidate(false), Id::random().short())
}

fn candidate(digit: bool) -> String {
    loop {
        let random = Id::random();
        let name = format!(
            "{}_{}",
            pick(words::ADJECTIVES, &random, 0),
            pick(words::SURNAMES, &random, 4)
        );
        // Steve Wozniak is not boring.
        if name == "boring_wozniak" {
            continue;
        }
        return if digit {
            format!("{name}{}", random.as_bytes()[8] % 10)
        } else {
            name
        };
    }
}

fn pick<'a>(words: &'a str, random: &Id, at: usize) -> &'a str {
    let bytes = random.as_bytes();
    let number = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let count = words.split(' ').count();
    words.split(' ').nth(number % count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_mobys() {
        assert_eq!(words::ADJECTIVES.split(' ').count(), 108);
        assert_eq!(words::SURNAMES.split(' ').count(), 236);
        assert!(words::SURNAMES.ends_with("zhukovsky"));
        for word in words::ADJECTIVES.split(' ').chain(words::SURNAMES.split(' ')) {
            assert!(
                word.len() > 1 && word.bytes().all(|c| c.is_ascii_lowercase()),
                "{word:?}"
            );
        }
    }

    #[test]
    fn a_taken_name_gets_a_digit_and_a_crowded_one_still_ends() {
        let name = generate(|name| !name.ends_with(|c: char| c.is_ascii_digit()));
        assert!(name.ends_with(|c: char| c.is_ascii_digit()));
        assert!(generate(|_| true).len() > 14);
    }
}
