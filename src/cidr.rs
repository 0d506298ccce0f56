//! Ranges of IP addresses, as `--allow`, `--deny` and their like name them.
//!
//! ```text
//! 10.0.0.0/8     fd00::/8     192.0.2.7     2001:db8::7          a lone address is a range of one
//! ```
//!
//! Nothing here resolves a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wanted where a range is read.
const WANTED: &str = "an address or CIDR such as 192.0.2.7, 10.0.0.0/8 or fd00::/8";

/// A range of addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads `ADDRESS[/BITS]`, IPv6 without brackets. Bits behind the prefix are dropped.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        Cidr::read(text).ok_or_else(|| WANTED.to_owned())
    }

    /// Whether `ip` lies inside. An IPv4-mapped IPv6 address counts as the IPv4 address in it, and a range of such
    /// addresses as the IPv4 range: what a connection's address looks like depends on the socket alone.
    #[must_use]
    pub fn covers(self, ip: IpAddr) -> bool {
        self.unmapped().contains(ip.to_canonical())
    }

    /// Whether `ip` lies inside as it is written: an IPv4-mapped address in ranges of IPv6 only.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.network, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= self.prefix.into()
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                (net.to_bits() ^ ip.to_bits()).leading_zeros() >= self.prefix.into()
            }
            _ => false,
        }
    }

    fn read(text: &str) -> Option<Cidr> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().ok()?;
        let widest = widest(ip);
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => widest,
        };
        (prefix <= widest).then(|| Cidr { network: masked(ip, prefix), prefix })
    }

    /// The IPv4 range of a range of IPv4-mapped addresses.
    fn unmapped(self) -> Cidr {
        match (self.network.to_canonical(), self.prefix.checked_sub(96)) {
            (network @ IpAddr::V4(_), Some(prefix)) if self.network.is_ipv6() => Cidr { network, prefix },
            _ => self,
        }
    }
}

/// As [`Cidr::parse`] reads it; an address alone where the range is one.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cidr { network, prefix } = self;
        if *prefix == widest(*network) { network.fmt(f) } else { write!(f, "{network}/{prefix}") }
    }
}

/// `ip` with all bits behind the first `prefix` cleared.
#[must_use]
pub fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let behind = u32::from(widest(ip).saturating_sub(prefix));
    match ip {
        IpAddr::V4(ip) => {
            Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(behind).unwrap_or(0)).into()
        }
        IpAddr::V6(ip) => {
            Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(behind).unwrap_or(0)).into()
        }
    }
}

fn widest(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn is_read_whole_or_not() {
        for text in [
            "",
            "/8",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            " 10.0.0.1",
            "fd00::/129",
            "[fd00::]/8",
            "fe80::1%eth0",
            "host",
            "*",
        ] {
            assert_eq!(Cidr::parse(text), Err(WANTED.to_owned()), "{text}");
        }
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("FD00::1/8", "fd00::/8"),
            ("::1", "::1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/104", "::ffff:10.0.0.0/104"),
        ] {
            assert_eq!(cidr(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped = ip("::ffff:10.0.0.1");
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::ffff:0:0/96", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
            assert!(cidr(text).covers(mapped) && cidr(text).covers(ip("10.0.0.1")), "{text}");
            assert_eq!(cidr(text).contains(mapped), text.starts_with("::"), "{text}");
        }
        for text in ["::/0", "::/64", "::ffff:11.0.0.0/104", "11.0.0.0/8"] {
            assert!(!cidr(text).covers(mapped) && !cidr(text).covers(ip("10.0.0.1")), "{text}");
        }
        assert!(cidr("::/0").contains(mapped) && cidr("::/0").covers(ip("2001:db8::1")));
    }

    proptest! {
        #[test]
        fn covers_what_its_prefix_says(net: u128, ip: u128, same in 0u32..=128, prefix in 0u8..=128) {
            // Addresses that share their first bits: two of chance alone hardly ever do.
            let ip = net ^ (ip.checked_shr(same).unwrap_or(0));
            let v6 = Cidr::parse(&format!("{}/{prefix}", Ipv6Addr::from_bits(net))).unwrap();
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            prop_assert_eq!(v6.contains(Ipv6Addr::from_bits(ip).into()), net & mask == ip & mask);
            prop_assert_eq!(Cidr::parse(&v6.to_string()), Ok(v6));
            let v4 = |bits: u128| Ipv4Addr::from(<[u8; 4]>::try_from(&bits.to_be_bytes()[..4]).unwrap());
            let range = Cidr { network: masked(v4(net).into(), prefix.min(32)), prefix: prefix.min(32) };
            let inside = mask.leading_ones().min(32) <= (u32::from(v4(net)) ^ u32::from(v4(ip))).leading_zeros();
            prop_assert_eq!(range.covers(v4(ip).into()), inside);
            prop_assert_eq!(range.covers(v4(ip).to_ipv6_mapped().into()), inside);
            prop_assert_eq!(Cidr::parse(&range.to_string()), Ok(range));
        }
    }
}
