//! The parts of DNS messages that the resolver looks at (RFC 1035, RFC 6891). What it only passes on stays bytes.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// What a client without EDNS takes by UDP (RFC 1035, 4.2.1).
const PLAIN: u16 = 512;
/// What we say we take; nobody sends us more than a query.
const OURS: u16 = 1232;
pub(crate) const HEADER: usize = 12;
/// The bits of the header's third byte.
const TRUNCATED: u8 = 0x02;
/// Bounds the time to walk through a message: the smallest record has 11 bytes, so a message holds fewer.
const MAX_RECORDS: usize = 6000;

/// A client's question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub header: Header,
    pub query: Query,
    /// What the client takes by UDP, and its version of EDNS, if it speaks that.
    pub edns: Option<(u16, u8)>,
}

/// What came instead of a question.
#[derive(Debug)]
pub(crate) enum Malformed {
    /// No answer is due: a response, or less than a header.
    Ignored,
    /// To be answered with this.
    Refused(Vec<u8>),
}

impl Question {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| Malformed::Ignored)?;
        if header.message_type == MessageType::Response {
            return Err(Malformed::Ignored);
        }
        if header.op_code != OpCode::Query {
            return Err(Malformed::Refused(bare(bytes, ResponseCode::NotImp)));
        }
        let format = || Malformed::Refused(bare(bytes, ResponseCode::FormErr));
        if header.counts.queries != 1 || header.truncation {
            return Err(format());
        }
        let query = Query::read(&mut decoder).map_err(|_| format())?;
        let mut edns = None;
        let mut duplicate = false;
        walk(bytes, &mut |record| {
            if record.kind == RecordType::OPT {
                duplicate |= edns.is_some();
                // The TTL of an OPT record: extended code, version, flags (RFC 6891, 6.1.3).
                edns = Some((record.class.max(PLAIN), record.ttl.to_be_bytes()[1]));
            }
        })
        .ok_or_else(format)?;
        if duplicate {
            return Err(format());
        }
        Ok(Self { header, query, edns })
    }

    /// The name as text, without the dot at its end. `None` for one with bytes in it that no name of ours has.
    pub fn name(&self) -> Option<String> {
        let mut text = String::new();
        for label in self.query.name().iter() {
            let label = std::str::from_utf8(label).ok().filter(|label| !label.contains('.'))?;
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(label);
        }
        Some(text)
    }

    /// The address that a name below in-addr.arpa or ip6.arpa stands for.
    pub fn reverse(&self) -> Option<IpAddr> {
        let net = self.query.name().parse_arpa_name().ok()?;
        (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
    }

    pub fn limit(&self, udp: bool) -> usize {
        match self.edns {
            _ if !udp => u16::MAX.into(),
            Some((size, _)) => size.into(),
            None => PLAIN.into(),
        }
    }

    /// An answer of our own without records.
    pub fn failure(&self, code: ResponseCode) -> Vec<u8> {
        encode(&self.response(code)).unwrap_or_default()
    }

    /// An answer with addresses; cut, and marked so, when the client takes no more than `limit` bytes.
    pub fn addresses(&self, addresses: &[IpAddr], ttl: u32, limit: usize) -> Vec<u8> {
        let data = |address: &IpAddr| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        self.records(addresses.iter().map(data), ttl, limit)
    }

    /// An answer with a name. `None` if it is too long for one.
    pub fn pointer(&self, name: &str, ttl: u32) -> Option<Vec<u8>> {
        let mut target = Name::new();
        for label in name.split('.') {
            target = target.append_label(label.as_bytes()).ok()?;
        }
        target.set_fqdn(true);
        Some(self.records([RData::PTR(PTR(target))], ttl, usize::from(u16::MAX)))
    }

    fn records(&self, data: impl IntoIterator<Item = RData>, ttl: u32, limit: usize) -> Vec<u8> {
        let mut message = self.response(ResponseCode::NoError);
        message.answers = data
            .into_iter()
            // No record is smaller than 16 bytes.
            .take(usize::from(u16::MAX) / 16)
            .map(|data| Record::from_rdata(self.query.name().clone(), ttl, data))
            .collect();
        loop {
            let over = match encode(&message) {
                Some(bytes) if bytes.len() <= limit => return bytes,
                Some(bytes) => bytes.len() - limit,
                // Larger than any message: the size is not known.
                None => message.answers.len() * 4,
            };
            if message.answers.is_empty() {
                return bare(&encode(&message).unwrap_or_default(), ResponseCode::ServFail);
            }
            // The largest of these is one of IPv6, compressed: 28 bytes.
            let keep = message.answers.len().saturating_sub(over.div_ceil(28).max(1));
            message.answers.truncate(keep);
            message.metadata.truncation = true;
        }
    }

    /// As Docker's: recursion available, not authoritative.
    fn response(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.header.id, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(OURS);
            message.set_edns(edns);
        }
        message
    }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

/// An answer that is a header alone, to whatever has at least a header.
fn bare(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut answer = query.get(..HEADER).unwrap_or_default().to_vec();
    if let [_, _, flags, more, counts @ ..] = answer.as_mut_slice() {
        // The operation and "recursion desired" stay.
        *flags = *flags & 0x79 | 0x80;
        *more = 0x80 | code.low();
        counts.fill(0);
    }
    answer
}

/// The part of a record that does not depend on its type.
pub(crate) struct Fields {
    pub kind: RecordType,
    pub class: u16,
    pub ttl: u32,
    /// Where its TTL is in the message.
    pub ttl_at: usize,
    /// Where its data is in the message.
    pub data: std::ops::Range<usize>,
}

/// Gives all records of a message to `visit`; `None` if it is not whole.
pub(crate) fn walk(bytes: &[u8], visit: &mut dyn FnMut(Fields)) -> Option<()> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    if header.counts.queries > 1 {
        return None;
    }
    for _ in 0..header.counts.queries {
        Query::read(&mut decoder).ok()?;
    }
    let counts = [
        header.counts.answers,
        header.counts.authorities,
        header.counts.additionals,
    ];
    let records = counts.into_iter().map(usize::from).sum::<usize>();
    if records > MAX_RECORDS {
        return None;
    }
    for _ in 0..records {
        Name::read(&mut decoder).ok()?;
        let kind = RecordType::from(decoder.read_u16().ok()?.unverified());
        let class = decoder.read_u16().ok()?.unverified();
        let ttl_at = decoder.index();
        let ttl = decoder.read_u32().ok()?.unverified();
        let length = decoder.read_u16().ok()?.unverified();
        let start = decoder.index();
        decoder.read_slice(length.into()).ok()?;
        visit(Fields {
            kind,
            class,
            ttl,
            ttl_at,
            data: start..decoder.index(),
        });
    }
    Some(())
}

/// What an upstream server says to a question, as far as it matters here.
pub(crate) struct Answer {
    pub code: ResponseCode,
    pub truncated: bool,
    /// Its records can be read.
    pub whole: bool,
}

impl Answer {
    /// `None` if it is no answer to the question that was sent with this id.
    pub fn parse(bytes: &[u8], id: u16, question: &Query) -> Option<Self> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        if header.id != id || header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return None;
        }
        match header.counts.queries {
            1 => {
                let same = Query::read(&mut decoder).ok()?;
                // Names compare without case here.
                if same != *question {
                    return None;
                }
            }
            // Servers that did not understand the question may leave it out.
            0 if header.response_code != ResponseCode::NoError => {}
            _ => return None,
        }
        Some(Self {
            code: header.response_code,
            truncated: header.truncation,
            whole: walk(bytes, &mut |_| {}).is_some(),
        })
    }
}

/// Cuts an answer that is longer than the client takes down to its question, and says so in it.
pub(crate) fn fit(mut answer: Vec<u8>, question: &Question, limit: usize) -> Vec<u8> {
    if answer.len() <= limit {
        return answer;
    }
    let mut short = question.failure(ResponseCode::NoError);
    if let (Some([_, _, flags, more]), Some([_, _, had, had_more])) = (short.first_chunk_mut(), answer.first_chunk()) {
        *flags = *had | TRUNCATED;
        *more = *had_more;
    }
    std::mem::swap(&mut answer, &mut short);
    answer
}

pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn query(id: u16, name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    pub fn bytes(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
        query(id, name, kind).to_vec().unwrap()
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let good = bytes(7, "web.", RecordType::A);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        let code = |bytes: &[u8]| match Question::parse(bytes) {
            Ok(_) => None,
            Err(Malformed::Ignored) => Some(-1),
            Err(Malformed::Refused(answer)) => {
                assert_eq!(answer[..2], [0, 7]);
                assert_eq!(answer.len(), HEADER);
                Some(i32::from(answer[3] & 15))
            }
        };
        assert_eq!(code(&good), None);
        assert_eq!(code(&good[..11]), Some(-1));
        assert_eq!(code(&changed(2, 0x81)), Some(-1), "a response");
        assert_eq!(code(&changed(2, 0x29)), Some(4), "an update");
        assert_eq!(code(&changed(5, 0)), Some(1), "no question");
        assert_eq!(code(&changed(5, 2)), Some(1), "two questions");
        assert_eq!(code(&changed(7, 1)), Some(1), "a record that is not there");
        assert_eq!(code(&good[..16]), Some(1), "cut");
        assert_eq!(code(&changed(12, 0xc0)), Some(1), "a pointer to itself");
    }

    #[test]
    fn names_are_text_only_when_they_say_the_same() {
        let name = |labels: &[&[u8]]| {
            let name = Name::from_labels(labels.iter().copied()).unwrap();
            let mut message = query(1, ".", RecordType::A);
            message.queries[0].set_name(name);
            Question::parse(&message.to_vec().unwrap()).unwrap().name()
        };
        assert_eq!(name(&[b"Web", b"front"]).as_deref(), Some("Web.front"));
        assert_eq!(name(&[b"my_app"]).as_deref(), Some("my_app"));
        assert_eq!(name(&["käse".as_bytes()]).as_deref(), Some("käse"));
        assert_eq!(name(&[b"a.b"]), None);
        assert_eq!(name(&[&[0xff]]), None);
    }
}
