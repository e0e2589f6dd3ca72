//! How long a run of bytes goes on: most of what agents send is text, of which nothing has to be looked at twice.

/// Bytes looked at together.
const BLOCK: usize = 32;
/// And before that one by one.
const SHORT: usize = 8;

/// The index of the first byte that `ends` the run, or the length of all. `ends` must be a comparison or a few: a block of them becomes
/// vector instructions.
pub fn run(bytes: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    // Short runs are not worth a block, and somebody may send nothing else.
    let (first, more) = bytes.split_at(bytes.len().min(SHORT));
    if let Some(at) = first.iter().position(|byte| ends(*byte)) {
        return at;
    }
    let passes = |block: &[u8; BLOCK]| !block.iter().fold(false, |any, byte| any | ends(*byte));
    let (blocks, _) = more.as_chunks();
    let whole = BLOCK * blocks.iter().take_while(|block| passes(block)).count();
    let rest = &more[whole..];
    first.len() + whole + rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_ends_it_is_found_wherever_it_is() {
        for length in 0..100 {
            let mut bytes = vec![b'x'; length];
            assert_eq!(run(&bytes, |b| b == b'"'), length);
            for at in (0..length).rev() {
                bytes[at] = b'"';
                assert_eq!(run(&bytes, |b| b == b'"'), at, "of {length}");
            }
        }
    }
}
