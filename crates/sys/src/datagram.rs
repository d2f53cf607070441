//! Datagrams with the address of ours that they were sent to. A socket that is bound to every address answers from whichever
//! the kernel likes, which a client takes for somebody else's answer unless it is told.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr;

use rustix::net::addr::{SocketAddrArg as _, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags};

/// Room for either family's packet information, aligned as `struct cmsghdr` is.
const SPACE: usize = 64;

#[repr(C, align(8))]
struct Control([u8; SPACE]);

/// Has the kernel say of each datagram where it was sent to.
pub fn tell_destination(socket: impl AsFd) -> io::Result<()> {
    let (level, name) = match rustix::net::sockopt::socket_domain(&socket)? {
        AddressFamily::INET6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        _ => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: `on` is an int that lives during the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            ptr::from_ref(&on).cast(),
            length(size_of::<libc::c_int>()),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives one datagram without waiting: its length, who sent it, and to which address.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; SPACE]);
    let mut parts = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is plain data, for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = length(size_of::<libc::sockaddr_storage>());
    header.msg_iov = &raw mut parts;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = SPACE as _;
    // SAFETY: name, buffer and control live during the call, and their sizes are given.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut destination = None;
    // SAFETY: `header` describes `control`, which the kernel has filled in; the macros stay within it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(head) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    destination = Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    // SAFETY: the kernel has written a name of `msg_namelen` bytes into zeroed storage, which is aligned for every family.
    let from = unsafe {
        match libc::c_int::from((*name.as_ptr()).ss_family) {
            libc::AF_INET => {
                let address = &*name.as_ptr().cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
                SocketAddr::new(ip.into(), u16::from_be(address.sin_port))
            }
            libc::AF_INET6 => {
                let address = &*name.as_ptr().cast::<libc::sockaddr_in6>();
                std::net::SocketAddrV6::new(
                    Ipv6Addr::from(address.sin6_addr.s6_addr),
                    u16::from_be(address.sin6_port),
                    0,
                    address.sin6_scope_id,
                )
                .into()
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    };
    Ok((received, from, destination))
}

/// Sends one datagram without waiting, from the given address of ours.
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    let Some(from) = from else {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        return Ok(rustix::net::sendto(socket, bytes, flags, &to).map(drop)?);
    };
    let mut control = Control([0; SPACE]);
    let mut parts = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all that the header points to lives during the call with the sizes that it says: the name as long as the closure
    // runs, the control buffer with room for one message of either kind. The kernel does not write to them.
    let sent = unsafe {
        to.with_sockaddr(|address: *const SocketAddrOpaque, size| {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_name = address.cast_mut().cast();
            header.msg_namelen = size;
            header.msg_iov = &raw mut parts;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = SPACE as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            let used = match from {
                IpAddr::V4(from) => {
                    let mut info: libc::in_pktinfo = std::mem::zeroed();
                    info.ipi_spec_dst.s_addr = from.to_bits().to_be();
                    fill(message, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
                }
                IpAddr::V6(from) => {
                    let mut info: libc::in6_pktinfo = std::mem::zeroed();
                    info.ipi6_addr.s6_addr = from.octets();
                    fill(message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
                }
            };
            header.msg_controllen = used as _;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags)
        })
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a control message; returns the room it takes.
///
/// # Safety
///
/// `message` points to room for a message with a `T`.
unsafe fn fill<T>(message: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, info: T) -> usize {
    let size = length(size_of::<T>());
    // SAFETY: as the caller promises.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast::<T>(), info);
        usize::try_from(libc::CMSG_SPACE(size)).unwrap_or(SPACE)
    }
}

/// Of a few bytes.
fn length(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_answer_comes_from_where_the_question_went() {
        for (all, one) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(all).unwrap();
            tell_destination(&server).unwrap();
            let port = server.local_addr().unwrap().port();
            let one: IpAddr = one.parse().unwrap();
            let client = UdpSocket::bind((one, 0)).unwrap();
            client.connect((one, port)).unwrap();
            client.send(b"who").unwrap();
            let mut buffer = [0; 16];
            let (received, from, destination) = receive(&server, &mut buffer).unwrap();
            assert_eq!((&buffer[..received], destination), (&b"who"[..], Some(one)));
            assert_eq!(from, client.local_addr().unwrap());
            send(&server, b"me", from, destination).unwrap();
            // A connected socket hears nobody else.
            client
                .set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 2);
            assert_eq!(
                receive(&server, &mut buffer).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
    }
}
