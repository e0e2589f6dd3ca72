//! Each agent socket of a configuration, tried as who is to use it: a container's uid has none of the host's groups, so a socket that
//! only a group may use is out of its reach.

use super::findings::{Finding, missing, ok, problem};
use super::sys;
use nix::unistd::User;
use nsecd_supervisor::config::{Config, Socket};
use std::io;
use std::path::Path;

/// What came of one try.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    path: String,
    /// As whom; `None`: nobody is named, or this is not root.
    uid: Option<u32>,
    /// The error, as errno.
    error: Option<i32>,
}

/// Tries all of them: as `uids`, or as the owner and the `peer_uids` that the configuration names.
pub(super) fn gather(config: &Config, uids: &[u32], root: bool) -> Vec<Tried> {
    let named = |socket: &Socket| -> Vec<u32> {
        let owner = socket.owner.as_deref().and_then(|owner| {
            let by_name = || Some(User::from_name(owner).ok()??.uid.as_raw());
            owner.parse().ok().or_else(by_name)
        });
        let peers = socket.peer_uids.iter().flatten().copied();
        let mut all: Vec<u32> = if uids.is_empty() { owner.into_iter().chain(peers).collect() } else { uids.to_vec() };
        all.sort_unstable();
        all.dedup();
        all
    };
    let mut tried = Vec::new();
    for socket in &config.sockets {
        let path = socket.path.display().to_string();
        let uids = if root { named(socket) } else { vec![] };
        if uids.is_empty() {
            tried.push(Tried { uid: None, error: sys::connects(&socket.path, None), path });
            continue;
        }
        for uid in uids {
            tried.push(Tried { uid: Some(uid), error: sys::connects(&socket.path, Some(uid)), path: path.clone() });
        }
    }
    tried
}

/// Judges them.
pub(super) fn judge(tried: &[Tried], root: bool) -> Vec<Finding> {
    const CHECK: &str = "agent socket";
    let one = |t: &Tried| {
        let who = t.uid.map_or("this user".to_owned(), |uid| format!("uid {uid} without groups"));
        let dir = Path::new(&t.path).parent().unwrap_or(Path::new("/")).display();
        match (t.error, t.uid) {
            (None, None) if root => missing(
                CHECK,
                format!("{} answers root; nobody else is named in the configuration", t.path),
                "`owner` or `peer_uids` in its [[socket]], or --as UID here, to try it as who is to use it",
            ),
            (None, None) => missing(
                CHECK,
                format!("{} answers this user", t.path),
                "run `nsecctl doctor` as root to try it as the container's uid without groups",
            ),
            (None, Some(_)) => ok(CHECK, format!("{} answers {who}", t.path)),
            (Some(libc::ENOENT), _) => {
                problem(CHECK, format!("{} is not there", t.path), "start nsecd with this configuration")
            }
            (Some(libc::ECONNREFUSED), _) => problem(
                CHECK,
                format!("nobody serves {}", t.path),
                "start nsecd; what lies there is of one that has ended",
            ),
            (Some(libc::EACCES | libc::EPERM), Some(uid)) => problem(
                CHECK,
                format!("{who} may not connect to {}", t.path),
                format!(
                    "owner = \"{uid}\" in its [[socket]] (a group does not reach into a container), and `chmod o+x` for {dir} and the directories above it"
                ),
            ),
            (Some(error), _) => {
                let why = io::Error::from_raw_os_error(error);
                problem(CHECK, format!("{}: {who}: {why}", t.path), "`owner`, `group` and `mode` in its [[socket]]")
            }
        }
    };
    tried.iter().map(one).collect()
}
