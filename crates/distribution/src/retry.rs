//! When to try again, and after how long.

use std::time::{Duration, SystemTime};

use ferry_kit::Backoff;
use http::{HeaderMap, StatusCode, header};

use crate::options::Limits;
use crate::{Error, Result};

/// Failures in a row.
#[derive(Debug)]
pub(crate) struct Retry {
    most: u32,
    failures: u32,
    backoff: Backoff,
    longest_hint: Duration,
}

impl Retry {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.attempts,
            failures: 0,
            backoff: Backoff::new(limits.pause, limits.longest_pause),
            longest_hint: limits.retry_after,
        }
    }

    /// Waits, or gives the error back when it is final.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        self.failures += 1;
        let hint = error.answer().and_then(|answer| answer.retry_after);
        if self.failures >= self.most || !passes(&error) || hint.is_some_and(|hint| hint > self.longest_hint) {
            return Err(error);
        }
        let delay = jitter(self.backoff.advance()).max(hint.unwrap_or_default());
        tracing::debug!(%error, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }
}

/// Whether the same may work in a while.
fn passes(error: &Error) -> bool {
    match error {
        Error::Network { .. } => true,
        Error::Refused { answer, .. } => is_passing(answer.status),
        _ => false,
    }
}

pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Between a half and the whole, so that many clients do not come back at once.
fn jitter(delay: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut random);
    delay.mul_f64(0.5 + f64::from(u16::from_ne_bytes(random)) / 131_072.0)
}

/// `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(of(&later).unwrap() > Duration::from_secs(90));
    }

    #[test]
    fn jitter_stays_below_the_delay() {
        for _ in 0..100 {
            let delay = jitter(Duration::from_secs(1));
            assert!(
                delay >= Duration::from_millis(500) && delay <= Duration::from_secs(1),
                "{delay:?}"
            );
        }
    }
}
