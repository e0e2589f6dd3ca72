//! What a key source may hold: nsec1… (NIP-19), 64 hex digits, or 32 raw bytes, one trailing newline allowed.
//!
//! Works in the buffers it is given, which lie in the secret mapping, as does the stack it runs on.

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Decodes `text` into `key`; false for anything else, a wrong checksum included.
pub fn decode(text: &[u8], key: &mut [u8; 32]) -> bool {
    let line = text.strip_suffix(b"\n").filter(|_| text.len() != 32).unwrap_or(text);
    match line.len() {
        32 => key.copy_from_slice(line),
        63 => return decode_nsec(line, key),
        _ => return decode_hex(line, key),
    }
    true
}

/// 64 hex digits; false for anything else.
pub fn decode_hex(hex: &[u8], key: &mut [u8; 32]) -> bool {
    let digit = |b: u8| (b as char).to_digit(16);
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
        *byte = (high << 4 | low) as u8;
    }
    hex.len() == 64
}

/// bech32 (BIP-173) with the prefix `nsec`: 52 characters of key, 6 of checksum.
fn decode_nsec(nsec: &[u8], key: &mut [u8; 32]) -> bool {
    let Some(data) = nsec.strip_prefix(b"nsec1") else { return false };
    // The prefix as the checksum takes it: each letter's upper bits, a zero, each letter's lower bits.
    let mut checksum = [3, 3, 3, 3, 0, 14, 19, 5, 3].into_iter().fold(1, step);
    let (mut bits, mut held, mut bytes) = (0u32, 0, key.iter_mut());
    for character in data {
        let Some(value) = CHARSET.iter().position(|c| c == character) else { return false };
        checksum = step(checksum, value as u8);
        bits = (bits << 5 | value as u32) & 0xfff;
        held += 5;
        if held >= 8
            && let Some(byte) = bytes.next()
        {
            held -= 8;
            *byte = (bits >> held) as u8;
            // The 4 bits after the last byte are padding and must be zero.
            if bytes.len() == 0 && bits & 0xf != 0 {
                return false;
            }
        }
    }
    checksum == 1
}

/// One round of bech32's checksum.
fn step(checksum: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
    let shifted = (checksum & 0x1ff_ffff) << 5 ^ u32::from(value);
    GENERATOR.iter().enumerate().filter(|(i, _)| checksum >> (25 + i) & 1 == 1).fold(shifted, |c, (_, g)| c ^ g)
}

#[cfg(test)]
mod tests {
    use super::*;

    // NIP-19's own example.
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";

    fn decoded(text: &[u8]) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        decode(text, &mut key).then_some(key)
    }

    #[test]
    fn the_three_forms_with_and_without_a_newline_are_one_key() {
        let key = decoded(HEX.as_bytes()).expect("hex");
        assert_eq!(key[..2], [0x67, 0xde]);
        for form in [NSEC.as_bytes(), HEX.as_bytes(), HEX.to_uppercase().as_bytes(), &key] {
            assert_eq!(decoded(form), Some(key));
            assert_eq!(decoded(&[form, b"\n"].concat()), Some(key));
            assert_eq!(decoded(&[form, b"\n\n"].concat()), None);
            assert_eq!(decoded(&form[1..]), None);
        }
        assert_eq!(decoded(&[[b'\n'; 32], [1; 32]].concat()[..32]), Some([b'\n'; 32]));
    }

    #[test]
    fn any_altered_character_is_refused() {
        for at in 0..NSEC.len() {
            for byte in b"qpzry9x8gf2tvdw0s3jn54khce6mua7l1bioN \n" {
                let mut altered = NSEC.as_bytes().to_vec();
                altered[at] = *byte;
                if altered != NSEC.as_bytes() {
                    assert_eq!(decoded(&altered), None, "{at} {byte}");
                }
            }
        }
        assert_eq!(decoded(&NSEC.replace("nsec1", "npub1").into_bytes()), None);
        assert_eq!(decoded(HEX.replace('6', "g").as_bytes()), None);
        assert_eq!(decoded(b""), None);
    }
}
