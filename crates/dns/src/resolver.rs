//! The resolver as a state machine: it is given packets and times, and says what to send where.
//!
//! ```text
//!   query ──▶ a name of ours ──────────────────────────────▶ Reply
//!         ├─▶ in the cache ────────────────────────────────▶ Reply
//!         ├─▶ the same is being asked ──▶ waits with it
//!         └─▶ flight: Ask server 1 ─ no answer within a step ─▶ Ask server 2 … ─▶ first good answer ─▶ Reply to all
//! ```
//!
//! A name of ours never waits for anybody. A server that let a step pass is thought dead for a while: it is asked last, and
//! once the while is over, beside one that lives, so that no query waits for it. An answer, however late, makes it live again.
//! All that a packet can make grow is bounded: flights, who waits for them, exchanges, and the cache.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RecordType};

use crate::cache::Cache;
use crate::packet::{self, Answer, HEADER, Malformed, Question};
use crate::settings::{Link, Options, Server};
use crate::zone::Zone;

/// How long clients may keep a name of ours: it moves when its container is made anew.
pub const TTL: u32 = 10;
/// Questions that are asked outside at the same time.
const MAX_FLIGHTS: usize = 256;
/// Clients that wait for one of them.
const MAX_WAITING: usize = 64;
/// Sockets towards servers at the same time.
const MAX_EXCHANGES: usize = 512;
/// How long a server may take before the next one is asked as well.
const STEP: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// How long a server is thought dead, at first and at most.
const DEAD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(80));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do. `C` says who a client is.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<C> {
    Reply {
        client: C,
        bytes: Vec<u8>,
    },
    /// Send the bytes to the server over a socket of this exchange's own, and bring what comes back with its number. Only what
    /// comes from the server's address may be brought. The same number again: send again, over the same socket.
    Ask {
        exchange: u64,
        server: Server,
        transport: Transport,
        bytes: Vec<u8>,
    },
    /// Nobody waits for this exchange any more; its socket may go.
    Close {
        exchange: u64,
    },
}

/// A zone and the name of its network.
#[derive(Debug, Clone)]
pub struct View {
    pub network: String,
    pub zone: Rc<Zone>,
}

#[derive(Debug)]
pub struct Resolver<C> {
    zones: Vec<View>,
    links: Vec<Link>,
    forward: bool,
    options: Options,
    servers: Vec<Upstream>,
    flights: Vec<Flight<C>>,
    cache: Cache,
    random: fn() -> u16,
    next: u64,
}

#[derive(Debug)]
struct Upstream {
    server: Server,
    /// It let a query pass; until when it is left alone.
    dead: Option<Instant>,
    failures: u32,
    /// When it last said anything.
    heard: Option<Instant>,
}

#[derive(Debug)]
struct Flight<C> {
    question: Question,
    transport: Transport,
    query: Vec<u8>,
    waiting: Vec<(C, u16)>,
    exchanges: Vec<Exchange>,
    /// Servers in the order they are asked in.
    order: Vec<usize>,
    /// How many have been asked, over all rounds.
    asked: usize,
    next_step: Instant,
    ends: Instant,
    /// A server's answer that is worse than another's would be.
    poor: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Exchange {
    number: u64,
    server: usize,
    id: u16,
    since: Instant,
    /// It let its step pass, which has been counted.
    late: bool,
}

impl<C: Clone + PartialEq> Resolver<C> {
    /// `random` gives the numbers by which forged answers are told from real ones, so it must be one that nobody can guess.
    pub fn new(random: fn() -> u16) -> Self {
        Self {
            zones: Vec::new(),
            links: Vec::new(),
            forward: false,
            options: Options::default(),
            servers: Vec::new(),
            flights: Vec::new(),
            cache: Cache::default(),
            random,
            next: 0,
        }
    }

    pub fn set_zones(&mut self, zones: Vec<View>) {
        self.zones = zones;
    }

    pub fn set_links(&mut self, links: Vec<Link>) {
        self.links = links;
    }

    /// Other servers: what the former ones said is forgotten, and what is asked of them fails.
    pub fn set_servers(&mut self, servers: &[Server], forward: bool, options: Options, actions: &mut Vec<Action<C>>) {
        self.options = options;
        if self.forward == forward && self.servers.iter().map(|upstream| &upstream.server).eq(servers) {
            return;
        }
        while !self.flights.is_empty() {
            self.fail(0, actions);
        }
        self.cache.clear();
        self.forward = forward;
        let upstream = |server: &Server| Upstream {
            server: *server,
            dead: None,
            failures: 0,
            heard: None,
        };
        self.servers = servers.iter().map(upstream).collect();
    }

    /// A client's packet.
    pub fn query(&mut self, now: Instant, transport: Transport, client: C, bytes: &[u8], actions: &mut Vec<Action<C>>) {
        let question = match Question::parse(bytes) {
            Ok(question) => question,
            Err(Malformed::Ignored) => return,
            Err(Malformed::Refused(bytes)) => {
                actions.push(Action::Reply { client, bytes });
                return;
            }
        };
        let answer = if question.edns.is_some_and(|(_, version)| version > 0) {
            Some(question.failure(ResponseCode::BADVERS))
        } else {
            self.own(&question, transport)
        };
        let id = question.header.id;
        let answer = answer.or_else(|| self.kept(now, transport, bytes, id)).or_else(|| {
            let single = question.name().is_some_and(|name| !name.contains('.'));
            let address = matches!(question.query.query_type(), RecordType::A | RecordType::AAAA);
            if !self.forward || self.servers.is_empty() {
                Some(question.failure(ResponseCode::ServFail))
            } else if single && address && self.options.keeps_single_labels() {
                Some(question.failure(ResponseCode::NoError))
            } else {
                None
            }
        });
        match answer {
            Some(bytes) => actions.push(Action::Reply { client, bytes }),
            None => self.forward(now, transport, client, question, bytes, actions),
        }
    }

    /// What came for an exchange. Anything that is no answer to it is ignored: the right one may follow.
    pub fn answer(&mut self, now: Instant, exchange: u64, bytes: &[u8], actions: &mut Vec<Action<C>>) {
        let Some((index, at)) = self.find(exchange) else { return };
        let flight = &mut self.flights[index];
        let Exchange { server, id, .. } = flight.exchanges[at];
        let Some(answer) = Answer::parse(bytes, id, &flight.question.query) else {
            return;
        };
        let upstream = &mut self.servers[server];
        upstream.heard = Some(now);
        upstream.dead = None;
        upstream.failures = 0;
        let good =
            matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain) && (answer.whole || answer.truncated);
        flight.exchanges.remove(at);
        actions.push(Action::Close { exchange });
        if good {
            let flight = self.flights.swap_remove(index);
            self.cache
                .keep(now, &key(flight.transport, &flight.query), &answer, bytes);
            deliver(flight, bytes, actions);
        } else {
            if answer.whole {
                flight.poor = Some(bytes.to_vec());
            }
            self.step(now, index, actions);
        }
    }

    /// The server of an exchange cannot be reached.
    pub fn failed(&mut self, now: Instant, exchange: u64, actions: &mut Vec<Action<C>>) {
        let Some((index, at)) = self.find(exchange) else { return };
        let gone = self.flights[index].exchanges.remove(at);
        actions.push(Action::Close { exchange });
        if !gone.late {
            self.servers[gone.server].missed(now, gone.since);
        }
        self.step(now, index, actions);
    }

    /// When [`Resolver::expire`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = |flight: &Flight<C>| flight.next_step.min(flight.ends);
        self.flights.iter().map(due).min()
    }

    /// What is due by time.
    pub fn expire(&mut self, now: Instant, actions: &mut Vec<Action<C>>) {
        let mut index = 0;
        while index < self.flights.len() {
            let flight = &mut self.flights[index];
            let over = flight.ends <= now;
            if !over && flight.next_step > now {
                index += 1;
                continue;
            }
            for exchange in flight.exchanges.iter_mut().filter(|exchange| !exchange.late) {
                exchange.late = true;
                self.servers[exchange.server].missed(now, exchange.since);
            }
            let before = self.flights.len();
            if over {
                self.fail(index, actions);
            } else {
                self.step(now, index, actions);
            }
            // One that ended left its place to the last one.
            if self.flights.len() == before {
                index += 1;
            }
        }
    }

    /// How many questions are being asked outside.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The answer to a question about a name or an address of ours. Such a name is never asked for outside.
    fn own(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        let class = question.query.query_class();
        if class != DNSClass::IN && class != DNSClass::ANY {
            return None;
        }
        let kind = question.query.query_type();
        if kind == RecordType::PTR
            && let Some(address) = question.reverse()
            && let Some(name) = self.reverse(address)
        {
            return question.pointer(&name, TTL);
        }
        let name = question.name()?;
        let mut addresses = self.lookup(&name, kind)?;
        if addresses.len() > 1 {
            // By chance, not by turns: clients ask for both families at once, and two turns are none.
            let by = usize::from((self.random)()) % addresses.len();
            addresses.rotate_left(by);
        }
        Some(question.addresses(&addresses, TTL, question.limit(transport == Transport::Udp)))
    }

    /// Docker's order: the whole name in every network, then what is before the network's name. A network that knows the name
    /// and has no such address leaves it to the next.
    fn lookup(&self, name: &str, kind: RecordType) -> Option<Vec<IpAddr>> {
        let wanted = |address: &IpAddr| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            RecordType::ANY => true,
            _ => false,
        };
        // A link is first: it is what this container calls the other.
        let linked = self
            .links
            .iter()
            .filter(|link| link.alias.eq_ignore_ascii_case(name))
            .map(|link| {
                let view = self.zones.iter().find(|view| view.network == link.network)?;
                view.zone.lookup(&link.target)
            });
        let whole = self.zones.iter().map(|view| view.zone.lookup(name));
        let within = self.zones.iter().map(|view| {
            let end = name.len().checked_sub(view.network.len())?;
            let (front, network) = (name.get(..end)?, name.get(end..)?);
            let front = front.strip_suffix('.')?;
            let same = !network.is_empty() && network.eq_ignore_ascii_case(&view.network);
            same.then(|| view.zone.lookup(front)).flatten()
        });
        let mut known = false;
        for mut addresses in linked.chain(whole).chain(within).flatten() {
            known = true;
            addresses.retain(wanted);
            if !addresses.is_empty() {
                return Some(addresses);
            }
        }
        known.then(Vec::new)
    }

    /// As Docker says it: with the network's name.
    fn reverse(&self, address: IpAddr) -> Option<String> {
        self.zones.iter().find_map(|view| {
            let name = view.zone.reverse(address)?;
            Some(match view.network.as_str() {
                "" => name.to_owned(),
                network => format!("{name}.{network}"),
            })
        })
    }

    fn kept(&self, now: Instant, transport: Transport, query: &[u8], id: u16) -> Option<Vec<u8>> {
        if !self.forward {
            return None;
        }
        let mut answer = self.cache.get(now, &key(transport, query))?;
        packet::set_id(&mut answer, id);
        Some(answer)
    }

    fn forward(
        &mut self,
        now: Instant,
        transport: Transport,
        client: C,
        question: Question,
        query: &[u8],
        actions: &mut Vec<Action<C>>,
    ) {
        let id = question.header.id;
        let same = |flight: &&mut Flight<C>| flight.transport == transport && flight.query.get(2..) == query.get(2..);
        if let Some(flight) = self.flights.iter_mut().find(same) {
            let waiter = (client, id);
            if flight.waiting.contains(&waiter) {
                // It asked again, as clients do that wait.
            } else if flight.waiting.len() < MAX_WAITING {
                flight.waiting.push(waiter);
            } else {
                let bytes = question.failure(ResponseCode::ServFail);
                actions.push(Action::Reply {
                    client: waiter.0,
                    bytes,
                });
            }
            return;
        }
        if self.flights.len() >= MAX_FLIGHTS {
            let bytes = question.failure(ResponseCode::ServFail);
            actions.push(Action::Reply { client, bytes });
            return;
        }
        let (mut order, dead): (Vec<_>, Vec<_>) =
            (0..self.servers.len()).partition(|&index| self.servers[index].dead.is_none());
        let alive = order.len();
        order.extend(dead);
        self.flights.push(Flight {
            question,
            transport,
            query: query.to_vec(),
            waiting: vec![(client, id)],
            exchanges: Vec::new(),
            order,
            asked: 0,
            next_step: now,
            // So that the client hears of it before it gives up itself.
            ends: now + self.options.timeout() - Duration::from_millis(200),
            poor: None,
        });
        let index = self.flights.len() - 1;
        if alive == 0 {
            // Whoever lives again may answer.
            for _ in 1..self.servers.len() {
                self.ask_next(now, index, actions);
            }
        } else {
            for position in alive..self.servers.len() {
                let server = self.flights[index].order[position];
                if self.servers[server].dead.is_some_and(|until| until <= now) {
                    self.servers[server].leave_alone(now);
                    self.ask(now, index, server, actions);
                }
            }
        }
        self.step(now, index, actions);
    }

    /// Asks the next server, or ends the flight when there is nobody to wait for.
    fn step(&mut self, now: Instant, index: usize, actions: &mut Vec<Action<C>>) {
        let flight = &self.flights[index];
        let all = self.servers.len();
        let rounds = usize::try_from(self.options.rounds()).unwrap_or(1);
        // A second round is for packets that were lost, not for answers that were poor.
        let more = flight.asked < all || (flight.asked < all * rounds && flight.poor.is_none());
        if more {
            self.ask_next(now, index, actions);
            return;
        }
        let flight = &mut self.flights[index];
        if flight.exchanges.is_empty() {
            self.fail(index, actions);
        } else {
            flight.next_step = flight.ends;
        }
    }

    fn ask_next(&mut self, now: Instant, index: usize, actions: &mut Vec<Action<C>>) {
        // All rounds fit before the client gives up.
        let asks = self.options.rounds() * u32::try_from(self.servers.len().max(1)).unwrap_or(1);
        let step = (self.options.timeout() / asks).clamp(STEP.0, STEP.1);
        let flight = &mut self.flights[index];
        let server = flight.order[flight.asked % flight.order.len()];
        flight.asked += 1;
        flight.next_step = now + step;
        self.ask(now, index, server, actions);
    }

    fn ask(&mut self, now: Instant, index: usize, server: usize, actions: &mut Vec<Action<C>>) {
        if self.exchanges() >= MAX_EXCHANGES {
            return;
        }
        let flight = &mut self.flights[index];
        let known = flight.exchanges.iter().find(|exchange| exchange.server == server);
        let (exchange, id) = match known {
            // TCP sends again by itself.
            Some(_) if flight.transport == Transport::Tcp => return,
            Some(known) => (known.number, known.id),
            None => {
                let (number, id) = (self.next, (self.random)());
                self.next += 1;
                flight.exchanges.push(Exchange {
                    number,
                    server,
                    id,
                    since: now,
                    late: false,
                });
                (number, id)
            }
        };
        let mut bytes = flight.query.clone();
        packet::set_id(&mut bytes, id);
        actions.push(Action::Ask {
            exchange,
            server: self.servers[server].server,
            transport: flight.transport,
            bytes,
        });
    }

    /// Ends a flight with the best there is.
    fn fail(&mut self, index: usize, actions: &mut Vec<Action<C>>) {
        let mut flight = self.flights.swap_remove(index);
        let bytes = match flight.poor.take() {
            Some(poor) => poor,
            None => flight.question.failure(ResponseCode::ServFail),
        };
        deliver(flight, &bytes, actions);
    }

    fn exchanges(&self) -> usize {
        self.flights.iter().map(|flight| flight.exchanges.len()).sum()
    }

    fn find(&self, exchange: u64) -> Option<(usize, usize)> {
        self.flights.iter().enumerate().find_map(|(index, flight)| {
            let at = flight.exchanges.iter().position(|known| known.number == exchange)?;
            Some((index, at))
        })
    }
}

impl Upstream {
    /// It did not answer what was asked at `since`.
    fn missed(&mut self, now: Instant, since: Instant) {
        if self.heard.is_none_or(|heard| heard < since) && self.dead.is_none() {
            self.leave_alone(now);
        }
    }

    fn leave_alone(&mut self, now: Instant) {
        self.dead = Some(now + (DEAD.0 * 2_u32.pow(self.failures.min(3))).min(DEAD.1));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Gives an answer to all who wait for it.
fn deliver<C>(flight: Flight<C>, bytes: &[u8], actions: &mut Vec<Action<C>>) {
    actions.extend(flight.exchanges.iter().map(|exchange| Action::Close {
        exchange: exchange.number,
    }));
    let limit = flight.question.limit(flight.transport == Transport::Udp);
    let answer = packet::fit(bytes.to_vec(), &flight.question, limit);
    for (client, id) in flight.waiting {
        let mut bytes = answer.clone();
        packet::set_id(&mut bytes, id);
        actions.push(Action::Reply { client, bytes });
    }
}

/// An answer is good for a question that is the same byte for byte, its number aside.
fn key(transport: Transport, query: &[u8]) -> Vec<u8> {
    let mut key = vec![u8::from(transport == Transport::Tcp)];
    key.extend_from_slice(query.get(2..).unwrap_or_default());
    debug_assert!(query.len() >= HEADER, "a question has a header");
    key
}
