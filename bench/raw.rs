//! libsecp256k1 as the key-holder calls it: the only unsafe code of the benchmark.

use secp256k1_sys as ffi;
use std::ptr::NonNull;

/// A context in place, randomised, and a key pair.
pub struct Signer {
    /// Never moved: the context is in it.
    room: Box<[u64]>,
    keypair: ffi::Keypair,
    public: ffi::XOnlyPublicKey,
    signature: [u8; 64],
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
            Signer { room, keypair, public, signature: [0; 64] }
        }
    }

    fn context(&mut self) -> *mut ffi::Context {
        self.room.as_mut_ptr().cast()
    }

    /// Signs an id.
    pub fn sign(&mut self, id: &[u8; 32]) {
        let (context, aux) = (self.context(), [5u8; 32]);
        let signature = self.signature.as_mut_ptr();
        // SAFETY: a live context, and live arrays of the sizes that the library documents.
        let done =
            unsafe { ffi::secp256k1_schnorrsig_sign32(context, signature, id.as_ptr(), &self.keypair, aux.as_ptr()) };
        assert_eq!(done, 1);
    }

    /// Verifies the last signature.
    pub fn verify(&mut self, id: &[u8; 32]) {
        let context = self.context();
        // SAFETY: likewise.
        let good = unsafe {
            ffi::secp256k1_schnorrsig_verify(context, self.signature.as_ptr(), id.as_ptr(), 32, &self.public)
        };
        assert_eq!(good, 1);
    }
}
