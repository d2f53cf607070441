//! The names of one network: a file that the engine writes and every container's shim on that network reads.
//!
//! ```text
//! ferry-zone 1
//! web 172.18.0.2,fd00::2 0123456789ab api www
//! ```
//!
//! A line is an endpoint: its canonical name (the answer to a reverse query), its addresses, and further names. Names are
//! compared without regard to case, and several endpoints may have the same one.
//!
//! A shim keeps the text and an index of 8 bytes a name, so that a network of a thousand containers costs each of them
//! little more than the file.

use std::net::IpAddr;

use crate::Error;
use crate::settings::within;

pub(crate) const HEADER: &str = "ferry-zone 1";
/// No zone is larger: more than 100,000 endpoints.
pub const MAX_ZONE: usize = 16 << 20;

/// One container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The container's name.
    pub name: String,
    /// Aliases and the first twelve digits of its id.
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// A zone to look names up in.
#[derive(Default)]
pub struct Zone {
    text: Box<str>,
    /// By hash.
    names: Box<[Entry]>,
    /// By hash.
    addresses: Box<[Entry]>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: u32,
    /// Where in the text the endpoint's line begins, so that equal names keep the file's order.
    line: u32,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zone")
            .field("names", &self.names.len())
            .field("addresses", &self.addresses.len())
            .finish_non_exhaustive()
    }
}

/// Whether a zone can carry the name and a query can ask for it: at most 253 bytes, in labels of 1 to 63, without white space,
/// control characters, commas and backslashes.
pub fn is_name(name: &str) -> bool {
    let forbidden = |byte: u8| byte <= b' ' || byte == 0x7f || byte == b',' || byte == b'\\';
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
        && !name.bytes().any(forbidden)
        && !name.contains(char::is_whitespace)
}

impl Zone {
    /// The file's content. What is no name (see [`is_name`]) is left out, since nobody could ask for it; an endpoint without a
    /// name of its own or without addresses is left out too.
    pub fn write<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> String {
        use std::fmt::Write as _;
        let mut text = format!("{HEADER}\n");
        for endpoint in endpoints {
            if !is_name(&endpoint.name) || endpoint.addresses.is_empty() {
                continue;
            }
            text.push_str(&endpoint.name);
            for (index, address) in endpoint.addresses.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(text, "{}{address}", if index == 0 { ' ' } else { ',' });
            }
            for alias in endpoint.aliases.iter().filter(|alias| is_name(alias)) {
                text.push(' ');
                text.push_str(alias);
            }
            text.push('\n');
        }
        text
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        within("the zone", text.len(), MAX_ZONE)?;
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        let mut offset = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // Fits: the text is at most 16 MiB.
            let start = u32::try_from(offset).unwrap_or(u32::MAX);
            offset += line.len();
            let line = line.trim_end_matches('\n');
            if number == 0 {
                if line != HEADER {
                    return Err(Error::Header);
                }
                continue;
            }
            let wrong = |reason| Error::Line {
                line: number + 1,
                reason,
            };
            let entry = |hash| Entry { hash, line: start };
            let parts = Line::of(line).ok_or_else(|| wrong("a name and addresses are needed"))?;
            for name in parts.names() {
                if !is_name(name) {
                    return Err(wrong("that is no name"));
                }
                names.push(entry(hash_name(name)));
            }
            for address in parts.addresses.split(',') {
                let address: IpAddr = address.parse().map_err(|_| wrong("that is no address"))?;
                addresses.push(entry(hash_address(address)));
            }
        }
        if offset == 0 {
            return Err(Error::Header);
        }
        Ok(Self {
            text: text.into(),
            names: sorted(names),
            addresses: sorted(addresses),
        })
    }

    /// The addresses of all endpoints that have the name, in the file's order; `None` if there is no such name.
    pub fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = None;
        for line in self.lines(&self.names, hash_name(name)) {
            if line.names().any(|known| known.eq_ignore_ascii_case(name)) {
                let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
                addresses.extend(line.addresses());
            }
        }
        found
    }

    /// The canonical name of the endpoint that has the address.
    pub fn reverse(&self, address: IpAddr) -> Option<&str> {
        self.lines(&self.addresses, hash_address(address))
            .find(|line| line.addresses().any(|known| known == address))
            .map(|line| line.name)
    }

    fn lines<'z>(&'z self, index: &'z [Entry], hash: u32) -> impl Iterator<Item = Line<'z>> {
        let first = index.partition_point(|entry| entry.hash < hash);
        index[first..]
            .iter()
            .take_while(move |entry| entry.hash == hash)
            .filter_map(|entry| {
                let rest = self.text.get(usize::try_from(entry.line).ok()?..)?;
                Line::of(rest.split('\n').next()?)
            })
    }
}

/// The parts of an endpoint's line.
struct Line<'a> {
    name: &'a str,
    addresses: &'a str,
    aliases: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once(' ')?;
        let (addresses, aliases) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self {
            name,
            addresses,
            aliases,
        })
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        let aliases = self.aliases.split(' ').filter(|alias| !alias.is_empty());
        std::iter::once(self.name).chain(aliases)
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.split(',').filter_map(|address| address.parse().ok())
    }
}

fn sorted(mut entries: Vec<Entry>) -> Box<[Entry]> {
    entries.sort_unstable();
    // An endpoint whose alias is also its name counts once.
    entries.dedup();
    entries.into()
}

/// FNV-1a: a collision costs one comparison more.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn hash_name(name: &str) -> u32 {
    hash(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

fn hash_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => hash(address.octets().into_iter()),
        IpAddr::V6(address) => hash(address.octets().into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(name: &str, addresses: &[&str], aliases: &[&str]) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn zone(endpoints: &[Endpoint]) -> Zone {
        Zone::parse(&Zone::write(endpoints)).unwrap()
    }

    fn text(addresses: Option<Vec<IpAddr>>) -> Option<String> {
        let text: Vec<_> = addresses?.iter().map(ToString::to_string).collect();
        Some(text.join(" "))
    }

    #[test]
    fn names_aliases_and_addresses_are_found() {
        let zone = zone(&[
            endpoint("web", &["172.18.0.2", "fd00::2"], &["0123456789ab", "www", "Api"]),
            endpoint("db", &["172.18.0.3"], &["www", "db"]),
        ]);
        let table = [
            ("web", Some("172.18.0.2 fd00::2")),
            ("WEB", Some("172.18.0.2 fd00::2")),
            ("api", Some("172.18.0.2 fd00::2")),
            ("0123456789AB", Some("172.18.0.2 fd00::2")),
            ("www", Some("172.18.0.2 fd00::2 172.18.0.3")),
            ("db", Some("172.18.0.3")),
            ("172.18.0.3", None),
            ("we", None),
            ("web.", None),
            ("", None),
            ("ferry-zone", None),
        ];
        for (name, addresses) in table {
            assert_eq!(text(zone.lookup(name)).as_deref(), addresses, "{name}");
        }
        assert_eq!(zone.reverse("fd00::2".parse().unwrap()), Some("web"));
        assert_eq!(zone.reverse("172.18.0.3".parse().unwrap()), Some("db"));
        assert_eq!(zone.reverse("172.18.0.4".parse().unwrap()), None);
    }

    #[test]
    fn what_nobody_can_ask_for_is_left_out() {
        let long = "a".repeat(64);
        let written = Zone::write(&[
            endpoint(
                "web",
                &["10.0.0.1"],
                &["two words", "", "a..b", ".", "line\nbreak", "co,mma", &long, "ok"],
            ),
            endpoint("no address", &["10.0.0.2"], &[]),
            endpoint("none", &[], &["alias"]),
        ]);
        assert_eq!(written, "ferry-zone 1\nweb 10.0.0.1 ok\n");
    }

    #[test]
    fn a_file_that_is_none_names_the_line() {
        for text in ["", "\n", "ferry-zone 2\n", "web 10.0.0.1\n"] {
            assert!(matches!(Zone::parse(text), Err(Error::Header)), "{text:?}");
        }
        for line in [
            "web",
            "web ",
            "web x",
            "web 10.0.0.1,",
            " 10.0.0.1",
            "",
            "a..b 10.0.0.1",
            "web 10.0.0.1 a..b",
        ] {
            let error = Zone::parse(&format!("ferry-zone 1\ndb 10.0.0.2\n{line}\n")).unwrap_err();
            assert!(matches!(error, Error::Line { line: 3, .. }), "{line:?}: {error}");
        }
        assert!(Zone::parse("ferry-zone 1").unwrap().lookup("a").is_none());
    }

    #[test]
    fn a_thousand_containers_are_found_among_each_other() {
        let endpoints: Vec<_> = (0..1000)
            .map(|number| {
                let address = format!("10.{}.{}.9", number / 200, number % 200);
                endpoint(&format!("c{number}"), &[&address], &["all", &format!("{number:012x}")])
            })
            .collect();
        let zone = zone(&endpoints);
        assert_eq!(zone.lookup("all").unwrap().len(), 1000);
        for endpoint in &endpoints {
            assert_eq!(zone.lookup(&endpoint.name).unwrap(), endpoint.addresses);
            assert_eq!(zone.lookup(&endpoint.aliases[1]).unwrap(), endpoint.addresses);
            assert_eq!(zone.reverse(endpoint.addresses[0]), Some(endpoint.name.as_str()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_zone_or_an_error(text in "(ferry-zone 1\n)?(([a-z.:,0-9 é\t\r]{0,20}|[a-c]{1,3} 10.0.0.[1-9]( [a-c]{1,3}){0,2})\n){0,6}") {
            if let Ok(zone) = Zone::parse(&text) {
                for word in text.split([' ', '\n', ',']) {
                    let _ = zone.lookup(word);
                    if let Ok(address) = word.parse() {
                        prop_assert!(zone.reverse(address).is_some());
                    }
                }
            }
        }

        #[test]
        fn what_is_written_is_read(
            endpoints in prop::collection::vec(("\\PC{0,8}", prop::collection::vec("\\PC{0,8}", 0..3), any::<[u8; 4]>()), 0..8)
        ) {
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|(name, aliases, address)| Endpoint { name, aliases, addresses: vec![address.into()] })
                .collect();
            let zone = Zone::parse(&Zone::write(&endpoints)).unwrap();
            for endpoint in endpoints.iter().filter(|endpoint| is_name(&endpoint.name)) {
                for name in endpoint.aliases.iter().chain([&endpoint.name]).filter(|name| is_name(name)) {
                    let found = zone.lookup(name).unwrap();
                    prop_assert!(found.contains(&endpoint.addresses[0]));
                }
            }
        }
    }
}
