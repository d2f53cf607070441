//! One TCP connection: two sockets, and a pipe each way.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::Place;

/// What a pipe holds.
const PIPE: usize = 64 * 1024;
/// Moves of a turn, each way.
const TURN: usize = 8;

pub(super) struct Stream {
    /// The number of the listener it came by.
    pub listener: u64,
    /// The client's, and the container's.
    ends: [OwnedFd; 2],
    /// From the client, and to it.
    flows: [Flow; 2],
    /// What epoll waits for at each end.
    waiting: [EventFlags; 2],
    connecting: bool,
}

struct Flow {
    output: OwnedFd,
    input: OwnedFd,
    /// In the pipe.
    held: usize,
    /// Where it comes from sends no more.
    ended: bool,
    /// Where it goes to has been told so.
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    On,
    Over,
}

impl Stream {
    pub fn open(listener: u64, client: OwnedFd, to: SocketAddr) -> io::Result<Self> {
        let container = super::towards(to, SocketType::STREAM)?;
        for socket in [&client, &container] {
            sockopt::set_tcp_nodelay(socket, true)?;
        }
        let flow = || -> io::Result<Flow> {
            let (output, input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            Ok(Flow {
                output,
                input,
                held: 0,
                ended: false,
                told: false,
            })
        };
        Ok(Self {
            listener,
            ends: [client, container],
            flows: [flow()?, flow()?],
            waiting: [EventFlags::empty(); 2],
            connecting: true,
        })
    }

    /// Goes on after an event at one of its ends.
    pub fn go_on(&mut self, end: usize, flags: EventFlags) -> Progress {
        if flags.contains(EventFlags::ERR) {
            return Progress::Over;
        }
        if self.connecting {
            if end == 1 {
                match sockopt::socket_error(&self.ends[1]) {
                    Ok(Ok(())) => self.connecting = false,
                    _ => return Progress::Over,
                }
            } else if flags.contains(EventFlags::HUP) {
                return Progress::Over;
            }
        }
        if !self.connecting {
            for from in [0, 1] {
                if self.move_from(from).is_err() {
                    return Progress::Over;
                }
            }
        }
        match self.flows.iter().all(|flow| flow.told) {
            true => Progress::Over,
            false => Progress::On,
        }
    }

    fn move_from(&mut self, from: usize) -> io::Result<()> {
        let (source, target) = (&self.ends[from], &self.ends[1 - from]);
        let flow = &mut self.flows[from];
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURN {
            // What is held has to go first: how much more a pipe takes depends on how it came.
            if flow.held == 0 && !flow.ended {
                match rustix::pipe::splice(source, None, &flow.input, None, PIPE, flags) {
                    Ok(0) => flow.ended = true,
                    Ok(count) => flow.held = count,
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if flow.held > 0 {
                match rustix::pipe::splice(&flow.output, None, target, None, flow.held, flags) {
                    Ok(count) => flow.held -= count.min(flow.held),
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if flow.held == 0 && flow.ended {
                break;
            }
        }
        if flow.ended && flow.held == 0 && !flow.told {
            flow.told = true;
            // A peer that has closed need not be told.
            let _ = rustix::net::shutdown(target, Shutdown::Write);
        }
        Ok(())
    }

    /// Has epoll wait for what can happen next. An end that nothing is wanted of is not in it: the kernel would tell of its
    /// hang-up over and over.
    pub fn register(&mut self, epoll: &OwnedFd, number: u64) -> io::Result<()> {
        for end in [0, 1] {
            let (from, to) = (&self.flows[end], &self.flows[1 - end]);
            let mut wanted = EventFlags::empty();
            if self.connecting {
                wanted |= if end == 1 { EventFlags::OUT } else { EventFlags::empty() };
            } else {
                wanted.set(EventFlags::IN, from.held == 0 && !from.ended);
                wanted.set(EventFlags::OUT, to.held > 0);
            }
            let (socket, data) = (&self.ends[end], Place::End(end).data(number));
            match (self.waiting[end].is_empty(), wanted.is_empty()) {
                _ if self.waiting[end] == wanted => {}
                (true, _) => epoll::add(epoll, socket, data, wanted)?,
                (false, true) => epoll::delete(epoll, socket)?,
                (false, false) => epoll::modify(epoll, socket, data, wanted)?,
            }
            self.waiting[end] = wanted;
        }
        Ok(())
    }
}
