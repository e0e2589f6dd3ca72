//! Reading the key from where the operator keeps it, straight into the secret mapping.

use core::fmt;
use nsecd_sandbox::{args, lock, sys};
use std::ffi::CString;

/// The most a source may hold, and one byte more to notice a longer one.
pub const ROOM: usize = 96;
/// The user keyring (keyrings(7)).
const USER_KEYRING: i64 = libc::KEY_SPEC_USER_KEYRING as i64;
const SESSION_KEYRING: i64 = libc::KEY_SPEC_SESSION_KEYRING as i64;

/// Why there is no key.
#[derive(Debug)]
pub enum Error {
    /// The source cannot be read, with its errno.
    Unreadable(i32),
    /// None of these descriptions is in the user keyring.
    NotInKeyring(String),
    /// The keyring key could not be removed, with its errno.
    NotConsumed(i32),
    /// What the source holds is no key.
    NotAKey,
    /// The supervisor named no source this version knows.
    Unknown,
}

impl Error {
    /// The exit code.
    pub fn code(&self) -> i32 {
        match self {
            Error::NotAKey => args::BAD_KEY,
            Error::Unknown => args::USAGE,
            _ => args::NO_KEY,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = std::io::Error::from_raw_os_error;
        match self {
            Error::Unreadable(e) => write!(f, "the key source cannot be read: {}", os(*e)),
            Error::NotInKeyring(names) => {
                let first = names.split(", ").next().unwrap_or_default();
                write!(f, "no key named {names} in the user keyring; add one with: keyctl padd user {first} @u")
            }
            Error::NotConsumed(e) => write!(f, "consume = true, but the key cannot be removed: {}", os(*e)),
            Error::NotAKey => write!(f, "the source holds no key: expected nsec1…, 64 hex digits or 32 raw bytes"),
            Error::Unknown => write!(f, "a key source of fd, ephemeral or keyring expected"),
        }
    }
}

/// Fills `buffer` from the source and returns how many bytes it held; `None` for a throw-away key of 32 random bytes.
pub fn read(source: &[String], consume: bool, buffer: &mut [u8; ROOM]) -> Result<Option<usize>, Error> {
    match source {
        [kind] if kind == "fd" => read_descriptor(buffer).map(Some),
        [kind] if kind == "ephemeral" => Ok(None),
        [kind, names @ ..] if kind == "keyring" && !names.is_empty() => read_keyring(names, consume, buffer).map(Some),
        _ => Err(Error::Unknown),
    }
}

/// Descriptor 0, to its end.
fn read_descriptor(buffer: &mut [u8; ROOM]) -> Result<usize, Error> {
    let mut length = 0;
    while length < ROOM {
        match sys::read(0, &mut buffer[length..]).map_err(Error::Unreadable)? {
            0 => break,
            n => length += n,
        }
    }
    sys::close(0);
    Ok(length)
}

/// The first of `names` in @u. The user keyring is readable only to a process that holds it: it is linked into
/// this process's own session keyring for as long as the reading takes.
fn read_keyring(names: &[String], consume: bool, buffer: &mut [u8; ROOM]) -> Result<usize, Error> {
    sys::keyctl(libc::KEYCTL_LINK, USER_KEYRING, SESSION_KEYRING).map_err(Error::Unreadable)?;
    let found = names.iter().find_map(|name| sys::key_search(USER_KEYRING, &CString::new(name.as_str()).ok()?).ok());
    let key = found.ok_or_else(|| Error::NotInKeyring(names.join(", ")))?;
    let length = sys::key_read(key, buffer).map_err(Error::Unreadable)?;
    if consume {
        // Revoked, the key is unreadable to whoever has linked it elsewhere; unlinked, it is gone from @u.
        sys::keyctl(libc::KEYCTL_REVOKE, key, 0).map_err(Error::NotConsumed)?;
        sys::keyctl(libc::KEYCTL_UNLINK, key, USER_KEYRING).map_err(Error::NotConsumed)?;
    }
    lock::fresh_session_keyring().map_err(Error::Unreadable)?;
    Ok(length.min(ROOM))
}
