//! Public keys as people write them: npub1… (NIP-19) or hex. Whether one lies on the curve is the ECDH holder's to find.

use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;

/// The 64 lower-case hex digits of an `npub1…` or of 64 hex digits; `None` for anything else.
pub fn public_key(text: &str) -> Option<String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    let decoded = CheckedHrpstring::new::<Bech32>(text).ok()?;
    // Human-readable parts compare without case, as BIP-173 has it.
    let is_npub = decoded.hrp().as_str().eq_ignore_ascii_case("npub");
    let key: Vec<u8> = decoded.byte_iter().collect();
    (is_npub && key.len() == 32).then(|| key.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // NIP-19's own examples.
    const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
    const HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
    const NPROFILE: &str = "nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7mgpz4mhxue69uhkg6nzv9ejuumpv34kytnrdaksjlyr9p";

    #[test]
    fn both_forms_are_one_key() {
        for form in [NPUB, HEX, &NPUB.to_uppercase(), &HEX.to_uppercase()] {
            assert_eq!(public_key(form).as_deref(), Some(HEX), "{form}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        // A valid checksum under another name is another thing: a note, a profile, half a key.
        let note = "note1fntxtkcy9pjwucqwa9mddn7v03wwwsu9j330jj350nvhpky2tuaspk6nqc";
        let altered = NPUB.replace("tg", "tq");
        let mixed = NPUB.replace("npub", "NPUB");
        for bad in ["", "npub1", &HEX[1..], &format!("{HEX}0"), &altered, &mixed, note, NPROFILE, &format!(" {NPUB}")] {
            assert_eq!(public_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_single_change_of_an_npub_is_refused() {
        for at in 0..NPUB.len() {
            for byte in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bio ".bytes().filter(|b| *b != NPUB.as_bytes()[at]) {
                let mut altered = NPUB.as_bytes().to_vec();
                altered[at] = byte;
                assert_eq!(public_key(&String::from_utf8(altered).unwrap()), None, "{at}");
            }
        }
    }
}
