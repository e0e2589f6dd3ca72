//! Which sockets there will be, so that the reference daemon's clients find one where they look: `/run/nostr/signer.sock`, or the
//! file that is mounted there, which was the reference daemon's.

use super::found::Account;
use std::path::{Path, PathBuf};

/// nsecd's own first socket, `nsecd.socket`; where clients without NOSTR_SIGNER_SOCKET look, on the host and in containers.
pub(super) const DEFAULT: &str = "/run/nostr/signer.sock";

/// One socket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Socket {
    /// `host`, `agents` or `shared`: what it is for.
    pub name: &'static str,
    /// The unit that makes it.
    pub unit: String,
    pub path: PathBuf,
    /// Whether it offers direct messages.
    pub dm: bool,
}

/// All of them, and the link that is put in place of the reference daemon's socket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub sockets: Vec<Socket>,
    /// The link, and where it leads.
    pub link: Option<(PathBuf, PathBuf)>,
}

impl Layout {
    /// For the host of a reference daemon whose socket was this one.
    ///
    /// # Errors
    /// It was in a place of its own.
    pub fn of(reference: &Path, account: &Account, shared: bool) -> Result<Layout, String> {
        let at_default = reference == Path::new(DEFAULT);
        let in_runtime = reference == account.runtime().join("nostr-signer.sock");
        if !at_default && !in_runtime {
            return Err(format!(
                "the reference daemon's socket is {}: expected {DEFAULT} or {}/nostr-signer.sock; take it over by hand \
                 (docs/migrating-from-nostr-signer.md)",
                reference.display(),
                account.runtime().display()
            ));
        }
        let first = |name, dm| Socket { name, unit: "nsecd.socket".into(), path: DEFAULT.into(), dm };
        let second = |name: &'static str, dm| Socket {
            name,
            unit: format!("nsecd@{name}.socket"),
            path: format!("/run/nostr/{name}.sock").into(),
            dm,
        };
        let sockets = match (shared, at_default) {
            (true, _) => vec![first("shared", true)],
            // Containers have the runtime directory's mounted; the host's tools look at the default.
            (false, false) => vec![first("host", true), second("agents", false)],
            // Both have looked at the same: the one with the direct messages is the new one.
            (false, true) => vec![first("agents", false), second("host", true)],
        };
        let to = sockets.iter().find(|s| s.name != "host").map_or_else(|| DEFAULT.into(), |s| s.path.clone());
        Ok(Layout { sockets, link: in_runtime.then(|| (reference.to_owned(), to)) })
    }
}
