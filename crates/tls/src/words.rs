//! What is wrong with a connection, in Go's words.

use std::io;

use rustls::pki_types::UnixTime;

/// What TLS said, in however many wraps: `source` does not lead to it.
pub fn of_io(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<io::Error>() {
        Some(error) => of_io(error),
        None => inner.downcast_ref(),
    }
}

/// As Go words it, with what to do about it.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let x509 = |text: String| format!("tls: failed to verify certificate: x509: {text}");
    match error {
        rustls::Error::InvalidCertificate(certificate) => x509(match certificate {
            Certificate::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            Certificate::BadSignature => {
                "certificate signed by unknown authority (one of that name is known, and did not sign it)".to_owned()
            }
            Certificate::Expired | Certificate::NotValidYet => "certificate has expired or is not yet valid".to_owned(),
            Certificate::ExpiredContext { time, not_after } => format!(
                "certificate has expired or is not yet valid: current time {} is after {}",
                date(*time),
                date(*not_after)
            ),
            Certificate::NotValidYetContext { time, not_before } => format!(
                "certificate has expired or is not yet valid: current time {} is before {}",
                date(*time),
                date(*not_before)
            ),
            Certificate::NotValidForNameContext { expected, presented } => wrong_name(&expected.to_str(), presented),
            other => other.to_string(),
        }),
        // The first byte of "HTTP/1.1 400 Bad Request" is no type of a record.
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        rustls::Error::AlertReceived(alert) => self::alert(&format!("{alert:?}")),
        other => format!("tls: {other}"),
    }
}

/// `CertificateRequired` as `certificate required`: what Go says of most alerts.
pub fn alert(name: &str) -> String {
    let (mut words, mut before) = (String::new(), true);
    for letter in name.chars() {
        if letter.is_uppercase() && !before {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
        before = letter.is_uppercase();
    }
    format!("remote error: tls: {words}")
}

/// `presented` as webpki prints names: `DnsName("a")`, `IpAddress(127.0.0.1)`.
fn wrong_name(expected: &str, presented: &[String]) -> String {
    let inside = |name: &String| {
        let from = name.find('(').map_or(0, |at| at + 1);
        name[from..].trim_end_matches(')').trim_matches('"').to_owned()
    };
    let is_address = expected.parse::<std::net::IpAddr>().is_ok();
    let fitting = presented.iter().filter(|name| name.starts_with("Ip") == is_address);
    let names: Vec<String> = fitting.map(inside).collect();
    match (names.is_empty(), is_address) {
        (true, true) => format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs"),
        (true, false) => format!("certificate is not valid for any names, but wanted to match {expected}"),
        _ => format!("certificate is valid for {}, not {expected}", names.join(", ")),
    }
}

/// RFC 3339 in UTC, without fractions.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_go_does() {
        let presented = [r#"DnsName("a.example")"#.to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        assert_eq!(
            wrong_name("b.example", &presented),
            "certificate is valid for a.example, not b.example"
        );
        assert_eq!(
            wrong_name("127.0.0.1", &presented),
            "certificate is valid for 10.0.0.1, not 127.0.0.1"
        );
        assert_eq!(
            wrong_name("127.0.0.1", &presented[..1]),
            "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        );
    }
}
