//! The forms in which a private key may lie in memory, and the search for any of them.

use crate::support::event::{hex, unhex};
use std::collections::HashMap;

/// Every form of one key, whole and in halves: a residue need not be complete.
pub struct Forms {
    forms: Vec<(String, Vec<u8>)>,
    /// The first eight bytes of each half → index of the form, offset in it.
    heads: HashMap<[u8; 8], Vec<(usize, usize)>>,
}

const HALF: usize = 16;

impl Forms {
    /// Raw, reversed, swapped in limbs of 4 and 8 bytes, hex and NIP-19, of the key and of its negation.
    pub fn of(key: &str) -> Forms {
        let raw = unhex(key);
        let secret = secp256k1::SecretKey::from_secret_bytes(raw.clone().try_into().unwrap()).unwrap();
        let negated = secret.negate().to_secret_bytes().to_vec();
        let swapped = |key: &[u8], limb: usize| key.chunks(limb).flat_map(|c| c.iter().rev().copied()).collect();
        let mut forms = Vec::new();
        for (sign, key) in [("key", &raw), ("negated key", &negated)] {
            let mut add = |form: &str, bytes: Vec<u8>| forms.push((format!("{sign}, {form}"), bytes));
            add("raw", key.clone());
            add("reversed", swapped(key, 32));
            add("4-byte limbs", swapped(key, 4));
            add("8-byte limbs", swapped(key, 8));
            add("hex", hex(key).into());
            add("upper-case hex", hex(key).to_uppercase().into());
            add("nsec", nsec(key).into());
        }
        Forms::named(forms)
    }

    /// These bytes, each under its name, and each reversed and swapped in limbs; at least sixteen of each.
    pub fn raw(secrets: &[(&str, Vec<u8>)]) -> Forms {
        let swapped = |bytes: &[u8], limb: usize| bytes.chunks(limb).flat_map(|c| c.iter().rev().copied()).collect();
        let of = |(name, bytes): &(&str, Vec<u8>)| {
            [("raw", bytes.clone()), ("reversed", swapped(bytes, bytes.len())), ("4-byte limbs", swapped(bytes, 4))]
                .map(|(form, bytes)| (format!("{name}, {form}"), bytes))
        };
        Forms::named(secrets.iter().flat_map(of).collect())
    }

    fn named(forms: Vec<(String, Vec<u8>)>) -> Forms {
        let mut heads: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (_, bytes)) in forms.iter().enumerate() {
            for offset in (0..=bytes.len() - HALF).step_by(HALF) {
                heads.entry(bytes[offset..offset + 8].try_into().unwrap()).or_default().push((index, offset));
            }
        }
        Forms { forms, heads }
    }

    /// Name and bytes of each form.
    pub fn all(&self) -> &[(String, Vec<u8>)] {
        &self.forms
    }

    /// Names of the forms of which sixteen bytes in a row lie in `memory`.
    pub fn find(&self, memory: &[u8]) -> Vec<&str> {
        let first: Vec<bool> = (0..=255).map(|b| self.heads.keys().any(|head| head[0] == b)).collect();
        let mut found = Vec::new();
        for (at, window) in memory.windows(HALF).enumerate().filter(|(_, w)| first[usize::from(w[0])]) {
            let Some(forms) = self.heads.get(&window[..8]) else { continue };
            for (index, offset) in forms {
                let (name, bytes) = &self.forms[*index];
                if memory[at..at + HALF] == bytes[*offset..offset + HALF] && !found.contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        found
    }
}

/// NIP-19: bech32 (BIP-173) with the prefix `nsec`.
fn nsec(key: &[u8]) -> String {
    const CHARACTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let (mut bits, mut count, mut data) = (0u32, 0, Vec::new());
    for byte in key {
        (bits, count) = (bits << 8 | u32::from(*byte), count + 8);
        while count >= 5 {
            count -= 5;
            data.push((bits >> count & 31) as u8);
        }
    }
    data.push((bits << (5 - count) & 31) as u8);
    let prefix: Vec<u8> = "nsec".bytes().map(|b| b >> 5).chain([0]).chain("nsec".bytes().map(|b| b & 31)).collect();
    let checksum = polymod(prefix.into_iter().chain(data.iter().copied()).chain([0; 6])) ^ 1;
    data.extend((0..6).map(|i| (checksum >> (5 * (5 - i)) & 31) as u8));
    data.iter().fold("nsec1".into(), |text, d| text + &char::from(CHARACTERS[usize::from(*d)]).to_string())
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let next = (sum & 0x1ff_ffff) << 5 ^ u32::from(value);
        (0..5).filter(|i| sum >> 25 >> i & 1 == 1).fold(next, |s, i| s ^ GENERATOR[i])
    })
}

#[test]
fn the_nsec_form_is_nip_19s_own_example() {
    let key = unhex(crate::support::SCAN_KEY);
    assert_eq!(nsec(&key), "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5");
}
