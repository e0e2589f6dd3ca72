//! The agents' sockets, and the operator's.
//!
//! Whatever lies at a socket's path and is not provably left by an nsecd that is gone stays there, and nsecd
//! refuses to start (SECURITY.md, A16, B12, B30). A socket is never, not for a moment, open to more than its
//! configured owner, group and mode (A18). At exit only our own are removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::poll::poll;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, unlinkat};

use crate::fault::{Fault, OrFault};
use crate::lockfile::{Identity, Lock};
use crate::names::Names;
use crate::securefs::{Dir, is_socket, parent_mode, split, type_name};

/// Connections that may wait to be accepted. Measured: of 600 simultaneous connects 128 refused 471, 1024 none. Whoever comes stands behind
/// all of them, so more would only let one agent keep the others waiting longer.
pub const BACKLOG: i32 = 1024;
/// How long the roles of an nsecd that was killed a moment ago may still be dying with its socket open.
const DYING: Duration = Duration::from_secs(2);

/// A listening, non-blocking, close-on-exec Unix stream socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub fd: OwnedFd,
    /// Its path, as configured.
    pub path: PathBuf,
    /// Who may connect; `None`: whom systemd lets.
    access: Option<Access>,
    /// What to remove at exit; `None` for systemd's.
    own: Option<Own>,
}

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner to give it to.
    pub owner: Option<Uid>,
    /// Group to give it to.
    pub group: Option<Gid>,
}

impl Access {
    /// Looks up owner and group, each a name or a number.
    ///
    /// # Errors
    /// A name that nobody knows.
    pub fn resolve(mode: u32, owner: Option<&str>, group: Option<&str>, names: Names) -> Result<Access, Fault> {
        let uid = |name: &str| match name.parse() {
            Ok(uid) => Ok(Uid::from_raw(uid)),
            Err(_) => names.user(name).ok_or_else(|| names.unknown("user", name)),
        };
        let gid = |name: &str| match name.parse() {
            Ok(gid) => Ok(Gid::from_raw(gid)),
            Err(_) => names.group(name).ok_or_else(|| names.unknown("group", name)),
        };
        Ok(Access { mode, owner: owner.map(uid).transpose()?, group: group.map(gid).transpose()? })
    }

    /// The group of the socket's agents: the configured one, else its owner's primary one.
    pub fn readers(&self, names: Names) -> Option<Gid> {
        self.group.or_else(|| self.owner.filter(|o| *o != geteuid()).and_then(|owner| names.primary_group(owner)))
    }
}

impl Listener {
    /// Binds `path`, or replaces the socket that an nsecd which is gone left there.
    ///
    /// # Errors
    /// Another nsecd serves the path; something that is not nsecd's lies there; a parent directory that others
    /// can write; what the kernel says.
    pub fn bind(path: &Path, access: Access) -> Result<Listener, Fault> {
        Listener::bind_or_advise(path, access, "--socket")
    }

    /// The same; `flag` is what gives the socket another path.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_or_advise(path: &Path, access: Access, flag: &'static str) -> Result<Listener, Fault> {
        let (parent, name) = split(path)?;
        let address =
            UnixAddr::new(path).or_fault(|| format!("{}: a socket's path has at most 107 bytes", path.display()))?;
        let dir = Dir::open_or_create(parent, parent_mode())?;
        let mut own = Own::claim(dir, name, flag)?;
        own.clear(&address, access.owner)?;
        let fd = own.make(&address, access)?;
        Ok(Listener { fd, path: path.to_owned(), access: Some(access), own: Some(own) })
    }

    /// A listening socket that systemd bound; it is left alone at exit.
    pub fn given(fd: OwnedFd, path: &Path) -> Listener {
        Listener { fd, path: path.to_owned(), access: None, own: None }
    }

    /// Who may connect; `None`: whom systemd lets.
    pub fn access(&self) -> Option<Access> {
        self.access
    }

    /// Lets others connect from now on.
    ///
    /// # Errors
    /// The socket is not at its path any more; what the kernel says: then nobody but nsecd's user can connect, or who could before.
    pub fn set_access(&mut self, access: Access) -> Result<(), Fault> {
        let Some(own) = &self.own else { return Ok(()) };
        let file = own.dir.look(&own.name)?;
        let found = fstat(&file).or_fault(|| format!("looking at {}", own.show()))?;
        if own.socket != Some(identity(&found)) {
            return Err(Fault::new(format!("{} is no longer the socket made by this nsecd", own.show())));
        }
        let what = || format!("taking {} back from its owner", own.show());
        fchownat(&file, "", Some(geteuid()), None, AtFlags::AT_EMPTY_PATH).or_fault(what)?;
        set_mode(&file, 0).or_fault(what)?;
        open_to(&file, access, &own.show())?;
        self.access = Some(access);
        Ok(())
    }
}

/// A path that is ours by its lock. Dropped, it removes the socket it made, and nothing else, then the lock.
#[derive(Debug)]
struct Own {
    dir: Dir,
    name: OsString,
    lock: Option<Lock>,
    socket: Option<Identity>,
    flag: &'static str,
}

impl Own {
    fn claim(dir: Dir, name: &OsStr, flag: &'static str) -> Result<Own, Fault> {
        let mut lock_name = name.to_owned();
        lock_name.push(".lock");
        match Lock::take(&dir, &lock_name)? {
            Some(lock) => Ok(Own { dir, name: name.to_owned(), lock: Some(lock), socket: None, flag }),
            None => Err(Fault::new(format!(
                "another nsecd serves {}: stop it first, or use another {flag}",
                dir.path().join(name).display()
            ))),
        }
    }

    fn show(&self) -> String {
        self.dir.path().join(&self.name).display().to_string()
    }

    /// Makes room at the path: only a socket that the lock file names as its last holder's goes.
    fn clear(&mut self, address: &UnixAddr, owner: Option<Uid>) -> Result<(), Fault> {
        let recorded = self.lock.as_mut().and_then(Lock::recorded);
        let Some(found) = self.dir.stat(&self.name)? else { return Ok(()) };
        if !is_socket(&found) {
            return Err(Fault::new(format!(
                "{} is {}, and nsecd removes nothing it did not make: move it away, or use another {}",
                self.show(),
                type_name(&found),
                self.flag
            )));
        }
        let possible_owner = found.st_uid == geteuid().as_raw() || owner.is_some_and(|o| o.as_raw() == found.st_uid);
        if recorded != Some(identity(&found)) || !possible_owner {
            return Err(Fault::new(format!(
                "{0} is a socket of another program, and nsecd removes nothing it did not make: stop that program, or, if `ss -xl src {0}` shows that none serves it, remove it; or use another {1}",
                self.show(),
                self.flag
            )));
        }
        let patience = Instant::now() + DYING;
        while is_served(address)? {
            if Instant::now() > patience {
                return Err(Fault::new(format!(
                    "{} is still served by what an earlier nsecd left running: see `ss -xlp`",
                    self.show()
                )));
            }
            // Nothing to wait for but time.
            let _ = poll(&mut [], 20u8);
        }
        log::info!("replacing {}, which an earlier nsecd left behind", self.show());
        unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
            .or_fault(|| format!("removing {}", self.show()))
    }

    /// Binds, and opens the socket to others only when it is complete.
    fn make(&mut self, address: &UnixAddr, access: Access) -> Result<OwnedFd, Fault> {
        let show = self.show();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).or_fault(|| "making a socket".into())?;
        // unix(7) does not tell: bind takes the file's mode from the socket's own, less the umask.
        fchmod(&fd, Mode::empty()).or_fault(|| format!("closing {show} to others before it exists"))?;
        // For the look below: without it what was bound could not be told from another's, and would be left there.
        let spare = fd.try_clone().or_fault(|| format!("a descriptor to look at {show} with"))?;
        bind(fd.as_raw_fd(), address).or_fault(|| format!("binding {show}"))?;
        drop(spare);
        // From here on the file itself is meant, not its name: an owner in a sticky directory may swap the name.
        let file = self.dir.look(&self.name)?;
        let made = fstat(&file).or_fault(|| format!("looking at {show}"))?;
        if !is_socket(&made) || made.st_uid != geteuid().as_raw() {
            return Err(Fault::new(format!("{show} was swapped while it was made")));
        }
        let me = identity(&made);
        self.socket = Some(me);
        if let Some(lock) = &mut self.lock {
            lock.record(me)?;
        }
        listen(&fd, Backlog::new(BACKLOG).or_fault(|| "backlog".into())?)
            .or_fault(|| format!("listening on {show}"))?;
        open_to(&file, access, &show)?;
        Ok(fd)
    }
}

/// Opens a socket that is ours and closed to others: to its group, then by its mode, then to its owner. In this order nobody gets
/// more than is configured, and nothing is done to a file of another's, which would take CAP_FOWNER.
fn open_to(file: &OwnedFd, access: Access, show: &str) -> Result<(), Fault> {
    let give = |owner, group| {
        fchownat(file, "", owner, group, AtFlags::AT_EMPTY_PATH).or_fault(|| {
            format!("giving {show} to its owner and group (only root gives files to other users, and anybody else to groups of theirs)")
        })
    };
    give(None, access.group)?;
    set_mode(file, access.mode).or_fault(|| format!("setting the mode of {show}"))?;
    match access.owner {
        Some(owner) => give(Some(owner), None),
        None => Ok(()),
    }
}

/// Of the file that is open, and not of what may bear its name by now.
fn set_mode(file: &OwnedFd, mode: u32) -> nix::Result<()> {
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    fchmodat(AT_FDCWD, by_number.as_str(), Mode::from_bits_truncate(mode & 0o777), FchmodatFlags::FollowSymlink)
}

impl Drop for Own {
    fn drop(&mut self) {
        let mine = |s: &FileStat| self.socket == Some(identity(s));
        match self.dir.stat(&self.name) {
            Ok(Some(found)) if mine(&found) => {
                if let Err(e) = unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                    log::warn!("removing {}: {e}", self.show());
                }
            }
            _ if self.socket.is_some() => {
                log::warn!("{} is no longer the socket made by this nsecd: left alone", self.show())
            }
            _ => {}
        }
        if let Some(mut lock) = self.lock.take() {
            // A record that an earlier nsecd left says which stale socket may be replaced: keep it if we made none.
            if self.socket.is_some() || lock.recorded().is_none() {
                lock.remove(&self.dir);
            }
        }
    }
}

fn identity(stat: &FileStat) -> Identity {
    Identity { dev: stat.st_dev, ino: stat.st_ino }
}

/// Whether a process has the socket at `address` open for listening.
fn is_served(address: &UnixAddr) -> Result<bool, Fault> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None).or_fault(|| "making a socket".into())?;
    Ok(connect(probe.as_raw_fd(), address) != Err(Errno::ECONNREFUSED))
}
