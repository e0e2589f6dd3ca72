//! Encryption and direct messages as Nostr's NIPs define them.
//!
//! Pure: no key of an account, no socket, no clock, no randomness of its own. What takes the account's secret comes in as
//! the keys of one message, which the ECDH holder answers for a peer and a nonce; what must be signed goes out as a draft for
//! the gate. No error carries decrypted text. Decrypted text and keys are wiped when they are dropped; what the JSON parser and
//! the reply's buffers held of them is not.

pub mod conversation;
pub mod incoming;
pub mod nip04;
pub mod nip17;
pub mod nip44;
pub mod nip59;

/// 64 lower-case hexadecimal digits as 32 bytes, 128 as 64; `None` for anything else (NIP-01's form of keys, ids and signatures).
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_digits_of_the_exact_number_are_hex() {
        assert_eq!(unhex::<2>("0aff"), Some([0x0a, 0xff]));
        for bad in ["", "0af", "0aff0", "0aff00", "0AFF", "0afg", "0x0a", " aff", "0a\u{e9}"] {
            assert_eq!(unhex::<2>(bad), None, "{bad}");
        }
    }
}
