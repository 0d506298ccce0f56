//! The fields behind the addresses of a version 2 header: type, length, value; and those within the `ssl` field.
//!
//! ```text
//! 02 000e 6170702e6578616d706c652e6e6574            authority "app.example.net"
//! 20 000f 01 00000000 | 21 0007 544c5376312e33      ssl: client bits, result of verification, fields of its own
//! ```

use super::Reason;
use std::fmt;

/// The TLS application protocol in use.
pub(super) const ALPN: u8 = 0x01;
/// The host name that the client asked for.
pub(super) const AUTHORITY: u8 = 0x02;
/// The checksum of the whole header.
pub(super) const CRC32C: u8 = 0x03;
/// The sender's name for the connection.
pub(super) const UNIQUE_ID: u8 = 0x05;
/// What TLS session the client has with the sender.
pub(super) const SSL: u8 = 0x20;
/// The network namespace of the sender's socket.
pub(super) const NETNS: u8 = 0x30;

/// How a run of fields fails to add up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// One or two bytes are left where a field should begin.
    Cut,
    /// The value of a field of this type runs past the end.
    Overruns(u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Cut => f.write_str("TLV header cut"),
            Fault::Overruns(kind) => write!(f, "TLV 0x{kind:02x} overruns"),
        }
    }
}

/// A header's fields, which have been found to add up. An empty value is as good as an absent field; where a type comes
/// more than once its last one counts, as for HAProxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// All fields in order, types without a meaning here included: type and value.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (kind, value, after) = split(rest).ok()?;
            rest = after;
            Some((kind, value))
        })
    }

    /// The value of the field of this type, if it is not empty.
    #[must_use]
    pub fn value(self, kind: u8) -> Option<&'a [u8]> {
        self.iter()
            .filter(|field| field.0 == kind)
            .last()
            .map(|field| field.1)
            .filter(|value| !value.is_empty())
    }

    /// The host name that the client asked for. It is text, and nothing else is known about it: whether it is a host
    /// name is for the router to judge. What is not UTF-8 is ignored.
    #[must_use]
    pub fn authority(self) -> Option<&'a str> {
        self.text(AUTHORITY)
    }

    /// The application protocol that was agreed on, as `h2`.
    #[must_use]
    pub fn alpn(self) -> Option<&'a [u8]> {
        self.value(ALPN)
    }

    /// The sender's name for the connection: bytes of any kind, at most [`super::MAX_UNIQUE_ID`].
    #[must_use]
    pub fn unique_id(self) -> Option<&'a [u8]> {
        self.value(UNIQUE_ID)
    }

    /// What TLS session the client has with the sender.
    #[must_use]
    pub fn ssl(self) -> Option<Ssl<'a>> {
        self.value(SSL).and_then(|raw| Ssl::parse(raw).ok())
    }

    /// The network namespace of the sender's socket.
    #[must_use]
    pub fn netns(self) -> Option<&'a str> {
        self.text(NETNS)
    }

    fn text(self, kind: u8) -> Option<&'a str> {
        self.value(kind).and_then(|value| str::from_utf8(value).ok())
    }

    /// Proves that `block` is a run of fields, each shown to `judge` with what follows it.
    pub(super) fn parse<E: From<Fault>>(
        block: &'a [u8],
        mut judge: impl FnMut(u8, &'a [u8], &'a [u8]) -> Result<(), E>,
    ) -> Result<Tlvs<'a>, E> {
        let mut rest = block;
        while !rest.is_empty() {
            let (kind, value, after) = split(rest)?;
            judge(kind, value, after)?;
            rest = after;
        }
        Ok(Tlvs(block))
    }
}

/// What the sender knows about the client's TLS session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ssl<'a> {
    /// The value as it was sent, to be passed on.
    pub raw: &'a [u8],
    /// Bit 0: the client came over TLS. Bits 1 and 2: it showed a certificate in this connection, or in this session.
    pub client: u8,
    /// 0 where the client showed a certificate and it was found good.
    pub verify: u32,
    fields: Tlvs<'a>,
}

/// A field within [`Ssl`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SslField {
    /// The version of TLS, as `TLSv1.3`.
    Version,
    /// The common name in the client's certificate. Anybody's word, unless [`Ssl::is_verified`].
    CommonName,
    /// The cipher.
    Cipher,
    /// The algorithm that signed the sender's own certificate.
    SignatureAlgorithm,
    /// The key of the sender's own certificate, as `RSA2048`.
    KeyAlgorithm,
    /// The group of the key exchange.
    Group,
    /// The scheme of the handshake's signature.
    SignatureScheme,
}

impl<'a> Ssl<'a> {
    /// Whether the client showed a certificate that the sender found good.
    #[must_use]
    pub fn is_verified(self) -> bool {
        self.client & 0b110 != 0 && self.verify == 0
    }

    /// The text of a field; `None` too where it is not UTF-8.
    #[must_use]
    pub fn text(self, field: SslField) -> Option<&'a str> {
        self.fields.text(match field {
            SslField::Version => 0x21,
            SslField::CommonName => 0x22,
            SslField::Cipher => 0x23,
            SslField::SignatureAlgorithm => 0x24,
            SslField::KeyAlgorithm => 0x25,
            SslField::Group => 0x26,
            SslField::SignatureScheme => 0x27,
        })
    }

    pub(super) fn parse(raw: &'a [u8]) -> Result<Ssl<'a>, Reason> {
        let Some(([client, verify @ ..], fields)) = raw.split_first_chunk::<5>() else {
            return Err(Reason::SslShort);
        };
        let fields = Tlvs::parse(fields, |_, _, _| Ok::<_, Fault>(())).map_err(Reason::InSsl)?;
        Ok(Ssl { raw, client: *client, verify: u32::from_be_bytes(*verify), fields })
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Reason {
        Reason::Tlv(fault)
    }
}

/// The first field of a run, and the rest of it.
fn split(run: &[u8]) -> Result<(u8, &[u8], &[u8]), Fault> {
    let (&[kind, high, low], rest) = run.split_first_chunk().ok_or(Fault::Cut)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(Fault::Overruns(kind))?;
    Ok((kind, value, rest))
}
