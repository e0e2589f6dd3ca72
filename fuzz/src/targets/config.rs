//! The configuration: whatever is taken holds together, is printed as a file that is read as the same, and whatever is refused
//! is said in one piece of printable text.
//!
//! Input: a config file's text.

use std::collections::HashSet;
use std::path::Path;

use nsecd_policy::{Kinds, Limits, Method};
use nsecd_supervisor::config::{Account, Config, Host, Ids, Socket, of_text};

use crate::subject;

/// A machine on which nothing is there but the user and group `agents`.
struct Nowhere;

impl Host for Nowhere {
    fn directory(&self, _: &Path) -> Option<(u32, u32)> {
        None
    }
    fn exists(&self, _: &Path) -> bool {
        false
    }
    fn is_user(&self, name: &str) -> bool {
        name == "agents"
    }
    fn is_group(&self, name: &str) -> bool {
        name == "agents"
    }
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let root = Ids { uid: 0, gid: 0 };
    let mut config = match of_text(text, root, &Nowhere) {
        Ok(config) => config,
        Err(error) => {
            let said = error.to_string();
            let printable = |c: char| !c.is_control() || c == '\n';
            return assert!(!said.is_empty() && said.chars().all(printable), "{said:?}");
        }
    };
    holds_together(&config);
    let printed = subject::printed(&config);
    let mut again = of_text(&printed, root, &Nowhere).unwrap_or_else(|e| panic!("{e}\n{printed}"));
    // Remarks are about what was written, not about what holds.
    config.notes.clear();
    again.notes.clear();
    assert_eq!(again, config, "{printed}");
}

fn holds_together(config: &Config) {
    let names: HashSet<&str> = config.accounts.iter().map(|account| account.name.as_str()).collect();
    assert!(names.len() == config.accounts.len() && !names.is_empty());
    let paths: HashSet<&Path> = config.sockets.iter().map(|socket| socket.path.as_path()).collect();
    assert!(paths.len() == config.sockets.len() && !paths.is_empty());
    for socket in &config.sockets {
        holds(socket, config);
        for account in config.accounts.iter().filter(|account| socket.accounts.contains(&account.name)) {
            serves(account, socket);
        }
        assert!(socket.accounts.iter().all(|name| names.contains(name.as_str())));
    }
    let encrypting = |socket: &Socket| socket.methods.iter().any(|method| *method != Method::SignEvent);
    assert_eq!(config.ecdh.is_some(), config.sockets.iter().any(encrypting));
    let bound = config.sockets.iter().filter(|socket| encrypting(socket)).all(|socket| socket.peers.is_some());
    assert!(config.ecdh.as_ref().is_none_or(|ecdh| ecdh.peers.is_some() <= bound), "peers that a socket does not have");
}

fn holds(socket: &Socket, config: &Config) {
    let path = socket.path.as_os_str().len();
    assert!(socket.path.is_absolute() && path <= 107 && !socket.path.starts_with(&config.admin_dir), "{socket:?}");
    assert!(socket.alert_log.is_absolute() && socket.mode <= 0o777);
    assert!(!socket.methods.is_empty() && !socket.accounts.is_empty());
    assert!(socket.max_ttl > 0 && (1..=512 << 10).contains(&socket.max_request));
    assert!(within(&socket.tokenless, &socket.kinds), "{socket:?}");
    assert!(socket.created_at.is_none_or(|(earliest, latest)| earliest <= latest));
    for Limits { burst, burst_window, per_minute, per_hour } in [socket.limits, socket.total].into_iter().flatten() {
        assert!(burst > 0 && burst_window > 0 && per_minute > 0 && per_hour > 0, "{socket:?}");
    }
    let key =
        |peer: &String| peer.len() == 64 && peer.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    assert!(socket.peers.iter().flatten().all(key));
}

/// An account has what a socket of its allows no less than that; a ceiling never has a part that is nothing.
fn serves(account: &Account, socket: &Socket) {
    for ceiling in [account.ceiling, account.seal_ceiling.flatten(), account.ecdh_ceiling].into_iter().flatten() {
        assert!(ceiling.burst > 0 && ceiling.tokens > 0 && [1, 60, 3600].contains(&ceiling.seconds), "{account:?}");
    }
    assert!(account.created_at.is_none_or(|(earliest, latest)| earliest <= latest), "{account:?} {socket:?}");
    assert!(!account.source.is_empty() && !account.name.contains('/') && !account.name.starts_with('.'));
}

fn within(some: &Kinds, all: &Kinds) -> bool {
    match (some, all) {
        (_, Kinds::Any) => true,
        (Kinds::Any, Kinds::List(_)) => false,
        (Kinds::List(some), Kinds::List(_)) => some.iter().all(|kind| all.contains(*kind)),
    }
}
