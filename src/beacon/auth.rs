//! Keys, MACs and freshness: whether a datagram is from somebody who holds a secret, and from now.
//!
//! Follows the reference, `mod_proxy_beacon`: the key is MD5 of the secret's bytes; the MAC is SipHash-2-4 of all bytes
//! before the last ` mac=`, its 64 bits written little-endian as lower-case hex; a timestamp passes if it is at most
//! the allowed skew away, in either direction. Never reads a clock, never looks at other fields than `mac=` and `ts=`.

use super::Reason;
use super::wire::{self, Announce, Body, MAC_LEN, MAC_MARK};
use crate::clock::micros;
use crate::url::Url;
use md5::{Digest, Md5};
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hint::black_box;
use std::time::Duration;
use zeroize::Zeroizing;

/// A SipHash key; wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<[u8; 16]>);

impl Key {
    /// The key that belongs to a secret: MD5 of its bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Key {
        Key(Zeroizing::new(Md5::digest(secret).into()))
    }

    /// The MAC of `body` as it stands in a datagram: 16 lower-case hex digits.
    #[must_use]
    pub fn mac(&self, body: &[u8]) -> [u8; MAC_LEN] {
        hex(SipHasher24::new_with_key(&self.0).hash(body))
    }

    /// Appends the MAC of `text` to it, which makes it a datagram.
    pub fn sign(&self, text: &mut Vec<u8>) {
        let mac = self.mac(text);
        text.extend_from_slice(MAC_MARK);
        text.extend_from_slice(&mac);
    }

    /// The 16 bytes that the secret became.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A datagram that has a MAC in its place; whether it is right is asked key by key.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The signed bytes.
    pub body: &'a [u8],
    mac: &'a [u8; MAC_LEN],
}

impl<'a> Signed<'a> {
    /// Finds text and MAC in a datagram.
    ///
    /// # Errors
    /// [`Reason::Empty`], [`Reason::NoMac`], [`Reason::BadMacLength`].
    pub fn read(datagram: &'a [u8]) -> Result<Signed<'a>, Reason> {
        if datagram.is_empty() {
            return Err(Reason::Empty);
        }
        let (body, mac) = wire::split_mac(wire::text(datagram))?;
        Ok(Signed { body, mac })
    }

    /// Whether `key` made the MAC. Takes the same time wherever the two differ.
    #[must_use]
    pub fn is_by(&self, key: &Key) -> bool {
        let difference = u128::from_ne_bytes(key.mac(self.body)) ^ u128::from_ne_bytes(*self.mac);
        black_box(difference) == 0
    }

    /// Index of the first of `keys` that made the MAC.
    #[must_use]
    pub fn key_among(&self, keys: &[Key]) -> Option<usize> {
        keys.iter().position(|key| self.is_by(key))
    }
}

/// The timestamp of signed bytes, if it is at most `max_skew` from `now_us` (microseconds since the Unix epoch).
///
/// # Errors
/// [`Reason::NoTs`], [`Reason::StaleTimestamp`].
pub fn fresh(body: &Body<'_>, now_us: i64, max_skew: Duration) -> Result<i64, Reason> {
    let ts = body.ts.ok_or(Reason::NoTs)?;
    if now_us.abs_diff(ts) <= micros(max_skew) { Ok(ts) } else { Err(Reason::StaleTimestamp) }
}

/// An authentic and fresh datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified<'a> {
    /// The fields of the signed bytes; in unauthenticated mode of the whole text.
    pub body: Body<'a>,
    /// Microseconds since the Unix epoch; 0 in unauthenticated mode.
    pub ts: i64,
    /// Index of the key that signed it; 0 in unauthenticated mode.
    pub key: usize,
}

/// Verifies a datagram against `keys`, in the reference's order. No keys at all is unauthenticated mode: everything
/// but an empty datagram passes, and neither MAC nor timestamp is looked at.
///
/// # Errors
/// The first test that failed, from [`Reason::Empty`] to [`Reason::StaleTimestamp`].
pub fn verify<'a>(
    datagram: &'a [u8],
    keys: &[Key],
    now_us: i64,
    max_skew: Duration,
) -> Result<Verified<'a>, Reason> {
    if keys.is_empty() && !datagram.is_empty() {
        return Ok(Verified { body: Body::parse(wire::text(datagram)), ts: 0, key: 0 });
    }
    let signed = Signed::read(datagram)?;
    let key = signed.key_among(keys).ok_or(Reason::MacMismatch)?;
    let body = Body::parse(signed.body);
    Ok(Verified { body, ts: fresh(&body, now_us, max_skew)?, key })
}

/// The 16 lower-case hex digits of a word's little-endian bytes, all at once. A branch per digit would be guessed
/// wrong every third time, which costs a third of a MAC, and shows in the time it takes.
fn hex(word: u64) -> [u8; MAC_LEN] {
    const EACH: u128 = u128::MAX / 255;
    let mut x = u128::from(word);
    // Spread the bytes to every other place, then each one's nibbles over both.
    x = (x | x << 32) & (u128::MAX / ((1 << 32) + 1));
    x = (x | x << 16) & (u128::MAX / ((1 << 16) + 1));
    x = (x | x << 8) & (u128::MAX / ((1 << 8) + 1));
    x = (x >> 4 | x << 8) & (EACH * 0x0f);
    let letters = (x + EACH * 6) >> 4 & EACH;
    let digits = x + EACH * u128::from(b'0') + letters * u128::from(b'a' - b'9' - 1);
    digits.to_le_bytes()
}

/// Fuzz target: arbitrary bytes get a verdict, and never a good one; what a key signed is accepted as it was signed.
#[doc(hidden)]
pub fn fuzz_beacon(data: &[u8]) {
    let keys = [Key::from_secret(b"one"), Key::from_secret(b"two")];
    let skew = Duration::from_secs(30);
    let verdict = verify(data, &keys, 0, skew);
    assert!(verdict.is_err(), "a forged datagram passed");
    if let Ok(open) = verify(data, &[], 0, skew) {
        assert_eq!((open.body, open.ts), (Body::parse(wire::text(data)), 0));
    }
    let body = wire::text(data);
    let mut datagram = body.to_vec();
    datagram.extend_from_slice(b" ts=-7");
    keys[1].sign(&mut datagram);
    if datagram.len() <= wire::MAX_TEXT {
        let body = Body::parse(datagram.get(..body.len() + 6).unwrap_or_default());
        assert_eq!(verify(&datagram, &keys, 0, skew), Ok(Verified { body, ts: -7, key: 1 }));
    }
}

/// Fuzz target: the same fields are read before and after signing, and only of the bytes that count. Here the input
/// gets a right MAC, which a fuzzer cannot find; so the check itself needs no way around it.
#[doc(hidden)]
pub fn fuzz_beacon_unverified(data: &[u8]) {
    let key = [Key::from_secret(b"one")];
    let text = wire::text(data);
    let mut datagram = text.to_vec();
    key[0].sign(&mut datagram);
    let parsed = Body::parse(text);
    for value in [parsed.url, parsed.leave, parsed.to, Some(parsed.host)].into_iter().flatten() {
        assert!(!value.contains(&b' ') && !value.contains(&0));
        assert!(value.is_empty() || text.windows(value.len()).any(|w| w == value));
    }
    assert!(parsed.weight <= wire::MAX_WEIGHT && parsed.every != Some(Duration::ZERO));
    writes_what_was_read(&parsed);
    if datagram.len() > wire::MAX_TEXT {
        return;
    }
    let ts = parsed.ts;
    match verify(&datagram, &key, ts.unwrap_or(0), Duration::ZERO) {
        Ok(verified) => assert_eq!((verified.body, Some(verified.ts)), (parsed, ts)),
        Err(reason) => assert_eq!((reason, ts), (Reason::NoTs, None)),
    }
}

/// Announces what was read, as far as a sender could have, and reads that again.
fn writes_what_was_read(read: &Body<'_>) {
    let word =
        |bytes| str::from_utf8(bytes).ok().filter(|text: &&str| text.bytes().all(|b| b.is_ascii_graphic()));
    let url = read.url.and_then(|raw| Url::parse(raw).ok());
    let said = Announce {
        url: url.as_ref(),
        host: word(read.host).unwrap_or_default(),
        pid: read.pid,
        seq: read.seq,
        ts: read.ts.unwrap_or(0),
        every: read.every,
        weight: Some(read.weight),
        to: read.to.and_then(word),
    };
    let expected = Body {
        url: said.url.map(|url| url.text().as_bytes()),
        leave: None,
        host: said.host.as_bytes(),
        ts: Some(said.ts),
        to: said.to.map(str::as_bytes),
        ..*read
    };
    assert_eq!(Body::parse(&said.to_text()), expected);
    let goodbye =
        Body { url: None, leave: expected.url, every: None, weight: wire::DEFAULT_WEIGHT, ..expected };
    assert_eq!(Body::parse(&said.to_goodbye()), goodbye);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rotation_tells_which_key_signed() {
        let keys = ["new", "old"].map(|secret| Key::from_secret(secret.as_bytes()));
        let mut datagram = b"BEACON ts=5".to_vec();
        keys[1].sign(&mut datagram);
        let verified = verify(&datagram, &keys, 5, Duration::ZERO).unwrap();
        assert_eq!((verified.key, verified.ts, verified.body), (1, 5, Body::parse(b"BEACON ts=5")));
        assert_eq!(verify(&datagram, &keys[..1], 5, Duration::ZERO), Err(Reason::MacMismatch));
    }

    #[test]
    fn every_nibble_has_its_digit() {
        assert_eq!(&hex(0xefcd_ab89_6745_2301), b"0123456789abcdef");
        assert_eq!(&hex(0x1032_5476_98ba_dcfe), b"fedcba9876543210");
    }

    #[test]
    fn freshness_survives_the_ends_of_time() {
        let keys = [Key::from_secret(b"x")];
        for (ts, now, fresh) in [
            (i64::MIN, i64::MAX, false),
            (i64::MAX, i64::MIN, false),
            (i64::MIN, i64::MIN + 1_000_000, true),
            (i64::MIN, i64::MIN + 1_000_001, false),
            (i64::MAX, i64::MAX - 1_000_000, true),
        ] {
            let mut datagram = format!("ts={ts}").into_bytes();
            keys[0].sign(&mut datagram);
            assert_eq!(verify(&datagram, &keys, now, Duration::from_secs(1)).is_ok(), fresh, "{ts} at {now}");
        }
    }

    #[test]
    fn nothing_shows_a_key() {
        assert_eq!(format!("{:?}", Key::from_secret(b"x")), "Key(..)");
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(at in 0usize..60, by in 1u8..) {
            let keys = [Key::from_secret(b"x")];
            let mut datagram = b"BEACON url=http://10.0.0.1:80 host=h ts=5".to_vec();
            keys[0].sign(&mut datagram);
            let at = at % datagram.len();
            datagram[at] ^= by;
            prop_assert!(verify(&datagram, &keys, 5, Duration::ZERO).is_err());
        }

        #[test]
        fn fuzz_targets_hold(data: Vec<u8>, text in "(BEACON |leave=u |url=[ -~]{0,9} | mac=|ts=[0-9]{0,3} |to=x |\t){0,9}") {
            for data in [&data[..], text.as_bytes()] {
                fuzz_beacon(data);
                fuzz_beacon_unverified(data);
            }
        }
    }
}
