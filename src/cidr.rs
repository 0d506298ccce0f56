//! Networks as `10.0.0.0/8` and `2001:db8::/32`; an address alone is a network of one. Pure.

use std::fmt;
use std::net::IpAddr;

/// A network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let wanted = || "a network such as 10.0.0.0/8 or 2001:db8::/32".to_owned();
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| wanted())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wanted()))?;
        if bits > most {
            return Err(wanted());
        }
        Ok(Cidr { base, bits })
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn covers(&self, ip: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => (base.to_bits() ^ ip.to_bits()).leading_zeros() >= bits,
            (IpAddr::V6(base), IpAddr::V6(ip)) => (base.to_bits() ^ ip.to_bits()).leading_zeros() >= bits,
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}
