//! The `filters` parameter of list, prune and event requests.
//!
//! Values of one key are alternatives, keys all have to hold; labels are the exception: every label named must match.
//! The rules are those of Docker's `api/types/filters`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// For each key the values asked for; a value mapped to false was named and does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Filters {
    pub fields: BTreeMap<String, BTreeMap<String, bool>>,
}

/// The two shapes clients send: `{"k": {"v": true}}` and, before API 1.22 and from many libraries still, `{"k":
/// ["v"]}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    Maps(BTreeMap<String, Option<BTreeMap<String, Option<bool>>>>),
    Lists(BTreeMap<String, Option<Vec<Option<String>>>>),
}

impl Filters {
    /// The parameter's text; none at all is no filter.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let fields = match serde_json::from_str(text).map_err(|_| Error::MalformedFilters)? {
            None => BTreeMap::new(),
            Some(Wire::Maps(maps)) => maps
                .into_iter()
                .map(|(key, values)| {
                    (
                        key,
                        values
                            .into_iter()
                            .flatten()
                            .map(|(value, on)| (value, on.unwrap_or(false)))
                            .collect(),
                    )
                })
                .collect(),
            Some(Wire::Lists(lists)) => lists
                .into_iter()
                .map(|(key, values)| {
                    (
                        key,
                        values
                            .into_iter()
                            .flatten()
                            .map(|value| (value.unwrap_or_default(), true))
                            .collect(),
                    )
                })
                .collect(),
        };
        Ok(Self { fields })
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.fields.entry(key.into()).or_default().insert(value.into(), true);
    }

    /// The values named for `key`, in order.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.fields
            .get(key)
            .into_iter()
            .flat_map(|values| values.keys().map(String::as_str))
    }

    /// Refuses keys an endpoint does not have.
    pub fn validate(&self, accepted: &[&str]) -> Result<()> {
        match self.fields.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(Error::InvalidFilter { key: key.clone() }),
            None => Ok(()),
        }
    }

    /// A boolean filter such as `dangling`: "1" or "true", "0" or "false".
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(values) = self.fields.get(key) else {
            return Ok(default);
        };
        if values.is_empty() {
            return Err(Error::InvalidFilter { key: key.to_owned() });
        }
        let any = |names: [&str; 2]| names.iter().any(|&name| values.get(name) == Some(&true));
        match (any(["1", "true"]), any(["0", "false"])) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(Error::InvalidFilterValues {
                key: key.to_owned(),
                values: values.keys().cloned().collect(),
            }),
        }
    }

    /// Whether `source` is one of the values, or the key asks for nothing.
    pub fn exact(&self, key: &str, source: &str) -> bool {
        match self.fields.get(key) {
            Some(values) if !values.is_empty() => values.get(source).copied().unwrap_or(false),
            _ => true,
        }
    }

    /// As `exact`, or `source` begins with one of the values (event actors by id prefix).
    pub fn prefix(&self, key: &str, source: &str) -> bool {
        self.exact(key, source) || self.values(key).any(|value| source.starts_with(value))
    }

    /// As `exact`, or one of the values is a regular expression found in `source`, which is what Docker does for names
    /// and ids:
    /// `web`, `^web$`, `web-[0-9]`. A value that is no valid expression matches nothing else.
    ///
    /// Callers try a container's name with its leading slash and without.
    pub fn pattern(&self, key: &str, source: &str) -> bool {
        self.exact(key, source) || self.values(key).any(|value| found(value, source))
    }

    /// Whether every `label` or `label=value` asked for is among `labels`.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }
}

const METACHARACTERS: [char; 14] = ['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'];

/// Longer expressions are taken for no match: they cost more to compile than any name is worth.
const PATTERN_MAX: usize = 4096;

fn found(pattern: &str, source: &str) -> bool {
    if !pattern.contains(METACHARACTERS) {
        return source.contains(pattern);
    }
    pattern.len() <= PATTERN_MAX && regex_lite::Regex::new(pattern).is_ok_and(|regex| regex.is_match(source))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn both_shapes_say_the_same() {
        assert_eq!(parse(r#"{"a":{"x":true,"y":true}}"#), parse(r#"{"a":["y","x"]}"#));
        assert_eq!(
            serde_json::to_string(&parse(r#"{"a":["x"]}"#)).unwrap(),
            r#"{"a":{"x":true}}"#
        );
    }

    #[test]
    fn null_and_nothing_are_no_filter() {
        for text in ["", "null", "{}"] {
            assert!(parse(text).is_empty(), "{text}");
        }
        assert!(parse(r#"{"label":null}"#).contains("label"));
        assert!(parse(r#"{"label":null}"#).labels("label", &BTreeMap::new()));
    }

    #[test]
    fn malformed_json_is_refused_in_dockers_words() {
        for text in [
            "{",
            r#"{"a":1}"#,
            "[]",
            r#""x""#,
            r#"{"a":{"x":"y"}}"#,
            r#"{"a":["b"]} x"#,
            r#"{"a":["b"],"c":{"d":true}}"#,
        ] {
            assert_eq!(
                Filters::parse(text).unwrap_err().to_string(),
                "invalid filter",
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_refused_in_dockers_words() {
        let filters = parse(r#"{"nope":["x"],"name":["y"]}"#);
        assert_eq!(
            filters.validate(&["name"]).unwrap_err().to_string(),
            "invalid filter 'nope'"
        );
        assert_eq!(filters.validate(&["name", "nope"]), Ok(()));
    }

    #[test]
    fn flags_want_one_clear_value() {
        let flag = |text| parse(text).flag("dangling", false).map_err(|e| e.to_string());
        assert_eq!(flag("{}"), Ok(false));
        assert_eq!(flag(r#"{"dangling":{"true":true}}"#), Ok(true));
        assert_eq!(flag(r#"{"dangling":["0"]}"#), Ok(false));
        assert_eq!(flag(r#"{"dangling":[]}"#), Err("invalid filter 'dangling'".into()));
        assert_eq!(
            flag(r#"{"dangling":["x"]}"#),
            Err("invalid filter 'dangling=[x]'".into())
        );
        assert_eq!(
            flag(r#"{"dangling":["true","false"]}"#),
            Err("invalid filter 'dangling=[false true]'".into())
        );
    }

    #[test]
    fn exact_takes_any_value_and_prefix_its_beginning() {
        let filters = parse(r#"{"status":{"exited":true,"created":true},"off":{"x":false},"none":{}}"#);
        assert!(filters.exact("status", "exited") && !filters.exact("status", "exit"));
        assert!(filters.exact("none", "any") && filters.exact("missing", "any"));
        assert!(!filters.exact("off", "x"));
        assert!(filters.prefix("status", "created2") && !filters.prefix("status", "creat"));
    }

    #[test]
    fn names_match_as_regular_expressions() {
        let name = |value: &str, source| {
            let mut filters = Filters::default();
            filters.add("name", value);
            filters.pattern("name", source)
        };
        assert!(name("we", "web") && name("web", "web") && !name("web", "we"));
        assert!(name("^web$", "web") && !name("^web$", "/web") && name("^/?web$", "/web"));
        assert!(name("web-[0-9]+", "shop-web-12") && name("a|b", "xb") && name(r"\d", "a1"));
        assert!(!name("(", "web") && name("(", "("));
        assert!(!name(&"(a*)*".repeat(1000), "web"));
    }

    #[test]
    fn every_label_has_to_match() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        let matches = |text| parse(text).labels("label", &labels);
        assert!(matches("{}") && matches(r#"{"label":["a","b=x=y"]}"#) && matches(r#"{"label":{"a=1":true}}"#));
        assert!(
            !matches(r#"{"label":["a","c"]}"#) && !matches(r#"{"label":["a=2"]}"#) && !matches(r#"{"label":["a="]}"#)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*", source in ".*") {
            if let Ok(filters) = Filters::parse(&text) {
                for key in filters.fields.keys() {
                    filters.pattern(key, &source);
                }
            }
            found(&text, &source);
        }

        #[test]
        fn what_is_written_reads_back(fields in proptest::collection::btree_map(".*", proptest::collection::btree_map(".*", any::<bool>(), 0..4), 0..4)) {
            let filters = Filters { fields };
            prop_assert_eq!(Filters::parse(&serde_json::to_string(&filters).unwrap()).unwrap(), filters);
        }
    }
}
