//! Tables by what the kernel or the broker itself has numbered: principals, users, sockets, connections.
//!
//! Hashed with a secret of this process, quickly: a signature takes some seventy lookups. No agent can choose the keys freely, and every
//! table is bounded. What is found by an agent's bytes (tokens) keeps the standard hasher.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// Values by key.
pub type Table<K, V> = HashMap<K, V, RandomState>;
/// Keys.
pub type Keys<K> = HashSet<K, RandomState>;
