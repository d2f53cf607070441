//! The query of a request, read as dockerd reads it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use ferry_api::{Filters, Timestamp};
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::failure::{Failure, Result};

/// Parameters in the order they came; a name may come more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c`; the error is Go's for a malformed escape.
    pub fn parse(text: &str) -> Result<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescape(name)?, unescape(value)?))
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    /// The first value; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// The first value unless it is empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// False for nothing, "0", "no", "false" and "none"; true for anything else (moby `httputils.BoolValue`).
    pub fn flag(&self, name: &str) -> bool {
        let text = self.text(name).trim().to_lowercase();
        !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// [`flag`](Self::flag), with an answer for a name that is not there at all (moby `httputils.BoolValueOrDefault`).
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.0.iter().any(|(key, _)| key == name) {
            true => self.flag(name),
            false => default,
        }
    }

    /// A number, in Go's words when it is none.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.given(name) else { return Ok(None) };
        match text.strip_prefix('+').unwrap_or(text).parse() {
            Ok(number) => Ok(Some(number)),
            Err(error) => {
                let reason = reason(&error);
                Err(Failure::invalid(format!("strconv.Atoi: parsing {text:?}: {reason}")))
            }
        }
    }

    /// Rows or columns of a terminal; more than a terminal can have is as many as it can.
    pub fn dimension(&self, name: &str, what: &str) -> Result<u16> {
        let text = self.text(name);
        match text.parse::<u32>() {
            Ok(number) => Ok(u16::try_from(number).unwrap_or(u16::MAX)),
            Err(error) => {
                let reason = reason(&error);
                Err(Failure::invalid(format!("invalid resize {what} {text:?}: {reason}")))
            }
        }
    }

    /// `seconds[.fraction]` since the epoch; nothing is no bound.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        let Some(text) = self.given(name) else { return Ok(None) };
        let malformed = |_| {
            let seconds = text.split('.').next().unwrap_or_default();
            Failure::invalid(format!("strconv.ParseInt: parsing {seconds:?}: invalid syntax"))
        };
        Timestamp::from_query(text).map(Some).map_err(malformed)
    }

    pub fn filters(&self) -> Result<Filters> {
        Ok(Filters::parse(self.text("filters"))?)
    }
}

/// What Go's `strconv` says.
fn reason(error: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

fn unescape(text: &str) -> Result<String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let escape: String = text[at..].chars().take(3).collect();
            return Err(Failure::invalid(format!("invalid URL escape {escape:?}")));
        }
    }
    Ok(percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned())
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// What the gate read from the path: the API version that the client speaks.
#[derive(Debug, Clone, Copy)]
pub struct Version(pub ferry_api::ApiVersion);

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get()
            .copied()
            .unwrap_or(Self(ferry_api::ApiVersion::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn flags_read_as_docker_reads_them() {
        for text in ["a=1", "a=true", "a=True", "a=yes", "a=x", "a=%20on", "a=-1"] {
            assert!(query(text).flag("a"), "{text}");
        }
        for text in [
            "", "a", "a=", "a=0", "a=no", "a=False", "a=NONE", "a=+", "b=1", "a=0&a=1",
        ] {
            assert!(!query(text).flag("a"), "{text}");
        }
    }

    #[test]
    fn names_and_values_are_unescaped() {
        let query = query("changes=ENV+a%3Db&changes=CMD%20x&&k&%6b2=%C3%A9%ff");
        assert_eq!(query.all("changes"), ["ENV a=b", "CMD x"]);
        assert_eq!((query.text("k"), query.text("k2")), ("", "é\u{fffd}"));
    }

    #[test]
    fn malformed_escapes_are_refused_in_gos_words() {
        for (text, escape) in [("a=%zz", "%zz"), ("a=%", "%"), ("%é=1", "%é")] {
            let failure = Query::parse(text).unwrap_err();
            assert!(
                failure.message.starts_with("invalid URL escape") && failure.message.contains(escape),
                "{failure:?}"
            );
            assert_eq!(failure.status.as_u16(), 400);
        }
    }

    #[test]
    fn numbers_are_refused_in_gos_words() {
        assert_eq!(query("t=-1").integer("t"), Ok(Some(-1)));
        assert_eq!(query("t=").integer("t"), Ok(None));
        let message = |text| query(text).integer("t").unwrap_err().message;
        assert_eq!(message("t=abc"), r#"strconv.Atoi: parsing "abc": invalid syntax"#);
        assert_eq!(
            message("t=99999999999999999999"),
            r#"strconv.Atoi: parsing "99999999999999999999": value out of range"#
        );
    }

    #[test]
    fn dimensions_are_bounded_by_the_terminal() {
        assert_eq!(query("h=24").dimension("h", "height"), Ok(24));
        assert_eq!(query("h=99999").dimension("h", "height"), Ok(u16::MAX));
        let message = query("h=x").dimension("h", "height").unwrap_err().message;
        assert_eq!(message, r#"invalid resize height "x": invalid syntax"#);
    }

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(
            query("since=1.5").time("since").unwrap().unwrap().to_string(),
            "1970-01-01T00:00:01.5Z"
        );
        assert_eq!(query("since=").time("since"), Ok(None));
        let message = query("since=abc").time("since").unwrap_err().message;
        assert_eq!(message, r#"strconv.ParseInt: parsing "abc": invalid syntax"#);
    }
}
