//! A real systemd: a minimal Debian tree, booted by systemd-nspawn in a cgroup of its own, gone when the test ends, panics included.
//!
//! The tree is made once (debootstrap, 40 s), kept under target/tmp, and only read: what a machine writes lies in its own tmpfs.

use super::{Dir, cgroup, missing, not_root, sys};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What the tests use in it. Another list makes another tree.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,netcat-openbsd,keyutils";
const SUITE: &str = "bookworm";
/// systemd-nspawn allows these to nobody by itself.
const CALLS: [&str; 5] =
    ["memfd_secret", "@keyring", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"];
/// How long anything inside may take; a boot takes a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// `true`, after saying so, if no machine can be booted here.
pub fn no_machine() -> bool {
    not_root("booting a systemd")
        || [
            ("debootstrap", "--version"),
            ("systemd-nspawn", "--version"),
            ("dh", "--list"),
            ("dpkg-buildpackage", "--version"),
        ]
        .iter()
        .any(|(program, argument)| missing(program, argument))
}

/// A booted machine.
pub struct Machine {
    child: Child,
    leader: i32,
    cgroups: Vec<PathBuf>,
    dir: Dir,
}

/// A shell in a machine that is written to and read from line by line.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Machine {
    /// Boots one with the package installed, and its next version beside it: /packages/1.deb, /packages/2.deb.
    pub fn boot() -> Machine {
        // These may fail, and leave nothing of a machine then.
        let (tree, packages) = (tree(), packages());
        let dir = Dir::new(None);
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let cgroups: Vec<PathBuf> = hierarchies().iter().map(|h| h.join(format!("{name}-systemd"))).collect();
        cgroups.iter().for_each(|cgroup| fs::create_dir(cgroup).unwrap());
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            r#"for c in $CGROUPS; do echo $$ >$c/cgroup.procs || exit; done; exec setsid systemd-nspawn "$@""#,
            "sh",
        ]);
        command.env("CGROUPS", cgroups.iter().map(|c| c.to_str().unwrap()).collect::<Vec<_>>().join(" "));
        command.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]);
        command.arg("--volatile=overlay").arg("-D").arg(tree).arg(format!("--machine={name}"));
        command.arg(format!("--bind-ro={}:/packages", packages.display()));
        command.args(CALLS.map(|call| format!("--system-call-filter={call}")));
        let log = File::create(dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        sys::die_with_us(&mut command);
        let child = command.spawn().unwrap();
        let mut machine = Machine { child, leader: 0, cgroups, dir };
        let until = Instant::now() + PATIENCE;
        while !machine.is_up() {
            let ended = machine.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "{ended:?}: {}", machine.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        machine
    }

    fn is_up(&mut self) -> bool {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        self.leader = children.split_whitespace().next().map_or(0, |pid| pid.parse().unwrap());
        // The network namespace is there from the start; the bus is what commands need.
        self.leader != 0 && {
            let state = self.enter("systemctl is-system-running").output().unwrap();
            ["running", "degraded"].contains(&String::from_utf8_lossy(&state.stdout).trim())
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A shell script as a command inside, as root.
    pub fn enter(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.leader.to_string()).args(["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "SYSTEMD_PAGER=",
            "SYSTEMD_COLORS=0",
        ]);
        command.args(["timeout", "60", "sh", "-c", script]).stdin(Stdio::null());
        command
    }

    /// Runs a script inside.
    pub fn run(&self, script: &str) -> Output {
        self.enter(script).output().unwrap()
    }

    /// Runs one that must succeed; what it printed, without the last newline.
    pub fn good(&self, script: &str) -> String {
        let output = self.run(script);
        let journal = || self.said();
        assert!(output.status.success(), "{script}: {output:?}\n{}", journal());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Whether a script succeeds.
    pub fn is(&self, script: &str) -> bool {
        self.run(script).status.success()
    }

    /// Waits until a script succeeds.
    pub fn until(&self, script: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.is(script) {
            assert!(Instant::now() < until, "never: {script}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the journal has of nsecd.
    pub fn said(&self) -> String {
        let output = self.run("journalctl -o cat -u nsecd -u nsecd.socket");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Properties of the service, one a line.
    pub fn show(&self, properties: &str) -> String {
        self.good(&format!("systemctl show --value -p {properties} nsecd.service"))
    }

    /// A shell of an agent, uid 1000, after `before`, which root does in a mount namespace of its own.
    pub fn agent(&self, before: &str) -> Shell {
        let agent = r#"setpriv --reuid=1000 --regid=1000 --clear-groups env NOSTR_SIGNER_SOCKET=/run/nostr/signer.sock sh -c 'while read -r line; do eval "$line"; echo "= $?"; done'"#;
        let mut command =
            self.enter(&format!("exec unshare -m --propagation private sh -c '{before} exec \"$@\"' sh {agent}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Shell { child, input, output }
    }

    /// Installs the package.
    pub fn install(&self) {
        self.good("dpkg -i /packages/1.deb 2>&1");
    }

    /// Seals the key of the recorded cases, and gives the agents' socket to uid 1000.
    pub fn configure(&self) {
        let key = super::KEY_NSEC;
        self.good(&format!(
            "echo {key} | systemd-creds encrypt --with-key=host --name=nsec - /etc/credstore.encrypted/nsec 2>&1"
        ));
        self.good("useradd --uid 1000 --create-home agent");
        self.good("mkdir -p /etc/systemd/system/nsecd.socket.d && cp /usr/share/doc/nsecd/examples/owner.conf /etc/systemd/system/nsecd.socket.d/");
        self.good("systemctl daemon-reload");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine's journal:\n{}", self.said());
        }
        for cgroup in &self.cgroups {
            kill_below(cgroup);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in &self.cgroups {
            cgroup::remove(cgroup);
        }
    }
}

/// The first process's end takes all others of its namespace along.
fn kill_below(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

impl Shell {
    /// Runs a line; its exit code, and what it printed.
    pub fn run(&mut self, line: &str) -> (i32, String) {
        writeln!(self.input, "{line}").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            if self.output.buffer().is_empty() {
                assert!(!sys::wait_any(&[self.output.get_ref().as_fd()]).is_empty(), "no answer; so far: {printed}");
            }
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the shell has ended: {printed}");
            match line.strip_prefix("= ") {
                Some(code) => return (code.trim().parse().unwrap(), printed),
                None => printed.push_str(&line),
            }
        }
    }

    /// A line's last word as JSON.
    pub fn json(&mut self, line: &str) -> serde_json::Value {
        let (_, printed) = self.run(line);
        serde_json::from_str(printed.lines().last().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{line}: {e}: {printed}"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a cgroup is made: systemd's own hierarchy and the unified one, or the only one there is.
fn hierarchies() -> Vec<PathBuf> {
    let all = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let there: Vec<PathBuf> = all.into_iter().filter(|h| h.join("cgroup.procs").exists()).collect();
    if there.is_empty() { vec!["/sys/fs/cgroup".into()] } else { there }
}

/// The tree, made now if it is not there. Another test run that makes it is waited for.
fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd");
        fs::create_dir_all(&kept).unwrap();
        let lock = File::create(kept.join("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
        let tree = kept.join(format!("{SUITE}-{}", PACKAGES.replace(',', "+")));
        if !tree.exists() {
            let part = kept.join("part");
            let _ = fs::remove_dir_all(&part);
            let made = Command::new("debootstrap")
                .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
                .arg(&part)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(made.status.success(), "debootstrap: {}", String::from_utf8_lossy(&made.stdout));
            fs::rename(&part, &tree).unwrap();
        }
        tree
    })
}

/// A directory with two versions of the package. The binaries are those of NSECD_BUILT, or the tests' own.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let own = Path::new(env!("CARGO_BIN_EXE_nsecd")).parent().unwrap().to_owned();
        let built = std::env::var_os("NSECD_BUILT").map_or(own, PathBuf::from);
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd/packages");
        let _ = fs::remove_dir_all(&out);
        let make = |number: u32| {
            let (dir, version) = (out.join(number.to_string()), format!("0.1.{number}"));
            let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/make"));
            let made =
                command.arg(&dir).arg(&version).env("NSECD_BUILT", &built).stdin(Stdio::null()).output().unwrap();
            assert!(
                made.status.success(),
                "debian/make: {}\n{}",
                String::from_utf8_lossy(&made.stdout),
                String::from_utf8_lossy(&made.stderr)
            );
            fs::rename(dir.join(format!("nsecd_{version}_amd64.deb")), out.join(format!("{number}.deb"))).unwrap();
            fs::remove_dir_all(dir).unwrap();
        };
        [1, 2].into_iter().for_each(make);
        out
    })
}
