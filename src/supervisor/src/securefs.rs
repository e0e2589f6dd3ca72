//! Files and directories that nobody but root and nsecd's own user can have had a hand in.
//!
//! Every path is walked from `/` one name at a time, never through a symbolic link, and each directory on the
//! way is checked before the next is opened: who may write in a directory may swap what lies in it. Must never
//! open an agent's FIFO, follow a link, or write to a file with a second name (SECURITY.md, B12, B26).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, getegid, geteuid, unlinkat};

use crate::fault::{Fault, OrFault};

/// A directory whose path, every parent included, only root and nsecd's own user can change.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// Directories at the path's end that this call made.
    made: usize,
}

/// How a file is to be opened.
pub struct Want {
    /// `O_WRONLY | O_APPEND`, `O_RDWR`, …; `O_NOFOLLOW` and the like are added.
    pub flags: OFlag,
    /// Permissions of a new file, umask or not.
    pub mode: u32,
    /// Besides root and nsecd's own user, who may own a file that exists.
    pub owner: fn(u32) -> bool,
}

/// For [`Want::owner`]: nobody else.
pub fn nobody_else(_: u32) -> bool {
    false
}

impl Dir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// Names the first parent that is missing, a link, or writable by others, and the fix.
    pub fn open(path: &Path) -> Result<Dir, Fault> {
        walk(path, None)
    }

    /// Opens a directory and makes what is missing: parents with [`parent_mode`], the last with `mode`.
    ///
    /// # Errors
    /// As [`Dir::open`], and mkdir's.
    pub fn open_or_create(path: &Path, mode: u32) -> Result<Dir, Fault> {
        walk(path, Some(mode))
    }

    /// The directory's path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this call made it.
    pub fn is_new(&self) -> bool {
        self.made > 0
    }

    /// Removes it if this call made it and nothing is in it, and so the directories above that were made for it.
    pub fn unmake(&self) {
        for path in self.path.ancestors().take(self.made) {
            if unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir).is_err() {
                return;
            }
        }
    }

    /// Opens the regular file `name`, or makes it.
    ///
    /// # Errors
    /// Anything else at that name, a second hard link, a foreign owner, a file that others can write.
    pub fn file(&self, name: &OsStr, want: &Want) -> Result<File, Fault> {
        // Two calls, since only an exclusive creation tells a new file from one that was planted meanwhile.
        for _ in 0..16 {
            match self.existing(name, want) {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => {}
                Err(fault) => return Err(fault),
            }
            match open_in(&self.fd, name, want.flags | OFlag::O_CREAT | OFlag::O_EXCL, 0o600) {
                Ok(fd) => {
                    fchmod(&fd, Mode::from_bits_truncate(want.mode))
                        .or_fault(|| format!("setting the mode of {}", self.show(name)))?;
                    return Ok(File::from(fd));
                }
                Err(Errno::EEXIST) => {}
                Err(e) => return Err(Fault::new(format!("creating {}: {e}", self.show(name)))),
            }
        }
        Err(Fault::new(format!("{} comes and goes while it is opened: somebody else works on it", self.show(name))))
    }

    /// Opens the regular file `name`; `None` if there is nothing of that name.
    ///
    /// # Errors
    /// As [`Dir::file`].
    pub fn existing(&self, name: &OsStr, want: &Want) -> Result<Option<File>, Fault> {
        // Looked at before it is opened: opening a FIFO or a device does something to it.
        let Some(seen) = self.stat(name)? else { return Ok(None) };
        check_file(&seen, want).map_err(|why| Fault::new(format!("{} {why}", self.show(name))))?;
        let file = match open_in(&self.fd, name, want.flags, 0) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(Fault::new(format!("opening {}: {e}", self.show(name)))),
        };
        let opened = fstat(&file).or_fault(|| format!("looking at {}", self.show(name)))?;
        check_file(&opened, want).map_err(|why| Fault::new(format!("{} {why}", self.show(name))))?;
        Ok(Some(file))
    }

    /// What lies at `name`, a link itself and not its target; `None` if nothing does.
    pub fn stat(&self, name: &OsStr) -> Result<Option<FileStat>, Fault> {
        single(name)?;
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(Fault::new(format!("looking at {}: {e}", self.show(name)))),
        }
    }

    /// A handle on what lies at `name`, a link itself and not its target, good for fstat and the like only.
    pub fn look(&self, name: &OsStr) -> Result<OwnedFd, Fault> {
        single(name)?;
        open_in(&self.fd, name, OFlag::O_PATH, 0).or_fault(|| format!("looking at {}", self.show(name)))
    }

    /// Waits until what was made, renamed and removed in it has reached the disk (fsync(2)).
    pub fn sync(&self) -> Result<(), Fault> {
        let what = || format!("writing directory {} to disk", self.path.display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = openat(&self.fd, ".", flags, Mode::empty()).or_fault(what)?;
        fsync(&open).or_fault(what)
    }

    fn show(&self, name: &OsStr) -> String {
        self.path.join(name).display().to_string()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Permissions of a directory that nsecd makes for others' use: root's lets agents through to their sockets, an
/// ordinary user's is for that user alone, since the default one lies in /tmp.
pub fn parent_mode() -> u32 {
    if geteuid().is_root() { 0o755 } else { 0o700 }
}

/// Directory and name of `path`, which must be absolute.
pub fn split(path: &Path) -> Result<(&Path, &OsStr), Fault> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if path.is_absolute() => Ok((dir, name)),
        _ => Err(Fault::new(format!("{}: an absolute path of a file is needed", path.display()))),
    }
}

/// A word for the type of what a stat describes.
pub fn type_name(stat: &FileStat) -> &'static str {
    match file_type(stat) {
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }
}

/// Whether it is a socket's file.
pub fn is_socket(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFSOCK
}

fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether anybody but root and nsecd's user can write to it. A group of our user's own (user-private groups
/// with umask 002, the default of several distributions) is nobody else.
pub fn writable_by_others(stat: &FileStat) -> bool {
    stat.st_mode & 0o002 != 0 || (stat.st_mode & 0o020 != 0 && !is_private_group(stat.st_gid))
}

fn is_private_group(gid: u32) -> bool {
    if gid != getegid().as_raw() {
        return false;
    }
    let (Ok(groups), Ok(users)) = (std::fs::read_to_string("/etc/group"), std::fs::read_to_string("/etc/passwd"))
    else {
        return false;
    };
    private_group(gid, geteuid().as_raw(), &groups, &users)
}

/// Whether group `gid` has no member but `uid`, by the texts of group(5) and passwd(5).
fn private_group(gid: u32, uid: u32, groups: &str, users: &str) -> bool {
    let field = |line: &str, n: usize| line.split(':').nth(n).map(str::to_owned).unwrap_or_default();
    let (gid, uid) = (gid.to_string(), uid.to_string());
    let Some(name) = users.lines().find(|l| field(l, 2) == uid).map(|l| field(l, 0)) else { return false };
    let others_by_passwd = users.lines().any(|l| field(l, 3) == gid && field(l, 2) != uid);
    let mut entries = groups.lines().filter(|l| field(l, 2) == gid).peekable();
    let known = entries.peek().is_some();
    let others_by_group = entries.any(|l| field(l, 3).split(',').any(|m| !m.is_empty() && m != name));
    known && !others_by_passwd && !others_by_group
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn single(name: &OsStr) -> Result<(), Fault> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(()),
        _ => Err(Fault::new(format!("{}: a plain file name is needed", name.display()))),
    }
}

/// Opens `path`, absolute, for reading, through no link: not in a directory above it, nor at its end (ELOOP).
///
/// # Errors
/// open(2)'s. Who may write in a directory on the way is not looked at.
pub fn open_through_no_link(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Err(Errno::ENOSYS) => step_by_step(path, flags),
        result => result,
    }
}

/// The same where there is no openat2(2): systemd's RestrictSUIDSGID= takes it away, since a filter cannot look into its structure.
fn step_by_step(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EISDIR) };
    let mut dir = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for part in parent.components().skip(1) {
        let Component::Normal(name) = part else { return Err(Errno::EINVAL) };
        let look = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        dir = openat(&dir, name, look, Mode::empty())?;
    }
    openat(&dir, name, flags | OFlag::O_NOFOLLOW, Mode::empty())
}

/// `name` is a single one: for that O_NOFOLLOW alone, where there is no openat2(2), is as good.
fn open_in(dir: &OwnedFd, name: &OsStr, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
    let mut flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if !flags.contains(OFlag::O_PATH) {
        // openat2(2) refuses flags that mean nothing to O_PATH.
        flags |= OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    }
    let mode = Mode::from_bits_truncate(mode);
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_BENEATH;
    match openat2(dir, name, OpenHow::new().flags(flags).mode(mode).resolve(resolve)) {
        Err(Errno::ENOSYS) => openat(dir, name, flags, mode),
        result => result,
    }
}

fn walk(path: &Path, create: Option<u32>) -> Result<Dir, Fault> {
    if !path.is_absolute() {
        return Err(Fault::new(format!("{}: an absolute path is needed", path.display())));
    }
    let look = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut fd = open("/", look, Mode::empty()).or_fault(|| "opening /".into())?;
    let mut at = PathBuf::from("/");
    let mut made = 0;
    check_dir(&fd, &at)?;
    let mut parts = path.components().skip(1).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(Fault::new(format!("{}: write the path without `..`", path.display())));
        };
        at.push(name);
        let look = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut next = open_in(&fd, name, look, 0);
        if let (Err(Errno::ENOENT), Some(mode)) = (&next, create) {
            let mode = Mode::from_bits_truncate(if parts.peek().is_none() { mode } else { parent_mode() });
            match mkdirat(&fd, name, Mode::from_bits_truncate(0o700)) {
                Ok(()) => {
                    made += 1;
                    fchmodat(&fd, name, mode, FchmodatFlags::FollowSymlink)
                        .or_fault(|| format!("setting the mode of {}", at.display()))?;
                }
                Err(Errno::EEXIST) => made = 0,
                Err(e) => return Err(Fault::new(format!("creating directory {}: {e}", at.display()))),
            }
            next = open_in(&fd, name, look, 0);
        }
        fd = match next {
            Ok(next) => next,
            Err(e) => return Err(Fault::new(no_directory(&fd, name, &at, e))),
        };
        check_dir(&fd, &at)?;
    }
    Ok(Dir { fd, path: path.to_owned(), made })
}

/// Says why a step of the walk failed.
fn no_directory(parent: &OwnedFd, name: &OsStr, at: &Path, error: Errno) -> String {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if file_type(&stat) == SFlag::S_IFLNK => {
            let real = std::fs::canonicalize(at).map(|p| format!(": give the real path, {}", p.display()));
            format!("{} is a symbolic link, which is not followed{}", at.display(), real.unwrap_or_default())
        }
        Ok(stat) if error == Errno::ENOTDIR => format!("{} is {}, not a directory", at.display(), type_name(&stat)),
        _ => format!("opening directory {}: {error}", at.display()),
    }
}

fn check_dir(fd: &OwnedFd, at: &Path) -> Result<(), Fault> {
    let stat = fstat(fd).or_fault(|| format!("looking at {}", at.display()))?;
    let at = at.display();
    if !is_ours(stat.st_uid) {
        return Err(Fault::new(format!(
            "directory {at} belongs to uid {}, who could replace what lies in it: use a directory of root's or of the user nsecd runs as",
            stat.st_uid
        )));
    }
    let sticky_of_root = stat.st_mode & 0o1000 != 0 && stat.st_uid == 0;
    if writable_by_others(&stat) && !sticky_of_root {
        return Err(Fault::new(format!(
            "directory {at} (mode {:04o}) can be written by others, who could replace what lies in it: chmod go-w {at}, or use another directory",
            stat.st_mode & 0o7777
        )));
    }
    Ok(())
}

fn check_file(stat: &FileStat, want: &Want) -> Result<(), String> {
    if file_type(stat) != SFlag::S_IFREG {
        return Err(format!("is {}, not a regular file: move it away or choose another path", type_name(stat)));
    }
    if stat.st_nlink != 1 {
        return Err(format!("has {} hard links, so another name reaches it: remove the others", stat.st_nlink));
    }
    if !is_ours(stat.st_uid) && !(want.owner)(stat.st_uid) {
        return Err(format!("belongs to uid {}: move it away or choose another path", stat.st_uid));
    }
    if writable_by_others(stat) {
        return Err(format!("can be written by others (mode {:04o}): chmod go-w it", stat.st_mode & 0o7777));
    }
    Ok(())
}
