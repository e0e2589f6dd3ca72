//! libsecp256k1 as the key-holder calls it: the only unsafe code of the benchmark.

use secp256k1_sys as ffi;
use std::collections::VecDeque;
use std::ptr::NonNull;

/// A context in place, randomised, and a key pair.
pub struct Signer {
    /// Never moved: the context is in it.
    room: Box<[u64]>,
    keypair: ffi::Keypair,
    public: ffi::XOnlyPublicKey,
    /// The next id to sign, and what is signed and not verified yet.
    next: [u8; 32],
    signed: VecDeque<([u8; 32], [u8; 64])>,
}

impl Signer {
    /// With some key.
    pub fn new() -> Signer {
        let both = ffi::SECP256K1_START_SIGN | ffi::SECP256K1_START_VERIFY;
        // SAFETY: the room has the size that is asked for and is aligned for u64, as a context needs; key pair and public key are
        // plain bytes of the type that the library documents; every result is checked.
        unsafe {
            let size = ffi::secp256k1_context_preallocated_size(both);
            let mut room = vec![0u64; size.div_ceil(8)].into_boxed_slice();
            let context = ffi::secp256k1_context_preallocated_create(NonNull::from(&mut room[0]).cast(), both);
            assert_eq!(ffi::secp256k1_context_randomize(context, [7; 32].as_ptr()), 1);
            let (mut keypair, mut public, mut parity) = (ffi::Keypair::new(), ffi::XOnlyPublicKey::new(), 0);
            let context = context.as_ptr();
            assert_eq!(ffi::secp256k1_keypair_create(context, &mut keypair, [3; 32].as_ptr()), 1);
            assert_eq!(ffi::secp256k1_keypair_xonly_pub(context, &mut public, &mut parity, &keypair), 1);
            Signer { room, keypair, public, next: [9; 32], signed: VecDeque::new() }
        }
    }

    fn context(&mut self) -> *mut ffi::Context {
        self.room.as_mut_ptr().cast()
    }

    /// Signs an id that was not signed before, as a key-holder does: a processor learns the branches of one that comes again and
    /// again, which no daemon's can.
    pub fn sign(&mut self) {
        if let Some(number) = self.next.first_chunk_mut() {
            *number = (u64::from_ne_bytes(*number) + 1).to_ne_bytes();
        }
        let (context, id, mut signature) = (self.context(), self.next, [0; 64]);
        // SAFETY: a live context, and live arrays of the sizes that the library documents.
        let done = unsafe {
            ffi::secp256k1_schnorrsig_sign32(context, signature.as_mut_ptr(), id.as_ptr(), &self.keypair, id.as_ptr())
        };
        assert_eq!(done, 1);
        self.signed.push_back((id, signature));
    }

    /// Verifies the oldest signature that is not verified; panics if there is none.
    pub fn verify(&mut self) {
        let context = self.context();
        let (id, signature) = self.signed.pop_front().expect("something was signed");
        // SAFETY: likewise.
        let good =
            unsafe { ffi::secp256k1_schnorrsig_verify(context, signature.as_ptr(), id.as_ptr(), 32, &self.public) };
        assert_eq!(good, 1);
    }
}
