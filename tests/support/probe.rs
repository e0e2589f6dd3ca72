//! One system call of one process, inside a role's sandbox or outside: which call ended it, as its tracer reads it from
//! the process's own registers. With sys.rs, filters.rs and hijack/puppet.rs the only unsafe code of the tests.

use super::filters::request;
use nsecd_sandbox::lock::Confinement;
use std::arch::asm;
use std::{io, ptr};

/// How a process enters the kernel, as AUDIT_ARCH_* and, for x32, a bit of the number tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abi {
    /// `syscall`.
    X86_64,
    /// `int 0x80` from a 64-bit process.
    I386,
}

/// A call to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub abi: Abi,
    /// With x32's bit, where it is one of those.
    pub number: u32,
    pub args: [u64; 6],
}

/// What became of the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The call came back with this.
    Returned(i64),
    /// It ended the process, or the program it became ended, with this code.
    Exited(i32),
    /// SIGSYS, with what the registers then named as the call.
    Refused(Call),
    /// Another signal.
    Signal(i32),
    /// It did not come as far: the lock failed, or the setting up before.
    NotTried,
}

/// A sandbox as the role's own `main` has it locked, with the given filter.
#[derive(Clone, Copy)]
pub struct Sandbox {
    pub filter: &'static [u64],
    /// Whether it is the broker's, which enters no user namespace.
    pub broker: bool,
    /// Uid and gid that the process starts with; `None`: ours.
    pub start_as: Option<u32>,
    /// Uid and gid that the lock gives it, when it starts as root.
    pub become_id: Option<u32>,
}

impl Sandbox {
    fn confinement(&self) -> Confinement {
        Confinement {
            supervisor: std::os::unix::process::parent_id(),
            ids: self.become_id.map(|id| (id, id)),
            highest_fd: HIGHEST_FD,
            connections: self.broker.then_some(0),
            writes_files: true,
            filter: self.filter,
            missing: 0,
        }
    }
}

/// Descriptors 3 to this one are /dev/null in a probe; what it opens for itself lies above.
pub const HIGHEST_FD: u32 = 7;
const TRIED: u64 = 0x6e73_6563_645f_7072;
const SET_UP: i32 = 98;

/// Makes the call that `prepare` returns in a process of its own, which first enters the sandbox if there is one.
pub fn probe(sandbox: Option<&Sandbox>, prepare: impl FnOnce() -> Call) -> io::Result<End> {
    // SAFETY: the child runs only what is below, allocates at most under glibc, which is usable after fork, and never returns.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            child_of(sandbox, prepare);
            // SAFETY: ends the process without running anything of the parent's.
            unsafe { libc::_exit(SET_UP) }
        }
        child => watch(child),
    }
}

fn child_of(sandbox: Option<&Sandbox>, prepare: impl FnOnce() -> Call) {
    // SAFETY: plain calls on numbers and constant strings; the descriptors replaced are this process's copies.
    unsafe {
        libc::alarm(30);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 3..=HIGHEST_FD as i32 {
            libc::dup2(null, fd);
        }
        if let Some(id) = sandbox.and_then(|sandbox| sandbox.start_as)
            && (libc::setgroups(0, ptr::null()) | libc::setresgid(id, id, id) | libc::setresuid(id, id, id)) != 0
        {
            return;
        }
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0 {
            return;
        }
    }
    let call = prepare();
    // SAFETY: stops this process until its tracer has set its options.
    unsafe { libc::raise(libc::SIGSTOP) };
    if let Some(sandbox) = sandbox {
        let mut confinement = sandbox.confinement();
        if confinement.begin().and_then(|()| confinement.lock()).is_err() {
            return;
        }
    }
    let result = enter(call);
    // Arguments beyond the first mean nothing to the kernel, and are there for the tracer to read.
    enter(Call { abi: Abi::X86_64, number: libc::SYS_exit_group as u32, args: [0, result as u64, TRIED, 0, 0, 0] });
}

/// The call, with nothing of libc's around it.
#[inline(never)]
fn enter(call: Call) -> i64 {
    let Call { abi, number, args: [a, b, c, d, e, f] } = call;
    let mut result = u64::from(number);
    // SAFETY: what the call may do to this process is what the probe is about; the process ends right after it. Every register
    // that the kernel changes is named, and rbx, which is LLVM's, is put back.
    unsafe {
        match abi {
            Abi::X86_64 => asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c,
                in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _),
            Abi::I386 => asm!("mov r12, rbx", "mov rbx, r13", "int 0x80", "mov rbx, r12", inlateout("rax") result,
                in("r13") a, in("rcx") b, in("rdx") c, in("rsi") d, in("rdi") e, out("r12") _,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _),
        }
    }
    result as i64
}

/// Sees the child to its end.
fn watch(child: i32) -> io::Result<End> {
    let mut end = End::NotTried;
    let mut started = false;
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live int; the child is ours and not yet waited for.
        if unsafe { libc::waitpid(child, &mut status, libc::__WALL) } != child {
            return Err(io::Error::last_os_error());
        }
        if !libc::WIFSTOPPED(status) {
            if libc::WIFSIGNALED(status) && !matches!(end, End::Refused(_)) {
                end = End::Signal(libc::WTERMSIG(status));
            }
            return Ok(end);
        }
        let mut pass_on = libc::WSTOPSIG(status);
        if !started {
            started = true;
            let options = libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, child, 0, options as u64)?;
            pass_on = 0;
        } else if status >> 8 == libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8 {
            end = last_words(child)?;
            pass_on = 0;
        } else if pass_on == libc::SIGTRAP {
            pass_on = 0; // it became another program
        }
        request(libc::PTRACE_CONT, child, 0, pass_on as u64)?;
    }
}

/// What a process that is about to end was doing.
fn last_words(child: i32) -> io::Result<End> {
    let mut status: u64 = 0;
    request(libc::PTRACE_GETEVENTMSG, child, 0, &raw mut status as u64)?;
    // SAFETY: a struct of integers, for which zeros are a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, child, 0, &raw mut registers as u64)?;
    // struct ptrace_syscall_info: op(1), padding(3), arch(4), …
    let mut info = [0u32; 22];
    request(libc::PTRACE_GET_SYSCALL_INFO, child, size_of_val(&info) as u64, info.as_mut_ptr() as u64)?;
    let r = registers;
    Ok(match (status & 0x7f) as i32 {
        0 if r.orig_rax == libc::SYS_exit_group as u64 && r.rdx == TRIED => End::Returned(r.rsi as i64),
        0 if status >> 8 == SET_UP as u64 => End::NotTried,
        0 => End::Exited((status >> 8) as i32),
        libc::SIGSYS if info[1] == AUDIT_ARCH_I386 => End::Refused(Call {
            abi: Abi::I386,
            number: r.orig_rax as u32,
            args: [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, 0],
        }),
        libc::SIGSYS => {
            assert_eq!(info[1], AUDIT_ARCH_X86_64);
            let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
            End::Refused(Call { abi: Abi::X86_64, number: r.orig_rax as u32, args })
        }
        signal => End::Signal(signal),
    })
}

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// A process of ours that does nothing, for others to reach for; it ends with this.
pub struct Sibling(pub i32);

impl Sibling {
    /// Starts one. It has our memory, at our addresses.
    pub fn start() -> Sibling {
        // SAFETY: the child makes two plain calls and never returns.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
            assert!(child > 0);
            Sibling(child)
        }
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for, so that its number is still its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), libc::__WALL);
        }
    }
}

/// A system call made now, by this process; for what a probe needs before it is tried.
pub fn call(number: libc::c_long, args: [u64; 6]) -> i64 {
    // SAFETY: used with numbers and with addresses of live objects, as each call wants them.
    unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) }
}
