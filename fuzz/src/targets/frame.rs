//! Framing: what is a request depends on the bytes alone, not on how they were cut into writes, and is what a second
//! reading of docs/wire.md finds.
//!
//! Input: the limit less one (1 byte), the number of cuts (1), each cut's place in 255ths (1 each), the stream.

use nsecd_broker::frame::{Fault, Next};

use crate::subject;

type Replies = (Vec<Result<Vec<u8>, Fault>>, bool);

pub fn run(data: &[u8]) {
    let Some(([max, cuts], rest)) = data.split_first_chunk() else { return };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(cuts % 8)) else { return };
    let max = usize::from(*max) + 1;
    let expected = expected(stream, max);
    let mut places: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) * stream.len() / 255).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    let chunks = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
    assert_eq!(replies(chunks, max), expected, "cut at {places:?}");
    assert_eq!(replies([stream], max), expected, "whole");
    assert_eq!(replies(stream.chunks(1), max), expected, "byte by byte");
}

/// What the framer makes of chunks that come one by one, and whether the connection stays open.
fn replies<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Replies {
    let mut framer = subject::Framing::new(max);
    let (mut all, mut waiting, mut looked) = (Vec::new(), chunks.into_iter(), false);
    loop {
        let (reply, keep_open) = match framer.next(looked) {
            Next::More | Next::Look => {
                match waiting.next() {
                    Some(chunk) => framer.push(chunk),
                    None if looked => break,
                    None => looked = true,
                }
                continue;
            }
            Next::Request { text, keep_open } => (Ok(text.to_vec()), keep_open),
            Next::Broken { fault, keep_open } => (Err(fault), keep_open),
        };
        all.push(reply);
        if !keep_open {
            return (all, false);
        }
    }
    all.extend(framer.finish().map(Err));
    (all, true)
}

/// The same, from the whole stream and docs/wire.md.
fn expected(stream: &[u8], max: usize) -> Replies {
    let (mut all, mut rest) = (Vec::new(), stream);
    loop {
        let begin = rest.iter().position(|b| !b" \t\r\n".contains(b));
        rest = &rest[begin.unwrap_or(rest.len())..];
        let (reply, used) = match rest.first() {
            None => return (all, true),
            Some(b'{') => match object(&rest[..rest.len().min(max)]) {
                Some(Ok(length)) => (Ok(rest[..length].to_vec()), length),
                Some(Err(newline)) => (Err(Fault::Newline), newline),
                None if rest.len() > max => (Err(Fault::TooLarge), rest.len()),
                None => {
                    all.push(Err(Fault::Truncated));
                    return (all, true);
                }
            },
            Some(first) => (Err(Fault::NotAnObject(*first)), 0),
        };
        // After a value blanks may stand before the newline, after anything else whatever is left of its line.
        let after = &rest[used..];
        let newline = match reply {
            Ok(_) => after.iter().position(|b| !b" \t\r".contains(b)).filter(|at| after[*at] == b'\n'),
            Err(_) => after.iter().position(|b| *b == b'\n'),
        };
        all.push(reply);
        match newline {
            Some(at) => rest = &after[at + 1..],
            None => return (all, false),
        }
    }
}

/// Where the object ends that `text` begins with, or the place of a newline before that.
fn object(text: &[u8]) -> Option<Result<usize, usize>> {
    let (mut depth, mut bytes) = (0, text.iter().enumerate());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\n' => return Some(Err(at)),
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(Ok(at + 1)),
            b'}' => depth -= 1,
            b'"' => loop {
                match bytes.next()? {
                    (at, b'\n') => return Some(Err(at)),
                    (_, b'"') => break,
                    (_, b'\\') if bytes.clone().next()?.1 != &b'\n' => drop(bytes.next()),
                    _ => {}
                }
            },
            _ => {}
        }
    }
    None
}
