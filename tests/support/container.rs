//! Real OCI containers (podman, runc) with storage, locks and cgroups of a test's own, removed when it ends, panics included.

use super::cgroup::{self, no_cgroups};
use super::{Dir, missing, process, sys};
use nix::unistd::Pid;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The agents' user, inside and outside: no user namespace maps it.
pub const AGENT: u32 = 1000;
/// Where a container finds the agent socket: a file mounted alone, as NanoClaw does it.
pub const SOCKET: &str = "/run/nostr/signer.sock";
/// Where a container finds the directory that it shares with the host and with the others.
pub const SHARED: &str = "/run/shared";

/// containers.conf(5) and containers-storage.conf(5). Only these are read, none of the host's; all that podmans share with
/// one another otherwise (locks, events, networks, storage) lies in the directory @DIR@.
const CONF: &str = r#"
[engine]
lock_type = "file"
events_logger = "none"
[network]
network_config_dir = "@DIR@/networks"
"#;
const STORAGE_CONF: &str = r#"
[storage]
driver = "vfs"
graphroot = "@DIR@/kept"
runroot = "@DIR@/run"
"#;
/// A line is a program's standard input, one word, and its command line; after what it prints comes a line `= CODE`.
const LOOP: &str = r#"while read -r input command; do printf %s "$input" | $command; echo "= $?"; done"#;

/// `true`, after saying so, if no container can be run here, or if no peer's cgroup is told.
pub fn no_containers() -> bool {
    no_cgroups() || ["podman", "runc", "cc", "ldd"].iter().any(|program| missing(program, "--version"))
}

/// A podman of one test, the root file system of its containers, and the cgroup above theirs.
pub struct Podman {
    /// Everything lies in it.
    dir: Dir,
    /// In every hierarchy.
    cgroup: String,
    count: Cell<u32>,
}

/// A shell that runs nsecctl when told to, in a container or, for comparison, without one.
pub struct Agent<'a> {
    podman: &'a Podman,
    child: Child,
    ended: OwnedFd,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The file with the pid of conmon, which ends when podman has removed all of the container.
    monitor: Option<PathBuf>,
    number: u32,
}

impl Podman {
    /// With a root file system of /bin/sh, nsecctl, and the libraries that these need.
    pub fn new() -> Podman {
        sys::adopt_orphans();
        let dir = Dir::new(None);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let cgroup = format!("{}-{time}", dir.path().file_name().unwrap().display());
        let root = dir.subdir("root", 0o755, None);
        for (name, text) in [("conf", CONF), ("storage", STORAGE_CONF)] {
            let text = text.replace("@DIR@", dir.path().to_str().unwrap());
            dir.file(name, 0o644, None, text.as_bytes());
        }
        dir.subdir("shared", 0o755, None);
        let nsecctl = Path::new(env!("CARGO_BIN_EXE_nsecctl"));
        let mut files = libraries(&[Path::new("/bin/sh"), nsecctl]);
        files.insert("/bin/sh".into());
        run(Command::new("cp").args(["-L", "--parents", "-t"]).arg(&root).args(files));
        run(Command::new("cp").arg(nsecctl).arg(root.join("bin")));
        Podman { dir, cgroup, count: Cell::new(0) }
    }

    /// The directory that containers see at [`SHARED`].
    pub fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    /// Makes the program `name` of the C file `source`, for all containers.
    pub fn compile(&self, source: &str, name: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        run(Command::new("cc").args(["-Wall", "-Werror", "-o"]).arg(self.dir.join("root/bin").join(name)).arg(source));
    }

    /// An agent in a new container of this name; the host's `socket` is mounted into it.
    pub fn container(&self, name: &str, socket: &Path) -> Agent<'_> {
        self.container_with(name, socket, &[])
    }

    /// The same with files and directories of the host's, for reading, each at a path in the container.
    pub fn container_with(&self, name: &str, socket: &Path, more: &[(PathBuf, PathBuf)]) -> Agent<'_> {
        let number = self.count.get();
        let monitor = self.dir.join(&format!("monitor-{number}"));
        let volume = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut command = self.command();
        command
            .args(["run", "--rm", "--interactive", "--network=none", "--log-driver=none", "--cgroups=no-conmon"])
            .args(["--user", &format!("{AGENT}:{AGENT}"), "--name", name])
            // The defaults may be above what a caller without CAP_SYS_RESOURCE has.
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"])
            .arg(format!("--cgroup-parent=/{}/{number}", self.cgroup))
            .arg("--conmon-pidfile")
            .arg(&monitor)
            .args(["--volume", &volume(socket, SOCKET), "--volume", &volume(&self.shared(), SHARED)])
            .args(more.iter().flat_map(|(from, to)| ["--volume".into(), volume(from, &format!("{}:ro", to.display()))]))
            .args(["--env", &format!("NOSTR_SIGNER_SOCKET={SOCKET}"), "--env", "PATH=/bin"])
            .arg("--rootfs")
            .arg(self.dir.join("root"))
            .args(["/bin/sh", "-c", LOOP]);
        let mut agent = self.agent(command);
        agent.monitor = Some(monitor);
        // Its first answer says that it runs.
        assert_eq!(agent.run("-", "nsecctl --version").0, 0, "{}", agent.complaints());
        agent
    }

    /// The same agent as an ordinary process of the same user, in our own cgroup.
    pub fn process(&self, socket: &Path) -> Agent<'_> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LOOP]).uid(AGENT).gid(AGENT).env_clear();
        command.env("NOSTR_SIGNER_SOCKET", socket).env("PATH", self.dir.join("root/bin"));
        self.agent(command)
    }

    fn agent(&self, mut command: Command) -> Agent<'_> {
        let number = self.count.replace(self.count.get() + 1);
        let stderr = fs::File::create(self.dir.join(&format!("stderr-{number}"))).unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let ended = sys::pidfd(child.id() as i32).unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Agent { podman: self, child, ended, input, output, monitor: None, number }
    }

    /// How many containers, cgroups, mounts and processes of it there are.
    pub fn traces(&self) -> [(&'static str, usize); 4] {
        let output = self.command().args(["ps", "--all", "--quiet"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let containers = String::from_utf8(output.stdout).unwrap().lines().count();
        let inside = format!("{}/", self.dir.path().display());
        let of_ours = |text: &str| text.contains(&inside);
        let cgroups = cgroup::hierarchies().iter().flat_map(|h| cgroup::below(&h.join(&self.cgroup))).count();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap().lines().filter(|line| of_ours(line)).count();
        let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let processes = numbers.filter(|pid| process::arguments(*pid).iter().any(|a| of_ours(a))).count();
        [("containers", containers), ("cgroups", cgroups), ("mounts", mounts), ("processes", processes)]
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir("/");
        command.env("CONTAINERS_CONF", self.dir.join("conf")).env("CONTAINERS_STORAGE_CONF", self.dir.join("storage"));
        command.arg("--tmpdir").arg(self.dir.join("tmp")).args(["--cgroup-manager=cgroupfs", "--runtime=runc"]);
        command
    }
}

impl Agent<'_> {
    /// Runs a command with `input`, a word, as its standard input. Its exit code, and its last line as JSON or Null.
    pub fn run(&mut self, input: &str, command: &str) -> (i32, Value) {
        self.begin(input, command);
        self.answer()
    }

    /// The same, without waiting for its end.
    pub fn begin(&mut self, input: &str, command: &str) {
        // What cannot be written is not answered, and that is reported.
        let _ = writeln!(self.input, "{input} {command}");
    }

    /// The next line of what was begun, as JSON or Null, which must not be its end.
    pub fn progress(&mut self) -> Value {
        let line = self.line();
        assert!(!line.starts_with("= "), "it has ended, {line}{}", self.complaints());
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// The end of what was begun.
    pub fn answer(&mut self) -> (i32, Value) {
        let mut reply = Value::Null;
        loop {
            let line = self.line();
            match line.strip_prefix("= ") {
                Some(code) => return (code.trim().parse().unwrap(), reply),
                None => reply = serde_json::from_str(&line).unwrap_or(Value::Null),
            }
        }
    }

    fn line(&mut self) -> String {
        if self.output.buffer().is_empty() {
            let ready = sys::wait_any(&[self.output.get_ref().as_fd()]);
            assert!(!ready.is_empty(), "no answer: {}", self.complaints());
        }
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the agent has ended: {}", self.complaints());
        line
    }

    /// Asks for a signature of kind 1 (`None`: without a token).
    pub fn sign(&mut self, token: Option<&str>) -> Value {
        let with = if token.is_some() { " --token-file -" } else { "" };
        self.run(token.unwrap_or("-"), &format!("nsecctl sign --kind 1{with}")).1
    }

    /// Signs without a token until refused, at most `most` times; how often it was signed.
    pub fn signatures(&mut self, most: usize) -> usize {
        (0..most).take_while(|_| self.sign(None).get("event").is_some()).count()
    }

    /// Starts a session and returns its token.
    pub fn session(&mut self) -> String {
        let (_, reply) = self.run("-", "nsecctl session start --scope 1");
        reply["session"]["token"].as_str().unwrap_or_else(|| panic!("no session: {reply}")).into()
    }

    /// What it and podman wrote to standard error.
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.podman.dir.join(&format!("stderr-{}", self.number))).unwrap_or_default()
    }
}

impl Drop for Agent<'_> {
    /// Ends it, and waits until podman has removed the container.
    fn drop(&mut self) {
        let cgroup = format!("{}/{}", self.podman.cgroup, self.number);
        let killed = cgroup::hierarchies().iter().any(|h| fs::write(h.join(&cgroup).join("cgroup.kill"), "1").is_ok());
        if !killed {
            let _ = self.child.kill();
        }
        let ended = |process: &OwnedFd| !sys::wait_any(&[process.as_fd()]).is_empty();
        if !ended(&self.ended) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let pid = self.monitor.take().and_then(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
        // Our child since podman has gone; nobody else buries it, and so the number is still its own.
        if let Some(monitor) = pid.and_then(|pid| sys::pidfd(pid).ok()) {
            if !ended(&monitor) {
                sys::kill(&monitor);
            }
            let _ = nix::sys::wait::waitpid(pid.map(Pid::from_raw), None);
        }
        cgroup::hierarchies().iter().for_each(|h| cgroup::remove(&h.join(&cgroup)));
        if std::thread::panicking() {
            eprintln!("agent {} had written:\n{}", self.number, self.complaints());
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for hierarchy in cgroup::hierarchies() {
            cgroup::remove(&hierarchy.join(&self.cgroup));
        }
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The loader and the shared libraries that these programs need.
pub fn libraries(programs: &[&Path]) -> BTreeSet<PathBuf> {
    let ldd = Command::new("ldd").args(programs).output().unwrap();
    let listed = String::from_utf8(ldd.stdout).unwrap();
    // `libc.so.6 => /lib/… (0x…)`, and the loader without an arrow; `/bin/sh:` is a heading.
    listed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from).collect()
}
