//! What comes in or goes out by a link takes the way over another one first: a filter that fits everything (tc-u32(8)) and
//! sends it there (tc-mirred(8)). An `ifb` gives back what has passed its queue where it was taken.
//!
//! u32 and not matchall: that one is missing from kernels that have all the rest. As long as the filter is there and the
//! link it leads to is not, or is down, everything is dropped.

use super::rate::{TCA_KIND, TCA_OPTIONS};
use crate::wire::{self, Message, Writer};

pub const NEW_FILTER: u16 = 44;
pub const DEL_FILTER: u16 = 45;
pub const GET_FILTER: u16 = 46;
/// `TC_H_CLSACT`, and the handle that goes with it.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;
pub const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
/// `TCA_ACT_KIND` and `TCA_ACT_OPTIONS` of the first action.
const FIRST: u16 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;

/// Which packets, seen from the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// `TC_H_MIN_INGRESS`
    Received = 0xffff_fff2,
    /// `TC_H_MIN_EGRESS`
    Sent = 0xffff_fff3,
}

impl Direction {
    /// Of our filters: others' have other numbers, and neither are ours in their way nor do we replace theirs. The kernel
    /// lists all u32 filters of a link that have the same, whichever direction is asked for.
    fn priority(self) -> u32 {
        match self {
            Self::Received => 0x6665,
            Self::Sent => 0x6666,
        }
    }
}

/// The place of filters at a link.
pub fn write_place(w: &mut Writer, link: u32) {
    head(w, link, CLSACT_HANDLE, CLSACT, 0);
    w.text(TCA_KIND, "clsact");
}

/// The filter, without what it does: enough to remove it.
pub fn write_filter(w: &mut Writer, link: u32, direction: Direction) {
    let info = direction.priority() << 16 | u32::from(ETH_P_ALL.to_be());
    head(w, link, 0, direction as u32, info);
    w.text(TCA_KIND, "u32");
}

pub fn write(w: &mut Writer, link: u32, direction: Direction, to: u32) {
    write_filter(w, link, direction);
    w.nest(TCA_OPTIONS, |w| {
        w.nest_raw(TCA_U32_SEL, |w| {
            // struct tc_u32_sel: TC_U32_TERMINAL, one key; then struct tc_u32_key, whose mask of 0 fits everything.
            w.put(&[1, 0, 1]);
            w.put(&[0; 13 + 16]);
        });
        w.nest(TCA_U32_ACT, |w| {
            w.nest(FIRST, |w| {
                w.text(TCA_ACT_KIND, "mirred");
                w.nest(TCA_ACT_OPTIONS, |w| {
                    w.nest_raw(TCA_MIRRED_PARMS, |w| {
                        // struct tc_mirred: index, capabilities, action, two counters, what to do, where.
                        for field in [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to] {
                            w.put(&field.to_ne_bytes());
                        }
                    });
                });
            });
        });
    });
}

/// `struct tcmsg` of all filters of a direction.
pub fn question(link: u32, direction: Direction) -> [u8; 20] {
    let mut question = [0; 20];
    question[4..8].copy_from_slice(&link.to_ne_bytes());
    question[12..16].copy_from_slice(&(direction as u32).to_ne_bytes());
    question
}

/// `struct tcmsg`.
pub fn head(w: &mut Writer, link: u32, handle: u32, parent: u32, info: u32) {
    w.put(&[0; 4]);
    for field in [link, handle, parent, info] {
        w.put(&field.to_ne_bytes());
    }
}

/// Where our filter of that direction leads: 0 when that link is gone. `None` for all others.
pub fn parse(message: Message<'_>, direction: Direction) -> Option<u32> {
    let ours = wire::u32_at(message.payload, 16)? >> 16 == direction.priority() && message.kind == NEW_FILTER;
    let attributes = message.payload.get(20..).filter(|_| ours)?;
    let action = wire::attribute(wire::attribute(attributes, TCA_OPTIONS)?, TCA_U32_ACT)?;
    let action = wire::attribute(action, FIRST)?;
    wire::attribute(action, TCA_ACT_KIND).filter(|kind| wire::text(kind) == "mirred")?;
    let parameters = wire::attribute(wire::attribute(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?;
    wire::u32_at(parameters, 24)
}
