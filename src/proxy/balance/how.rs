//! The ways to balance, as `--balance` names them. Nothing here picks a member.

use std::fmt;

/// How a member is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Balance {
    /// The less loaded of two taken by chance.
    P2c,
    /// The one with the fewest sessions for its weight.
    LeastConn,
    /// One after the other, as often as their weights say.
    RoundRobin,
    /// Always the same one for the same key, as long as it is there.
    Hash(HashKey),
}

/// What makes two sessions the same to a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// Where they come from: an IPv4 address, or an IPv6 network of 64 bits.
    Source,
    /// The server name of their TLS hello.
    Sni,
    /// The authority of their PROXY header.
    Authority,
}

impl Balance {
    /// Reads the option's value.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Balance, String> {
        Ok(match text {
            "p2c" => Balance::P2c,
            "leastconn" => Balance::LeastConn,
            "roundrobin" => Balance::RoundRobin,
            "hash" => Balance::Hash(HashKey::Source),
            "hash:sni" => Balance::Hash(HashKey::Sni),
            "hash:authority" => Balance::Hash(HashKey::Authority),
            _ => return Err("p2c, leastconn, roundrobin, hash, hash:sni or hash:authority".to_owned()),
        })
    }
}

/// As [`Balance::parse`] reads it.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::P2c => "p2c",
            Balance::LeastConn => "leastconn",
            Balance::RoundRobin => "roundrobin",
            Balance::Hash(HashKey::Source) => "hash",
            Balance::Hash(HashKey::Sni) => "hash:sni",
            Balance::Hash(HashKey::Authority) => "hash:authority",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_and_written() {
        for text in ["p2c", "leastconn", "roundrobin", "hash", "hash:sni", "hash:authority"] {
            assert_eq!(Balance::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "P2C", "hash:", "hash:source", "random"] {
            assert!(Balance::parse(text).unwrap_err().starts_with("p2c, leastconn"), "{text}");
        }
    }
}
