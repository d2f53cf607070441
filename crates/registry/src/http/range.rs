//! Parts of a blob, conditions, and what an `Accept` takes (RFC 9110, sections 12.5.1, 13 and 14).

use http::header::{ACCEPT, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

/// What a `Range` header asks of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    Whole,
    Part { from: u64, to: u64 },
    Unsatisfiable,
}

impl Range {
    /// What is no range of bytes, and a list of several, is as if it were not there.
    pub fn of(headers: &HeaderMap, etag: &str, size: u64) -> Self {
        let Some(text) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else {
            return Self::Whole;
        };
        if headers.get(IF_RANGE).is_some_and(|condition| condition != etag) {
            return Self::Whole;
        }
        Self::parse(text, size).unwrap_or(Self::Whole)
    }

    fn parse(text: &str, size: u64) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            // What does not fit is beyond the end.
            true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
            false => None,
        };
        if first.is_empty() {
            let count = number(last)?;
            return Some(match count {
                0 => Self::Unsatisfiable,
                _ if size == 0 => Self::Unsatisfiable,
                count => Self::Part {
                    from: size.saturating_sub(count),
                    to: size,
                },
            });
        }
        let from = number(first)?;
        let to = match last {
            "" => size,
            last => {
                let last = number(last)?;
                if last < from {
                    return None;
                }
                last.saturating_add(1).min(size)
            }
        };
        Some(if from < size {
            Self::Part { from, to }
        } else {
            Self::Unsatisfiable
        })
    }
}

/// Whether the client has it already.
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tags = tags.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether the client takes that media type. One that does not say takes all.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = headers.get_all(ACCEPT).iter().peekable();
    said.peek().is_none()
        || said.filter_map(|value| HeaderValue::to_str(value).ok()).any(|value| {
            let ranges = value
                .split(',')
                .map(|range| range.split(';').next().unwrap_or_default().trim());
            let mut ranges = ranges.filter(|range| !range.is_empty());
            ranges.any(|range| range == media_type || range == "*/*" || range == "application/*")
        })
}

/// Which bytes a chunk of an upload says it has: `<first>-<last>`, also as RFC 9110 writes it.
pub fn chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let (range, _total) = text.split_once('/').unwrap_or((text, ""));
    let (first, last) = range.trim().split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse::<u64>().ok()?);
    // The number of bytes and the end have to fit as well.
    (last >= first && last < u64::MAX).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob_or_unsatisfiable() {
        let range = |text: &str| Range::parse(text, 10);
        let part = |from, to| Some(Range::Part { from, to });
        assert_eq!(range("bytes=0-3"), part(0, 4));
        assert_eq!(range("bytes=4-"), part(4, 10));
        assert_eq!(range("bytes=-3"), part(7, 10));
        assert_eq!(range("bytes=-30"), part(0, 10));
        assert_eq!(range("bytes=9-99999999999999999999999"), part(9, 10));
        assert_eq!(range("bytes=10-"), Some(Range::Unsatisfiable));
        assert_eq!(range("bytes=99999999999999999999999-"), Some(Range::Unsatisfiable));
        assert_eq!(range("bytes=-0"), Some(Range::Unsatisfiable));
        for text in [
            "bytes=4-2",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "items=0-1",
            "bytes=--1",
            "bytes=+1-2",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Some(Range::Unsatisfiable));
    }

    #[test]
    fn chunks_do_not_overflow() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("bytes 5-9/10"), Some((5, 9)));
        for text in [
            "",
            "9",
            "9-5",
            "-1-5",
            "a-b",
            "0-18446744073709551615",
            "18446744073709551616-18446744073709551617",
            "+0-9",
        ] {
            assert_eq!(chunk(text), None, "{text}");
        }
    }

    #[test]
    fn conditions_and_accepted_types() {
        let headers = |name: http::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        assert!(is_known(&headers(IF_NONE_MATCH, "\"a\", W/\"b\""), "\"b\""));
        assert!(!is_known(&headers(IF_NONE_MATCH, "\"a\""), "\"b\""));
        assert!(accepts(&HeaderMap::new(), "x/y"));
        assert!(accepts(&headers(ACCEPT, "a/b, x/y;q=0.5"), "x/y"));
        assert!(accepts(&headers(ACCEPT, "text/html, */*"), "x/y"));
        assert!(!accepts(&headers(ACCEPT, "a/b"), "x/y"));
    }
}
