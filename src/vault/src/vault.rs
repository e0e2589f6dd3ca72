//! The secret mapping and the stack in it: the only unsafe code of this crate.
//!
//! Layout, from low to high: a guard page, the stack that decoding and computing run on, one page of data.
//! memfd_secret(2) takes these pages out of the kernel's own view of memory: no ptrace, /proc/PID/mem or core
//! shows them, root's included. Measured: signing on an ordinary stack leaves words of nonce and e·d behind;
//! on a stack in the mapping nothing is left outside. Without memfd_secret the mapping is locked, kept out of
//! cores and forks, and its stack is wiped after each use. The key's bytes go from the kernel straight into the mapping.

use crate::key;
use core::{arch::asm, ffi::c_int, ptr, ptr::NonNull};
use nsecd_sandbox::args::{self, fail};
use nsecd_sandbox::lock::{Confinement, Optional, descriptor, random};
use secp256k1_sys as ffi;
use std::{fs::File, io, io::Read, os::fd::AsRawFd};

const PAGE: usize = 4096;
/// Bytes of the stack. All of it is wiped after each use: tests measure how deep these go.
pub const STACK: usize = 3 * PAGE;
/// Room for libsecp256k1's context; its real size is checked.
const CONTEXT: usize = 1024;
/// The most that a key source may hold, and more, to notice a longer one.
const ROOM: usize = 96;

/// The data page: what both holders have, and the role's own.
#[repr(C, align(64))]
pub struct Data<R> {
    context: [u8; CONTEXT],
    /// The key, loaded.
    pub keypair: ffi::Keypair,
    /// For verifying; a copy of its own, so that a fault in the key pair shows.
    pub public: ffi::XOnlyPublicKey,
    /// The same as it is sent (BIP-340).
    pub public_key: [u8; 32],
    key: [u8; 32],
    text: [u8; ROOM],
    length: usize,
    /// The role's buffers.
    pub role: R,
}

impl<R> Data<R> {
    /// libsecp256k1's context, for signing, verifying and key agreement; live once a key is loaded.
    pub fn context(&mut self) -> *mut ffi::Context {
        (&raw mut self.context).cast()
    }
}

/// The mapping. There is one for the life of the process; it is never unmapped.
pub struct Vault<R: 'static> {
    /// Its data page.
    pub data: &'static mut Data<R>,
}

impl<R> Vault<R> {
    /// Maps the pages and takes the key, as a holder's last arguments say: require_secretmem, key source. Ends the process with
    /// a line for the operator where it cannot; notes where the pages are not secret.
    pub fn open(arguments: &[String], role: R, confinement: &mut Confinement) -> Vault<R> {
        let [require, source @ ..] = arguments else {
            fail(args::USAGE, "require_secretmem and a key source expected")
        };
        let page = map(true).or_else(|why| {
            if require == "1" {
                return Err(format!(
                    "memfd_secret: {why}: require_secretmem = true needs Linux 5.14 or later (6.1: boot with secretmem.enable=1) and RLIMIT_MEMLOCK of 64 KiB"
                ));
            }
            confinement.may(Optional::SecretMemory, false);
            map(false).map_err(|why| format!("mlock: {why}: RLIMIT_MEMLOCK of 64 KiB needed"))
        });
        let page: *mut Data<R> = page.unwrap_or_else(|why| fail(args::NOT_LOCKED, why)).cast();
        const { assert!(size_of::<Data<R>>() <= PAGE) };
        // SAFETY: a fresh page, large enough and aligned, that nothing else refers to and that stays mapped. Zeros are values of
        // all of the data's own fields; the role's are moved in.
        let data = unsafe {
            (&raw mut (*page).role).write(role);
            &mut *page
        };
        data.length = match source {
            [kind] if kind == "fd" => to_end(descriptor(0), &mut data.text),
            // 32 raw bytes are one form of a key.
            [kind] if kind == "ephemeral" => random(&mut data.text[..32]).map(|()| 32),
            [kind, serial] if kind == "keyring" => from_keyring(serial, &mut data.text),
            _ => fail(args::USAGE, "a key source of fd, ephemeral or keyring expected"),
        }
        .unwrap_or_else(|e| fail(args::NO_KEY, format!("the key source cannot be read: {e}")));
        let mut vault = Vault { data };
        if !vault.run(load) {
            fail(args::BAD_KEY, "the source holds no key: expected nsec1…, 64 hex digits or 32 raw bytes");
        }
        vault
    }

    /// Runs `f` on the stack in the mapping, then wipes that stack and the vector registers.
    pub fn run(&mut self, f: extern "C" fn(&mut Data<R>) -> bool) -> bool {
        let data: *mut Data<R> = self.data;
        let result: u8;
        // SAFETY: the data page is the upper end of the stack: 16-byte aligned with STACK writable bytes below it, used by nobody
        // else. rsp is restored from a register that the callee preserves (System V ABI); every register the call may change is
        // named. `f` gets the one reference to the data for as long as it runs, and its result is the lowest byte of rax.
        unsafe {
            asm!(
                "mov r12, rsp", "mov rsp, rdi", "call {f}", "mov rsp, r12",
                f = in(reg) f, in("rdi") data, out("r12") _, lateout("al") result, clobber_abi("C"),
            );
            let stack = data.cast::<u64>().sub(STACK / 8);
            asm!("rep stosq", inout("rdi") stack => _, inout("rcx") STACK / 8 => _, in("rax") 0u64, options(nostack));
            wipe_registers();
        }
        result == 1
    }
}

/// Puts every vector register into its initial state, zeros: SSE's, AVX's and AVX-512's, which the C library copies memory
/// with where a machine has them (xrstor, fxrstor: Intel SDM volume 1, chapter 13).
fn wipe_registers() {
    #[repr(align(64))]
    struct Area([u32; 2688 / 4]); // up to the end of the last component asked for; the processor may touch all of it
    // A component whose bit in the header (from byte 512 on) is 0 is initialised; MXCSR, word 6, has the value that it begins with.
    let mut area = Area([0; 2688 / 4]);
    area.0[6] = 0x1f80;
    let with_xsave = std::is_x86_feature_detected!("xsave"); // and used by the kernel; without it there is SSE alone
    // SAFETY: reads a live, aligned area of the length that either form takes; sets registers that `clobber_abi` names.
    unsafe {
        match with_xsave {
            true => asm!("xrstor [{}]", in(reg) &area, in("eax") 0xe6, in("edx") 0, clobber_abi("C")),
            false => asm!("fxrstor [{}]", in(reg) &area, clobber_abi("C")),
        }
    }
}

/// Guard page, stack and data page; where the last begins. Secret ones are memfd_secret's, whose descriptor is closed, so that
/// none can be stolen (pidfd_getfd(2)); others are ordinary pages, locked, in no core and no child.
fn map(secret: bool) -> io::Result<*mut u8> {
    let length = PAGE + STACK + PAGE;
    let (protection, mut flags, mut file) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None);
    let done = |result: c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: the descriptor and the mapping are new, nothing else refers to them, and each result is checked.
    unsafe {
        if secret {
            let fd = done(libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) as c_int)?;
            file = Some(descriptor(fd));
            done(libc::ftruncate(fd, length as i64))?;
            flags = libc::MAP_SHARED;
        }
        let fd = file.as_ref().map_or(-1, File::as_raw_fd);
        let start = libc::mmap(ptr::null_mut(), length, protection, flags, fd, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if !secret {
            done(libc::mlock(start, length))?;
            done(libc::madvise(start, length, libc::MADV_DONTDUMP))?;
            done(libc::madvise(start, length, libc::MADV_WIPEONFORK))?;
        }
        done(libc::madvise(start, length, libc::MADV_DONTFORK))?;
        done(libc::mprotect(start, PAGE, libc::PROT_NONE))?;
        Ok(start.cast::<u8>().add(PAGE + STACK))
    }
}

/// What a file or a pipe holds up to its end, as far as there is room.
fn to_end(mut file: File, text: &mut [u8; ROOM]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(&mut text[length..])? {
            0 => return Ok(length),
            n => length += n,
        }
    }
}

/// The payload of the user key with this serial number, which the supervisor has found. The user keyring is readable only to
/// a process that holds it: it is linked into this process's own session keyring for as long as the reading takes.
fn from_keyring(serial: &str, text: &mut [u8; ROOM]) -> io::Result<usize> {
    let serial: i32 = serial.parse().map_err(io::Error::other)?;
    let (user, session) = (libc::KEY_SPEC_USER_KEYRING, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: numbers, and the pointer and the length of one live mutable slice.
    unsafe {
        let linked = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_LINK, user, session);
        let length = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_READ, serial, text.as_mut_ptr(), ROOM);
        if linked < 0 || length < 0 || libc::syscall(libc::SYS_keyctl, libc::KEYCTL_UNLINK, user, session) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ROOM.min(length as usize))
    }
}

/// Decodes the key and makes everything that computing with it needs; then wipes what it came from.
extern "C" fn load<R>(data: &mut Data<R>) -> bool {
    let mut seed = [0; 32];
    let decoded = random(&mut seed).is_ok() && key::decode(&data.text[..data.length], &mut data.key);
    // SAFETY: libsecp256k1 gets pointers to live fields of the sizes it documents, and a context room whose size and
    // alignment are checked. What is wiped is a live field of that type; volatile, since it is never read again.
    unsafe {
        let (both, mut parity) = (ffi::SECP256K1_START_SIGN | ffi::SECP256K1_START_VERIFY, 0);
        let room = NonNull::from(&mut data.context).cast();
        let made = decoded && ffi::secp256k1_context_preallocated_size(both) <= CONTEXT && {
            let context = ffi::secp256k1_context_preallocated_create(room, both);
            ffi::secp256k1_context_randomize(context, seed.as_ptr()) == 1
                && ffi::secp256k1_keypair_create(context.as_ptr(), &mut data.keypair, data.key.as_ptr()) == 1
                && ffi::secp256k1_keypair_xonly_pub(context.as_ptr(), &mut data.public, &mut parity, &data.keypair) == 1
                && ffi::secp256k1_xonly_pubkey_serialize(context.as_ptr(), data.public_key.as_mut_ptr(), &data.public)
                    == 1
        };
        (&raw mut data.key).write_volatile([0; 32]);
        (&raw mut data.text).write_volatile([0; ROOM]);
        made
    }
}

#[cfg(test)]
mod tests;
