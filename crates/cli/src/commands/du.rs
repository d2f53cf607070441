//! `builder du` (buildx's commands/diskusage.go, 0.29).

use std::fmt::Write as _;

use ferry_api::system::{BuildCache, DiskUsage};
use ferry_build::filters::Filters;
use ferry_build::output::Kept;
use ferry_kit::{duration, units};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    format::{Listing, list},
};

pub const SPEC: Spec = Spec {
    name: "builder du",
    aliases: "builder du, buildx du",
    synopsis: "[OPTIONS]",
    about: "Disk usage",
    arity: Arity::None,
    flags: "\
--filter filter | Provide filter values
--format string | Format the output
--verbose | Shorthand for \"--format=pretty\"",
    ..Spec::EMPTY
};

const HEADINGS: [(&str, &str); 11] = [
    ("CreatedAt", "CREATED AT"),
    ("Description", "DESCRIPTION"),
    ("ID", "ID"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Mutable", "MUTABLE"),
    ("Parents", "PARENTS"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Type", "TYPE"),
    ("UsageCount", "USAGE COUNT"),
];
const TABLE: &str = "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}";

pub async fn run(call: Call<'_>) -> Result<u8> {
    let format = match (call.matches.switch("verbose"), call.matches.text("format")) {
        (true, "") => "pretty",
        (true, _) => return Err(failed("--format and --verbose cannot be used together")),
        (false, "") => "table",
        (false, format) => format,
    };
    let wanted = Wanted::parse(&call.matches.list("filter"))?;
    let usage: DiskUsage = call.client.get_json("/system/df?type=build-cache").await?;
    let kept = usage.build_cache.into_iter().flatten().map(kept);
    let mut kept: Vec<Kept> = kept.filter(|kept| wanted.matches(kept)).collect();
    kept.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
    let mut text = match format {
        "pretty" => kept.iter().map(pretty).collect(),
        format => listed(&kept, format)?,
    };
    if matches!(format, "pretty" | "table") && wanted.is_all {
        text.push_str(&summary(&kept));
    }
    call.ui.print(&text);
    Ok(0)
}

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("ERROR: {what}"))
}

/// What `--filter` asks for.
struct Wanted {
    filters: Filters,
    /// Since the last use.
    unused: SignedDuration,
    is_all: bool,
}

impl Wanted {
    fn parse(given: &[String]) -> Result<Self> {
        let mut unused = None;
        let mut conditions: Vec<(&str, String)> = Vec::new();
        for (name, value) in given.iter().filter_map(|filter| filter.split_once('=')) {
            if matches!(name, "until" | "unused-for") {
                let wrong = |error| failed(format!("{name:?} filter expects a duration (e.g., '24h'): {error}"));
                if unused.replace(duration::parse_go(value).map_err(wrong)?).is_some() {
                    return Err(failed("conflicting filters \"until\" and \"unused-for\""));
                }
                continue;
            }
            if conditions.iter().any(|(known, _)| *known == name) {
                return Err(failed("filters expect only one value"));
            }
            let condition = match name {
                "id" => format!("id~={value}"),
                name if name.ends_with(['!', '~']) => format!("{name}={value}"),
                name => format!("{name}=={value}"),
            };
            conditions.push((name, condition));
        }
        let text = conditions.into_iter().map(|(_, condition)| condition);
        let text = text.collect::<Vec<_>>().join(",");
        Ok(Self {
            filters: Filters::parse(&[text]).map_err(failed)?,
            unused: unused.unwrap_or_default(),
            is_all: given.is_empty(),
        })
    }

    fn matches(&self, kept: &Kept) -> bool {
        let used = kept.last_used.or(kept.created);
        let is_old = used.is_none_or(|at| Timestamp::now().duration_since(at) >= self.unused);
        is_old && self.filters.match_(kept)
    }
}

fn kept(entry: BuildCache) -> Kept {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    Kept {
        id: entry.id,
        parents: entry.parents,
        kind: entry.kind,
        description: entry.description,
        size: unsigned(entry.size),
        in_use: entry.in_use,
        shared: entry.shared,
        created: Some(entry.created_at.0),
        last_used: entry.last_used_at.map(|at| at.0),
        used: unsigned(entry.usage_count),
    }
}

#[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
fn size(bytes: u64) -> String {
    units::human_size(bytes as f64)
}

/// As Go prints a time.
fn created(kept: &Kept) -> String {
    let text = kept.created.unwrap_or_default().to_string();
    format!("{} +0000 UTC", text.replace('T', " ").trim_end_matches('Z'))
}

fn last_used(kept: &Kept) -> Option<String> {
    let age = Timestamp::now().duration_since(kept.last_used?);
    Some(format!("{} ago", units::human_duration(age.as_secs_f64())))
}

/// In tables a star says what can still change, and whose size an image has as well.
fn listed(kept: &[Kept], format: &str) -> Result<String> {
    let is_table = format.starts_with("table");
    let row = |kept: &Kept| {
        let star = |is: bool| if is && is_table { "*" } else { "" };
        json!({
            "CreatedAt": created(kept),
            "Description": kept.description,
            "ID": format!("{}{}", kept.id, star(kept.is_mutable())),
            "LastUsedAt": last_used(kept).unwrap_or_default(),
            "Mutable": kept.is_mutable(),
            "Parents": match format == "json" && kept.parents.is_empty() {
                true => Value::Null,
                false => json!(kept.parents),
            },
            "Reclaimable": !kept.in_use,
            "Shared": kept.shared,
            "Size": format!("{}{}", size(kept.size), star(kept.shared)),
            "Type": kept.kind,
            "UsageCount": kept.used,
        })
    };
    let listing = Listing {
        table: TABLE,
        headings: &HEADINGS,
        type_name: "*commands.diskusageContext",
        method: None,
    };
    let listed = list(&listing, format, &kept.iter().map(row).collect::<Vec<_>>());
    listed.map_err(|error| failed(error.message))
}

fn pretty(kept: &Kept) -> String {
    let mut text = format!("ID:           {}\n", kept.id);
    if !kept.parents.is_empty() {
        let _ = writeln!(text, "Parents:\n - {}", kept.parents.join("\n - "));
    }
    let _ = write!(
        text,
        "Created at:   {}\nMutable:      {}\nReclaimable:  {}\nShared:       {}\nSize:         {}\n",
        created(kept),
        kept.is_mutable(),
        !kept.in_use,
        kept.shared,
        size(kept.size)
    );
    if !kept.description.is_empty() {
        let _ = writeln!(text, "Description:  {}", kept.description);
    }
    let _ = writeln!(text, "Usage count:  {}", kept.used);
    if let Some(ago) = last_used(kept) {
        let _ = writeln!(text, "Last used:    {ago}");
    }
    let _ = writeln!(text, "Type:         {}\n", kept.kind);
    text
}

fn summary(kept: &[Kept]) -> String {
    let sum = |is: fn(&&Kept) -> bool| size(kept.iter().filter(is).map(|kept| kept.size).sum());
    let mut text = String::new();
    if kept.iter().any(|kept| kept.shared && kept.size > 0) {
        let (shared, private) = (sum(|kept| kept.shared), sum(|kept| !kept.shared));
        let _ = writeln!(text, "Shared:\t\t{shared}\nPrivate:\t{private}");
    }
    let (reclaimable, total) = (sum(|kept| !kept.in_use), sum(|_| true));
    let _ = writeln!(text, "Reclaimable:\t{reclaimable}\nTotal:\t\t{total}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things() -> [Kept; 2] {
        let step = Kept {
            id: "step".into(),
            parents: vec!["base".into()],
            kind: "regular".into(),
            description: "[2/2] RUN echo 1 >/1".into(),
            size: 10_240,
            shared: true,
            created: Some("2020-11-29T21:22:53.5Z".parse().unwrap()),
            used: 2,
            ..Kept::default()
        };
        let mount = Kept {
            id: "mount".into(),
            kind: "exec.cachemount".into(),
            size: 2,
            in_use: true,
            last_used: Some(Timestamp::now() - SignedDuration::from_hours(2)),
            ..Kept::default()
        };
        [step, mount]
    }

    #[test]
    fn it_is_shown_as_buildx_shows_it() {
        let things = things();
        assert_eq!(
            listed(&things, "table").unwrap(),
            "ID        RECLAIMABLE   SIZE       LAST ACCESSED\n\
             step      true          10.24kB*   \n\
             mount*    false         2B         2 hours ago\n"
        );
        assert_eq!(
            listed(&things[..1], "json").unwrap(),
            "{\"CreatedAt\":\"2020-11-29 21:22:53.5 +0000 UTC\",\"Description\":\"[2/2] RUN echo 1 \\u003e/1\",\"ID\":\"step\",\
             \"LastUsedAt\":\"\",\"Mutable\":false,\"Parents\":[\"base\"],\"Reclaimable\":true,\"Shared\":true,\
             \"Size\":\"10.24kB\",\"Type\":\"regular\",\"UsageCount\":2}\n"
        );
        assert_eq!(
            listed(&things, "{{.ID}} {{.Parents}} {{.Mutable}} {{.UsageCount}}").unwrap(),
            "step [base] false 2\nmount [] true 0\n"
        );
        assert_eq!(
            listed(&things, "{{.Nope}}").unwrap_err().message,
            "ERROR: template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type \
             *commands.diskusageContext"
        );
        assert_eq!(
            pretty(&things[0]),
            "ID:           step\nParents:\n - base\nCreated at:   2020-11-29 21:22:53.5 +0000 UTC\nMutable:      false\n\
             Reclaimable:  true\nShared:       true\nSize:         10.24kB\nDescription:  [2/2] RUN echo 1 >/1\n\
             Usage count:  2\nType:         regular\n\n"
        );
        assert_eq!(
            summary(&things),
            "Shared:\t\t10.24kB\nPrivate:\t2B\nReclaimable:\t10.24kB\nTotal:\t\t10.24kB\n"
        );
        assert_eq!(summary(&things[1..]), "Reclaimable:\t0B\nTotal:\t\t2B\n");
    }

    #[test]
    fn filters_are_buildxs() {
        let matching = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let wanted = Wanted::parse(&given).map_err(|error| error.message)?;
            let things = things();
            let found = things.iter().filter(|kept| wanted.matches(kept));
            Ok::<_, String>(found.map(|kept| kept.id.clone()).collect::<Vec<_>>().join(" "))
        };
        for (given, found) in [
            (&[][..], "step mount"),
            (&["type=exec.cachemount"], "mount"),
            (&["type!=exec.cachemount"], "step"),
            (&["description~=echo"], "step"),
            (&["id=ste", "shared=true"], "step"),
            (&["id=ste", "shared=false"], ""),
            (&["until=1h"], "step mount"),
            (&["unused-for=3h"], "step"),
            (&["mutable=true"], "mount"),
        ] {
            assert_eq!(matching(given).as_deref(), Ok(found), "{given:?}");
        }
        for (given, why) in [
            (&["type=a", "type=b"][..], "ERROR: filters expect only one value"),
            (
                &["until=1h", "unused-for=1h"],
                "ERROR: conflicting filters \"until\" and \"unused-for\"",
            ),
            (
                &["until=x"],
                "ERROR: \"until\" filter expects a duration (e.g., '24h'): time: invalid duration \"x\"",
            ),
        ] {
            assert_eq!(matching(given).unwrap_err(), why);
        }
        assert!(
            matching(&["nonsense=1"])
                .unwrap_err()
                .contains("invalid filter nonsense")
        );
    }
}
