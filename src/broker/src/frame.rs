//! Cuts a connection's bytes into requests, looking at each byte once.
//!
//! A request is a JSON object; it is complete at its outer closing brace, or broken at a newline before that
//! (wire.md, Framing). This file finds the brace and nothing else: whether the text is JSON is [`json`](crate::json)'s
//! question. It must never look at a byte twice, and never hold more than one request over the limit.

use crate::run::run;

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first byte that is not blank is not `{`.
    NotAnObject(u8),
    /// A newline came before the outer closing brace.
    Newline,
    /// The client ended its side before the outer closing brace.
    Truncated,
    /// No outer closing brace within the size limit.
    TooLarge,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Nothing to answer yet.
    More,
    /// A request (or its refusal) stands, but a newline may be waiting in the socket: receive once more, without
    /// blocking, push what came, and call [`Framer::next`] with `looked`.
    Look,
    /// One complete value; `keep_open` if its newline was there.
    Request {
        /// From the outer opening to the outer closing brace.
        text: &'a [u8],
        /// Answer and go on, rather than answer and close.
        keep_open: bool,
    },
    /// One error to answer.
    Broken {
        /// What is wrong.
        fault: Fault,
        /// Answer and go on with the next line, rather than answer and close.
        keep_open: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests.
    Blank,
    /// In a value, this many braces deep.
    Value { depth: usize, string: bool, escaped: bool },
    /// Behind a complete value that ended before this index: is a newline next?
    After { end: usize },
    /// Behind a wrong first byte: is there a newline?
    Junk { first: u8 },
}

/// The bytes of one connection that have not been answered.
pub struct Framer {
    bytes: Vec<u8>,
    /// First byte of the request under way.
    start: usize,
    /// First byte not looked at.
    scan: usize,
    state: State,
    max: usize,
}

/// A buffer larger than this is given back once it is empty.
const KEEP: usize = 16 * 1024;

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

impl Framer {
    /// For requests of at most `max` bytes, counted from brace to brace.
    pub fn new(max: usize) -> Framer {
        Framer { bytes: Vec::new(), start: 0, scan: 0, state: State::Blank, max }
    }

    /// From now on requests of at most `max` bytes.
    pub fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// Appends bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            // Not drained: that would leave a copy of the end behind it.
            self.bytes.copy_within(self.start.., 0);
            let left = self.bytes.len() - self.start;
            self.bytes[left..].fill(0);
            self.bytes.truncate(left);
            self.scan -= self.start;
            if let State::After { end } = &mut self.state {
                *end -= self.start;
            }
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a value has begun and not ended: a deadline runs.
    pub fn is_partial(&self) -> bool {
        matches!(self.state, State::Value { .. })
    }

    /// Whether nothing is left that has not been answered or passed over.
    pub fn is_empty(&self) -> bool {
        self.scan >= self.bytes.len() && self.state == State::Blank
    }

    /// Bytes of memory held.
    pub fn weight(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next request or error. `looked`: the socket has just been found empty, so what is here decides.
    pub fn next(&mut self, looked: bool) -> Next<'_> {
        loop {
            match self.state {
                State::Blank => {
                    let Some(&first) = self.skip(|b| is_blank(b) || b == b'\n') else {
                        self.give_back();
                        return Next::More;
                    };
                    self.start = self.scan;
                    self.state = match first {
                        b'{' => State::Value { depth: 0, string: false, escaped: false },
                        first => State::Junk { first },
                    };
                }
                State::Value { .. } => match self.value() {
                    None => return Next::More,
                    Some(Ok(())) => self.state = State::After { end: self.scan },
                    Some(Err(fault)) => {
                        self.begin_anew();
                        return Next::Broken { fault, keep_open: fault == Fault::Newline };
                    }
                },
                State::After { end } => {
                    let keep_open = match self.skip(is_blank) {
                        Some(b'\n') => true,
                        None if !looked => return Next::Look,
                        _ => false,
                    };
                    let start = self.start;
                    self.begin_anew();
                    return Next::Request { text: &self.bytes[start..end], keep_open };
                }
                State::Junk { first } => {
                    let keep_open = match self.skip(|b| b != b'\n') {
                        Some(_) => true,
                        None if !looked => {
                            // Nothing of it is needed again, however much of it there is.
                            self.start = self.scan;
                            return Next::Look;
                        }
                        None => false,
                    };
                    self.begin_anew();
                    return Next::Broken { fault: Fault::NotAnObject(first), keep_open };
                }
            }
        }
    }

    /// What is left when the client has ended its side and [`Framer::next`] has nothing more.
    pub fn finish(&self) -> Option<Fault> {
        self.is_partial().then_some(Fault::Truncated)
    }

    /// Moves on while `pass` holds; the byte it stopped at, if there is one.
    fn skip(&mut self, pass: impl Fn(u8) -> bool) -> Option<&u8> {
        self.scan += run(&self.bytes[self.scan..], |b| !pass(b));
        self.bytes.get(self.scan)
    }

    /// Moves on to the end of the value; `None` while it is incomplete.
    fn value(&mut self) -> Option<Result<(), Fault>> {
        let State::Value { mut depth, mut string, mut escaped } = self.state else { return None };
        let limit = self.start.saturating_add(self.max).min(self.bytes.len());
        while self.scan < limit {
            if !escaped {
                // On to what may change anything.
                let rest = &self.bytes[self.scan..limit];
                self.scan += match string {
                    true => run(rest, |b| matches!(b, b'"' | b'\\' | b'\n')),
                    false => run(rest, |b| matches!(b, b'"' | b'{' | b'}' | b'\n')),
                };
                if self.scan == limit {
                    break;
                }
            }
            let byte = self.bytes[self.scan];
            self.scan += 1;
            match byte {
                // JSON has no raw newline inside a string either, so this needs no look at `string`.
                b'\n' => return Some(Err(Fault::Newline)),
                _ if escaped => escaped = false,
                b'\\' if string => escaped = true,
                b'"' => string = !string,
                b'{' if !string => depth += 1,
                b'}' if !string => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(Ok(()));
                    }
                }
                _ => {}
            }
        }
        self.state = State::Value { depth, string, escaped };
        (self.bytes.len() - self.start > self.max).then_some(Err(Fault::TooLarge))
    }

    fn begin_anew(&mut self) {
        self.state = State::Blank;
        self.start = self.scan;
    }

    fn give_back(&mut self) {
        self.start = 0;
        self.scan = 0;
        // What was asked for may have been somebody's text.
        self.bytes.fill(0);
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Replies as the server would give them: `true` for a request, with what happens to the connection.
    fn replies(chunks: &[&[u8]], max: usize) -> (Vec<Result<Vec<u8>, Fault>>, bool) {
        let mut framer = Framer::new(max);
        let mut all = Vec::new();
        let mut waiting = chunks.iter();
        let mut looked = false;
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
        if let Some(fault) = framer.finish() {
            all.push(Err(fault));
        }
        (all, true)
    }

    fn ok(text: &str) -> Result<Vec<u8>, Fault> {
        Ok(text.as_bytes().to_vec())
    }

    #[test]
    fn a_newline_keeps_the_connection_and_its_absence_ends_it() {
        assert_eq!(replies(&[b"{\"a\":\"}\\\"{\"}\n"], 100), (vec![ok("{\"a\":\"}\\\"{\"}")], true));
        assert_eq!(replies(&[b"  {} \r\n\n {}"], 100), (vec![ok("{}"), ok("{}")], false));
        assert_eq!(replies(&[b"{}{}\n"], 100), (vec![ok("{}")], false));
        assert_eq!(replies(&[b"{} // x\n"], 100), (vec![ok("{}")], false));
        assert_eq!(replies(&[b"\n \r\n"], 100), (vec![], true));
    }

    #[test]
    fn a_wrong_first_byte_is_refused_at_once_and_its_line_discarded() {
        assert_eq!(replies(&[b"hello\n{}\n"], 100), (vec![Err(Fault::NotAnObject(b'h')), ok("{}")], true));
        assert_eq!(replies(&[b"[{},{},{}"], 100), (vec![Err(Fault::NotAnObject(b'['))], false));
        let mut framer = Framer::new(100);
        framer.push(b"[");
        assert_eq!(framer.next(false), Next::Look);
    }

    #[test]
    fn a_newline_ends_an_incomplete_value_even_inside_a_string() {
        assert_eq!(
            replies(&[b"{\"a\":\"x\n{}\n{\n"], 100),
            (vec![Err(Fault::Newline), ok("{}"), Err(Fault::Newline)], true)
        );
        assert_eq!(replies(&[b"{\"a\":"], 100), (vec![Err(Fault::Truncated)], true));
    }

    #[test]
    fn a_request_may_have_exactly_the_limit_in_bytes() {
        assert_eq!(replies(&[b"   {\"abc\":1}\n"], 9), (vec![ok("{\"abc\":1}")], true));
        assert_eq!(replies(&[b"{\"abc\":12}\n"], 9), (vec![Err(Fault::TooLarge)], false));
        assert_eq!(replies(&[b"{\"abc\":12"], 9), (vec![Err(Fault::Truncated)], true));
    }

    #[test]
    fn junk_is_not_kept() {
        let mut framer = Framer::new(100);
        for _ in 0..1000 {
            framer.push(&[b'['; 10_000]);
            assert_eq!(framer.next(false), Next::Look);
        }
        assert!(framer.weight() <= 4 * 10_000);
    }

    #[test]
    fn an_answered_request_leaves_no_memory_behind() {
        let mut framer = Framer::new(1 << 20);
        framer.push(format!("{{\"a\":\"{}\"}}\n", "x".repeat(500_000)).as_bytes());
        assert!(matches!(framer.next(false), Next::Request { keep_open: true, .. }));
        assert_eq!(framer.next(false), Next::More);
        assert_eq!(framer.weight(), 0);
    }

    proptest! {
        /// wire.md: what is replied never depends on how the bytes were cut into writes.
        #[test]
        fn cuts_do_not_change_replies(
            text in proptest::collection::vec(prop::sample::select(b"{}[]\"\\ a1:,\n\r".to_vec()), 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
            newline: bool,
        ) {
            let mut value = b"{\"k\":[".to_vec();
            value.extend(serde_json::to_vec(&String::from_utf8_lossy(&text)).unwrap_or_default());
            value.extend(b"]}");
            if newline { value.push(b'\n') }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(value.len())).collect();
            cuts.extend([0, value.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &value[w[0]..w[1]]).collect();
            prop_assert_eq!(replies(&chunks, 1000), replies(&[&value], 1000));
        }

        /// The same for text that is no JSON at all, as long as lines come whole: no panic, no endless loop, and
        /// each line's verdict stands alone.
        #[test]
        fn any_bytes_end(text in proptest::collection::vec(any::<u8>(), 0..200), max in 1usize..50) {
            let (all, _) = replies(&[&text], max);
            prop_assert!(all.len() <= text.len() + 1);
        }
    }
}
