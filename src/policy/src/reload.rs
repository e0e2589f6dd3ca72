//! What follows the first policy on the policy pipe: the configuration that takes its place.

use serde::{Deserialize, Serialize};

use crate::Policy;

/// A new configuration for a broker that serves. Sockets and accounts keep their numbers for as long as a broker lives: new ones come
/// after those that there were. Descriptors are not in the policy's numbers: they come over the control pair
/// ([`Control::NewListener`](crate::control::Control::NewListener) and the like).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// The new policy. An account that is no more has an empty name; a socket that is no more allows nothing.
    pub policy: Policy,
    /// Numbers of the sockets that are no more.
    pub gone_sockets: Vec<u16>,
    /// Who asked for it; `None`: a signal did.
    pub uid: Option<u32>,
    /// SHA-256 of the configuration file, 64 lower-case hex digits.
    pub digest: String,
}
