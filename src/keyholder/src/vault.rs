//! The secret mapping and everything that happens in it: the only unsafe code of the key-holder.
//!
//! Layout, from low to high: a guard page, the stack that key reading and signing run on, one page of data.
//! memfd_secret(2) takes these pages out of the kernel's own view of memory: no ptrace, /proc/PID/mem or core
//! shows them, root's included. Measured: signing on an ordinary stack leaves words of nonce and e·d behind;
//! on a stack in the mapping nothing is left outside. Without memfd_secret the mapping is locked, kept out of
//! cores and forks, and its stack is wiped after each signature.

use crate::{FAULT, key, source};
use core::{ffi::c_void, ptr, ptr::NonNull};
use secp256k1_sys as ffi;

const PAGE: usize = 4096;
const STACK: usize = 8 * PAGE;
/// Room for libsecp256k1's context; its real size is checked.
const CONTEXT: usize = 1024;

/// The data page.
#[repr(C, align(64))]
struct Data {
    context: [u8; CONTEXT],
    keypair: ffi::Keypair,
    /// For verifying; a copy of its own, so that a fault in the key pair shows.
    public: ffi::XOnlyPublicKey,
    /// Auxiliary randomness (BIP-340): a hash ratchet, seeded once.
    ratchet: [u8; 32],
    aux: [u8; 32],
    key: [u8; 32],
    text: [u8; source::ROOM],
    serialized: [u8; 32],
    /// One byte more than an id, to notice a longer packet.
    request: [u8; 33],
    reply: [u8; 97],
}

/// The mapping. There is one for the life of the process; it is never unmapped.
pub struct Vault {
    data: NonNull<Data>,
    secret: bool,
}

impl Vault {
    /// Maps the pages; an error where they can be neither secret nor locked, or must be secret and are not.
    pub fn map(require_secret: bool) -> Result<Vault, String> {
        let length = PAGE + STACK + PAGE;
        let os = std::io::Error::last_os_error;
        // SAFETY: plain calls on a descriptor and a fresh mapping that nothing else refers to; each result is checked.
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
            let data = NonNull::new(start.add(PAGE + STACK).cast()).ok_or("mapped at zero")?;
            Ok(Vault { data, secret: secret.is_some() })
        }
    }

    /// Whether the mapping is memfd_secret's.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Takes the key from its source; returns the x-only public key (BIP-340).
    pub fn load(&mut self, source: &[String], consume: bool) -> Result<[u8; 32], source::Error> {
        const { assert!(size_of::<Data>() <= PAGE) };
        let mut job = Load { data: self.data, source, consume, result: Ok(()) };
        // SAFETY: `load` gets the job it expects, which outlives the call.
        unsafe { self.on_secret_stack(load, (&raw mut job).cast()) };
        job.result?;
        // SAFETY: `data` points into the live mapping and nothing else refers to it now.
        Ok(unsafe { (*self.data.as_ptr()).serialized })
    }

    /// Where the next request is to be read.
    pub fn request(&mut self) -> &mut [u8] {
        // SAFETY: the mapping outlives self, and the borrow of self keeps it the only reference.
        unsafe { &mut (*self.data.as_ptr()).request }
    }

    /// Signs the first 32 bytes of the request: id ‖ status ‖ signature, zeros for a signature that fails its verification.
    pub fn sign(&mut self) -> &[u8; 97] {
        // SAFETY: `sign` gets the data it expects; afterwards nothing else refers to the reply.
        unsafe {
            self.on_secret_stack(sign, self.data.as_ptr().cast());
            &(*self.data.as_ptr()).reply
        }
    }

    /// Runs `f(arg)` with the stack pointer in the secret mapping, then wipes that stack and the vector registers.
    ///
    /// # Safety
    /// `arg` must be what `f` expects.
    unsafe fn on_secret_stack(&mut self, f: unsafe extern "C" fn(*mut c_void), arg: *mut c_void) {
        let top: *mut u8 = self.data.as_ptr().cast();
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

struct Load<'a> {
    data: NonNull<Data>,
    source: &'a [String],
    consume: bool,
    result: Result<(), source::Error>,
}

/// Reads the key and makes everything the signing needs; then wipes what it came from.
///
/// # Safety
/// `job` must point to a live [`Load`].
unsafe extern "C" fn load(job: *mut c_void) {
    // SAFETY: the caller's promise; the data page is referred to by nobody else. libsecp256k1 gets pointers to
    // live fields of the sizes it documents, and a context room whose size and alignment are checked.
    unsafe {
        let job = &mut *job.cast::<Load<'_>>();
        let d = &mut *job.data.as_ptr();
        let mut seed = [0u8; 32];
        let random = nsecd_sandbox::sys::random(&mut d.ratchet).and_then(|()| nsecd_sandbox::sys::random(&mut seed));
        let read =
            random.map_err(source::Error::Unreadable).and_then(|()| source::read(job.source, job.consume, &mut d.text));
        job.result = read.and_then(|length| {
            let decoded = match length {
                Some(length) => key::decode(&d.text[..length], &mut d.key),
                None => nsecd_sandbox::sys::random(&mut d.key).is_ok(),
            };
            let both = ffi::SECP256K1_START_SIGN | ffi::SECP256K1_START_VERIFY;
            if ffi::secp256k1_context_preallocated_size(both) > CONTEXT {
                return Err(source::Error::Unreadable(libc::ENOMEM));
            }
            let room = NonNull::from(&mut d.context).cast();
            let context = ffi::secp256k1_context_preallocated_create(room, both);
            let mut parity = 0;
            let made = decoded
                && ffi::secp256k1_context_randomize(context, seed.as_ptr()) == 1
                && ffi::secp256k1_keypair_create(context.as_ptr(), &mut d.keypair, d.key.as_ptr()) == 1
                && ffi::secp256k1_keypair_xonly_pub(context.as_ptr(), &mut d.public, &mut parity, &d.keypair) == 1
                && ffi::secp256k1_xonly_pubkey_serialize(context.as_ptr(), d.serialized.as_mut_ptr(), &d.public) == 1;
            if made { Ok(()) } else { Err(source::Error::NotAKey) }
        });
        (&raw mut d.key).write_volatile([0; 32]);
        (&raw mut d.text).write_volatile([0; source::ROOM]);
    }
}

/// One signature, verified before it may leave (BIP-340 asks for it: a fault must not leak the key).
///
/// # Safety
/// `data` must point to the loaded [`Data`].
unsafe extern "C" fn sign(data: *mut c_void) {
    // SAFETY: the caller's promise; libsecp256k1 gets pointers to live fields of the sizes it documents.
    unsafe {
        let d = &mut *data.cast::<Data>();
        let context = (&raw mut d.context).cast::<ffi::Context>();
        let state = d.ratchet;
        tagged_hash(context, b"nsecd/ratchet", &state, &mut d.ratchet);
        tagged_hash(context, b"nsecd/aux", &state, &mut d.aux);
        let (id, rest) = d.reply.split_at_mut(32);
        id.copy_from_slice(&d.request[..32]);
        let (status, signature) = rest.split_at_mut(1);
        let good =
            ffi::secp256k1_schnorrsig_sign32(context, signature.as_mut_ptr(), id.as_ptr(), &d.keypair, d.aux.as_ptr())
                == 1
                && ffi::secp256k1_schnorrsig_verify(context, signature.as_ptr(), id.as_ptr(), 32, &d.public) == 1;
        status[0] = if good { 0 } else { FAULT };
        if !good {
            signature.fill(0);
        }
    }
}

/// SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ message), as BIP-340 defines it.
///
/// # Safety
/// `context` must be a live context of libsecp256k1.
unsafe fn tagged_hash(context: *mut ffi::Context, tag: &[u8], message: &[u8; 32], hash: &mut [u8; 32]) {
    // SAFETY: pointers and lengths are those of live slices; the output holds 32 bytes.
    unsafe {
        ffi::secp256k1_tagged_sha256(
            context,
            hash.as_mut_ptr(),
            tag.as_ptr(),
            tag.len(),
            message.as_ptr(),
            message.len(),
        );
    }
}
