//! The secret mapping and the stack in it: the only unsafe code of this crate.
//!
//! Layout, from low to high: a guard page, the stack that key reading and computing run on, one page of data.
//! memfd_secret(2) takes these pages out of the kernel's own view of memory: no ptrace, /proc/PID/mem or core
//! shows them, root's included. Measured: signing on an ordinary stack leaves words of nonce and e·d behind;
//! on a stack in the mapping nothing is left outside. Without memfd_secret the mapping is locked, kept out of
//! cores and forks, and its stack is wiped after each use.

use crate::{key, source};
use core::{ffi::c_void, ptr, ptr::NonNull};
use nsecd_sandbox::{args, args::fail, sys};
use secp256k1_sys as ffi;

const PAGE: usize = 4096;
const STACK: usize = 8 * PAGE;
/// Room for libsecp256k1's context; its real size is checked.
const CONTEXT: usize = 1024;

/// The data page: what both holders have, and the role's own.
#[repr(C, align(64))]
pub struct Data<R> {
    context: [u8; CONTEXT],
    /// The key, loaded.
    pub keypair: ffi::Keypair,
    /// For verifying; a copy of its own, so that a fault in the key pair shows.
    pub public: ffi::XOnlyPublicKey,
    key: [u8; 32],
    text: [u8; source::ROOM],
    serialized: [u8; 32],
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
pub struct Vault<R> {
    data: NonNull<Data<R>>,
    secret: bool,
}

impl<R> Vault<R> {
    /// Maps the pages and takes the key, as a holder's last arguments say: require_secretmem, consume, key source. Returns
    /// the x-only public key (BIP-340) too; ends the process with a line for the operator where there is none.
    pub fn open(holder: &str, arguments: &[String], role: R) -> (Vault<R>, [u8; 32]) {
        let [require_secretmem, consume, source @ ..] = arguments else {
            fail(holder, args::USAGE, "require_secretmem, consume and a key source expected")
        };
        let vault = Vault::map(require_secretmem == "1", role);
        let mut vault = vault.unwrap_or_else(|e| fail(holder, args::NOT_LOCKED, e));
        let loaded = vault.run(|data| data.load(source, consume == "1"));
        let public_key = loaded.unwrap_or_else(|e| fail(holder, e.code(), e));
        (vault, public_key)
    }

    /// An error where the pages can be neither secret nor locked, or must be secret and are not.
    fn map(require_secret: bool, role: R) -> Result<Vault<R>, String> {
        const { assert!(size_of::<Data<R>>() <= PAGE) };
        let length = PAGE + STACK + PAGE;
        let os = std::io::Error::last_os_error;
        // SAFETY: plain calls on a descriptor and a fresh mapping that nothing else refers to; each result is checked. The
        // data page is written as fresh memory: zeros are values of all of its own fields, the role's are moved in.
        unsafe {
            let secret = map_secret(length);
            let why = os();
            if secret.is_none() && require_secret {
                return Err(format!(
                    "memfd_secret: {why}: require_secretmem = true needs Linux 5.14 or later (6.1: boot with secretmem.enable=1) and RLIMIT_MEMLOCK of 64 KiB"
                ));
            }
            let start = match secret {
                Some(start) => start,
                None => {
                    map_locked(length).ok_or_else(|| format!("mlock: {}: RLIMIT_MEMLOCK of 64 KiB needed", os()))?
                }
            };
            if libc::mprotect(start.cast(), PAGE, libc::PROT_NONE) != 0 {
                return Err(format!("guard page: {}", os()));
            }
            let data: NonNull<Data<R>> = NonNull::new(start.add(PAGE + STACK).cast()).ok_or("mapped at zero")?;
            (&raw mut (*data.as_ptr()).role).write(role);
            Ok(Vault { data, secret: secret.is_some() })
        }
    }

    /// Whether the mapping is memfd_secret's.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// The role's buffers, where they lie.
    pub fn role(&mut self) -> &mut R {
        // SAFETY: the mapping outlives self, and the borrow of self keeps it the only reference.
        unsafe { &mut (*self.data.as_ptr()).role }
    }

    /// Runs `f` on the stack in the mapping, which is then wiped. What `f` returns leaves it.
    pub fn run<F: FnOnce(&mut Data<R>) -> T, T>(&mut self, f: F) -> T {
        // SAFETY: the mapping outlives self, and the borrow of self keeps this the only reference.
        let mut job = Job { data: unsafe { self.data.as_mut() }, f: Some(f), result: None };
        // SAFETY: `call` gets the job of its own types, which outlives the call.
        unsafe { on_secret_stack(self.data.as_ptr().cast(), call::<R, F, T>, (&raw mut job).cast()) };
        let Some(result) = job.result else { sys::exit(args::NOT_LOCKED) };
        result
    }
}

struct Job<'a, R, F, T> {
    data: &'a mut Data<R>,
    f: Option<F>,
    result: Option<T>,
}

/// # Safety
/// `job` must point to a live [`Job`] of these types.
unsafe extern "C" fn call<R, F: FnOnce(&mut Data<R>) -> T, T>(job: *mut c_void) {
    // SAFETY: the caller's promise.
    let job = unsafe { &mut *job.cast::<Job<'_, R, F, T>>() };
    job.result = job.f.take().map(|f| f(job.data));
}

/// Runs `f(arg)` with the stack pointer in the secret mapping, then wipes that stack and the vector registers.
///
/// # Safety
/// `top` must be the upper end of the mapping's stack, `arg` what `f` expects.
unsafe fn on_secret_stack(top: *mut u8, f: unsafe extern "C" fn(*mut c_void), arg: *mut c_void) {
    // SAFETY: `top` is 16-byte aligned with STACK writable bytes below it, used by nobody else; rsp is restored
    // from a register that the callee preserves (System V ABI); every register the call may change is named.
    unsafe {
        core::arch::asm!(
            "mov r12, rsp", "mov rsp, {top}", "call {f}", "mov rsp, r12",
            top = in(reg) top, f = in(reg) f, in("rdi") arg, out("r12") _, clobber_abi("C"),
        );
        let stack = top.sub(STACK).cast::<u64>();
        for word in 0..STACK / 8 {
            stack.add(word).write_volatile(0);
        }
        core::arch::asm!(
            "xorps xmm0, xmm0",
            "xorps xmm1, xmm1",
            "xorps xmm2, xmm2",
            "xorps xmm3, xmm3",
            "xorps xmm4, xmm4",
            "xorps xmm5, xmm5",
            "xorps xmm6, xmm6",
            "xorps xmm7, xmm7",
            "xorps xmm8, xmm8",
            "xorps xmm9, xmm9",
            "xorps xmm10, xmm10",
            "xorps xmm11, xmm11",
            "xorps xmm12, xmm12",
            "xorps xmm13, xmm13",
            "xorps xmm14, xmm14",
            "xorps xmm15, xmm15",
            clobber_abi("C"),
        );
    }
}

/// A mapping of memfd_secret's; its descriptor is closed, so that none can be stolen (pidfd_getfd(2)).
///
/// # Safety
/// None: it refers to nothing but what it creates. Unsafe only for the calls in it.
unsafe fn map_secret(length: usize) -> Option<*mut u8> {
    // SAFETY: the descriptor and the mapping are new, and each result is checked.
    unsafe {
        let fd = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) as i32;
        if fd < 0 || libc::ftruncate(fd, length as i64) != 0 {
            return None;
        }
        let start = libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0);
        let kept = start != libc::MAP_FAILED && libc::madvise(start, length, libc::MADV_DONTFORK) == 0;
        let errno = *libc::__errno_location();
        libc::close(fd);
        *libc::__errno_location() = errno;
        kept.then_some(start.cast())
    }
}

/// The fallback: ordinary pages, locked, in no core and no child.
///
/// # Safety
/// As [`map_secret`].
unsafe fn map_locked(length: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the mapping is new, and each result is checked.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        let kept = start != libc::MAP_FAILED
            && libc::mlock(start, length) == 0
            && libc::madvise(start, length, libc::MADV_DONTDUMP) == 0
            && libc::madvise(start, length, libc::MADV_WIPEONFORK) == 0
            && libc::madvise(start, length, libc::MADV_DONTFORK) == 0;
        kept.then_some(start.cast())
    }
}

impl<R> Data<R> {
    /// Reads the key and makes everything that computing with it needs; then wipes what it came from.
    fn load(&mut self, source: &[String], consume: bool) -> Result<[u8; 32], source::Error> {
        let loaded = self.take(source, consume);
        // SAFETY: both are live fields of these types; volatile, since they are never read again.
        unsafe {
            (&raw mut self.key).write_volatile([0; 32]);
            (&raw mut self.text).write_volatile([0; source::ROOM]);
        }
        loaded.map(|()| self.serialized)
    }

    fn take(&mut self, source: &[String], consume: bool) -> Result<(), source::Error> {
        let mut seed = [0; 32];
        sys::random(&mut seed).map_err(source::Error::Unreadable)?;
        let decoded = match source::read(source, consume, &mut self.text)? {
            Some(length) => key::decode(&self.text[..length], &mut self.key),
            None => sys::random(&mut self.key).is_ok(),
        };
        // SAFETY: libsecp256k1 gets pointers to live fields of the sizes it documents, and a context room whose size and
        // alignment are checked.
        let made = unsafe {
            let both = ffi::SECP256K1_START_SIGN | ffi::SECP256K1_START_VERIFY;
            if ffi::secp256k1_context_preallocated_size(both) > CONTEXT {
                return Err(source::Error::Unreadable(libc::ENOMEM));
            }
            let context = ffi::secp256k1_context_preallocated_create(NonNull::from(&mut self.context).cast(), both);
            let mut parity = 0;
            decoded
                && ffi::secp256k1_context_randomize(context, seed.as_ptr()) == 1
                && ffi::secp256k1_keypair_create(context.as_ptr(), &mut self.keypair, self.key.as_ptr()) == 1
                && ffi::secp256k1_keypair_xonly_pub(context.as_ptr(), &mut self.public, &mut parity, &self.keypair) == 1
                && ffi::secp256k1_xonly_pubkey_serialize(context.as_ptr(), self.serialized.as_mut_ptr(), &self.public)
                    == 1
        };
        if made { Ok(()) } else { Err(source::Error::NotAKey) }
    }
}
