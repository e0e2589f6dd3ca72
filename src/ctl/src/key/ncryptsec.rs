//! NIP-49: a key encrypted with a password. scrypt makes the symmetric key, XChaCha20-Poly1305 opens it.

use super::Fault;
use super::memory::Locked;
use super::secret::Secret;
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

/// How it begins.
pub(super) const PREFIX: &[u8] = b"ncryptsec1";
/// The version that NIP-49 describes.
const VERSION: u8 = 2;
/// Version, log n, salt, nonce, key security byte, encrypted key with its tag.
const LENGTH: usize = 1 + 1 + 16 + 24 + 1 + 48;
/// The most that scrypt may take: 2^log n blocks of 1 KiB, so 2 GiB.
const MOST: u8 = 21;

/// Opens it.
///
/// # Errors
/// It is damaged, or not of that version; the password is wrong.
pub(super) fn open(text: &[u8], password: &Locked) -> Result<Secret, Fault> {
    let damaged = || Fault::usage("this ncryptsec1… is damaged: its checksum or its length is wrong");
    let text = std::str::from_utf8(text.trim_ascii()).map_err(|_| damaged())?;
    let checked = CheckedHrpstring::new::<Bech32>(text).map_err(|_| damaged())?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    let [version, log_n, ..] = bytes[..] else { return Err(damaged()) };
    if bytes.len() != LENGTH {
        return Err(damaged());
    }
    if version != VERSION {
        return Err(Fault::usage(format!("an ncryptsec1… of version {version}: only {VERSION} is known")));
    }
    if !(1..=MOST).contains(&log_n) {
        return Err(Fault::usage(format!(
            "this ncryptsec1… wants 2^{log_n} rounds of scrypt: at most 2^{MOST} are made"
        )));
    }
    let (salt, nonce, security, sealed) = (&bytes[2..18], &bytes[18..42], &bytes[42..43], &bytes[43..]);
    let typed = std::str::from_utf8(password.bytes()).map_err(|_| Fault::usage("the password is not UTF-8"))?;
    let normal = Zeroizing::new(typed.nfkc().collect::<String>());
    let failed = |what: &str| Fault::failed(format!("opening the ncryptsec1…: {what}"));
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| failed("scrypt refuses its parameters"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(normal.as_bytes(), salt, &params, &mut *key).map_err(|_| failed("scrypt fails"))?;
    let cipher = XChaCha20Poly1305::new((&*key).into());
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| damaged())?;
    let opened = cipher.decrypt(&nonce.into(), Payload { msg: sealed, aad: security });
    let mut opened = opened.map_err(|_| Fault::usage("the password is wrong, or the ncryptsec1… was altered"))?;
    let secret = opened.as_slice().try_into().map_err(|_| damaged()).and_then(Secret::of_bytes);
    opened.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    // NIP-49's own example.
    const SEALED: &str = "ncryptsec1qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kghhvd5g7dgjtcxfqtd67p9m0w57lspw8gsq6yphnm8623nsl8xn9j4jdzz84zm3frztj3z7s35vpzmqf6ksu8r89qk5z2zxfmu5gv8th8wclt0h4p";
    const HEX: &str = "3501454135014541350145413501453fefb02227e449e57cf4d3a3ce05378683";

    #[test]
    fn the_published_example_opens_with_its_password_only() {
        let open = |text: &str, password: &str| open(text.as_bytes(), &Locked::of(password.as_bytes()));
        assert_eq!(open(SEALED, "nostr").unwrap_or_else(|e| panic!("{e:?}")).hex().as_str(), HEX);
        let Err(Fault::Usage(why)) = open(SEALED, "Nostr") else { panic!("another password") };
        assert!(why.contains("password is wrong"), "{why}");
        for damaged in [&SEALED[..SEALED.len() - 1], &SEALED.replace("qgg9", "qgg8"), "ncryptsec1"] {
            assert!(matches!(open(damaged, "nostr"), Err(Fault::Usage(why)) if why.contains("damaged")), "{damaged}");
        }
    }

    #[test]
    fn a_password_is_normalised_as_the_nip_says() {
        // NIP-49: these are one password.
        let forms = ["\u{212b}\u{2126}\u{1e9b}\u{323}", "\u{c5}\u{3a9}\u{1e69}"];
        let normal = forms.map(|form| form.nfkc().collect::<String>());
        assert_eq!(normal[0], normal[1]);
    }
}
