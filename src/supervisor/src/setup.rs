//! What the supervisor opens once at start and keeps, whatever happens to broker and gates.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown};

use crate::activation::{self, Given};
use crate::alertlog::AlertLog;
use crate::config::{Account, Config, Start};
use crate::control::ControlSocket;
use crate::decisionlog::DecisionLog;
use crate::fault::{Fault, OrFault};
use crate::freeze::Freeze;
use crate::holders::{Holder, Standard};
use crate::images::Images;
use crate::journal::{self, Journal};
use crate::listeners::{Access, Listener};
use crate::lockfile::Lock;
use crate::names::Names;
use crate::record::{self, Record};
use crate::securefs::{Dir, Want};
use crate::signals::Signals;
use crate::sys::Inherited;
use crate::uids::{self, Ids, Roles};

/// Everything that outlives broker and gates. Fields are dropped in this order: processes before their files,
/// sockets before the state's lock.
pub struct Setup {
    /// The user who started nsecd.
    pub started_by: String,
    /// Optional steps of the supervisor's own lock that are missing.
    pub missing: Vec<&'static str>,
    /// One for each account.
    pub holders: Vec<Holder>,
    /// The default account's, where a socket offers encryption.
    pub ecdh: Option<Holder>,
    /// One for each configured socket.
    pub listeners: Vec<Listener>,
    /// The operator's, to the supervisor.
    pub control: ControlSocket,
    /// The operator's, to the broker.
    pub admin: Listener,
    /// One for each configured socket.
    pub alert_logs: Vec<AlertLog>,
    /// One for each account, written by its gate.
    pub records: Vec<Record>,
    /// One for each account.
    pub freezes: Vec<Freeze>,
    /// The ECDH holder's, which it writes.
    pub ecdh_record: Option<Record>,
    /// Written by the broker.
    pub journal: Journal,
    /// Written by the broker.
    pub decisions: DecisionLog,
    /// This boot's random id (proc_sys_kernel(5)).
    pub boot_id: String,
    /// The role binaries.
    pub images: Images,
    /// The roles' uids.
    pub ids: Roles,
    /// Descriptors 0 to 2 of the roles.
    pub standard: Standard,
    /// SIGTERM and the like.
    pub signals: Signals,
    /// What the operator configured.
    pub config: Box<Config>,
    /// How nsecd was started.
    pub start: Start,
    /// Whether systemd bound the agents' sockets.
    pub sockets_given: bool,
    /// The state directory, ours alone.
    pub state: State,
}

/// The state directory and its lock. Dropped, an ephemeral one is removed.
pub struct State {
    dir: Dir,
    lock: Option<Lock>,
    remove: Option<PathBuf>,
}

impl State {
    /// Opens or makes the directory and locks it: two nsecds on one record would double an account's ceiling.
    ///
    /// # Errors
    /// Another nsecd uses it; an ephemeral one exists already; others can write in it.
    pub fn open(path: &Path, ephemeral: bool) -> Result<State, Fault> {
        let dir = Dir::open_or_create(path, 0o700)?;
        if ephemeral && !dir.is_new() {
            return Err(Fault::new(format!("{} exists already: remove it, or give --state-dir", path.display())));
        }
        let remove = ephemeral.then(|| path.to_owned());
        let mut state = State { dir, lock: None, remove };
        state.lock = Lock::take(&state.dir, OsStr::new("lock"))?;
        match state.lock {
            Some(_) => Ok(state),
            None => Err(Fault::new(format!(
                "another nsecd uses the state directory {}: stop it first, or give --state-dir",
                path.display()
            ))),
        }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens or makes the record STEM.record, and gives it to its writer's uid.
    ///
    /// # Errors
    /// As [`Dir::file`].
    pub fn record(&self, stem: &str, writer: Option<Ids>) -> Result<File, Fault> {
        let name = format!("{stem}.record");
        let file = self.dir.file(OsStr::new(&name), &record_file(OFlag::O_RDWR, writer))?;
        if let Some(ids) = writer {
            let (uid, gid) = (Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)));
            fchown(&file, uid, gid).or_fault(|| format!("giving {name} to uid {}, its writer's", ids.uid))?;
        }
        Ok(file)
    }
}

/// How a record is opened.
pub fn record_file(flags: OFlag, writer: Option<Ids>) -> Want {
    // Where only root can make files, an owner of the dynamic range is an earlier run's gate or ECDH holder.
    Want { flags, mode: 0o600, owner: if writer.is_some() { uids::may_write_records } else { |_| false } }
}

impl Drop for State {
    fn drop(&mut self) {
        match (&self.remove, self.lock.take()) {
            // It holds the record and logs of a key that no longer exists.
            (Some(path), _) => {
                if let Err(e) = std::fs::remove_dir_all(path) {
                    log::warn!("removing {}: {e}", path.display());
                }
            }
            (None, Some(lock)) => lock.remove(&self.dir),
            (None, None) => {}
        }
    }
}

/// Binds every agent socket, or takes systemd's.
pub fn listeners(config: &Config, given: &Given, inherited: &mut Inherited) -> Result<Vec<Listener>, Fault> {
    let access = |s: &crate::config::Socket| {
        Access::resolve(s.mode, s.owner.as_deref(), s.group.as_deref(), Names::System)
            .map_err(|why| Fault::new(format!("socket {}: {why}", s.path.display())))
    };
    if !given.is_empty() {
        let paths: Vec<&Path> = config.sockets.iter().map(|s| s.path.as_path()).collect();
        let taken = given.take(&paths, inherited)?;
        for socket in &config.sockets {
            activation::compare(&socket.path, access(socket)?);
        }
        return Ok(taken);
    }
    let bind = |s: &crate::config::Socket| Listener::bind(&s.path, access(s)?);
    config.sockets.iter().map(bind).collect()
}

/// Opens every socket's alert log.
pub fn alert_logs(config: &Config) -> Result<Vec<AlertLog>, Fault> {
    let open = |s: &crate::config::Socket| {
        let access = Access::resolve(s.mode, s.owner.as_deref(), s.group.as_deref(), Names::System)?;
        AlertLog::open(&s.alert_log, access.readers(Names::System))
    };
    config.sockets.iter().map(open).collect()
}

/// Opens every account's record.
pub fn records(config: &Config, state: &State, ids: &Roles) -> Result<Vec<Record>, Fault> {
    let accounts = config.accounts.iter().zip(&ids.gates);
    let full = |a: &Account| record::full(config, &[a.ceiling, a.seal_ceiling.flatten()]);
    accounts.map(|(a, gate)| Record::open(state, &a.name, *gate, full(a))).collect()
}

/// Opens the ECDH holder's record, where there is such a holder, and puts it aside if it is full: the holder keeps its
/// key for as long as nsecd runs, so this is the only moment at which nobody writes it.
pub fn ecdh_record(config: &Config, state: &State, ids: &Roles) -> Result<Option<Record>, Fault> {
    let (Some(_), Some(account)) = (&config.ecdh, config.accounts.first()) else { return Ok(None) };
    let full = record::full(config, &[account.ecdh_ceiling]);
    let mut record = Record::open(state, &format!("{}.ecdh", account.name), ids.ecdh, full)?;
    record.rotate(state, record::keep(config));
    Ok(Some(record))
}

/// Which accounts the operator has frozen.
pub fn freezes(config: &Config, state: &State) -> Result<Vec<Freeze>, Fault> {
    config.accounts.iter().map(|a| Freeze::open(state.dir(), &a.name)).collect()
}

/// Opens the journal: what SIGNER_SESSION_FILE names, unless that is another program's file, or nobody should write there, or
/// this start leaves nothing behind.
pub fn journal(config: &Config) -> Result<Journal, Fault> {
    let own = &config.state.journal;
    let Some(named) = &config.state.session_file else { return Journal::open(own) };
    // The sessions in it are of keys that outlive this one.
    let seen =
        if config.ephemeral { Err(Fault::new("the key is thrown away".to_owned())) } else { journal::see(named) };
    let why = match seen {
        Ok(journal::Seen::Ours) => {
            let journal = Journal::open_alone(named)?;
            log::info!("the journal is {} (SIGNER_SESSION_FILE); {} is not read", named.display(), own.display());
            return Ok(journal);
        }
        Ok(journal::Seen::Reference) => "the reference daemon's session file is there".to_owned(),
        Ok(journal::Seen::Foreign) => "it is no journal of nsecd's".to_owned(),
        Err(why) => why.to_string(),
    };
    log::warn!("SIGNER_SESSION_FILE {} is left alone: {why}; the journal is {}", named.display(), own.display());
    Journal::open(own)
}

/// This boot's random id.
pub fn boot_id() -> Result<String, Fault> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(PATH).or_fault(|| format!("reading {PATH}"))?;
    Ok(id.trim().to_owned())
}

/// Refuses one file in two roles, e.g. an alert log of two sockets, which would rotate it under each other.
pub fn distinct<'a>(
    alert_logs: impl IntoIterator<Item = &'a AlertLog>,
    records: impl IntoIterator<Item = &'a Record>,
    journal: &Journal,
    decisions: &DecisionLog,
) -> Result<(), Fault> {
    let logs = alert_logs.into_iter().map(|l| (l.file(), l.path().display().to_string()));
    let records = records.into_iter().map(|r| (r.file(), r.name("").display().to_string()));
    let own = [(journal.file(), "the journal".to_owned()), (decisions.file(), "the decision log".to_owned())];
    let mut seen = HashSet::new();
    for (file, name) in logs.chain(records).chain(own) {
        let meta = file.metadata().or_fault(|| format!("looking at {name}"))?;
        if !seen.insert((meta.dev(), meta.ino())) {
            return Err(Fault::new(format!("{name} is in use twice: each socket and account needs a file of its own")));
        }
    }
    Ok(())
}
