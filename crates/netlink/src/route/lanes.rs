//! Inside a link's token bucket: two lanes, of which the fast one always goes first. It is for TCP's bare acknowledgements,
//! which would wait behind what the other end of their connections has nothing to do with.
//!
//! ```text
//!   1: tbf ── 2: htb ─┬─ 2:1 first ── 3: bfifo ◀── u32: an acknowledgement and nothing else
//!                     └─ 2:2 then  ── 4: bfifo ◀── all else
//! ```
//!
//! The bucket counts both. `htb` (tc-htb(8)) is here for its priorities alone, with rates that nothing reaches: it is in
//! kernels that have no `prio`. An acknowledgement is told by its length and flags: a short piece of data without PSH is
//! taken for one as well, and comes early.

use super::rate::{self, BUCKET, NEW_QDISC, TCA_KIND, TCA_OPTIONS};
use super::redirect::{self, TCA_U32_SEL};
use super::request::Request;
use crate::wire::{self, Message, Writer};

pub const NEW_CLASS: u16 = 40;
/// Where the bucket's content is.
const IN_BUCKET: u32 = BUCKET | 1;
const LANES: u32 = 2 << 16;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_U32_CLASSID: u16 = 1;
const LINKLAYER_ETHERNET: u8 = 1;
/// Ten times what any link has, in bytes a second, and in the scheduler's ticks a burst of 17 seconds of it.
const RATE: u64 = 12_500_000_000_000;
const BURST: u32 = 0x0fff_ffff;
/// What a lane sends before another one of the same priority does; there is none.
const QUANTUM: u32 = 1 << 16;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Lane {
    Fast = 1,
    Usual = 2,
}

/// What lanes are made of, in the order in which it can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Takes the place of what the bucket held; all goes the usual way.
    Both,
    One(Lane),
    /// How many bytes may wait. Can be given again, and nothing that waits is lost.
    Limit(Lane, u32),
    /// Acknowledgements over IPv4 or IPv6 take the fast one.
    Acknowledgements {
        v6: bool,
    },
}

impl Part {
    /// All of it, for a bucket that has no lanes.
    pub fn all(link: u32, limit: u32) -> [Request<'static>; 7] {
        let [fast, usual] = Self::limits(link, limit);
        let part = |part| Request::Lanes { link, part };
        [
            part(Self::Both),
            part(Self::One(Lane::Fast)),
            part(Self::One(Lane::Usual)),
            fast,
            usual,
            part(Self::Acknowledgements { v6: false }),
            part(Self::Acknowledgements { v6: true }),
        ]
    }

    /// What changes with the bucket's limit.
    pub fn limits(link: u32, limit: u32) -> [Request<'static>; 2] {
        [Lane::Fast, Lane::Usual].map(|lane| Request::Lanes {
            link,
            part: Self::Limit(lane, limit),
        })
    }

    pub(super) fn kind(self) -> u16 {
        match self {
            Self::Both | Self::Limit(..) => NEW_QDISC,
            Self::One(_) => NEW_CLASS,
            Self::Acknowledgements { .. } => redirect::NEW_FILTER,
        }
    }

    pub(super) fn write(self, w: &mut Writer, link: u32) {
        match self {
            Self::Both => {
                redirect::head(w, link, LANES, IN_BUCKET, 0);
                w.text(TCA_KIND, "htb");
                w.nest(TCA_OPTIONS, |w| {
                    w.nest_raw(TCA_HTB_INIT, |w| {
                        // struct tc_htb_glob: version, the quantum's share of the rate, default class, two more.
                        for field in [3, 10, Lane::Usual as u32, 0, 0] {
                            w.put(&field.to_ne_bytes());
                        }
                    });
                });
            }
            Self::One(lane) => {
                redirect::head(w, link, class(lane), LANES, 0);
                w.text(TCA_KIND, "htb");
                w.nest(TCA_OPTIONS, |w| write_class(w, lane));
            }
            Self::Limit(lane, limit) => {
                redirect::head(w, link, (lane as u32 + 2) << 16, class(lane), 0);
                w.text(TCA_KIND, "bfifo");
                w.u32(TCA_OPTIONS, limit);
            }
            Self::Acknowledgements { v6 } => {
                let (number, protocol) = if v6 { (2, ETH_P_IPV6) } else { (1, ETH_P_IP) };
                redirect::head(w, link, 0, LANES, number << 16 | u32::from(protocol.to_be()));
                w.text(TCA_KIND, "u32");
                w.nest(TCA_OPTIONS, |w| {
                    w.u32(TCA_U32_CLASSID, class(Lane::Fast));
                    w.nest_raw(TCA_U32_SEL, |w| write_keys(w, acknowledgement(v6)));
                });
            }
        }
    }
}

/// Value, mask and place, from the network header on, of the words of an acknowledgement.
fn acknowledgement(v6: bool) -> &'static [(u32, u32, u32)] {
    /// ACK, and none of PSH, RST, SYN, FIN and URG.
    const FLAGS: (u32, u32) = (0x0010_0000, 0x003f_0000);
    match v6 {
        false => &[
            // No options, and shorter than 128 bytes with the header.
            (0x4500_0000, 0xff00_ff80, 0),
            // Not a fragment.
            (0, 0x0000_3fff, 4),
            // TCP.
            (0x0006_0000, 0x00ff_0000, 8),
            (FLAGS.0, FLAGS.1, 32),
        ],
        true => &[
            // Shorter than 128 bytes without the header, and TCP follows.
            (0x0000_0600, 0xff80_ff00, 4),
            (FLAGS.0, FLAGS.1, 52),
        ],
    }
}

fn class(lane: Lane) -> u32 {
    LANES | lane as u32
}

fn write_class(w: &mut Writer, lane: Lane) {
    w.nest_raw(TCA_HTB_PARMS, |w| {
        // struct tc_htb_opt: two of struct tc_ratespec, two bursts, quantum, level, priority.
        for _ in 0..2 {
            w.put(&[0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
            w.put(&u32::MAX.to_ne_bytes());
        }
        for field in [BURST, BURST, QUANTUM, 0, lane as u32] {
            w.put(&field.to_ne_bytes());
        }
    });
    for rate in [TCA_HTB_RATE64, TCA_HTB_CEIL64] {
        w.attribute(rate, &RATE.to_ne_bytes());
    }
}

fn write_keys(w: &mut Writer, keys: &[(u32, u32, u32)]) {
    // struct tc_u32_sel: TC_U32_TERMINAL, how many keys; then a struct tc_u32_key each.
    w.put(&[1, 0, u8::try_from(keys.len()).unwrap_or(u8::MAX)]);
    w.put(&[0; 13]);
    for (value, mask, at) in keys {
        w.put(&mask.to_be_bytes());
        w.put(&value.to_be_bytes());
        w.put(&at.to_ne_bytes());
        w.put(&[0; 4]);
    }
}

/// The question for a link's lanes.
pub fn question(w: &mut Writer, link: u32) {
    redirect::head(w, link, LANES, 0, 0);
}

/// `Some` for lanes.
pub fn parse(message: Message<'_>) -> Option<()> {
    let attributes = message.payload.get(20..).filter(|_| message.kind == rate::NEW_QDISC)?;
    wire::attribute(attributes, TCA_KIND)
        .filter(|kind| wire::text(kind) == "htb")
        .map(|_| ())
}
