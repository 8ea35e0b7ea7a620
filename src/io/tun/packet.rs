//! IPv4 packets with a TCP segment in them: reading what came, writing what goes.
//!
//! Nothing else is spoken. Fragments, other protocols and IPv6 read as `None`, and so does everything that is cut short
//! or says a length that it does not have. Options of IP are skipped; of TCP's only the maximum segment size is read
//! (RFC 9293 section 3.7.1), and only in a SYN it means something.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

/// Bytes of an IPv4 header without options, which is what we write.
const IP_BYTES: usize = 20;
/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;
/// Both headers of a segment that is no SYN.
pub(super) const HEADER_BYTES: u16 = 40;
const _: () = assert!(HEADER_BYTES as usize == IP_BYTES + TCP_BYTES);
/// Bytes of the option that says a maximum segment size.
const MSS_BYTES: usize = 4;

const PROTOCOL_TCP: u8 = 6;
/// Hops that a packet may take; there is one.
const TTL: u8 = 64;
const DO_NOT_FRAGMENT: u16 = 0x4000;

/// Control bits, RFC 9293 section 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(pub(super) u8);

impl Bits {
    pub(super) const FIN: Self = Self(1);
    pub(super) const SYN: Self = Self(1 << 1);
    pub(super) const RST: Self = Self(1 << 2);
    pub(super) const PSH: Self = Self(1 << 3);
    pub(super) const ACK: Self = Self(1 << 4);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits too, on that condition.
    pub(super) const fn with_if(self, other: Self, condition: bool) -> Self {
        if condition { self.with(other) } else { self }
    }
}

/// A segment, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) seq: u32,
    /// Means something with [`Bits::ACK`].
    pub(super) ack: u32,
    pub(super) bits: Bits,
    pub(super) window: u16,
    /// The sender's maximum segment size, if it says one.
    pub(super) mss: Option<u16>,
}

/// Who answers for the checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    /// Each packet carries its own.
    Full,
    /// The device vouches for what it gives, and needs of TCP's only the part over addresses and length.
    Offloaded,
}

/// Reads a packet. The range is where its payload lies.
pub(super) fn read(packet: &[u8], checksums: Checksums) -> Option<(Segment, Range<usize>)> {
    let (ip, rest) = packet.split_first_chunk::<IP_BYTES>()?;
    let ip_bytes = usize::from(ip[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // The last 13 bits of this word are a fragment's offset, the one before says that more follow.
    let is_fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if ip[0] >> 4 != 4 || ip_bytes < IP_BYTES || ip[9] != PROTOCOL_TCP || is_fragment {
        return None;
    }
    // What follows the packet's own end is padding.
    let tcp = packet.get(ip_bytes..total)?;
    let (header, _) = tcp.split_first_chunk::<TCP_BYTES>()?;
    let tcp_bytes = usize::from(header[12] >> 4) * 4;
    let options = tcp.get(TCP_BYTES..tcp_bytes)?;
    let (source, target) = (address(&ip[12..]), address(&ip[16..]));
    if checksums == Checksums::Full
        && (fold(sum(&packet[..ip_bytes])) != 0xffff || fold(pseudo(source, target, tcp.len()) + sum(tcp)) != 0xffff)
    {
        return None;
    }
    debug_assert!(rest.len() + IP_BYTES >= total);
    let segment = Segment {
        from: SocketAddrV4::new(source, u16::from_be_bytes([header[0], header[1]])),
        to: SocketAddrV4::new(target, u16::from_be_bytes([header[2], header[3]])),
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        bits: Bits(header[13]),
        window: u16::from_be_bytes([header[14], header[15]]),
        mss: mss(options),
    };
    Some((segment, ip_bytes + tcp_bytes..total))
}

/// Writes a packet behind whatever is in `out`. `payload` has at most 65,535 bytes less the headers.
pub(super) fn write(segment: &Segment, payload: &[u8], checksums: Checksums, out: &mut Vec<u8>) {
    let start = out.len();
    let options = if segment.mss.is_some() { MSS_BYTES } else { 0 };
    let tcp_len = TCP_BYTES + options + payload.len();
    let total = u16::try_from(IP_BYTES + tcp_len).expect("callers cut payloads to a segment's size");
    let mut ip = [0; IP_BYTES];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
    (ip[8], ip[9]) = (TTL, PROTOCOL_TCP);
    ip[12..16].copy_from_slice(&segment.from.ip().octets());
    ip[16..].copy_from_slice(&segment.to.ip().octets());
    // The kernel checks this one itself whatever the device offers.
    let check = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut tcp = [0; TCP_BYTES];
    tcp[..2].copy_from_slice(&segment.from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&segment.to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    tcp[12] = if options == 0 { 5 << 4 } else { 6 << 4 };
    tcp[13] = segment.bits.0;
    tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
    out.extend_from_slice(&ip);
    out.extend_from_slice(&tcp);
    if let Some(mss) = segment.mss {
        let [high, low] = mss.to_be_bytes();
        out.extend_from_slice(&[2, 4, high, low]);
    }
    out.extend_from_slice(payload);
    let pseudo = pseudo(*segment.from.ip(), *segment.to.ip(), tcp_len);
    let check = match checksums {
        Checksums::Full => !fold(pseudo + sum(&out[start + IP_BYTES..])),
        // RFC 9293 has the complement of the whole sum; an offloading device begins with the sum of this part.
        Checksums::Offloaded => fold(pseudo),
    };
    out[start + IP_BYTES + 16..][..2].copy_from_slice(&check.to_be_bytes());
}

/// The four bytes at the beginning; the caller has them.
fn address(bytes: &[u8]) -> Ipv4Addr {
    bytes.first_chunk().map_or(Ipv4Addr::UNSPECIFIED, |octets: &[u8; 4]| Ipv4Addr::from(*octets))
}

/// The maximum segment size among TCP's options, RFC 9293 section 3.2.
fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            // Kind 0 ends the list, and so does a length that is shorter than its own two bytes.
            [0, ..] | [] | [_] | [_, 0 | 1, ..] => return None,
            [_, len, ..] => options = options.get(usize::from(*len)..)?,
        }
    }
}

/// What TCP's checksum covers beside the segment, RFC 9293 section 3.1.
fn pseudo(from: Ipv4Addr, to: Ipv4Addr, tcp_len: usize) -> u64 {
    sum(&from.octets()) + sum(&to.octets()) + u64::from(PROTOCOL_TCP) + tcp_len as u64
}

/// The sum of 16-bit words, RFC 1071, not folded yet. A packet has at most 2^15 of them, so it cannot overflow.
fn sum(bytes: &[u8]) -> u64 {
    let (words, last) = bytes.as_chunks::<2>();
    let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    sum + last.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// The ones' complement sum in 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "folded until it fits")]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot read its own packet has failed")]

    use proptest::prelude::*;

    use super::*;

    fn segment() -> Segment {
        Segment {
            from: SocketAddrV4::new(Ipv4Addr::new(198, 19, 0, 2), 1024),
            to: SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 80),
            seq: 0xffff_fff0,
            ack: 7,
            bits: Bits::SYN.with(Bits::ACK),
            window: 0xfedc,
            mss: Some(1460),
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for (mss, payload) in [(Some(1460), &b""[..]), (None, b"odd"), (None, b"even")] {
            let mut packet = Vec::new();
            write(&Segment { mss, ..segment() }, payload, Checksums::Full, &mut packet);
            let (read, range) = read(&packet, Checksums::Full).unwrap();
            assert_eq!(read, Segment { mss, ..segment() });
            assert_eq!(&packet[range], payload);
        }
    }

    #[test]
    fn any_flipped_bit_shows_when_checksums_are_full() {
        let mut packet = Vec::new();
        write(&segment(), b"payload", Checksums::Full, &mut packet);
        for bit in 0..packet.len() * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad, Checksums::Full), None, "bit {bit}");
        }
    }

    #[test]
    fn a_packet_that_is_cut_short_is_none() {
        let mut packet = Vec::new();
        write(&segment(), b"payload", Checksums::Offloaded, &mut packet);
        for len in 0..packet.len() {
            assert_eq!(read(&packet[..len], Checksums::Offloaded), None, "{len} bytes");
        }
        packet.push(0);
        assert!(read(&packet, Checksums::Offloaded).is_some(), "padding is no harm");
    }

    #[test]
    fn odd_options_are_skipped_or_end_the_list() {
        assert_eq!(mss(&[1, 1, 2, 4, 5, 180]), Some(1460));
        assert_eq!(mss(&[3, 3, 7, 2, 4, 5, 180, 0]), Some(1460));
        for none in [&[][..], &[0, 2, 4, 5, 180], &[8, 0, 2, 4, 5, 180], &[8, 200, 2, 4], &[2, 4, 5], &[2]] {
            assert_eq!(mss(none), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_beyond_the_packet(
            packet in proptest::collection::vec(any::<u8>(), 0..120),
            ip in 0x40_u8..0x50,
            len in 0_u16..130,
        ) {
            let mut packet = packet;
            if packet.len() > 33 {
                (packet[0], packet[6], packet[7], packet[9]) = (ip, 0, 0, PROTOCOL_TCP);
                packet[2..4].copy_from_slice(&len.to_be_bytes());
            }
            if let Some((_, payload)) = read(&packet, Checksums::Offloaded) {
                prop_assert!(payload.start <= payload.end && payload.end <= packet.len());
            }
        }
    }
}
