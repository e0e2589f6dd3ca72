//! A private key: read as the holders read it, checked by a signature, shown only as its public key.

use super::Fault;
use super::memory::Locked;
use bech32::{Bech32, Hrp};
use secp256k1::{Keypair, XOnlyPublicKey};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// What a key is not, and how it may be written.
const FORMS: &str = "expected an nsec1…, 64 hex digits, or 32 raw bytes, and nothing else but one newline";

/// A key of a Nostr account.
pub(super) struct Secret(Locked);

/// Its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Public(XOnlyPublicKey);

impl Secret {
    /// Of what a source holds, as nsecd's holders read it.
    ///
    /// # Errors
    /// It is no key. Says nothing of what was there.
    pub fn of_text(text: &[u8]) -> Result<Secret, Fault> {
        let mut key = Zeroizing::new([0; 32]);
        if !nsecd_vault::decode(text, &mut key) {
            return Err(Fault::usage(format!("this is no private key: {FORMS}")));
        }
        Secret::of_bytes(&key)
    }

    /// Of 32 bytes.
    ///
    /// # Errors
    /// It is zero, or not below the curve's order.
    pub fn of_bytes(key: &[u8; 32]) -> Result<Secret, Fault> {
        let secret = Secret(Locked::of(key));
        let mut pair =
            secret.pair().ok_or_else(|| Fault::usage("this is no private key: no point of the curve has it"))?;
        pair.non_secure_erase();
        Ok(secret)
    }

    fn pair(&self) -> Option<Keypair> {
        let mut key: [u8; 32] = self.0.bytes().try_into().ok()?;
        let pair = Keypair::from_secret_bytes(key).ok();
        key.zeroize();
        pair
    }

    /// Its public key.
    pub fn public(&self) -> Public {
        // `of_bytes` has made one already.
        let mut pair = self.pair().unwrap_or_else(|| std::process::abort());
        let public = pair.x_only_public_key().0;
        pair.non_secure_erase();
        Public(public)
    }

    /// Whether a signature of this key is one of that public key: of a text that is no event, so that it is nobody's.
    pub fn proves(&self, public: &Public) -> bool {
        let id: [u8; 32] = Sha256::digest(b"nsecctl: is this the key?").into();
        let Some(mut pair) = self.pair() else { return false };
        let signature = secp256k1::schnorr::sign_with_aux_rand(&id, &pair, &Sha256::digest(public.hex()).into());
        pair.non_secure_erase();
        signature.verify(&id, &public.0).is_ok()
    }

    /// As it is stored: `nsec1…` (NIP-19), which the reference daemon reads as well.
    pub fn nsec(&self) -> Locked {
        let text = bech32::encode::<Bech32>(Hrp::parse_unchecked("nsec"), self.0.bytes());
        let text = Zeroizing::new(text.unwrap_or_default());
        Locked::of(text.as_bytes())
    }

    /// The same as 64 hex digits, to look for copies of it.
    pub fn hex(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.bytes().iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl Public {
    /// 64 hex digits.
    pub fn hex(&self) -> String {
        self.0.to_byte_array().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// NIP-19's form.
    pub fn npub(&self) -> String {
        bech32::encode::<Bech32>(Hrp::parse_unchecked("npub"), &self.0.to_byte_array()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // NIP-19's own example.
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";
    const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";

    #[test]
    fn a_key_reads_back_and_proves_its_public_key_only() {
        let of = |text: &[u8]| Secret::of_text(text).unwrap_or_else(|e| panic!("{e:?}"));
        let secret = of(NSEC.as_bytes());
        assert_eq!((secret.nsec().bytes(), secret.hex().as_str()), (NSEC.as_bytes(), HEX));
        assert_eq!(secret.public().npub(), NPUB);
        assert!(secret.proves(&of(HEX.as_bytes()).public()));
        assert!(!secret.proves(&of(&[1; 32]).public()));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for text in ["", "nsec1", "npub1x", &HEX[1..], &"0".repeat(64), &"f".repeat(64)] {
            let Err(Fault::Usage(said)) = Secret::of_text(text.as_bytes()) else { panic!("{text}") };
            assert!(!said.contains("7dea") && !said.contains("0000") && !said.contains("ffff"), "{said}");
        }
    }
}
