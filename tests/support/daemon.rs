//! Starts the real nsecd in a directory of its own and ends it with all its roles, panics included.

use super::{Client, Dir, PUBLIC_KEY, process, root, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The roles in the order of their start; the ECDH holder runs where a socket offers encryption, as with [`DM`].
pub const ROLES: [&str; 4] = ["nsecd-keyholder", "nsecd-ecdh", "nsecd-gate", "nsecd-broker"];
const BINARIES: [&str; 5] = [
    env!("CARGO_BIN_EXE_nsecd"),
    env!("CARGO_BIN_EXE_nsecd-keyholder"),
    env!("CARGO_BIN_EXE_nsecd-ecdh"),
    env!("CARGO_BIN_EXE_nsecd-gate"),
    env!("CARGO_BIN_EXE_nsecd-broker"),
];

/// A `[[socket]]` that signs kinds 1 and 7 without a token, unlimited: for tests whose subject is something else.
pub const OPEN: &str = r#"
[key]
ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 1111]
tokenless = [1, 7]
limits = "none"
total = "none"
"#;

/// The same with direct messages, so that every role runs.
pub const DM: &str = r#"
[key]
ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 1111]
tokenless = [1, 7]
methods = ["sign_event", "dm"]
limits = "none"
total = "none"
"#;

/// How to start one nsecd.
pub struct Setup {
    /// Everything of this instance lies in it.
    pub dir: Dir,
    /// The user it runs as; `None`: ours.
    pub uid: Option<u32>,
    /// Ready to be changed before the start.
    pub command: Command,
    /// The agent socket.
    pub socket: PathBuf,
    /// Whether the supervisor is kept from locking itself.
    pub unlocked: bool,
}

/// How an nsecd that did not serve, or no longer does, ended.
pub struct Exit {
    /// Exit code; `None`: a signal.
    pub code: Option<i32>,
    /// All that it and its roles wrote to standard error.
    pub stderr: String,
    /// Still there to be looked at.
    pub dir: Dir,
}

/// A running nsecd.
pub struct Nsecd {
    child: Child,
    ended: OwnedFd,
    /// Roles that may outlive a supervisor that did not end them itself.
    orphans: Mutex<Vec<(i32, OwnedFd)>>,
    /// What it was started with, for the next start.
    started_by: Option<(Command, Option<u32>)>,
    /// Everything of this instance lies in it.
    pub dir: Dir,
    /// The first agent socket.
    pub socket: PathBuf,
}

impl Setup {
    /// `config` is the TOML text; the socket of its first `[[socket]]` is replaced by one in the new directory.
    /// The key is the recorded cases' own, as systemd would hand it over: a credential named `nsec`.
    pub fn new(config: &str) -> Setup {
        Setup::of(None, config)
    }

    /// The same, run by an ordinary user (needs root, unless it is us).
    pub fn of(uid: Option<u32>, config: &str) -> Setup {
        let setup = Setup::bare(uid, config);
        setup.dir.subdir("credentials", 0o700, uid);
        setup.credential(super::KEY_HEX.as_bytes())
    }

    /// The same, listening at `name` in the new directory, or at a path anywhere.
    pub fn at(name: &str, config: &str) -> Setup {
        let mut setup = Setup::new(config);
        let (old, new) = (setup.socket.clone(), setup.dir.join(name));
        setup.rewrite(|argument| if *argument == *old { new.clone().into() } else { argument.into() });
        setup.socket = new;
        setup
    }

    /// The recorded cases' key under one of the profiles, without a configuration file.
    pub fn profile(name: &str) -> Setup {
        let mut setup = Setup::new("");
        let file = setup.dir.join("nsecd.toml");
        setup.rewrite(|argument| match argument {
            flag if flag == "--config" => "--profile".into(),
            path if *path == *file => name.into(),
            other => other.into(),
        });
        setup
    }

    /// Passes every argument through `change`.
    fn rewrite(&mut self, change: impl Fn(&OsStr) -> OsString) {
        let mut command = Command::new(self.command.get_program());
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.args(self.command.get_args().map(change));
        command.envs(self.command.get_envs().filter_map(|(name, value)| value.map(|v| (name, v))));
        self.command = command;
    }

    /// The same without a key: no credentials directory.
    pub fn bare(uid: Option<u32>, config: &str) -> Setup {
        let dir = Dir::new(uid);
        let text = config.replace("@DIR@", dir.path().to_str().unwrap());
        let config = dir.file("nsecd.toml", 0o644, uid, text.as_bytes());
        dir.subdir("state", 0o700, uid);
        let socket = dir.join("s.sock");
        let mut command = Command::new(binary(&dir, uid));
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.arg("--config").arg(config);
        command.arg("--socket").arg(&socket);
        command.arg("--state-dir").arg(dir.join("state"));
        command.arg("--admin-dir").arg(dir.join("admin"));
        Setup { dir, uid, command, socket, unlocked: false }
    }

    /// The same with another state directory.
    pub fn state_in(mut self, state: &Path) -> Setup {
        let old = self.dir.join("state");
        self.rewrite(|argument| if *argument == *old { state.into() } else { argument.into() });
        self
    }

    /// The same with another admin directory.
    pub fn admin_in(mut self, admin: &Path) -> Setup {
        let old = self.dir.join("admin");
        self.rewrite(|argument| if *argument == *old { admin.into() } else { argument.into() });
        self
    }

    /// The same with another program in the broker's place. All binaries lie in the directory `bin` then: the supervisor
    /// executes what lies beside it.
    pub fn with_broker(mut self, program: &Path) -> Setup {
        let bin = self.dir.subdir("bin", 0o755, None);
        for binary in BINARIES.map(Path::new) {
            let name = binary.file_name().unwrap();
            let from = if name == "nsecd-broker" { program } else { binary };
            // A link where that can be: the test's own binary is large.
            if fs::hard_link(from, bin.join(name)).is_err() {
                self.dir.program_as(from, &bin.join(name));
            }
        }
        let mut command = Command::new(bin.join("nsecd"));
        command.env_clear().current_dir("/").stdin(Stdio::null()).args(self.command.get_args());
        command.envs(self.command.get_envs().filter_map(|(name, value)| value.map(|v| (name, v))));
        self.command = command;
        self
    }

    /// The same with a supervisor that has no sandbox of its own, which its roles would inherit.
    pub fn with_an_unlocked_supervisor(mut self) -> Setup {
        super::fault::traced(&mut self.command);
        self.unlocked = true;
        self
    }

    /// Makes `bytes` the credential `nsec`.
    pub fn credential(mut self, bytes: &[u8]) -> Setup {
        self.dir.file("credentials/nsec", 0o400, self.uid, bytes);
        self.command.env("CREDENTIALS_DIRECTORY", self.dir.join("credentials"));
        self
    }

    /// Runs it under strace, which writes these calls of all its processes to the file `trace`.
    pub fn traced(self, calls: &str) -> Setup {
        self.straced(&[format!("--trace={calls}")])
    }

    /// The same with all calls, and their arguments as numbers but for those that start a program or install a filter.
    pub fn traced_raw(self) -> Setup {
        self.straced(&["--trace=all".into(), "--raw=!execve,execveat,seccomp,prctl".into()])
    }

    /// Runs it under strace, which kills whoever of its processes is about to make its `when`-th call of these.
    pub fn killed_at(self, calls: &str, when: u32) -> Setup {
        self.straced(&[format!("--trace={calls}"), format!("--inject={calls}:signal=KILL:when={when}")])
    }

    /// Runs it under strace, for which the kernel does not know this call.
    pub fn without_call(self, call: &str) -> Setup {
        self.straced(&[format!("--trace={call}"), format!("--inject={call}:error=ENOSYS")])
    }

    fn straced(mut self, options: &[String]) -> Setup {
        let mut command = Command::new("strace");
        command.args(["--quiet=all", "--follow-forks", "-o"]).arg(self.dir.join("trace")).args(options);
        command.arg(self.command.get_program()).args(self.command.get_args()).env_clear();
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        self.command = command;
        self
    }

    /// Starts it and waits until it reports ready; panics with what it wrote if it ends first.
    pub fn start(self) -> Nsecd {
        self.launch().unwrap_or_else(|e| panic!("nsecd ended with {:?} before it was ready:\n{}", e.code, e.stderr))
    }

    /// Starts it and waits until it gives up; panics if it serves.
    pub fn refused(self) -> Exit {
        match self.launch() {
            Ok(_) => panic!("nsecd started, but should have refused"),
            Err(exit) => exit,
        }
    }

    fn launch(mut self) -> Result<Nsecd, Exit> {
        let path = self.dir.join("notify");
        // That of the start before.
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let stderr = fs::File::create(self.dir.join("stderr")).unwrap();
        let command = &mut self.command;
        command.env("NOTIFY_SOCKET", path).stdout(Stdio::null()).stderr(stderr);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        sys::die_with_us(command);
        sys::adopt_orphans();
        let mut child = command.spawn().unwrap();
        if self.unlocked {
            super::fault::leave_unlocked(child.id() as i32);
        }
        let ended = sys::pidfd(child.id() as i32).unwrap();
        loop {
            match *sys::wait_any(&[notify.as_fd(), ended.as_fd()]) {
                [0, ..] => {
                    let mut message = [0; 4096];
                    let size = notify.recv(&mut message).unwrap();
                    if is_ready(&message[..size]) {
                        let orphans = Mutex::default();
                        let started_by = Some((self.command, self.uid));
                        return Ok(Nsecd { child, ended, orphans, started_by, dir: self.dir, socket: self.socket });
                    }
                }
                [1, ..] => {
                    let code = child.wait().unwrap().code();
                    let stderr = fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
                    return Err(Exit { code, stderr, dir: self.dir });
                }
                _ => {
                    let _ = child.kill();
                    panic!("neither ready nor ended: {}", fs::read_to_string(self.dir.join("stderr")).unwrap());
                }
            }
        }
    }
}

/// Whether a message to the service manager says READY (sd_notify(3)).
pub fn is_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

impl Nsecd {
    /// Starts one with this configuration.
    pub fn start(config: &str) -> Nsecd {
        Setup::new(config).start()
    }

    /// The supervisor.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Every running process of this instance by name, the supervisor first.
    pub fn processes(&self) -> Vec<(String, i32)> {
        let mut all = vec![("nsecd".into(), self.pid())];
        all.extend(process::descendants(self.pid()).into_iter().map(|pid| (process::name(pid), pid)));
        all
    }

    /// The pid of the one process with this role.
    pub fn role(&self, role: &str) -> i32 {
        let all = self.processes();
        let found: Vec<_> = all.iter().filter(|(name, _)| name == role).collect();
        assert_eq!(found.len(), 1, "{role} among {all:?}");
        found[0].1
    }

    /// Kills a role and waits until it is gone, with all that goes with it: broker and gate are replaced together.
    pub fn kill(&self, role: &str) -> i32 {
        let pair = ["nsecd-broker", "nsecd-gate"];
        let with = if pair.contains(&role) { &pair[..] } else { &[] };
        let going: Vec<_> = with.iter().map(|other| sys::pidfd(self.role(other)).unwrap()).collect();
        let pid = self.role(role);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        for process in going {
            assert!(!sys::wait_any(&[process.as_fd()]).is_empty(), "not replaced: {role}");
        }
        pid
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        self.remember();
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until the supervisor has ended by itself.
    pub fn wait(mut self) -> Exit {
        self.remember();
        assert!(!sys::wait_any(&[self.ended.as_fd()]).is_empty(), "nsecd does not end:\n{}", self.stderr());
        let code = self.child.wait().unwrap().code();
        self.reap();
        let stderr = self.stderr();
        Exit { code, stderr, dir: std::mem::replace(&mut self.dir, Dir::new(None)) }
    }

    /// Ends the supervisor by `signal`, and gives back what it was started with: the same directory, socket, configuration.
    pub fn stopped(self, signal: Signal) -> Setup {
        self.signal(signal);
        let (setup, status) = self.ended();
        let stderr = fs::read_to_string(setup.dir.join("stderr")).unwrap_or_default();
        assert!(signal == Signal::SIGKILL || status.success(), "{status}:\n{stderr}");
        setup
    }

    /// Waits until the supervisor has ended, for whatever reason; what it was started with, and how it ended.
    pub fn ended(mut self) -> (Setup, ExitStatus) {
        assert!(!sys::wait_any(&[self.ended.as_fd()]).is_empty(), "nsecd does not end:\n{}", self.stderr());
        let status = self.child.wait().unwrap();
        self.reap();
        let (command, uid) = self.started_by.take().unwrap();
        let dir = std::mem::replace(&mut self.dir, Dir::new(None));
        (Setup { dir, uid, command, socket: self.socket.clone(), unlocked: false }, status)
    }

    /// Ends it by `signal` and starts it again.
    pub fn restarted(self, signal: Signal) -> Nsecd {
        self.stopped(signal).start()
    }

    fn orphans(&self) -> MutexGuard<'_, Vec<(i32, OwnedFd)>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps hold of the roles that run now.
    fn remember(&self) {
        let roles = process::descendants(self.pid()).into_iter();
        self.orphans().extend(roles.filter_map(|pid| Some((pid, sys::pidfd(pid).ok()?))));
    }

    /// After the supervisor's end: waits for the roles, which die with it, and buries them.
    fn reap(&self) {
        for (pid, role) in std::mem::take(&mut *self.orphans()) {
            // A tracer's child does not die by itself.
            sys::kill(&role);
            sys::wait_any(&[role.as_fd()]);
            // Ours only if the supervisor did not do it.
            let _ = nix::sys::wait::waitpid(Pid::from_raw(pid), None);
        }
    }

    /// Ends an nsecd under strace; every line `PID call(…) = …` of the trace.
    pub fn into_trace(self) -> Vec<(i32, String)> {
        let nsecd = process::descendants(self.pid())[0];
        kill(Pid::from_raw(nsecd), Signal::SIGTERM).unwrap();
        let exit = self.wait();
        let text = fs::read_to_string(exit.dir.join("trace")).unwrap();
        let parse = |line: &str| line.split_once(' ').map(|(pid, call)| (pid.parse().unwrap(), call.trim().into()));
        text.lines().filter_map(parse).collect()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    /// The alert log of the first socket.
    pub fn alerts(&self) -> String {
        let logs = self.files_in_state("alerts-");
        logs.iter().map(|p| fs::read_to_string(p).unwrap()).collect()
    }

    /// Files in the state directory, at any depth, whose name starts with `prefix`.
    pub fn files_in_state(&self, prefix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.dir.join("state"), &mut |p| {
            if p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)) {
                found.push(p.into());
            }
        });
        found
    }

    /// Connects to the first agent socket.
    pub fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// Fails the test unless a new client is served.
    pub fn serves(&self) {
        assert_eq!(self.connect().public_key(), PUBLIC_KEY);
    }
}

impl Drop for Nsecd {
    fn drop(&mut self) {
        self.remember();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reap();
        if std::thread::panicking() {
            eprintln!("nsecd had written:\n{}", self.stderr());
        }
    }
}

/// Calls `visit` for every file below `dir`.
pub fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), visit),
            _ => visit(&entry.path()),
        }
    }
}

/// nsecd's path; another user who cannot reach the build directory gets copies.
fn binary(dir: &Dir, uid: Option<u32>) -> PathBuf {
    let built = Path::new(BINARIES[0]);
    let open =
        |p: &Path| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o005 == 0o005 || Some(m.uid()) == uid);
    if uid.is_none() || !root() || built.ancestors().skip(1).all(open) {
        return built.into();
    }
    BINARIES.map(|path| dir.program(Path::new(path)))[0].clone()
}
