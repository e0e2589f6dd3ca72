//! Who is measured: nsecd as it was built with this program, and perhaps another daemon beside it.

use crate::client::{Client, PUBLIC_KEY};
use crate::options::Options;
use crate::support::{Nsecd, process};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Nothing is limited but what protects the machine; record, journal, decision log and alert log are written as ever.
pub const CONFIG: &str = crate::support::daemon::OPEN;

/// A daemon that serves.
pub struct Subject {
    /// For the tables.
    pub name: &'static str,
    /// Where it listens.
    pub socket: PathBuf,
    nsecd: Option<Nsecd>,
    _other: Option<Other>,
}

/// A process that is ended with this value.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Subject {
    /// nsecd.
    pub fn nsecd(config: &str) -> Subject {
        let nsecd = Nsecd::start(config);
        Subject { name: "nsecd", socket: nsecd.socket.clone(), nsecd: Some(nsecd), _other: None }
    }

    /// nsecd, and the other one if one was named.
    pub fn all(options: &Options) -> Vec<Subject> {
        [Subject::nsecd(CONFIG)].into_iter().chain(Subject::other(options)).collect()
    }

    /// The other one, if one was named.
    pub fn other(options: &Options) -> Option<Subject> {
        let socket = options.other.clone()?;
        let other = options.other_start.as_deref().map(spawn).map(Other);
        crate::support::until("the other daemon serves", || served(&socket));
        Some(Subject { name: "other", socket, nsecd: None, _other: other })
    }

    /// Its processes by name.
    pub fn processes(&self) -> Vec<(String, i32)> {
        if let Some(nsecd) = &self.nsecd {
            return nsecd.processes();
        }
        // Whoever listens, and its children.
        let stream = UnixStream::connect(&self.socket).unwrap();
        let pid = getsockopt(&stream, PeerCredentials).unwrap().pid();
        [pid].into_iter().chain(process::descendants(pid)).map(|pid| (process::name(pid), pid)).collect()
    }

    /// Memory of each of its processes, a page that several have in proportion (proc_pid_smaps_rollup(5)). KiB.
    pub fn memory(&self) -> Vec<(String, u64)> {
        self.processes().into_iter().map(|(name, pid)| (name, pss(pid))).collect()
    }
}

/// Starts another daemon.
pub fn spawn(command: &str) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    crate::support::sys::die_with_us(&mut shell);
    shell.spawn().unwrap()
}

/// Whether a request is answered there.
pub fn served(socket: &Path) -> bool {
    Client::try_connect(socket).and_then(|mut client| client.try_ask(PUBLIC_KEY)).is_ok()
}

/// KiB; 0 of a process that has ended.
pub fn pss(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok()).unwrap_or_default()
}
