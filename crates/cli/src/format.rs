//! What `--format` and `--quiet` make of lists and objects, as docker/cli's formatter does it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ferry_api::Timestamp;
use ferry_kit::{
    Template,
    table::TabWriter,
    template::{Methods, Missing, Options},
};
use serde_json::{Map, Value};

use crate::failure::{Failure, Result};

/// Finds a method of a row by the row's number and the method's name, and calls it.
pub type RowMethods<'a> = &'a dyn Fn(usize, &str, &[Value]) -> Option<std::result::Result<Value, String>>;

/// The template of a command that shows one thing; none when nothing is given.
pub fn single(format: &str) -> Result<Option<Template>> {
    let format = match format {
        "" => return Ok(None),
        "json" => "{{json .}}",
        format => format,
    };
    let parsed = Template::parse(format);
    parsed
        .map(Some)
        .map_err(|error| Failure::new(format!("template parsing error: {error}")).code(64))
}

/// A list about to be printed.
#[derive(Clone, Copy)]
pub struct Listing<'a> {
    /// The template of plain `table`.
    pub table: &'a str,
    /// Field to column heading.
    pub headings: &'a [(&'a str, &'a str)],
    /// What Go calls the rows' type, for complaints.
    pub type_name: &'a str,
    /// `Label` and its like.
    pub method: Option<RowMethods<'a>>,
}

/// Prints one line a row; `format` is `table`, `table TEMPLATE`, `json` or a template.
pub fn list(listing: &Listing<'_>, format: &str, rows: &[Value]) -> Result<String> {
    let failed = |error: ferry_kit::Error| Failure::new(format!("template parsing error: {error}"));
    let (is_table, source) = match format.strip_prefix("table") {
        Some(rest) if rest.trim().is_empty() => (true, listing.table.to_owned()),
        Some(rest) => (true, unescape(rest.trim())),
        None if format == "json" => (false, "{{json .}}".to_owned()),
        None => (false, unescape(format.trim_matches(' '))),
    };
    let template = Template::parse(&source).map_err(failed)?;
    let mut out = String::new();
    if is_table {
        let headings: Map<String, Value> = listing
            .headings
            .iter()
            .map(|(field, heading)| ((*field).to_owned(), (*heading).into()))
            .collect();
        // `.Label "x"` is headed by what it asks for.
        let label: Methods<'_> = &|name, arguments| match (name, arguments) {
            ("Label", [Value::String(label)]) => Some(Ok(label_heading(label).into())),
            _ => None,
        };
        let options = Options {
            header: true,
            methods: Some(label),
            ..Options::default()
        };
        out.push_str(
            &template
                .execute_with(&Value::Object(headings), &options)
                .map_err(failed)?,
        );
        out.push('\n');
    }
    for (index, row) in rows.iter().enumerate() {
        let method: Methods<'_> = &|name, arguments| listing.method.and_then(|method| method(index, name, arguments));
        let options = Options {
            missing: Missing::Type(listing.type_name),
            methods: Some(method),
            escape_html: true,
            ..Options::default()
        };
        out.push_str(&template.execute_with(row, &options).map_err(failed)?);
        out.push('\n');
    }
    if !is_table {
        return Ok(out);
    }
    let mut table = TabWriter::default();
    table.push(&out);
    Ok(table.finish())
}

/// `Label` of a row with these labels, for [`Listing::method`]; nothing for any other name.
pub fn label(
    labels: Option<&BTreeMap<String, String>>,
    name: &str,
    arguments: &[Value],
) -> Option<std::result::Result<Value, String>> {
    match (name, arguments) {
        ("Label", [Value::String(key)]) => {
            let label = labels.and_then(|labels| labels.get(key)).cloned();
            Some(Ok(label.unwrap_or_default().into()))
        }
        ("Label", [_]) => Some(Err("wrong type for value; expected string".into())),
        ("Label", arguments) => Some(Err(format!(
            "wrong number of args for Label: want 1 got {}",
            arguments.len()
        ))),
        _ => None,
    }
}

fn label_heading(label: &str) -> String {
    label.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")
}

/// `\t` and `\n` written out.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Keys that are Go maps and slices in what `inspect`, `version` and `info` print.
pub const MAPS: &[&str] = &[
    "Labels",
    "Ports",
    "Networks",
    "Volumes",
    "Sysctls",
    "Tmpfs",
    "StorageOpt",
    "Options",
    "DriverOpts",
    "ExposedPorts",
    "Annotations",
    "Data",
    "PortBindings",
    "Attributes",
    "Details",
    "Containers",
    "AuxiliaryAddresses",
];
pub const LISTS: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "Env",
    "OnBuild",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "VolumesFrom",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Ulimits",
    "MaskedPaths",
    "ReadonlyPaths",
    "ExecIDs",
    "Mounts",
    "Aliases",
    "DNSNames",
    "RepoTags",
    "RepoDigests",
    "Layers",
    "Shell",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Warnings",
];

/// One object through a template, without the line's end.
pub fn object(template: &Template, value: &Value) -> Result<String, ferry_kit::Error> {
    let options = Options {
        missing: Missing::Error,
        maps: MAPS,
        lists: LISTS,
        ..Options::default()
    };
    template.execute_with(value, &options)
}

/// One object of a Go struct of this type, whose fields have other names than its JSON in places.
pub fn object_of_type(
    template: &Template,
    value: &Value,
    type_name: &str,
    methods: Methods<'_>,
) -> Result<String, ferry_kit::Error> {
    let options = Options {
        methods: Some(methods),
        missing: Missing::Type(type_name),
        maps: MAPS,
        lists: LISTS,
        structs: &["Components", "Platform"],
        ..Options::default()
    };
    template.execute_with(value, &options)
}

/// Cut to so many columns, the last one an ellipsis.
pub fn ellipsis(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// The first twelve digits of an id, without its algorithm.
pub fn short_id(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

/// `2026-11-22 04:49:24 +0000 UTC`, in the machine's time zone, as Go prints a time.
pub fn go_time(seconds: i64) -> String {
    let Ok(at) = jiff::Timestamp::from_second(seconds) else {
        return String::new();
    };
    at.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z %Z")
        .to_string()
}

/// An instant as Go prints it: in UTC, with as many digits of fraction as it takes.
pub fn go_instant(at: Timestamp) -> String {
    let text = at.to_string();
    match text.trim_end_matches('Z').split_once('T') {
        Some((day, time)) => format!("{day} {time} +0000 UTC"),
        None => text,
    }
}

/// Names in an order in which numbers count as numbers: `n9` before `n10`.
pub fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while let (Some(a), Some(b)) = (one.first(), other.first()) {
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (false, false) if a == b => (one, other) = (&one[1..], &other[1..]),
            (false, false) => return a.cmp(b),
            // Digits come before anything else.
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (true, true) => {
                let [first, second] = [one, other].map(|text| {
                    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
                    let digits = text[zeros..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    (zeros, &text[zeros..zeros + digits], &text[zeros + digits..])
                });
                let order = first.1.len().cmp(&second.1.len());
                let order = order.then(first.1.cmp(second.1)).then(first.0.cmp(&second.0));
                if order.is_ne() {
                    return order;
                }
                (one, other) = (first.2, second.2);
            }
        }
    }
    one.len().cmp(&other.len())
}

/// `time.Duration`: `1h0m0s`, `1.5s`, `20ms`; of more than nothing.
pub fn go_duration(nanoseconds: i64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let fraction = |rest: i64, digits: usize| {
        let text = format!(".{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if whole > 0 {
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        let seconds = format!("{seconds}{}s", fraction(rest, 9));
        return match (hours, minutes) {
            (0, 0) => seconds,
            (0, minutes) => format!("{minutes}m{seconds}"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
        };
    }
    match rest {
        1_000_000.. => format!("{}{}ms", rest / 1_000_000, fraction(rest % 1_000_000, 6)),
        1_000.. => format!("{}{}µs", rest / 1_000, fraction(rest % 1_000, 3)),
        rest => format!("{rest}ns"),
    }
}

/// `5 minutes ago`.
#[expect(clippy::cast_precision_loss, reason = "ages are no more exact than that")]
pub fn ago(seconds: i64) -> String {
    let age = jiff::Timestamp::now().as_second().saturating_sub(seconds);
    format!("{} ago", ferry_kit::units::human_duration(age as f64))
}

/// `json.Indent` with four blanks: the daemon's own text, laid out.
pub fn indent(json: &[u8], depth: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut level = depth;
    let mut in_string = false;
    let mut escaped = false;
    let text = String::from_utf8_lossy(json);
    let mut rest = text.trim().chars().peekable();
    let newline = |out: &mut String, level: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", level));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    level += 1;
                    newline(&mut out, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                newline(&mut out, level);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, level);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_laid_out_as_go_lays_it_out() {
        assert_eq!(
            indent(br#"{"a":[1,2],"b":{},"c":[],"d":"x: {\"y\", "}"#, 0),
            "{\n    \"a\": [\n        1,\n        2\n    ],\n    \"b\": {},\n    \"c\": [],\n    \"d\": \"x: {\\\"y\\\", \"\n}"
        );
    }

    #[test]
    fn lists_come_as_tables_json_or_templates() {
        let listing = Listing {
            table: "{{.ID}}\t{{.Names}}",
            headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            type_name: "*formatter.ContainerContext",
            method: None,
        };
        let rows = [json!({"ID": "1", "Names": "a->b"})];
        assert_eq!(
            list(&listing, "table", &rows).unwrap(),
            "CONTAINER ID   NAMES\n1              a->b\n"
        );
        assert_eq!(
            list(&listing, "table {{.Names}}\\t{{.ID}}", &rows).unwrap(),
            "NAMES     CONTAINER ID\na->b      1\n"
        );
        assert_eq!(
            list(&listing, "json", &rows).unwrap(),
            "{\"ID\":\"1\",\"Names\":\"a-\\u003eb\"}\n"
        );
        assert_eq!(list(&listing, "{{.ID}}:{{.Names}}", &rows).unwrap(), "1:a->b\n");
        assert_eq!(
            list(&listing, "{{.Foo}}", &rows).unwrap_err().message,
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
        );
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanoseconds, text) in [
            (3_600_000_000_000, "1h0m0s"),
            (90_000_000_000, "1m30s"),
            (1_500_000_000, "1.5s"),
            (20_000_000, "20ms"),
            (1_050_000, "1.05ms"),
            (1_500, "1.5µs"),
            (3, "3ns"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["n10", "n9", "n", "bridge", "n09", "n9a", "9", "Z", "n9.1", "n010"];
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(
            names,
            ["9", "Z", "bridge", "n", "n9", "n9.1", "n9a", "n09", "n10", "n010"]
        );
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("sh -c 'echo hello world'", 20), "sh -c 'echo hello w…");
        assert_eq!(ellipsis("short", 20), "short");
    }
}
