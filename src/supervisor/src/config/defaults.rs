//! Where things lie when nobody says: the agent socket, the admin directory, the state directory. Computes paths and
//! looks at owners; creates nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::names::Names;

use super::error::Error;
use super::{Context, Ids};

/// What the configuration asks of the machine; tests answer in its place.
pub trait Host {
    /// Owner (uid) and mode bits of a directory; `None` if there is no directory of that name (a link is none).
    fn directory(&self, path: &Path) -> Option<(u32, u32)>;
    /// Whether a file of any kind is there.
    fn exists(&self, path: &Path) -> bool;
    /// Whether a user of that name exists.
    fn is_user(&self, name: &str) -> bool;
    /// Whether a group of that name exists.
    fn is_group(&self, name: &str) -> bool;
}

/// The machine itself, and who knows its names.
pub struct System(pub Names);

impl Host for System {
    fn directory(&self, path: &Path) -> Option<(u32, u32)> {
        let m = fs::symlink_metadata(path).ok()?;
        m.is_dir().then(|| (m.uid(), m.mode() & 0o7777))
    }

    fn exists(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    fn is_user(&self, name: &str) -> bool {
        self.0.user(name).is_some()
    }

    fn is_group(&self, name: &str) -> bool {
        self.0.group(name).is_some()
    }
}

fn is_ours(path: &Path, cx: &Context<'_>) -> bool {
    cx.host.directory(path).is_some_and(|(uid, _)| uid == cx.ids.uid)
}

/// `$XDG_RUNTIME_DIR`, if it is set and the directory is ours.
fn xdg_runtime<'a>(cx: &Context<'a>) -> Option<&'a Path> {
    cx.env.xdg_runtime_dir.as_deref().filter(|dir| is_ours(dir, cx))
}

/// An ordinary user's directory for sockets.
fn user_runtime(cx: &Context<'_>) -> Result<PathBuf, Error> {
    if let Some(dir) = xdg_runtime(cx) {
        return Ok(dir.to_path_buf());
    }
    let Ids { uid, .. } = cx.ids;
    let run = PathBuf::from(format!("/run/user/{uid}"));
    if is_ours(&run, cx) {
        return Ok(run);
    }
    // Anyone may have made a directory of this name in /tmp.
    let tmp = PathBuf::from(format!("/tmp/nsecd-{uid}"));
    match cx.host.directory(&tmp) {
        Some((owner, mode)) if owner == uid && mode & 0o077 == 0 => Ok(tmp),
        None if !cx.host.exists(&tmp) => Ok(tmp),
        _ => Err(Error::new(format!(
            "{} is not a directory of uid {uid} with mode 0700: remove it, or set XDG_RUNTIME_DIR to a directory of your own",
            tmp.display()
        ))),
    }
}

/// The first agent socket.
pub fn agent_socket(cx: &Context<'_>) -> Result<PathBuf, Error> {
    match xdg_runtime(cx) {
        None if cx.ids.uid == 0 => Ok(PathBuf::from("/run/nsecd/agents/signer.sock")),
        _ => Ok(user_runtime(cx)?.join("nostr-signer.sock")),
    }
}

/// nsecd's own directory below /run: systemd's, root's, or the user's.
fn runtime(cx: &Context<'_>) -> Result<PathBuf, Error> {
    match &cx.env.runtime_directory {
        Some(dir) => Ok(dir.clone()),
        None if cx.ids.uid == 0 => Ok(PathBuf::from("/run/nsecd")),
        None => user_runtime(cx),
    }
}

/// The admin directory.
pub fn admin_dir(cx: &Context<'_>) -> Result<PathBuf, Error> {
    Ok(runtime(cx)?.join(if cx.ids.uid == 0 { "admin" } else { "nsecd-admin" }))
}

/// The state directory of a start whose keys are all thrown away: removed at exit, so its name is this process's own.
pub fn ephemeral_dir(cx: &Context<'_>) -> Result<PathBuf, Error> {
    Ok(runtime(cx)?.join(format!("nsecd-ephemeral-{}", cx.pid)))
}

/// The state directory.
pub fn state_dir(cx: &Context<'_>) -> Result<PathBuf, Error> {
    let env = cx.env;
    let home = || env.home.as_ref().map(|h| h.join(".local/state"));
    match &env.state_directory {
        Some(dir) => Ok(dir.clone()),
        None if cx.ids.uid == 0 => Ok(PathBuf::from("/var/lib/nsecd")),
        None => env.xdg_state_home.clone().or_else(home).map(|dir| dir.join("nsecd")).ok_or_else(|| {
            Error::new(
                "no state directory: HOME is not set; say where with --state-dir, or [state] dir in the config file",
            )
        }),
    }
}

/// The alert log of the socket at `path`, in the state directory; `taken` are the names of the sockets before it.
pub fn alert_log(state: &Path, path: &Path, taken: &[PathBuf]) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = state.join(format!("alerts-{stem}.log"));
    let next = (2..).map(|n: u32| state.join(format!("alerts-{stem}-{n}.log")));
    std::iter::once(first).chain(next).find(|p| !taken.contains(p)).unwrap_or_default()
}
