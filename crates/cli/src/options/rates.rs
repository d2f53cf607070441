//! `--net-rate` and its like, in tc's notation: bits a second.

use ferry_api::container::NetRate;

use super::Result;
use crate::flags::Matches;

/// What tc calls the units, and bits of each.
const UNITS: [(&str, u64); 9] = [
    ("kibit", 1 << 10),
    ("mibit", 1 << 20),
    ("gibit", 1 << 30),
    ("tibit", 1 << 40),
    ("kbit", 1000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("tbit", 1_000_000_000_000),
    ("bit", 1),
];
/// In bytes a second: 8 kbit, and 10 tbit.
const LEAST: u64 = 1000;
const MOST: u64 = 1_250_000_000_000;

/// Bytes a second; 0 is no limit.
pub fn parse(text: &str) -> Result<u64> {
    let malformed = || {
        format!(
            "{text:?} is no rate: a number and bit, kbit, mbit, gbit or tbit a second, as in 10mbit, or 0 for no limit"
        )
    };
    if text == "0" {
        return Ok(0);
    }
    let lower = text.to_ascii_lowercase();
    if let Some(number) = lower.strip_suffix("bps").or_else(|| lower.strip_suffix('b'))
        && number.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "{text:?} would be bytes: say it in bits, as in 40mbit for 5 MB a second"
        ));
    }
    let unit = UNITS
        .iter()
        .find_map(|(unit, bits)| Some((lower.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.ok_or_else(malformed)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || number.ends_with('.') {
        return Err(malformed());
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| malformed())?;
    let bytes = digits.saturating_mul(bits.into()) / scale / 8;
    match u64::try_from(bytes) {
        Ok(bytes @ LEAST..=MOST) => Ok(bytes),
        _ => Err(format!("{text:?} is out of range: 8kbit to 10tbit, or 0 for no limit")),
    }
}

/// What the flags ask for; `None` when none of them is there.
pub fn net_rate(matches: &Matches) -> Result<Option<NetRate>> {
    let rate = |flag| matches.get(flag).or(matches.get("net-rate")).map(parse).transpose();
    let burst = matches.is_set("net-burst").then(|| matches.bytes("net-burst"));
    let rates = NetRate {
        r#in: rate("net-rate-in")?,
        out: rate("net-rate-out")?,
        burst: burst
            .map(|burst| u64::try_from(burst).map_err(|_| "--net-burst: less than nothing".to_owned()))
            .transpose()?,
    };
    Ok(Some(rates).filter(|rates| *rates != NetRate::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_and_become_bytes() {
        for (text, bytes) in [
            ("10mbit", 1_250_000),
            ("1gbit", 125_000_000),
            ("500kbit", 62_500),
            ("8000bit", 1000),
            ("1.5Mbit", 187_500),
            ("1MIBIT", 131_072),
            ("10tbit", 1_250_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_by_name() {
        for (text, part) in [
            ("5MB", "would be bytes"),
            ("5mbps", "would be bytes"),
            ("5b", "would be bytes"),
            ("10", "is no rate"),
            ("mbit", "is no rate"),
            ("-1mbit", "is no rate"),
            ("1.mbit", "is no rate"),
            (".5mbit", "is no rate"),
            ("1e3mbit", "is no rate"),
            ("10m", "is no rate"),
            ("", "is no rate"),
            ("0mbit", "out of range"),
            ("7kbit", "out of range"),
            ("99999999999999999999999999999999999999tbit", "out of range"),
            ("9999999999999999999999999999999999999999999999tbit", "is no rate"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(part) && error.starts_with(&format!("{text:?}")),
                "{error}"
            );
        }
    }
}
