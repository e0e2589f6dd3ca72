//! What the ECDH holder may be asked for: the least that serves every socket that offers encryption.

use nsecd_policy::Method;

use super::values::MAX_PEERS;
use super::{Ecdh, Error, Socket};

/// The operations of each method, by the holder's own numbers (`nsecd_ecdh`): the keys of one NIP-44 message (1), a NIP-04
/// secret (2), the keys of a gift wrap's outer layer (3).
fn ops(method: Method) -> &'static [u8] {
    match method {
        Method::SignEvent => &[],
        Method::Nip44 => &[1],
        Method::Nip04 => &[2],
        Method::Dm => &[1, 3],
    }
}

/// What one holder for all sockets is started with; `None` where none offers encryption.
pub fn resolve(sockets: &[Socket]) -> Result<Option<Ecdh>, Error> {
    let offering: Vec<&Socket> = sockets.iter().filter(|s| s.methods.iter().any(|m| !ops(*m).is_empty())).collect();
    let mut all: Vec<u8> = offering.iter().flat_map(|s| &s.methods).flat_map(|m| ops(*m)).copied().collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return Ok(None);
    }
    // One socket for anybody leaves the holder nothing to refuse: it cannot tell who asks.
    let lists: Option<Vec<&Vec<String>>> = offering.iter().map(|s| s.peers.as_ref()).collect();
    let peers = lists.map(|lists| {
        let mut peers: Vec<String> = lists.into_iter().flatten().cloned().collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    });
    if peers.as_ref().is_some_and(|peers| peers.len() > MAX_PEERS) {
        return Err(Error::new(format!(
            "the sockets' peers are more than {MAX_PEERS} in all: expected fewer, or none"
        )));
    }
    // A message's copy for its sender is encrypted to and from the own key.
    let own = offering.iter().any(|s| s.methods.contains(&Method::Dm)).then(|| "self".to_string());
    let peers = peers.map(|peers| peers.into_iter().chain(own).collect());
    Ok(Some(Ecdh { ops: all, peers }))
}
