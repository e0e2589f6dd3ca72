//! Where an account's key is, opened for its key-holder. Must never read from it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use crate::config::{Account, Source};
use crate::fault::{Fault, OrFault};
use crate::securefs::{Dir, Want, nobody_else};
use crate::sys::Inherited;

/// An opened key source.
pub enum KeySource {
    /// A credential's file or an inherited descriptor.
    Descriptor(OwnedFd),
    /// Descriptions in the user keyring, tried in order by the key-holder.
    Keyring(Vec<String>),
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
                    return Ok(KeySource::Keyring([first].into_iter().chain(more).cloned().collect()));
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

    /// The key-holder's last arguments.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            KeySource::Descriptor(_) => vec!["fd".into()],
            KeySource::Keyring(names) => ["keyring".to_owned()].into_iter().chain(names.iter().cloned()).collect(),
            KeySource::Ephemeral => vec!["ephemeral".into()],
        }
    }
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
