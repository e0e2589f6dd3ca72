//! A start of nsecd of which one system call fails: traced with ptrace(2), which can tell the roles apart and count the calls of
//! each. With sys.rs, filters.rs and probe.rs the only unsafe code of the tests.

use super::filters::request;
use super::{Dir, Setup, sys};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;

/// One call of one process, told by who makes it and how many of its number came before.
#[derive(Clone, Debug)]
pub struct Site {
    /// The role; `nsecd, fork N` between fork and exec.
    pub role: String,
    /// The call as a reader knows it, with what tells it from others of its number.
    pub call: String,
    number: u64,
    nth: u32,
}

/// How a traced start ended.
pub struct Start {
    /// Whether it said that it is ready; it was killed then.
    pub ready: bool,
    /// The supervisor's exit code.
    pub code: Option<i32>,
    /// All that was written to standard error.
    pub stderr: String,
    /// The calls that could have been made to fail, in order.
    pub sites: Vec<Site>,
    /// Processes that did not end with the supervisor, and were killed.
    pub left: Vec<String>,
    /// Whether the call that was to fail was made.
    pub failed: bool,
    /// Still there to be looked at.
    pub dir: Dir,
}

#[derive(Default)]
struct Process {
    role: String,
    /// Its C library is set up, its filter not yet installed.
    counts: bool,
    calls: HashMap<u64, u32>,
    /// Its call is failing: the first argument that is to be put back.
    failing: Option<u64>,
}

/// Starts it; the call at `fail` returns EPERM without being made.
pub fn start(mut setup: Setup, fail: Option<&Site>) -> Start {
    let path = setup.dir.join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_nonblocking(true).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let stderr = fs::File::create(setup.dir.join("stderr")).unwrap();
    let command = &mut setup.command;
    command.env("NOTIFY_SOCKET", path).stdout(Stdio::null()).stderr(stderr).stdin(Stdio::null());
    if let Some(uid) = setup.uid {
        command.uid(uid).gid(uid);
    }
    traced(command);
    let child = command.spawn().unwrap().id() as i32;
    let dir = setup.dir.path().to_str().unwrap().to_owned();
    let mut tracer =
        Tracer { supervisor: child, all: HashMap::new(), forks: 0, sites: Vec::new(), fail, failed: false, dir };
    let (ready, code, left) = tracer.run(&notify);
    let stderr = fs::read_to_string(setup.dir.join("stderr")).unwrap_or_default();
    Start { ready, code, stderr, sites: tracer.sites, left, failed: tracer.failed, dir: setup.dir }
}

/// Lets a supervisor that asked to be traced ([`traced`]) believe that it has locked itself: MDWE, Landlock and its filter, which every
/// role would inherit, come to nothing. From there on nobody traces it.
pub fn leave_unlocked(supervisor: i32) {
    let (mut begun, mut pretended) = (false, None);
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live int; our own child, traced by this thread.
        let pid = unsafe { libc::waitpid(supervisor, &mut status, libc::__WALL) };
        if pid != supervisor || !libc::WIFSTOPPED(status) {
            panic!("the supervisor ended before it locked itself: {status:#x}");
        }
        if !std::mem::replace(&mut begun, true) {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, pid, 0, options as u64).unwrap();
        }
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            // SAFETY: a struct of integers, for which zeros are a value.
            let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
            request(libc::PTRACE_GETREGS, pid, 0, &raw mut registers as u64).unwrap();
            if let Some(call) = pretended.take() {
                registers.rax = 0;
                request(libc::PTRACE_SETREGS, pid, 0, &raw const registers as u64).unwrap();
                if call == libc::SYS_seccomp {
                    request(libc::PTRACE_DETACH, pid, 0, 0).unwrap();
                    return;
                }
            } else if is_entry(pid) {
                let call = registers.orig_rax as i64;
                let locks = match call {
                    libc::SYS_seccomp => registers.rdi == 1, // SECCOMP_SET_MODE_FILTER
                    libc::SYS_prctl => registers.rdi == libc::PR_SET_MDWE as u64,
                    _ => call == libc::SYS_landlock_restrict_self,
                };
                if locks {
                    (pretended, registers.orig_rax) = (Some(call), u64::MAX);
                    request(libc::PTRACE_SETREGS, pid, 0, &raw const registers as u64).unwrap();
                }
            }
        }
        let pass_on = if [libc::SIGTRAP, libc::SIGTRAP | 0x80].contains(&signal) { 0 } else { signal };
        request(libc::PTRACE_SYSCALL, pid, 0, pass_on as u64).unwrap();
    }
}

/// Whether a call begins.
fn is_entry(pid: i32) -> bool {
    let mut info = [0u64; 11];
    let size = size_of_val(&info) as u64;
    request(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr() as u64).unwrap();
    info[0] as u8 == libc::PTRACE_SYSCALL_INFO_ENTRY
}

/// Has the process ask to be traced by the thread that starts it.
pub fn traced(command: &mut std::process::Command) {
    // SAFETY: ptrace with these arguments touches no memory.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

struct Tracer<'a> {
    supervisor: i32,
    all: HashMap<i32, Process>,
    forks: u32,
    sites: Vec<Site>,
    fail: Option<&'a Site>,
    failed: bool,
    dir: String,
}

impl Tracer<'_> {
    /// Until no process is left: whether it was ready, the supervisor's exit code, who had to be killed.
    fn run(&mut self, notify: &UnixDatagram) -> (bool, Option<i32>, Vec<String>) {
        let (mut ready, mut code) = (false, None);
        let guard = Guard::over(self.supervisor);
        loop {
            let mut status = 0;
            // SAFETY: `status` is a live int. Children of this thread alone: other tests have theirs.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                break;
            }
            if !libc::WIFSTOPPED(status) {
                self.all.remove(&pid);
                if pid == self.supervisor {
                    code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                    guard.watch(self.all.iter().map(|(pid, process)| (*pid, process.role.clone())).collect());
                }
                continue;
            }
            let pass_on = self.stopped(pid, status);
            if !ready && notify.recv(&mut [0; 4096]).is_ok_and(|size| size > 0) {
                ready = true;
                // What is wanted is known; EXITKILL and PDEATHSIG are for the roles.
                // SAFETY: our own child, which has not been waited for since it stopped.
                self.all.keys().for_each(|pid| unsafe { _ = libc::kill(*pid, libc::SIGKILL) });
            }
            let _ = request(libc::PTRACE_SYSCALL, pid, 0, pass_on as u64);
        }
        (ready, code, guard.left())
    }

    /// A process has stopped; the signal to pass on.
    fn stopped(&mut self, pid: i32, status: i32) -> i32 {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if !self.all.contains_key(&pid) {
            let options = libc::PTRACE_O_TRACESYSGOOD
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            let _ = request(libc::PTRACE_SETOPTIONS, pid, 0, options as u64);
            let first = pid == self.supervisor;
            self.forks += u32::from(!first);
            let role = if first { "nsecd".into() } else { format!("nsecd, fork {}", self.forks) };
            self.all.insert(pid, Process { role, counts: !first, ..Process::default() });
            return 0; // SIGTRAP of its exec, SIGSTOP of its birth
        }
        match (signal, event) {
            (_, libc::PTRACE_EVENT_EXEC) => {
                let role = super::process::name(pid);
                self.all.insert(pid, Process { role, ..Process::default() });
                0
            }
            (_, 1..) => 0,
            (signal, _) if signal == libc::SIGTRAP | 0x80 => {
                self.call(pid);
                0
            }
            (libc::SIGSTOP | libc::SIGTRAP, _) => 0,
            (signal, _) => signal,
        }
    }

    /// A call begins or ends.
    fn call(&mut self, pid: i32) {
        // SAFETY: a struct of integers, for which zeros are a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let mut info = [0u64; 11]; // struct ptrace_syscall_info: op(1), …, then of an entry number and arguments from byte 24 on
        let size = size_of_val(&info) as u64;
        if request(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr() as u64).is_err()
            || request(libc::PTRACE_GETREGS, pid, 0, &raw mut registers as u64).is_err()
        {
            return; // it is being killed
        }
        let Some(process) = self.all.get_mut(&pid) else { return };
        let is_entry = info[0] as u8 == libc::PTRACE_SYSCALL_INFO_ENTRY;
        if !is_entry {
            if let Some(argument) = process.failing.take() {
                (registers.rax, registers.rdi) = (-i64::from(libc::EPERM) as u64, argument);
                let _ = request(libc::PTRACE_SETREGS, pid, 0, &raw const registers as u64);
            }
            return;
        }
        let (number, args) = (info[3], [info[4], info[5], info[6], info[7], info[8], info[9]]);
        if process.counts && !UNFAILING.contains(&(number as i64)) {
            let nth = process.calls.entry(number).or_default();
            *nth += 1;
            let site =
                Site { role: process.role.clone(), call: label(pid, number, &args, &self.dir), number, nth: *nth };
            let is_it = |fail: &&Site| fail.role == site.role && fail.number == number && fail.nth == site.nth;
            if !self.failed && self.fail.as_ref().is_some_and(is_it) {
                // What does nothing in its place, and what the supervisor's filter allows: it does not know number -1.
                (process.failing, self.failed) = (Some(registers.rdi), true);
                (registers.orig_rax, registers.rdi) = (libc::SYS_close as u64, u64::MAX);
                let _ = request(libc::PTRACE_SETREGS, pid, 0, &raw const registers as u64);
            }
            self.sites.push(site);
        }
        match number as i64 {
            // The last that the C library does before main; its own failures are not nsecd's.
            libc::SYS_rseq => process.counts = true,
            // From here on a role can hardly call anything; the supervisor goes on and starts the roles.
            libc::SYS_seccomp if args[0] == 1 && pid != self.supervisor => process.counts = false,
            _ => {}
        }
    }
}

/// Kills what does not end.
struct Guard(mpsc::Sender<Vec<(i32, String)>>, std::thread::JoinHandle<Vec<String>>);

impl Guard {
    /// Of a supervisor that has so long to be ready or to end, and its roles after it.
    fn over(supervisor: i32) -> Guard {
        let (tell, told) = mpsc::channel::<Vec<(i32, String)>>();
        let watching = std::thread::spawn(move || {
            let mut waiting = vec![(supervisor, "nsecd".to_owned())];
            loop {
                match told.recv_timeout(sys::PATIENCE) {
                    Ok(roles) => waiting = roles,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Vec::new(),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // SAFETY: children that our tracer would have waited for, had they ended.
                        waiting.iter().for_each(|(pid, _)| unsafe { _ = libc::kill(*pid, libc::SIGKILL) });
                        return waiting.into_iter().map(|(_, role)| role).collect();
                    }
                }
            }
        });
        Guard(tell, watching)
    }

    fn watch(&self, roles: Vec<(i32, String)>) {
        let _ = self.0.send(roles);
    }

    fn left(self) -> Vec<String> {
        drop(self.0);
        self.1.join().unwrap()
    }
}

/// Calls that cannot fail, or whose failure is no refusal: memory, waiting, ends.
const UNFAILING: [i64; 25] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_umask,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_sched_yield,
    libc::SYS_poll,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
];

/// `name(path, numbers)`; what differs from one start to the next is left out.
fn label(pid: i32, number: u64, args: &[u64; 6], dir: &str) -> String {
    let shape = SHAPES.iter().find(|shape| shape.0 as u64 == number);
    let Some(&(_, name, path, numbers)) = shape else { return format!("call {number}") };
    let path = path.map(|index| text(pid, args[index])).filter(|path| !path.is_empty());
    // What a descriptor is; without root a role's are not shown.
    let open = || fs::read_link(format!("/proc/{pid}/fd/{}", args[0] as i32)).ok();
    let path = path.or_else(|| OF_FD.contains(&(number as i64)).then(open)??.to_str().map(str::to_owned));
    let path = path.map(|path| path.replace(dir, "DIR").split(":[").next().unwrap_or_default().to_owned());
    let plain = |text: String| {
        let mut out = String::new();
        // Pids and numbers of descriptors in /proc.
        for part in text.split_inclusive('/') {
            let digits = part.trim_end_matches('/');
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            out += if is_number { part.replace(digits, "N") } else { part.to_owned() }.as_str();
        }
        out
    };
    // Loops over all signals, all capabilities.
    let numbers = if number == libc::SYS_prctl as u64 && matches!(args[0], 23 | 24) { &numbers[..1] } else { numbers };
    let numbers = numbers.iter().map(|index| format!("{:#x}", args[*index] as u32));
    let all: Vec<String> = path.map(plain).into_iter().chain(numbers).collect();
    format!("{name}({})", all.join(", "))
}

/// Calls on a descriptor, which tells one from another.
const OF_FD: [i64; 14] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_flock,
    libc::SYS_getdents64,
];

/// The text at this address of a process, up to its zero byte.
fn text(pid: i32, address: u64) -> String {
    let mut bytes = Vec::new();
    for at in (address..address.saturating_add(256)).step_by(8) {
        // SAFETY: reads a word of the tracee's; a bad address is an error, which reads as -1.
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, at, 0) };
        bytes.extend(word.to_ne_bytes());
        if word == -1 || word.to_ne_bytes().contains(&0) {
            break;
        }
    }
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A call's number and name, which argument is a path, and which numbers tell one use from another.
type Shape = (i64, &'static str, Option<usize>, &'static [usize]);

const SHAPES: &[Shape] = &[
    (libc::SYS_openat, "openat", Some(1), &[]),
    (libc::SYS_openat2, "openat2", Some(1), &[]),
    (libc::SYS_newfstatat, "newfstatat", Some(1), &[]),
    (libc::SYS_statx, "statx", Some(1), &[]),
    (libc::SYS_fstat, "fstat", None, &[]),
    (libc::SYS_fstatfs, "fstatfs", None, &[]),
    (libc::SYS_mkdirat, "mkdirat", Some(1), &[]),
    (libc::SYS_mkdir, "mkdir", Some(0), &[]),
    (libc::SYS_unlinkat, "unlinkat", Some(1), &[]),
    (libc::SYS_unlink, "unlink", Some(0), &[]),
    (libc::SYS_fchmodat, "fchmodat", Some(1), &[]),
    (libc::SYS_fchownat, "fchownat", Some(1), &[]),
    (libc::SYS_fchmod, "fchmod", None, &[]),
    (libc::SYS_fchown, "fchown", None, &[]),
    (libc::SYS_chmod, "chmod", Some(0), &[]),
    (libc::SYS_chown, "chown", Some(0), &[]),
    (libc::SYS_readlink, "readlink", Some(0), &[]),
    (libc::SYS_readlinkat, "readlinkat", Some(1), &[]),
    (libc::SYS_access, "access", Some(0), &[]),
    (libc::SYS_chdir, "chdir", Some(0), &[]),
    (libc::SYS_fchdir, "fchdir", None, &[]),
    (libc::SYS_chroot, "chroot", Some(0), &[]),
    (libc::SYS_execve, "execve", Some(0), &[]),
    (libc::SYS_execveat, "execveat", Some(1), &[]),
    (libc::SYS_mount, "mount", Some(1), &[3]),
    (libc::SYS_umount2, "umount2", Some(0), &[]),
    (libc::SYS_pivot_root, "pivot_root", Some(0), &[]),
    (libc::SYS_getdents64, "getdents64", None, &[]),
    (libc::SYS_read, "read", None, &[]),
    (libc::SYS_pread64, "pread64", None, &[]),
    (libc::SYS_write, "write", None, &[]),
    (libc::SYS_writev, "writev", None, &[]),
    (libc::SYS_pwrite64, "pwrite64", None, &[]),
    (libc::SYS_lseek, "lseek", None, &[]),
    (libc::SYS_ftruncate, "ftruncate", None, &[]),
    (libc::SYS_flock, "flock", None, &[]),
    (libc::SYS_fcntl, "fcntl", None, &[1]),
    (libc::SYS_dup, "dup", None, &[]),
    (libc::SYS_dup2, "dup2", None, &[]),
    (libc::SYS_dup3, "dup3", None, &[]),
    (libc::SYS_pipe2, "pipe2", None, &[]),
    (libc::SYS_ioctl, "ioctl", None, &[1]),
    (libc::SYS_socket, "socket", None, &[0, 1]),
    (libc::SYS_socketpair, "socketpair", None, &[0, 1]),
    (libc::SYS_bind, "bind", None, &[]),
    (libc::SYS_listen, "listen", None, &[]),
    (libc::SYS_connect, "connect", None, &[]),
    (libc::SYS_accept4, "accept4", None, &[]),
    (libc::SYS_getsockname, "getsockname", None, &[]),
    (libc::SYS_getsockopt, "getsockopt", None, &[1, 2]),
    (libc::SYS_setsockopt, "setsockopt", None, &[1, 2]),
    (libc::SYS_sendto, "sendto", None, &[]),
    (libc::SYS_sendmsg, "sendmsg", None, &[]),
    (libc::SYS_recvfrom, "recvfrom", None, &[]),
    (libc::SYS_recvmsg, "recvmsg", None, &[]),
    (libc::SYS_epoll_create1, "epoll_create1", None, &[]),
    (libc::SYS_epoll_ctl, "epoll_ctl", None, &[1]),
    (libc::SYS_epoll_wait, "epoll_wait", None, &[]),
    (libc::SYS_ppoll, "ppoll", None, &[]),
    (libc::SYS_eventfd2, "eventfd2", None, &[]),
    (libc::SYS_signalfd4, "signalfd4", None, &[]),
    (libc::SYS_timerfd_create, "timerfd_create", None, &[]),
    (libc::SYS_timerfd_settime, "timerfd_settime", None, &[]),
    (libc::SYS_clone, "clone", None, &[]),
    (libc::SYS_clone3, "clone3", None, &[]),
    (libc::SYS_fork, "fork", None, &[]),
    (libc::SYS_vfork, "vfork", None, &[]),
    (libc::SYS_wait4, "wait4", None, &[]),
    (libc::SYS_waitid, "waitid", None, &[]),
    (libc::SYS_kill, "kill", None, &[1]),
    (libc::SYS_pidfd_open, "pidfd_open", None, &[]),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal", None, &[1]),
    (libc::SYS_prctl, "prctl", None, &[0, 1]),
    (libc::SYS_prlimit64, "prlimit64", None, &[1]),
    (libc::SYS_setrlimit, "setrlimit", None, &[0]),
    (libc::SYS_capset, "capset", None, &[]),
    (libc::SYS_capget, "capget", None, &[]),
    (libc::SYS_setgroups, "setgroups", None, &[]),
    (libc::SYS_getgroups, "getgroups", None, &[]),
    (libc::SYS_setresgid, "setresgid", None, &[]),
    (libc::SYS_setresuid, "setresuid", None, &[]),
    (libc::SYS_setsid, "setsid", None, &[]),
    (libc::SYS_setpgid, "setpgid", None, &[]),
    (libc::SYS_close_range, "close_range", None, &[]),
    (libc::SYS_unshare, "unshare", None, &[0]),
    (libc::SYS_keyctl, "keyctl", None, &[0]),
    (libc::SYS_add_key, "add_key", None, &[]),
    (libc::SYS_request_key, "request_key", None, &[]),
    (libc::SYS_memfd_secret, "memfd_secret", None, &[]),
    (libc::SYS_memfd_create, "memfd_create", None, &[]),
    (libc::SYS_mlock, "mlock", None, &[]),
    (libc::SYS_mlock2, "mlock2", None, &[]),
    (libc::SYS_getrandom, "getrandom", None, &[]),
    (libc::SYS_rt_sigaction, "rt_sigaction", None, &[]),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask", None, &[0]),
    (libc::SYS_seccomp, "seccomp", None, &[0]),
    (libc::SYS_landlock_create_ruleset, "landlock_create_ruleset", None, &[2]),
    (libc::SYS_landlock_restrict_self, "landlock_restrict_self", None, &[]),
    (libc::SYS_landlock_add_rule, "landlock_add_rule", None, &[]),
    (libc::SYS_splice, "splice", None, &[]),
    (libc::SYS_tee, "tee", None, &[]),
    (libc::SYS_sched_getaffinity, "sched_getaffinity", None, &[]),
    (libc::SYS_uname, "uname", None, &[]),
    (libc::SYS_getcwd, "getcwd", None, &[]),
    (libc::SYS_fsync, "fsync", None, &[]),
];
