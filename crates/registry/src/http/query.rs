//! The part of an address after `?`.

use crate::failure::{Answer, Code, Failure};

/// Pairs that are read; what comes after is no request of a client.
const PAIRS: usize = 100;

#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .take(PAIRS)
                .collect(),
        )
    }

    /// The first of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `n`: how many a page has, at most `most`.
    pub fn limit(&self, most: usize) -> Answer<usize> {
        let Some(text) = self.get("n") else {
            return Ok(most);
        };
        match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Ok(text.parse().unwrap_or(most).min(most)),
            false => Err(Failure::new(
                Code::PaginationNumberInvalid,
                format!("n={text:.40} is no number"),
            )),
        }
    }
}

/// Text as it may stand in a query.
pub fn escape(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_whatever_is_asked_for() {
        let limit = |text: &str| Query::parse(text).limit(100).ok();
        assert_eq!(limit(""), Some(100));
        assert_eq!(limit("n=5"), Some(5));
        assert_eq!(limit("n=0"), Some(0));
        assert_eq!(limit("n=1000000000"), Some(100));
        assert_eq!(limit("n=99999999999999999999999999"), Some(100));
        for text in ["n=-1", "n=", "n=x", "n=%2B1"] {
            assert_eq!(limit(text), None, "{text}");
        }
    }
}
