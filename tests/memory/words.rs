//! Any eight bytes of any of very many secrets, in every form in which a computation may have left them, and the search for them.
//!
//! Signing on an ordinary stack leaves single words behind, not whole numbers: one limb of e·d, and with the next one's another,
//! is enough to solve for the key. So a word is what is looked for.

/// Names and bytes of secrets, and all of their words.
pub struct Words {
    secrets: Vec<(String, Vec<u8>)>,
    /// Sorted.
    words: Vec<u64>,
    /// One bit for each word by its hash: most of a memory is left after one look.
    filter: Vec<u64>,
}

/// Bits of the filter, as a power of two.
const FILTER: u32 = 26;
/// A word below this is too common: a counter, a length, or the last, short limb of a number.
const COMMON: u64 = 1 << 40;

impl Words {
    /// Of these secrets, each under its name.
    pub fn of(secrets: Vec<(String, Vec<u8>)>) -> Words {
        let mut words: Vec<u64> = secrets.iter().flat_map(|(_, secret)| words(secret)).map(|(_, word)| word).collect();
        words.sort_unstable();
        words.dedup();
        let mut filter = vec![0; 1 << (FILTER - 6)];
        for word in &words {
            let bit = hash(*word);
            filter[bit >> 6] |= 1 << (bit & 63);
        }
        Words { secrets, words, filter }
    }

    /// What of them lies in `memory`, at any offset: secret and form, each once, at most a hundred.
    pub fn find(&self, memory: &[u8]) -> Vec<String> {
        let mut hits = Vec::new();
        let Some((first, rest)) = memory.split_first_chunk::<8>() else { return Vec::new() };
        let mut word = u64::from_le_bytes(*first);
        let mut look = |word: u64| {
            let bit = hash(word);
            if self.filter[bit >> 6] >> (bit & 63) & 1 == 1
                && hits.len() < 100
                && !hits.contains(&word)
                && self.words.binary_search(&word).is_ok()
            {
                hits.push(word);
            }
        };
        look(word);
        for byte in rest {
            word = word >> 8 | u64::from(*byte) << 56;
            if word >= COMMON {
                look(word);
            }
        }
        let mut found: Vec<String> = Vec::new();
        for (name, secret) in self.secrets.iter().filter(|_| !hits.is_empty()) {
            for (form, word) in words(secret) {
                let text = format!("{name}, {form}");
                if hits.contains(&word) && !found.contains(&text) {
                    found.push(text);
                }
            }
        }
        found
    }
}

fn hash(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER)) as usize
}

/// The words of a big-endian number or of other bytes: any eight in a row, as they are and reversed, and swapped in words of four; of
/// 32 bytes also the limbs in which libsecp256k1 computes, as a processor stores them: scalars of four times 64 bits (the same as
/// reversed) or eight times 32 (likewise), field elements of five times 52 or ten times 26, inverses of five times 62 or nine times 30.
pub fn words(secret: &[u8]) -> Vec<(&'static str, u64)> {
    let reversed: Vec<u8> = secret.iter().rev().copied().collect();
    let swapped: Vec<u8> = secret.chunks(4).flat_map(|chunk| chunk.iter().rev().copied()).collect();
    let mut all = Vec::with_capacity(128);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    for (form, bytes, step) in [("raw", secret, 1), ("reversed", &reversed, 1), ("4-byte limbs", &swapped, 4)] {
        all.extend(bytes.windows(8).step_by(step).map(|window| (form, word(window))));
    }
    if secret.len() == 32 {
        let of = |bits: usize| -> Vec<u64> { (0..256).step_by(bits).map(|at| limb(&reversed, at, bits)).collect() };
        for (form, bits) in [("5x52", 52), ("5x62", 62)] {
            all.extend(of(bits).into_iter().map(|limb| (form, limb)));
        }
        for (form, bits) in [("10x26", 26), ("9x30", 30)] {
            all.extend(of(bits).chunks_exact(2).map(|pair| (form, pair[0] | pair[1] << 32)));
        }
    }
    all.retain(|(_, word)| *word >= COMMON);
    all
}

/// So many bits from bit `at` of a little-endian number.
fn limb(number: &[u8], at: usize, bits: usize) -> u64 {
    let bit = |n: usize| u64::from(number.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1));
    (0..bits).fold(0, |limb, n| limb | bit(at + n) << n)
}

#[test]
fn limbs_are_those_of_the_number() {
    let mut number = [0; 32];
    number[..16].copy_from_slice(&0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_le_bytes());
    assert_eq!(limb(&number, 0, 52), 0x3_4567_89ab_cdef);
    assert_eq!(limb(&number, 52, 52), 0x6_789a_bcde_f012);
    assert_eq!(limb(&number, 26, 26), 0x3_4567_89ab_cdef >> 26 & 0x3ff_ffff);
    assert_eq!(limb(&number, 248, 62), 0);
}
