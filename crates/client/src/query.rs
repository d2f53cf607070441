use std::fmt::Write;

/// A query string: keys in order, escaped as Go's `url.Values.Encode` does it.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.push((key, value.into()));
        self
    }

    /// `key=1` when it is true, nothing otherwise.
    #[must_use]
    pub fn flag(self, key: &'static str, value: bool) -> Self {
        if value { self.with(key, "1") } else { self }
    }

    /// Nothing for an empty value.
    #[must_use]
    pub fn text(self, key: &'static str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(key, value) }
    }

    /// The path with the query behind it.
    #[must_use]
    pub fn on(mut self, path: &str) -> String {
        self.0.sort_by_key(|(key, _)| *key);
        let mut out = path.to_owned();
        for (index, (key, value)) in self.0.iter().enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            out.push_str(key);
            out.push('=');
            escape(&mut out, value, true);
        }
        out
    }
}

/// One segment of a path: what a user names may hold anything.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(&mut out, text, false);
    out
}

fn escape(out: &mut String, text: &str, query: bool) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b'/' | b':' | b'@' | b',' | b'$' | b'&' | b'+' | b'=' if !query => out.push(byte.into()),
            b' ' if query => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_sorted_and_escaped_as_go_does_it() {
        let query = Query::new()
            .with("t", "a b/c")
            .flag("all", true)
            .flag("no", false)
            .text("x", "")
            .with("f", "{\"é\"}");
        assert_eq!(query.on("/p"), "/p?all=1&f=%7B%22%C3%A9%22%7D&t=a+b%2Fc");
        assert_eq!(Query::new().on("/p"), "/p");
        assert_eq!(segment("a/b:c d?"), "a/b:c%20d%3F");
    }
}
