//! From a datagram to a statement that the member table may act on: all checks of a receiver, in their order.
//!
//! Length, text, MAC, freshness and url token as the reference's receiver has them; then, ours, `to=`, and admission of
//! the url. What remains is the table's: room for an unknown url, and the replay mark. With member keys the url is
//! admitted first, for it says which key to verify with. Pure: table and time are arguments.

use super::Reason;
use super::admission::Admission;
use super::auth::{self, Key, Signed};
use super::member_keys::MemberKeys;
use super::wire::{self, Body, Claim};
use crate::bytes::same;
use crate::clock::Now;
use crate::secret::Secret;
use std::borrow::Cow;
use std::time::Duration;

/// What one receiver lets through.
#[derive(Debug)]
pub struct Gate {
    /// Keys of the shared secrets. None, and no member keys either: unauthenticated mode.
    pub keys: Vec<Key>,
    /// Keys by which members sign for themselves alone.
    pub member_keys: Option<MemberKeys>,
    /// Which urls may become members.
    pub admission: Admission,
    /// The name a `to=` must have, where there is one.
    pub balancer: String,
    /// How far a timestamp may be off.
    pub max_skew: Duration,
}

/// A datagram that has passed all checks for which its fields are not needed.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// What its fields are to be read from: the signed bytes, or where nobody signs, the whole text.
    pub text: &'a [u8],
    signed: Option<Signed<'a>>,
    /// Index of the shared secret that signed it; none leaves the members' own keys.
    shared: Option<usize>,
}

impl<'a> Opened<'a> {
    fn unsigned(text: &'a [u8]) -> Opened<'a> {
        Opened { text, signed: None, shared: None }
    }
}

/// What a datagram said, and who signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard<'a> {
    /// Of which member it speaks.
    pub subject: Subject<'a>,
    /// When it was sent, microseconds since the Unix epoch; 0 if it is not authentic.
    pub ts: i64,
    /// Index of the shared secret that signed it; one past the last for a member's own key.
    pub key: u16,
    /// Whether it was signed: false in unauthenticated mode alone, where there is nothing to compare for replays.
    pub authentic: bool,
}

/// The member a datagram speaks of, by its canonical url.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject<'a> {
    /// None: a sign of life from some host.
    Nobody,
    /// This member is there.
    Here(Cow<'a, [u8]>),
    /// This member says goodbye.
    Leaving(Cow<'a, [u8]>),
}

impl Gate {
    /// Whether everything passes that can be read.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        self.keys.is_empty() && self.member_keys.is_none()
    }

    /// Takes a datagram if a shared secret signed it, or if one of the members may have. Its fields are the caller's to
    /// read, and to keep: moved on from here, they would cost as much as to read them.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Result<Opened<'a>, Reason> {
        if self.is_unauthenticated() {
            let text = wire::text(datagram);
            return if datagram.is_empty() { Err(Reason::Empty) } else { Ok(Opened::unsigned(text)) };
        }
        let signed = Signed::read(datagram)?;
        let shared = signed.key_among(&self.keys);
        if shared.is_none() && self.member_keys.is_none() {
            return Err(Reason::MacMismatch);
        }
        Ok(Opened { text: signed.body, signed: Some(signed), shared })
    }

    /// Hears what the fields of an opened datagram say. `known` tells whether the table knows a url by these very
    /// bytes, which spares the usual datagram its admission: urls in the table are canonical, and were admitted.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn hear<'a>(
        &mut self,
        opened: &Opened<'a>,
        body: &Body<'a>,
        now: Now,
        known: impl Fn(&[u8]) -> bool,
    ) -> Result<Heard<'a>, Reason> {
        let Some(signed) = &opened.signed else { return self.hear_unsigned(body, &known) };
        let vouched = match opened.shared {
            Some(_) => None,
            None => Some(self.vouched_for(signed, body, now, &known)?),
        };
        let ts = auth::fresh(body, now.unix_us, self.max_skew)?;
        self.is_for_us(body)?;
        let subject = match vouched {
            Some(subject) => subject,
            None => self.subject(body.claim(), &known)?,
        };
        let key = u16::try_from(opened.shared.unwrap_or(self.keys.len())).unwrap_or(u16::MAX);
        Ok(Heard { subject, ts, key, authentic: true })
    }

    fn hear_unsigned<'a>(
        &self,
        body: &Body<'a>,
        known: &impl Fn(&[u8]) -> bool,
    ) -> Result<Heard<'a>, Reason> {
        self.is_for_us(body)?;
        let subject = match self.subject(body.claim(), known)? {
            // Anybody could say goodbye for anybody.
            Subject::Leaving(_) => Subject::Nobody,
            subject => subject,
        };
        Ok(Heard { subject, ts: 0, key: 0, authentic: false })
    }

    /// The member whose own key signed the datagram, if that is the member it speaks of.
    fn vouched_for<'a>(
        &mut self,
        signed: &Signed<'_>,
        body: &Body<'a>,
        now: Now,
        known: &impl Fn(&[u8]) -> bool,
    ) -> Result<Subject<'a>, Reason> {
        let subject = self.subject(body.claim(), known)?;
        let (Subject::Here(url) | Subject::Leaving(url)) = &subject else {
            return Err(Reason::MacMismatch);
        };
        let url = str::from_utf8(url).map_err(|_| Reason::BadUrl)?;
        let keys = self.member_keys.as_mut().ok_or(Reason::MacMismatch)?;
        keys.vouch(url, signed, now.mono)?;
        Ok(subject)
    }

    fn is_for_us(&self, body: &Body<'_>) -> Result<(), Reason> {
        match body.to {
            Some(to) if !same(to, self.balancer.as_bytes()) => Err(Reason::WrongBalancer),
            _ => Ok(()),
        }
    }

    fn subject<'a>(&self, claim: Claim<'a>, known: &impl Fn(&[u8]) -> bool) -> Result<Subject<'a>, Reason> {
        let (raw, leaves) = match claim {
            Claim::Nothing => return Ok(Subject::Nobody),
            Claim::Here(raw) => (raw, false),
            Claim::Leaving(raw) => (raw, true),
            Claim::Both => return Err(Reason::BadUrl),
        };
        let url = self.canonical(raw, known)?;
        Ok(if leaves { Subject::Leaving(url) } else { Subject::Here(url) })
    }

    fn canonical<'a>(&self, raw: &'a [u8], known: &impl Fn(&[u8]) -> bool) -> Result<Cow<'a, [u8]>, Reason> {
        if known(raw) {
            return Ok(Cow::Borrowed(raw));
        }
        let url = self.admission.admit(raw).map_err(|_| Reason::BadUrl)?;
        Ok(Cow::Owned(url.text().into()))
    }
}

/// Fuzz target: whatever the holder of one member's key signs, it speaks of no member but its own.
#[doc(hidden)]
pub fn fuzz_member_keys(data: &[u8]) {
    let master = Secret::new(b"a master key of good length");
    let own = "http://10.0.0.66:80";
    let key = Key::from_secret(master.member_passphrase("web", own).bytes());
    let mut gate = Gate {
        keys: Vec::new(),
        member_keys: Some(MemberKeys::new(vec![master], "web", 2)),
        admission: Admission::new(vec!["http".to_owned()], true, Vec::new()),
        balancer: "web".to_owned(),
        max_skew: Duration::from_secs(30),
    };
    let mut signed = data.to_vec();
    key.sign(&mut signed);
    let mut dated = data.to_vec();
    dated.extend_from_slice(b" ts=0");
    key.sign(&mut dated);
    let mut opened = b"BEACON url=http://10.0.0.66 ".to_vec();
    opened.extend_from_slice(&dated);
    key.sign(&mut opened);
    // Once while the gate knows nobody, once when it knows the attacker and the attacked.
    for _ in 0..2 {
        for datagram in [data, &signed, &dated, &opened] {
            let Ok(opened) = gate.open(datagram) else { continue };
            let body = Body::parse(opened.text);
            if let Ok(heard) = gate.hear(&opened, &body, Now::default(), |url| url == own.as_bytes()) {
                let named = match &heard.subject {
                    Subject::Here(url) | Subject::Leaving(url) => url.as_ref(),
                    Subject::Nobody => b"",
                };
                assert_eq!(named, own.as_bytes(), "a member's key moved another's row");
                assert!(heard.authentic && body.to.is_none_or(|to| to == b"web"));
            }
        }
        assert!(gate.member_keys.as_ref().is_none_or(|keys| keys.len() <= 4));
        let mut victim = b"url=http://10.0.0.5:80 ts=0".to_vec();
        let passphrase =
            Secret::new(b"a master key of good length").member_passphrase("web", "http://10.0.0.5:80");
        Key::from_secret(passphrase.bytes()).sign(&mut victim);
        let opened = gate.open(&victim).expect("member keys are on");
        assert!(gate.hear(&opened, &Body::parse(opened.text), Now::default(), |_| false).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;
    use proptest::prelude::*;

    const NOW: Now = Now { mono: Mono::ZERO, unix_us: 1_780_646_570_123_456 };

    fn gate(secrets: &[&str], master: Option<&str>) -> Gate {
        let member_keys = master.map(|m| MemberKeys::new(vec![Secret::new(m.as_bytes())], "web", 8));
        Gate {
            keys: secrets.iter().map(|s| Key::from_secret(s.as_bytes())).collect(),
            member_keys,
            admission: Admission::default(),
            balancer: "web".to_owned(),
            max_skew: Duration::from_secs(30),
        }
    }

    fn sign(text: &str, secret: &[u8]) -> Vec<u8> {
        let mut datagram = format!("{text} ts={}", NOW.unix_us).into_bytes();
        Key::from_secret(secret).sign(&mut datagram);
        datagram
    }

    fn own(text: &str, url: &str) -> Vec<u8> {
        sign(text, Secret::new(b"master").member_passphrase("web", url).bytes())
    }

    fn hear<'a>(gate: &mut Gate, datagram: &'a [u8], now: Now, known: &[u8]) -> Result<Heard<'a>, Reason> {
        let opened = gate.open(datagram)?;
        gate.hear(&opened, &Body::parse(opened.text), now, |url| url == known)
    }

    fn subject(gate: &mut Gate, datagram: &[u8]) -> Result<String, Reason> {
        hear(gate, datagram, NOW, b"-").map(|heard| match heard.subject {
            Subject::Nobody => "nobody".to_owned(),
            Subject::Here(url) => format!("here {}", String::from_utf8_lossy(&url)),
            Subject::Leaving(url) => format!("leaving {}", String::from_utf8_lossy(&url)),
        })
    }

    #[test]
    fn the_checks_stand_in_order() {
        let mut gate = gate(&["s"], None);
        for (text, verdict) in [
            ("BEACON url=HTTP://10.0.0.5/", Ok("here http://10.0.0.5:80")),
            ("BEACON leave=http://10.0.0.5", Ok("leaving http://10.0.0.5:80")),
            ("BEACON host=h", Ok("nobody")),
            ("BEACON host=h to=web", Ok("nobody")),
            ("BEACON url=http://127.0.0.1 to=api", Err(Reason::WrongBalancer)),
            ("BEACON url=http://127.0.0.1 to=web", Err(Reason::BadUrl)),
            ("BEACON url=hello", Err(Reason::BadUrl)),
            ("BEACON leave=http://10.0.0.5 url=http://10.0.0.5", Err(Reason::BadUrl)),
        ] {
            assert_eq!(subject(&mut gate, &sign(text, b"s")), verdict.map(str::to_owned), "{text}");
            assert_eq!(subject(&mut gate, &sign(text, b"t")), Err(Reason::MacMismatch), "{text}");
        }
        assert_eq!(subject(&mut gate, b""), Err(Reason::Empty));
        assert_eq!(subject(&mut gate, b"BEACON"), Err(Reason::NoMac));
    }

    #[test]
    fn a_known_url_is_not_judged_again() {
        let mut gate = gate(&["s"], None);
        let datagram = sign("BEACON url=known", b"s");
        let heard = hear(&mut gate, &datagram, NOW, b"known").unwrap();
        assert_eq!(heard.subject, Subject::Here(Cow::Borrowed(b"known")));
        assert_eq!((heard.ts, heard.key, heard.authentic), (NOW.unix_us, 0, true));
    }

    #[test]
    fn without_a_secret_everything_passes_but_a_goodbye() {
        let mut gate = gate(&[], None);
        assert_eq!(
            subject(&mut gate, b"url=http://10.0.0.5 ts=1 mac=x"),
            Ok("here http://10.0.0.5:80".to_owned())
        );
        assert_eq!(subject(&mut gate, b"BEACON leave=http://10.0.0.5"), Ok("nobody".to_owned()));
        assert_eq!(subject(&mut gate, b"url=http://10.0.0.5 to=api"), Err(Reason::WrongBalancer));
        assert_eq!(subject(&mut gate, b"url=http://127.0.0.1"), Err(Reason::BadUrl));
        assert_eq!(subject(&mut gate, b""), Err(Reason::Empty));
        assert!(!hear(&mut gate, b"x", NOW, b"-").unwrap().authentic);
    }

    #[test]
    fn a_member_signs_for_itself_in_whatever_spelling() {
        let (me, other) = ("http://10.0.0.5:80", "http://10.0.0.6:80");
        let mut only = gate(&[], Some("master"));
        let here = Ok(format!("here {me}"));
        assert_eq!(subject(&mut only, &own("url=http://10.0.0.5/", me)), here);
        assert_eq!(subject(&mut only, &own("BEACON leave=http://10.0.0.5", me)), Ok(format!("leaving {me}")));
        assert_eq!(subject(&mut only, &own("url=http://10.0.0.6", me)), Err(Reason::MacMismatch));
        assert_eq!(subject(&mut only, &own("url=http://10.0.0.5", other)), Err(Reason::MacMismatch));
        assert_eq!(subject(&mut only, &own("BEACON host=h", me)), Err(Reason::MacMismatch));
        assert_eq!(subject(&mut only, &own("url=http://127.0.0.1", me)), Err(Reason::BadUrl));
        assert_eq!(subject(&mut only, &sign("url=http://10.0.0.5", b"s")), Err(Reason::MacMismatch));

        let mut both = gate(&["s", "t"], Some("master"));
        assert_eq!(subject(&mut both, &sign("url=http://10.0.0.5", b"t")), here);
        let datagram = own("url=http://10.0.0.5", me);
        assert_eq!(hear(&mut both, &datagram, NOW, b"-").unwrap().key, 2);
    }

    #[test]
    fn a_members_datagram_ages_too() {
        let mut only = gate(&[], Some("master"));
        let datagram = own("url=http://10.0.0.5", "http://10.0.0.5:80");
        let later = Now { unix_us: NOW.unix_us + 30_000_001, ..NOW };
        assert_eq!(hear(&mut only, &datagram, later, b"-"), Err(Reason::StaleTimestamp));
    }

    proptest! {
        #[test]
        fn one_members_key_moves_no_other_row(
            text in "(BEACON )?(url|leave)=(http|HTTP)://(10\\.0\\.0\\.(5|6|66)|\\[::ffff:10\\.0\\.0\\.66\\]|a\\.b)(:80|:081)?/?\
                     ([ \t\0]{1,2}(url|leave|to|host|ts|mac)=(http://10\\.0\\.0\\.(5|66)/?|web|api|[0-9]{0,16})){0,2}",
        ) {
            fuzz_member_keys(text.as_bytes());
        }
    }
}
