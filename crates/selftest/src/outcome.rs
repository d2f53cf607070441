//! One row of the table: what was tried, and how it went.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Result;
use crate::lab::Lab;

/// An attack, or a family of attacks with one mitigation.
pub(crate) struct Attack {
    /// What tests and documents call it.
    pub name: &'static str,
    /// Where it stands in the table: `F1` escapes from the runtime, `F3` users and groups of an image.
    pub family: &'static str,
    /// What it is known by; empty for a rule without a number.
    pub cves: &'static [&'static str],
    /// What is tried, in a few words.
    pub what: &'static str,
    /// Does it. With [`Lab::wrong`] the same check is made of a container that is set up wrongly, and has to say so.
    pub run: fn(&Lab) -> Result<Outcome>,
}

/// How an attack went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Held,
    /// It got through, and this was seen.
    Broken(String),
    /// It cannot be tried here.
    Skipped(String),
}

/// A finding is what was seen of an attack that got through.
impl From<Option<String>> for Outcome {
    fn from(finding: Option<String>) -> Self {
        finding.map_or(Self::Held, Self::Broken)
    }
}

impl Outcome {
    pub fn broken(seen: impl Into<String>) -> Result<Self> {
        Ok(Self::Broken(seen.into()))
    }

    pub fn skipped(why: impl Into<String>) -> Result<Self> {
        Ok(Self::Skipped(why.into()))
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken(_) => "BROKEN",
            Self::Skipped(_) => "skipped",
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Held => "",
            Self::Broken(text) | Self::Skipped(text) => text,
        }
    }
}

/// A row that is done.
pub(crate) struct Row {
    pub attack: &'static Attack,
    pub outcome: Outcome,
    pub time: Duration,
}

impl Row {
    /// One line, and a second one with what was seen.
    pub fn line(&self) -> String {
        let Attack { family, cves, what, .. } = self.attack;
        let outcome = match self.outcome.text() {
            "" => String::new(),
            text => format!("\n            {text}"),
        };
        let number = match cves {
            [] => String::new(),
            cves => format!(" (CVE-{})", cves.join(", -")),
        };
        format!(
            "{:<7}  {family}  {:>5.1} s  {what}{number}{outcome}\n",
            self.outcome.word(),
            self.time.as_secs_f64()
        )
    }

    pub fn json(&self) -> Value {
        let cves: Vec<String> = self.attack.cves.iter().map(|cve| format!("CVE-{cve}")).collect();
        let milliseconds = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "name": self.attack.name,
            "family": self.attack.family,
            "cves": cves,
            "attack": self.attack.what,
            "outcome": self.outcome.word().to_lowercase(),
            "detail": self.outcome.text(),
            "milliseconds": milliseconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTACK: Attack = Attack {
        name: "overwrite",
        family: "F1",
        cves: &["2019-5736", "2016-9962"],
        what: "the binary is written to",
        run: |_| Ok(Outcome::Held),
    };

    fn row(outcome: Outcome) -> Row {
        Row {
            attack: &ATTACK,
            outcome,
            time: Duration::from_millis(1250),
        }
    }

    #[test]
    fn a_row_is_a_line_and_what_was_seen_another() {
        assert_eq!(
            row(Outcome::Held).line(),
            "held     F1    1.2 s  the binary is written to (CVE-2019-5736, -2016-9962)\n"
        );
        assert!(
            row(Outcome::Broken("seen".into()))
                .line()
                .ends_with("\n            seen\n")
        );
    }

    #[test]
    fn json_has_the_numbers_in_full() {
        let json = row(Outcome::Skipped("no".into())).json();
        assert_eq!(json["cves"], json!(["CVE-2019-5736", "CVE-2016-9962"]));
        assert_eq!((&json["outcome"], &json["detail"]), (&json!("skipped"), &json!("no")));
        assert_eq!(json["milliseconds"], 1250);
    }
}
