//! Where an account's key is, opened for its key-holder, and once more for its ECDH holder. Must never read from it.

use std::ffi::OsStr;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, SpliceFFlags, open, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Whence, lseek, pipe2};

use crate::config::{Account, Source};
use crate::fault::{Fault, OrFault};
use crate::keyring;
use crate::ready::{KEY_PATIENCE, NotReady};
use crate::securefs::{Dir, Want, nobody_else};
use crate::signals::Signals;
use crate::sys::Inherited;

/// More than any form of a key has: what a second reader of a pipe gets.
const MOST: usize = 4096;
/// What to do where a key can be read once only.
const ADVICE: &str = "with dm, nip44 or nip04 two processes read the key: give it as a credential, in the keyring, or in a file or a pipe (`--key fd:7 7< <(command)`)";

/// An opened key source.
pub enum KeySource {
    /// A credential's file or an inherited descriptor.
    Descriptor(OwnedFd),
    /// The serial number of a key in the user keyring.
    Keyring(i32),
    /// The key-holder makes a key.
    Ephemeral,
}

impl KeySource {
    /// Opens the first of the account's sources that is there.
    ///
    /// # Errors
    /// None is there, or one that is there is open to others.
    pub fn open(account: &Account, credentials: Option<&Path>, inherited: &mut Inherited) -> Result<KeySource, Fault> {
        let mut sources = account.source.iter().peekable();
        while let Some(source) = sources.next() {
            match source {
                Source::Credential(name) => match credential(name, credentials)? {
                    Some(file) => return Ok(KeySource::Descriptor(file)),
                    None if sources.peek().is_some() => {}
                    None => return Err(Fault::new(missing(&account.name, name, credentials))),
                },
                Source::Keyring(first) => {
                    let more = sources.filter_map(|s| if let Source::Keyring(name) = s { Some(name) } else { None });
                    let names: Vec<&str> = [first].into_iter().chain(more).map(String::as_str).collect();
                    // Of "auto", whose first place is a credential.
                    let absent = if names.len() > 1 {
                        "there is no credential nsec (LoadCredentialEncrypted=nsec), and "
                    } else {
                        ""
                    };
                    let found = keyring::find(&names).map(KeySource::Keyring);
                    return found.map_err(|why| Fault::new(format!("account {}: {absent}{why}", account.name)));
                }
                Source::Fd(fd) => {
                    let missing = || {
                        let name = &account.name;
                        Fault::new(format!("account {name}: fd:{fd} is not open: start nsecd with `{fd}< FILE`"))
                    };
                    return inherited.remove(fd).map(KeySource::Descriptor).ok_or_else(missing);
                }
                Source::Ephemeral => return Ok(KeySource::Ephemeral),
            }
        }
        Err(Fault::new(format!("account {}: no key source", account.name)))
    }

    /// The same source once more, for a second process; each can then be read whole, whatever the other does.
    ///
    /// # Errors
    /// It can be read once only; the key is not complete in its pipe in time; the operator asked nsecd to stop meanwhile.
    pub fn twice(&mut self, account: &Account, signals: &Signals) -> Result<KeySource, NotReady> {
        self.twice_within(account, signals, KEY_PATIENCE)
    }

    fn twice_within(&mut self, account: &Account, signals: &Signals, limit: Duration) -> Result<KeySource, NotReady> {
        if let KeySource::Ephemeral = self {
            *self = KeySource::Descriptor(throw_away()?);
        }
        let fd = match self {
            KeySource::Keyring(serial) => return Ok(KeySource::Keyring(*serial)),
            KeySource::Descriptor(fd) => fd,
            KeySource::Ephemeral => return Ok(KeySource::Ephemeral),
        };
        let what = || format!("account {}: opening its key source a second time", account.name);
        let stat = fstat(&fd).or_fault(what)?;
        let second = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => reopened(fd).map_err(|e| format!("it cannot be opened again: {e}")),
            SFlag::S_IFIFO if !is_complete(fd, signals, limit)? => {
                Err(format!("the pipe was not closed by who writes the key after {} s", limit.as_secs()))
            }
            SFlag::S_IFIFO => copied(fd).map_err(|e| format!("its pipe cannot be copied: {e}")),
            _ => Err("it is neither a file nor a pipe".to_owned()),
        };
        let refused = |why| Fault::new(format!("account {}: its key source: {why}; {ADVICE}", account.name));
        Ok(KeySource::Descriptor(second.map_err(refused)?))
    }

    /// A holder's last arguments.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            KeySource::Descriptor(_) => vec!["fd".into()],
            KeySource::Keyring(serial) => vec!["keyring".into(), serial.to_string()],
            KeySource::Ephemeral => vec!["ephemeral".into()],
        }
    }
}

/// A file opened again: with a position of its own, which begins where the first one's is.
fn reopened(file: &OwnedFd) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())?;
    lseek(&again, lseek(file, 0, Whence::SeekCur)?, Whence::SeekSet)?;
    Ok(again)
}

/// Whether the pipe is closed by who writes it, which may take a while: all that it will ever hold is then in it.
fn is_complete(pipe: &OwnedFd, signals: &Signals, limit: Duration) -> Result<bool, NotReady> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty()), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout);
        if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return Ok(true);
        }
        if signals.stop_asked() {
            return Err(NotReady::Stopped);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// A second pipe with what the first one holds: tee(2) copies references to the kernel's pages, and takes nothing away.
fn copied(pipe: &OwnedFd) -> nix::Result<OwnedFd> {
    let (copy, end) = pipe2(OFlag::O_CLOEXEC)?;
    tee(pipe, &end, MOST, SpliceFFlags::SPLICE_F_NONBLOCK)?;
    Ok(copy)
}

/// A pipe with a key that nobody keeps: 32 bytes from the kernel's generator.
fn throw_away() -> Result<OwnedFd, Fault> {
    const FROM: &str = "/dev/urandom";
    let what = || "making a throw-away key".to_owned();
    let (pipe, end) = pipe2(OFlag::O_CLOEXEC).or_fault(what)?;
    let mut random = File::open(FROM).or_fault(what)?;
    let mut end = File::from(end);
    // Linux before 5.19 does not splice from there: only then, and only of such a key, does the supervisor hold a copy.
    if splice(&random, None, &end, None, 32, SpliceFFlags::empty()).is_err() {
        let mut key = [0; 32];
        let moved = random.read_exact(&mut key).and_then(|()| end.write_all(&key));
        key.fill(0);
        black_box(&key);
        moved.or_fault(what)?;
    }
    Ok(pipe)
}

fn credential(name: &str, credentials: Option<&Path>) -> Result<Option<OwnedFd>, Fault> {
    let Some(path) = credentials else { return Ok(None) };
    let want = Want { flags: OFlag::O_RDONLY, mode: 0, owner: nobody_else };
    let Some(file) = Dir::open(path)?.existing(OsStr::new(name), &want)? else { return Ok(None) };
    let stat = fstat(&file).or_fault(|| format!("looking at credential {name}"))?;
    if stat.st_mode & 0o004 != 0 {
        return Err(Fault::new(format!(
            "credential {}/{name} can be read by everyone: chmod 0600 it, and think of the key in it as known",
            path.display()
        )));
    }
    Ok(Some(file.into()))
}

fn missing(account: &str, name: &str, credentials: Option<&Path>) -> String {
    match credentials {
        Some(dir) => format!(
            "account {account}: there is no credential {name} in {}: add LoadCredentialEncrypted={name} to the unit",
            dir.display()
        ),
        None => format!(
            "account {account}: credential:{name} needs CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredentialEncrypted={name}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ceiling;
    use nsecd_policy::Kinds;

    fn account() -> Account {
        let ecdh_ceiling = Some(Ceiling { burst: 1, tokens: 1, seconds: 1 });
        let kinds = Kinds::Any;
        let (created_at, seals, ceiling) = (None, None, None);
        Account {
            name: "a".into(),
            source: vec![],
            consume: false,
            kinds,
            ceiling,
            created_at,
            seals,
            seal_ceiling: None,
            ecdh_ceiling,
        }
    }

    fn twice(source: &mut KeySource, limit: Duration) -> Result<KeySource, String> {
        let signals = Signals::block().unwrap();
        source.twice_within(&account(), &signals, limit).map_err(|e| match e {
            NotReady::Failed(why) => why.to_string(),
            NotReady::Stopped => "stopped".into(),
        })
    }

    fn content(source: KeySource) -> Vec<u8> {
        let KeySource::Descriptor(fd) = source else { panic!("no descriptor") };
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_is_opened_again_and_each_reader_has_its_own_position() {
        let scratch = crate::tests::Scratch::new();
        std::fs::write(scratch.join("key"), "before the key").unwrap();
        let mut file = File::open(scratch.join("key")).unwrap();
        file.read_exact(&mut [0; 7]).unwrap();
        let mut first = KeySource::Descriptor(file.into());
        let second = twice(&mut first, Duration::ZERO).unwrap();
        assert_eq!((content(first), content(second)), (b"the key".to_vec(), b"the key".to_vec()));
    }

    #[test]
    fn a_pipe_is_copied_once_it_is_closed() {
        let (pipe, mut end) = std::io::pipe().unwrap();
        end.write_all(b"the ").unwrap();
        let mut first = KeySource::Descriptor(pipe.into());
        // Control, and the limit of it: who never closes the pipe is told to.
        let why = twice(&mut first, Duration::from_millis(20)).err().unwrap();
        assert!(why.contains("not closed by who writes the key") && why.contains("credential"), "{why}");
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            end.write_all(b"key").unwrap();
        });
        let second = twice(&mut first, Duration::from_secs(60)).unwrap();
        writer.join().unwrap();
        assert_eq!((content(second), content(first)), (b"the key".to_vec(), b"the key".to_vec()));
    }

    #[test]
    fn what_can_be_read_once_only_is_refused_with_advice() {
        let (socket, _end) = std::os::unix::net::UnixStream::pair().unwrap();
        for fd in [File::open("/dev/null").unwrap().into(), OwnedFd::from(socket)] {
            let why = twice(&mut KeySource::Descriptor(fd), Duration::ZERO).err().unwrap();
            assert!(why.contains("neither a file nor a pipe") && why.contains("--key fd:7"), "{why}");
        }
    }

    #[test]
    fn a_throw_away_key_is_the_same_for_both_and_another_each_time() {
        let key = || {
            let mut first = KeySource::Ephemeral;
            let second = twice(&mut first, Duration::from_secs(1)).unwrap();
            let key = content(first);
            assert_eq!((key.len(), &key), (32, &content(second)));
            key
        };
        assert_ne!(key(), key());
    }
}
