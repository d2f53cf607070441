//! Which builds are meant: `status==error,startedAt>24h`. Those of one text are all to match, those of several any.

use ferry_buildkit::Timestamp as WireTime;
use ferry_buildkit::control::BuildHistoryRecord;
use jiff::{SignedDuration, Timestamp};
use regex_lite::Regex;

pub struct Filters(Vec<Vec<Condition>>);

enum Condition {
    /// A field's text; `None` for one that is not there.
    Text(Field, Operator),
    Time(When, Order, Timestamp),
    /// From begin to end, or to now.
    Duration(Order, SignedDuration),
}

#[derive(Clone, Copy)]
enum Field {
    Ref,
    Repository,
    Status,
}

enum Operator {
    Is(String),
    IsNot(String),
    Matches(Regex),
    Present,
}

#[derive(Clone, Copy)]
enum When {
    Started,
    Completed,
}

#[derive(Clone, Copy)]
enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

/// The longer ones first: they begin with the others.
const ORDERS: [(&str, Order); 4] = [
    (">=", Order::MoreOrEqual),
    ("<=", Order::LessOrEqual),
    (">", Order::More),
    ("<", Order::Less),
];

impl Filters {
    /// Fails with the reason.
    pub fn parse(texts: &[String], now: Timestamp) -> Result<Self, String> {
        let parse = |text: &String| text.split(',').map(|one| Condition::parse(one, now)).collect();
        let parsed: Result<_, String> = texts.iter().map(parse).collect();
        parsed.map(Self)
    }

    pub fn match_(&self, record: &BuildHistoryRecord, now: Timestamp) -> bool {
        let all = |conditions: &Vec<Condition>| conditions.iter().all(|condition| condition.matches(record, now));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

impl Condition {
    fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        for (sign, order) in ORDERS {
            if let Some((name, value)) = text.split_once(sign) {
                return Self::ordered(name.trim(), order, value.trim(), now);
            }
        }
        type Make = fn(&str) -> Result<Operator, String>;
        let signs: [(&str, Make); 3] = [
            ("==", |value| Ok(Operator::Is(value.to_owned()))),
            ("!=", |value| Ok(Operator::IsNot(value.to_owned()))),
            ("~=", |value| {
                let pattern = Regex::new(value);
                pattern
                    .map(Operator::Matches)
                    .map_err(|error| format!("{value}: {error}"))
            }),
        ];
        for (sign, make) in signs {
            if let Some((name, value)) = text.split_once(sign) {
                return Ok(Self::Text(field(name)?, make(value.trim().trim_matches('"'))?));
            }
        }
        Ok(Self::Text(field(text)?, Operator::Present))
    }

    fn ordered(name: &str, order: Order, value: &str, now: Timestamp) -> Result<Self, String> {
        let when = match name {
            "startedAt" => When::Started,
            "completedAt" => When::Completed,
            "duration" => {
                let duration = ferry_kit::duration::parse_go(value);
                return duration
                    .map(|duration| Self::Duration(order, duration))
                    .map_err(|error| error.to_string());
            }
            name => {
                return Err(format!(
                    "{name} has no order: startedAt, completedAt and duration have one"
                ));
            }
        };
        // So long ago, or a time.
        let at = match ferry_kit::duration::parse_go(value) {
            Ok(ago) => now.checked_sub(ago).map_err(|error| error.to_string()),
            Err(_) => value
                .parse::<Timestamp>()
                .map_err(|_| format!("{value} is neither a duration nor a time")),
        };
        Ok(Self::Time(when, order, at?))
    }

    fn matches(&self, record: &BuildHistoryRecord, now: Timestamp) -> bool {
        let time = |time: &Option<WireTime>| {
            let time = time.as_ref()?;
            Timestamp::new(time.seconds, time.nanos).ok()
        };
        match self {
            Self::Text(field, operator) => operator.matches(value(*field, record)),
            Self::Time(When::Started, order, at) => {
                time(&record.created_at).is_some_and(|started| order.holds(started, *at))
            }
            Self::Time(When::Completed, order, at) => {
                time(&record.completed_at).is_some_and(|completed| order.holds(completed, *at))
            }
            Self::Duration(order, duration) => time(&record.created_at).is_some_and(|started| {
                let end = time(&record.completed_at).unwrap_or(now);
                order.holds(end.duration_since(started), *duration)
            }),
        }
    }
}

impl Operator {
    fn matches(&self, value: Option<&str>) -> bool {
        match self {
            Self::Is(wanted) => value == Some(wanted),
            Self::IsNot(wanted) => value != Some(wanted),
            Self::Matches(pattern) => value.is_some_and(|value| pattern.is_match(value)),
            Self::Present => value.is_some(),
        }
    }
}

impl Order {
    fn holds<T: PartialOrd + Copy>(self, one: T, other: T) -> bool {
        match self {
            Self::Less => one < other,
            Self::LessOrEqual => one <= other,
            Self::More => one > other,
            Self::MoreOrEqual => one >= other,
        }
    }
}

fn field(name: &str) -> Result<Field, String> {
    match name.trim() {
        "ref" => Ok(Field::Ref),
        "repository" => Ok(Field::Repository),
        "status" => Ok(Field::Status),
        other => Err(format!(
            "there is no field {other}: ref, repository and status are known"
        )),
    }
}

fn value(field: Field, record: &BuildHistoryRecord) -> Option<&str> {
    match field {
        Field::Ref => Some(record.r#ref.as_str()),
        Field::Status => Some(match (&record.completed_at, &record.error) {
            (None, _) => "running",
            (Some(_), None) => "completed",
            (Some(_), Some(error)) if error.message.contains("cancel") => "canceled",
            (Some(_), Some(_)) => "error",
        }),
        Field::Repository => {
            let attributes = &record.frontend_attrs;
            let context = || {
                attributes
                    .get("context")
                    .filter(|url| ferry_dockerfile::instruction::is_git(url))
            };
            let url = attributes.get("vcs:source").or_else(context)?;
            Some(url.split('#').next().unwrap_or(url))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_buildkit::RpcStatus;

    #[test]
    fn builds_are_chosen_as_buildkit_chooses_them() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let wire = |text: &str| {
            let time: Timestamp = text.parse().unwrap();
            Some(WireTime {
                seconds: time.as_second(),
                nanos: time.subsec_nanosecond(),
            })
        };
        let failed = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            frontend_attrs: [("context".to_owned(), "https://example.org/a.git#main".to_owned())].into(),
            error: Some(RpcStatus {
                message: "exit code: 1".to_owned(),
                ..RpcStatus::default()
            }),
            created_at: wire("2026-11-29T10:00:00Z"),
            completed_at: wire("2026-11-29T10:00:03Z"),
            ..BuildHistoryRecord::default()
        };
        for (texts, expected) in [
            (&[][..], true),
            (&["ref==abc"], true),
            (&["ref!=abc"], false),
            (&["ref~=^a.c$"], true),
            (&["ref~=x"], false),
            (&["status==error"], true),
            (&["status==completed"], false),
            (&["status==completed", "ref==abc"], true),
            (&["status==error,ref==x"], false),
            (&["repository==https://example.org/a.git"], true),
            (&["startedAt>3h"], true),
            (&["startedAt>1h"], false),
            (&["startedAt<2026-11-29T10:00:01Z"], true),
            (&["completedAt>=2026-11-29T10:00:03Z"], true),
            (&["completedAt<=2h"], false),
            (&["duration>2s"], true),
            (&["duration<=2s"], false),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let filters = Filters::parse(&texts, now).unwrap();
            assert_eq!(filters.match_(&failed, now), expected, "{texts:?}");
        }
        let running = BuildHistoryRecord {
            created_at: wire("2026-11-29T11:59:00Z"),
            ..BuildHistoryRecord::default()
        };
        for (text, expected) in [
            ("status==running", true),
            ("completedAt>1h", false),
            ("duration>30s", true),
            ("repository", false),
        ] {
            let filters = Filters::parse(&[text.to_owned()], now).unwrap();
            assert_eq!(filters.match_(&running, now), expected, "{text}");
        }
        for wrong in [
            "",
            "nonsense==1",
            "ref>1",
            "startedAt>soon",
            "duration>x",
            "ref~=(",
            "startedAt>999999999h",
        ] {
            assert!(Filters::parse(&[wrong.to_owned()], now).is_err(), "{wrong}");
        }
    }
}
