//! Where a key lies at rest: the kernel's user keyring, or a credential that systemd-creds(1) has encrypted.
//!
//! systemd-creds gets and gives the key by pipes and runs with an environment of our making.

use super::Fault;
use super::memory::Locked;
use super::secret::Secret;
use clap::{Args, ValueEnum, ValueHint};
use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier};
use nsecd_supervisor::config::Source;
use nsecd_supervisor::config::source::{self, KeySource};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A place of one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// The user keyring's key of that description.
    Keyring(String),
    /// An encrypted credential of that name.
    Credential(String),
}

/// How places are reached.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Means {
    /// Where encrypted credentials lie
    #[arg(long, value_name = "DIR", default_value = "/etc/credstore.encrypted", value_hint = ValueHint::DirPath)]
    pub credstore: PathBuf,
    /// What a credential is encrypted with, as systemd-creds(1) has it
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: WithKey,
    /// Replace a key that is there already
    #[arg(long)]
    pub replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum WithKey {
    /// TPM2 and the host's key, as far as they are there
    Auto,
    /// The host's key
    Host,
    /// The TPM2 chip
    Tpm2,
    /// Both
    #[value(name = "host+tpm2")]
    HostAndTpm2,
}

impl Means {
    /// Where nsecd's unit finds credentials; nothing is replaced.
    pub fn of_unit(with_key: WithKey) -> Means {
        Means { credstore: "/etc/credstore.encrypted".into(), with_key, replace: false }
    }
}

/// Reads `keyring:DESCRIPTION` and `credential:NAME`, as nsecd's `--key` has them.
pub(super) fn parse(text: &str) -> Result<Place, String> {
    match source::parse(text) {
        Ok(KeySource::One(Source::Keyring(description))) => Ok(Place::Keyring(description)),
        Ok(KeySource::One(Source::Credential(name))) => Ok(Place::Credential(name)),
        _ => Err("expected keyring:DESCRIPTION or credential:NAME".into()),
    }
}

impl Place {
    /// As it is given.
    pub fn show(&self) -> String {
        match self {
            Place::Keyring(description) => format!("keyring:{description}"),
            Place::Credential(name) => format!("credential:{name}"),
        }
    }

    /// How nsecd takes the key from here.
    pub fn use_of(&self, with: &Means) -> String {
        match self {
            Place::Keyring(_) => format!(
                "nsecd takes it with `--key {}`, until the next reboot; `consume = true` removes it once it is loaded",
                self.show()
            ),
            Place::Credential(name) => format!(
                "nsecd takes it with `LoadCredentialEncrypted={name}:{}` in its unit, and `--key {}`",
                with.credstore.join(name).display(),
                self.show()
            ),
        }
    }

    /// Refuses to overwrite, unless that is asked for.
    pub fn free(&self, with: &Means) -> Result<(), Fault> {
        let is_there = match self {
            Place::Keyring(description) => found(description)?.is_some(),
            Place::Credential(name) => fs::symlink_metadata(with.credstore.join(name)).is_ok(),
        };
        match is_there && !with.replace {
            true => Err(Fault::usage(format!("{} is there already: --replace replaces it", self.show()))),
            false => Ok(()),
        }
    }

    /// Stores the key.
    pub fn write(&self, secret: &Secret, with: &Means) -> Result<(), Fault> {
        self.free(with)?;
        match self {
            Place::Keyring(description) => {
                let add = |user: &KeyRing| user.add_key(description, secret.nsec().bytes()).map(drop);
                holding(add).map_err(|e| Fault::failed(format!("adding {} to the user keyring: {e:?}", self.show())))
            }
            Place::Credential(name) => {
                let sealed = encrypted(name, secret, with)?;
                put(&with.credstore, name, &sealed, with.replace)
                    .map_err(|e| Fault::failed(format!("writing {}: {e}", with.credstore.join(name).display())))
            }
        }
    }

    /// The key that is stored.
    pub fn read(&self, with: &Means) -> Result<Secret, Fault> {
        match self {
            Place::Keyring(description) => {
                let key = found(description)?
                    .ok_or_else(|| Fault::usage(format!("there is no key {description} in the user keyring")))?;
                let mut bytes = zeroize::Zeroizing::new([0u8; 4096]);
                let read = holding(|_| key.read(&mut *bytes));
                let count = read.map_err(|e| Fault::failed(format!("reading {}: {e:?}", self.show())))?;
                Secret::of_text(bytes.get(..count).unwrap_or_default())
            }
            Place::Credential(name) => Secret::of_text(decrypted(name, with)?.bytes()),
        }
    }

    /// Takes the key away from here.
    pub fn remove(&self, with: &Means) -> Result<(), Fault> {
        match self {
            Place::Keyring(description) => {
                let Some(key) = found(description)? else { return Ok(()) };
                // Revoked it is unreadable also to whoever has linked it elsewhere.
                holding(|user| key.revoke().and_then(|()| user.unlink_key(key)))
                    .map_err(|e| Fault::failed(format!("removing {}: {e:?}", self.show())))
            }
            Place::Credential(name) => {
                let path = with.credstore.join(name);
                fs::remove_file(&path).map_err(|e| Fault::failed(format!("removing {}: {e}", path.display())))
            }
        }
    }

    /// The command that does so.
    pub fn removal(&self, with: &Means) -> String {
        match self {
            Place::Keyring(description) => format!("keyctl purge user {description}"),
            Place::Credential(name) => format!("rm {}", with.credstore.join(name).display()),
        }
    }
}

fn found(description: &str) -> Result<Option<Key>, Fault> {
    match holding(|user| user.search(description)) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyRevoked | KeyError::KeyExpired) => Ok(None),
        Err(e) => Err(Fault::failed(format!("looking into the user keyring: {e:?}"))),
    }
}

/// Does it while this process has the user keyring: a key is given to whoever possesses it (keyrings(7)).
fn holding<T>(action: impl FnOnce(&KeyRing) -> Result<T, KeyError>) -> Result<T, KeyError> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true)?;
    let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
    own.link_keyring(user)?;
    let done = action(&user);
    own.unlink_keyring(user)?;
    done
}

/// systemd-creds, with nothing of our environment but where it is and, in tests, where the host's key lies.
fn creds(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemd-creds");
    command.args(arguments).env_clear().stderr(Stdio::piped());
    for name in ["PATH", "SYSTEMD_CREDENTIAL_SECRET"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn not_run(e: &std::io::Error) -> Fault {
    Fault::failed(format!("systemd-creds cannot be run: {e}; it is part of systemd 250 and later"))
}

fn said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().replace('\n', "; ")
}

fn encrypted(name: &str, secret: &Secret, with: &Means) -> Result<Vec<u8>, Fault> {
    let key = match with.with_key {
        WithKey::Auto => "auto",
        WithKey::Host => "host",
        WithKey::Tpm2 => "tpm2",
        WithKey::HostAndTpm2 => "host+tpm2",
    };
    let (name, key) = (format!("--name={name}"), format!("--with-key={key}"));
    let mut command = creds(&["encrypt", &name, &key, "-", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| not_run(&e))?;
    if let Some(mut pipe) = child.stdin.take() {
        // Where it fails systemd-creds says why.
        let _ = pipe.write_all(secret.nsec().bytes());
    }
    let output = child.wait_with_output().map_err(|e| not_run(&e))?;
    match output.status.success() && !output.stdout.is_empty() {
        true => Ok(output.stdout),
        false => Err(Fault::failed(format!("systemd-creds did not encrypt the key: {}", said(&output.stderr)))),
    }
}

fn decrypted(name: &str, with: &Means) -> Result<Locked, Fault> {
    let path = with.credstore.join(name);
    let file = crate::named::open(&path).map_err(|e| Fault::usage(format!("{}: {e}", path.display())))?;
    let mut command = creds(&["decrypt", &format!("--name={name}"), "-", "-"]);
    let mut child = command.stdin(file).stdout(Stdio::piped()).spawn().map_err(|e| not_run(&e))?;
    let key = child.stdout.take().map_or_else(|| Ok(Locked::new(1)), Locked::read);
    let output = child.wait_with_output().map_err(|e| not_run(&e))?;
    if !output.status.success() {
        let why = said(&output.stderr);
        return Err(Fault::failed(format!("systemd-creds did not decrypt {}: {why}", path.display())));
    }
    key.map_err(|e| Fault::failed(format!("reading from systemd-creds: {e}")))
}

/// A file that is there whole or not at all.
fn put(dir: &Path, name: &str, bytes: &[u8], replace: bool) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if !dir.exists() {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    }
    let (next, path) = (dir.join(format!(".{name}.{}", std::process::id())), dir.join(name));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link is refused where the name is taken meanwhile; a rename replaces.
        if replace { fs::rename(&next, &path) } else { fs::hard_link(&next, &path) }
    };
    let written = write();
    let _ = fs::remove_file(&next);
    written
}
