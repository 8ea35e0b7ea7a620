//! A listening socket's filter: from where connects are dropped by the kernel, without an answer.
//!
//! It is a program for the kernel's packet filter (classic BPF, `SO_ATTACH_FILTER`, which needs no privilege). Linux runs it
//! for what comes to the listening socket (`tcp_v4_rcv`, `tcp_v6_rcv`), so that a connect from such a place costs a look at
//! its addresses: no socket, no answer, no turn of a shard. The client's own kernel tries again after a second, and then
//! after longer and longer times (RFC 6298).
//!
//! It looks at connects alone: at segments with SYN and without ACK. A connection that was taken while a filter was set
//! has that filter as well (`sk_clone_lock`) until that is taken off: it does nothing there but cost a little.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use libc::sock_filter;
use socket2::{SockFilter, SockRef};

/// Where a client comes from, as limits count it: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since a client has as many of the others as it likes. What IPv4's begin with no IPv6 network can: those are groups (RFC 4291).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source([u32; 2]);

impl Source {
    const V4: u32 = u32::MAX;

    /// Where this address is from. An IPv4 address in IPv6's clothes (`::ffff:10.0.0.1`) is an IPv4 address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self([Self::V4, ip.to_bits()]),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments().map(u32::from);
                Self([a << 16 | b, c << 16 | d])
            }
        }
    }
}

/// Sources that one filter takes at most. Each makes two steps or five, of eight bytes, and before Linux 6.7 a socket has 20 KiB
/// for its filters (`net.core.optmem_max`): for the one before as well, until the next one is there.
pub const SOURCES_MAX: usize = 128;

/// Has the kernel drop connects from these sources, the first [`SOURCES_MAX`] of them, and no others.
pub(super) fn set(listener: &impl AsFd, sources: &[Source]) -> io::Result<()> {
    if sources.is_empty() {
        return clear(listener);
    }
    attach(listener, &program(&sources[..sources.len().min(SOURCES_MAX)]))
}

/// Has the kernel drop all connects.
pub(crate) fn set_for_all(listener: &impl AsFd) -> io::Result<()> {
    let all = [load_byte(FLAGS), and(SYN | ACK), when(SYN, 0, 1), drop_it(), pass()];
    attach(listener, &all)
}

fn attach(listener: &impl AsFd, steps: &[sock_filter]) -> io::Result<()> {
    let steps: Vec<_> = steps.iter().map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k)).collect();
    SockRef::from(listener).attach_filter(&steps)
}

/// Takes a socket's filter off, if it has one.
pub(super) fn clear(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).detach_filter() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Where the flags are in a TCP header (RFC 9293, 3.1), at which the program begins to count.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// Where the IP header is.
const IP: u32 = libc::SKF_NET_OFF.cast_unsigned();
/// Where the source is in it (RFC 791, 3.1; RFC 8200, 3).
const SOURCE_V4: u32 = IP + 12;
const SOURCE_V6: u32 = IP + 8;

/// The filter's program.
fn program(sources: &[Source]) -> Vec<sock_filter> {
    let is_v4 = |source: &&Source| source.0[0] == Source::V4;
    let v4 = sources.iter().filter(is_v4);
    let v6 = sources.iter().filter(|source| !is_v4(source));
    let mut steps = vec![load_byte(FLAGS), and(SYN | ACK), when(SYN, 1, 0), pass()];
    steps.extend([load_byte(IP), and(0xf0)]);
    // Behind those for IPv4, however many they are.
    let v4_steps: Vec<_> = std::iter::once(load(SOURCE_V4))
        .chain(v4.flat_map(|source| [when(source.0[1], 0, 1), drop_it()]))
        .chain([pass()])
        .collect();
    steps.extend([when(0x40, 1, 0), skip(v4_steps.len())]);
    steps.extend(v4_steps);
    // What is read of a packet's headers is a call: it is done once.
    steps.extend([load(SOURCE_V6), store(), load(SOURCE_V6 + 4), put_aside()]);
    for source in v6 {
        let [high, low] = source.0;
        steps.extend([load_stored(), when(high, 0, 3), take_back(), when(low, 0, 1), drop_it()]);
    }
    steps.push(pass());
    steps
}

/// One step, see `linux/filter.h`.
#[expect(clippy::cast_possible_truncation, reason = "codes have eight bits")]
const fn step(code: u32, then: u8, otherwise: u8, value: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: then, jf: otherwise, k: value }
}

const fn load(at: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

const fn load_byte(at: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at)
}

/// Keeps the value in the first word of the program's memory.
const fn store() -> sock_filter {
    step(libc::BPF_ST, 0, 0, 0)
}

const fn load_stored() -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_MEM, 0, 0, 0)
}

/// Keeps the value in the second register.
const fn put_aside() -> sock_filter {
    step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0)
}

const fn take_back() -> sock_filter {
    step(libc::BPF_MISC | libc::BPF_TXA, 0, 0, 0)
}

const fn and(bits: u32) -> sock_filter {
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

/// Goes on so many steps further if it is this value, and so many if it is not.
const fn when(value: u32, then: u8, otherwise: u8) -> sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
}

fn skip(steps: usize) -> sock_filter {
    step(libc::BPF_JMP | libc::BPF_JA, 0, 0, u32::try_from(steps).unwrap_or(u32::MAX))
}

const fn pass() -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX)
}

const fn drop_it() -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn sources(ips: &[&str]) -> Vec<Source> {
        ips.iter().map(|ip| Source::of(ip.parse().unwrap())).collect()
    }

    /// A connect from one address of this machine to another, or why there is none.
    fn connect(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into())?;
        socket.connect_timeout(&to.into(), Duration::from_millis(300))?;
        Ok(socket.into())
    }

    #[test]
    fn connects_from_these_are_not_answered_and_others_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let is_silent = |from: &str| match connect(from, to) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
        };
        let before = connect("127.0.0.7", to).unwrap();
        let (mut taken, _) = listener.accept().unwrap();
        // As many as there may be, of both kinds, and one more that is not looked at.
        let mut many: Vec<_> = (0..100_u32).map(|number| Source([Source::V4, 0x0a00_0000 + number])).collect();
        many.extend((0..27_u32).map(|number| Source([0x2001_0db8, number])));
        many.extend(sources(&["127.0.0.7", "127.0.0.9"]));
        assert_eq!(many.len(), SOURCES_MAX + 1);
        set(&listener, &many).unwrap();
        assert!(is_silent("127.0.0.7") && !is_silent("127.0.0.8") && !is_silent("127.0.0.9"));
        // Who is connected notices nothing.
        io::Write::write_all(&mut &before, b"x").unwrap();
        io::Read::read_exact(&mut taken, &mut [0]).unwrap();
        // Instead of those before.
        set(&listener, &sources(&["::ffff:127.0.0.8"])).unwrap();
        assert!(!is_silent("127.0.0.7") && is_silent("127.0.0.8"));
        // A connection has what its listener had, which is taken off as it is there.
        let after = connect("127.0.0.7", to).unwrap();
        clear(&after).unwrap();
        set(&listener, &[]).unwrap();
        assert!(!is_silent("127.0.0.8"));
        set(&listener, &[]).unwrap();
        clear(&listener).unwrap();
    }

    /// Both kinds come to such a listener.
    #[test]
    fn a_listener_of_both_kinds_knows_them_apart() {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(16).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let (v4, v6) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
        set(&socket, &sources(&["127.0.0.7", "0.0.0.0", "2001:db8::"])).unwrap();
        assert!(connect("127.0.0.7", v4).is_err());
        assert!(connect("127.0.0.1", v4).is_ok() && connect("::1", v6).is_ok());
        set(&socket, &sources(&["127.0.0.7", "::1"])).unwrap();
        assert!(connect("127.0.0.1", v4).is_ok() && connect("::1", v6).is_err());
    }

    /// What the kernel makes of a program, for packets that this machine cannot send.
    fn passes(program: &[sock_filter], ip: &[u8], tcp: &[u8]) -> bool {
        let (mut at, mut value, mut stored, mut aside) = (0, 0_u32, 0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            let read = |size: usize| {
                let (from, place) = if step.k >= IP { (ip, step.k - IP) } else { (tcp, step.k) };
                from[place as usize..][..size].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
            };
            match code & 7 {
                libc::BPF_LD if code & libc::BPF_MEM == libc::BPF_MEM => value = stored,
                libc::BPF_ST => stored = value,
                libc::BPF_MISC if code & 0xf8 == libc::BPF_TXA => value = aside,
                libc::BPF_MISC => aside = value,
                libc::BPF_LD => value = read(if code & libc::BPF_B != 0 { 1 } else { 4 }),
                libc::BPF_ALU => value &= step.k,
                libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => at += step.k as usize,
                libc::BPF_JMP => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                _ => return step.k != 0,
            }
        }
    }

    #[test]
    fn networks_of_ipv6_are_known_by_their_first_half() {
        let many = sources(&["192.0.2.1", "2001:db8:1:2::", "2001:db8:1:3::", "fd00::"]);
        let steps = program(&many);
        let from = |ip: &str| match ip.parse().unwrap() {
            IpAddr::V4(ip) => [&[0x45; 12][..], &ip.octets(), &[0; 4]].concat(),
            IpAddr::V6(ip) => [&[0x60; 8][..], &ip.octets(), &[0; 16]].concat(),
        };
        let tcp = |flags: u8| [&[0; 13][..], &[flags], &[0; 6]].concat();
        let is_dropped = |ip: &str| !passes(&steps, &from(ip), &tcp(0x02));
        for ip in ["192.0.2.1", "2001:db8:1:2::7", "2001:db8:1:3:ffff:ffff:ffff:ffff", "fd00::1"] {
            assert!(is_dropped(ip), "{ip}");
            // What goes on, and what is an answer.
            assert!([0x10, 0x12, 0x18, 0x04].iter().all(|flags| passes(&steps, &from(ip), &tcp(*flags))), "{ip}");
            // With bits that say something else (ECN, RFC 3168) it is a connect all the same.
            assert!(!passes(&steps, &from(ip), &tcp(0xc2)), "{ip}");
        }
        for ip in ["192.0.2.2", "2001:db8:1:4::7", "2001:db9:1:2::7", "fd01::1", "::1"] {
            assert!(!is_dropped(ip), "{ip}");
        }
    }

    #[test]
    fn a_program_has_room_for_all() {
        let most: Vec<_> = (1..=u32::try_from(SOURCES_MAX).unwrap()).map(|number| Source([number, number])).collect();
        assert!(program(&most).len() <= usize::try_from(libc::BPF_MAXINSNS).unwrap());
    }
}
