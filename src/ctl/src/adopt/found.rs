//! What lies in files: the reference daemon's unit, what that says of its socket and logs, what is there of nsecd.
//!
//! Looks below a root directory, so that it can be tried on hosts that are not at hand; changes nothing. The user's own files
//! are read with suspicion: only regular ones, and only so much of them.

use nix::unistd::User;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most of a file that is read.
const MOST: u64 = 256 << 10;

/// The user whose daemon it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Account {
    /// As the host's user data base has it.
    ///
    /// # Errors
    /// There is none of that name, or it is root, whose keys are no user's.
    pub fn named(name: &str) -> Result<Account, String> {
        let user = User::from_name(name).map_err(|e| format!("looking for user {name}: {e}"))?;
        let user = user.ok_or_else(|| format!("there is no user {name} here"))?;
        if user.uid.is_root() {
            return Err("expected the user that nostr-signer runs as; root's own needs `nsecctl key move`".into());
        }
        Ok(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir })
    }

    /// $XDG_RUNTIME_DIR.
    pub fn runtime(&self) -> PathBuf {
        format!("/run/user/{}", self.uid).into()
    }
}

/// A unit of the user's that is, or may be, the reference daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unit {
    pub name: String,
    pub path: PathBuf,
    /// The file elsewhere that it is a link to.
    pub link: Option<PathBuf>,
    /// Its Environment=, those of its drop-ins too.
    pub environment: BTreeMap<String, String>,
}

/// What lies at a path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Thing {
    #[default]
    Nothing,
    Socket,
    Link(PathBuf),
    Other,
}

/// All of it. Paths are without the root directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Files {
    pub units: Vec<Unit>,
    /// At nsecd's default socket.
    pub at_default: Thing,
    /// /etc/nsecd/nsecd.toml.
    pub config: Option<String>,
    /// Whether nsecd's units are installed.
    pub has_units: bool,
    /// Whether this machine runs systemd.
    pub has_systemd: bool,
    /// What the unit says of its alert log and session file, and whether they are there.
    pub logs: Vec<(PathBuf, bool)>,
    /// What an earlier adoption has noted.
    pub journal: Option<super::journal::Journal>,
}

/// A path below the root directory.
pub(super) fn at(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Files {
    /// Looks for it. `service` is the reference daemon's unit where its name says nothing.
    pub fn look(root: &Path, account: &Account, service: Option<&str>) -> Files {
        let units = units(root, account, service);
        let logs = ["SIGNER_ALERT_LOG", "SIGNER_SESSION_FILE"].into_iter().filter_map(|name| {
            let path = PathBuf::from(units.first()?.environment.get(name)?);
            let is_there = fs::symlink_metadata(at(root, &path)).is_ok();
            Some((path, is_there))
        });
        let system = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
        let is_installed = |unit: &str| system.iter().any(|dir| at(root, &Path::new(dir).join(unit)).exists());
        Files {
            logs: logs.collect(),
            at_default: thing(&at(root, Path::new(super::layout::DEFAULT))),
            config: crate::named::text(&at(root, Path::new(super::texts::CONFIG))).ok(),
            has_units: ["nsecd.service", "nsecd.socket", "nsecd@.socket"].into_iter().all(is_installed),
            has_systemd: at(root, Path::new("/run/systemd/system")).is_dir(),
            journal: super::journal::Journal::read(root, &account.name),
            units,
        }
    }
}

/// What lies there, without following it.
pub(super) fn thing(path: &Path) -> Thing {
    match fs::symlink_metadata(path) {
        Err(_) => Thing::Nothing,
        Ok(meta) if meta.file_type().is_socket() => Thing::Socket,
        Ok(meta) if meta.file_type().is_symlink() => fs::read_link(path).map_or(Thing::Other, Thing::Link),
        Ok(_) => Thing::Other,
    }
}

/// Where a user's units lie, the first that has a name counts (systemd.unit(5)).
fn directories(account: &Account) -> [PathBuf; 5] {
    [
        account.home.join(".config/systemd/user"),
        "/etc/systemd/user".into(),
        account.home.join(".local/share/systemd/user"),
        "/usr/local/lib/systemd/user".into(),
        "/usr/lib/systemd/user".into(),
    ]
}

fn units(root: &Path, account: &Account, service: Option<&str>) -> Vec<Unit> {
    let wanted = |name: &str| match service {
        Some(service) => name == service || name.strip_suffix(".service") == Some(service),
        // nostr-signer.service, nanoclaw-nostr_signer.service, nostr-signer-daemon.service …
        None => name.ends_with(".service") && name.replace('_', "-").contains("nostr-signer"),
    };
    let mut found: Vec<Unit> = Vec::new();
    for dir in directories(account) {
        let entries = fs::read_dir(at(root, &dir)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| wanted(n) && is_name(n)).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let link = match thing(&at(root, &path)) {
                Thing::Link(to) => Some(dir.join(to)),
                _ => None,
            };
            // Masked by a link to /dev/null, as --apply leaves one that all users have.
            if found.iter().any(|unit| unit.name == name) || link.as_deref() == Some(Path::new("/dev/null")) {
                continue;
            }
            let environment = environment(root, account, &path);
            found.push(Unit { name, path, link, environment });
        }
    }
    found
}

/// Whether systemd would take it for a unit's name; what else lies there is shown to nobody, who could copy it into a shell.
fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b)) && !name.starts_with('-')
}

fn environment(root: &Path, account: &Account, unit: &Path) -> BTreeMap<String, String> {
    let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".d";
    let dropins = directories(account).into_iter().rev().flat_map(|dir| {
        let entries = fs::read_dir(at(root, &dir.join(&name))).into_iter().flatten().flatten();
        let mut paths: Vec<_> =
            entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
        paths.sort();
        paths
    });
    let mut all = BTreeMap::new();
    for path in std::iter::once(at(root, unit)).chain(dropins) {
        for value in text(&path).lines().filter_map(|line| line.trim().strip_prefix("Environment=")) {
            let pairs = words(value)
                .into_iter()
                .filter_map(|w| Some((w.split_once('=')?.0.to_owned(), w.split_once('=')?.1.to_owned())));
            all.extend(pairs.map(|(name, value)| (name, specified(&value, account))));
        }
    }
    all
}

/// A user's file, if it is one.
fn text(path: &Path) -> String {
    // Held and looked at before it is opened: a link of the user's may lead to a device, and opening that does something to it.
    let held = File::options().read(true).custom_flags(libc::O_PATH).open(path);
    let Some(held) = held.ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file())) else { return String::new() };
    let Ok(file) = File::open(format!("/proc/self/fd/{}", held.as_raw_fd())) else { return String::new() };
    let mut bytes = Vec::new();
    let _ = file.take(MOST).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).replace("\\\n", " ")
}

/// The words of a value, which may be quoted.
fn words(value: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in value.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => all.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    all.push(word);
    all.retain(|word| !word.is_empty());
    all
}

/// systemd's specifiers that a path of the user's has.
fn specified(value: &str, account: &Account) -> String {
    let (mut out, mut rest) = (String::new(), value);
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        let next = rest[at + 1..].chars().next();
        out += &match next {
            Some('t') => account.runtime().display().to_string(),
            Some('h') => account.home.display().to_string(),
            Some('U') => account.uid.to_string(),
            Some('u') => account.name.clone(),
            Some('%') => "%".into(),
            Some(other) => format!("%{other}"),
            None => "%".into(),
        };
        rest = &rest[at + 1 + next.map_or(0, char::len_utf8)..];
    }
    out + rest
}
