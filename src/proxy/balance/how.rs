//! The ways to choose a member, by name.

/// How a member is chosen for a new session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Balance {
    /// The less loaded of two random members.
    P2c,
    /// The least loaded of all.
    LeastConn,
    /// Each in its turn, as often as its weight says.
    RoundRobin,
    /// The same member for the same key.
    Hash(HashKey),
}

/// What the key of [`Balance::Hash`] is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// The client's address.
    Source,
    /// The name in the ClientHello.
    Sni,
    /// The authority in the PROXY header.
    Authority,
}
