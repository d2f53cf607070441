//! `--health-*`: Docker's, and Ferry's own checks without a program.

use ferry_api::container::HealthCheck;

use super::Result;
use crate::flags::Matches;

/// What of the request is about health; `None` if nothing is.
pub(super) fn check(matches: &Matches) -> Result<Option<HealthCheck>> {
    let durations = [
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
    ];
    let [interval, timeout, start_period, start_interval] = durations.map(|name| matches.nanoseconds(name));
    let retries = matches.int("health-retries").unwrap_or(0);
    let tests = [
        ("health-cmd", "CMD-SHELL"),
        ("health-http", "HTTP"),
        ("health-tcp", "TCP"),
    ];
    let given: Vec<_> = tests
        .into_iter()
        .filter(|(flag, _)| !matches.text(flag).is_empty())
        .collect();
    if let [(one, _), (other, _), ..] = given.as_slice() {
        return Err(format!(
            "conflicting options: --{one} and --{other}: a container has one health check"
        ));
    }
    let test: Vec<String> = given
        .iter()
        .flat_map(|(flag, kind)| [(*kind).to_owned(), matches.text(flag).to_owned()])
        .collect();
    let on_failure = matches.text("health-on-failure");
    if !matches!(on_failure, "" | "none" | "restart" | "kill" | "stop") {
        return Err(format!(
            "invalid --health-on-failure {on_failure:?}: use none, restart, kill or stop"
        ));
    }
    let any = !test.is_empty()
        || !on_failure.is_empty()
        || [interval, timeout, start_period, start_interval, retries]
            .iter()
            .any(|value| *value != 0);
    if matches.switch("no-healthcheck") {
        if any {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(HealthCheck {
            test: vec!["NONE".into()],
            ..HealthCheck::default()
        }));
    }
    if !any {
        return Ok(None);
    }
    let named = durations
        .into_iter()
        .zip([interval, timeout, start_period, start_interval]);
    for (name, value) in named.chain([("health-retries", retries)]) {
        if value < 0 {
            return Err(format!("--{name} cannot be negative"));
        }
    }
    Ok(Some(HealthCheck {
        test,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
        on_failure: on_failure.into(),
    }))
}
