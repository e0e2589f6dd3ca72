//! The prefix check: `[0,"<own public key>",<created_at>,<kind>,[` byte by byte, as NIP-01 serialises an event.
//!
//! A machine with one state per field. Whatever else the bytes hold, an id leaves the gate only for an event of
//! this key whose kind and time these bytes name, the same bytes that are hashed.

/// What the prefix names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Seconds since 1970, 1 to 2³²−1.
    pub created_at: u32,
    /// The kind, 0 to 65535.
    pub kind: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before byte n of `[0,"<key>",`.
    Key(usize),
    /// In created_at: what its digits so far name, `None` before the first.
    CreatedAt(Option<u32>),
    /// In the kind, likewise.
    Kind(u32, Option<u16>),
    /// Before the bracket that opens the tags.
    Tags(Fields),
    /// The prefix is whole; the rest is free.
    Whole(Fields),
    /// Not an event of this key.
    Malformed,
}

/// The machine, fed as the bytes come.
pub struct Prefix<'a> {
    public_key: &'a str,
    state: State,
}

const OPEN: &[u8] = b"[0,\"";
const CLOSE: &[u8] = b"\",";

impl<'a> Prefix<'a> {
    /// `public_key`: 64 lower-case hex digits.
    pub fn new(public_key: &'a str) -> Prefix<'a> {
        Prefix { public_key, state: State::Key(0) }
    }

    /// The next bytes of the event.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if matches!(self.state, State::Whole(_) | State::Malformed) {
                return; // for good: most bytes of an event come after
            }
            self.state = self.after(byte).unwrap_or(State::Malformed);
        }
    }

    /// The state after one more byte; `None` where no event of this key goes on with it.
    fn after(&self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::Key(n), _) if byte != self.expected(n) => None,
            (State::Key(n), _) if n + 1 == self.length() => Some(State::CreatedAt(None)),
            (State::Key(n), _) => Some(State::Key(n + 1)),
            (State::CreatedAt(Some(created_at)), b',') if created_at > 0 => Some(State::Kind(created_at, None)),
            (State::CreatedAt(number), _) => with_digit(number, byte).map(|number| State::CreatedAt(Some(number))),
            (State::Kind(created_at, Some(kind)), b',') => Some(State::Tags(Fields { created_at, kind })),
            (State::Kind(created_at, number), _) => {
                let number = with_digit(number.map(u32::from), byte)?;
                u16::try_from(number).ok().map(|number| State::Kind(created_at, Some(number)))
            }
            (State::Tags(fields), b'[') => Some(State::Whole(fields)),
            (State::Tags(_), _) => None,
            (state @ (State::Whole(_) | State::Malformed), _) => Some(state),
        }
    }

    /// What the prefix names, once it is whole and well formed.
    pub fn fields(&self) -> Option<Fields> {
        if let State::Whole(fields) = self.state { Some(fields) } else { None }
    }

    fn length(&self) -> usize {
        OPEN.len() + self.public_key.len() + CLOSE.len()
    }

    fn expected(&self, n: usize) -> u8 {
        let key = self.public_key.as_bytes();
        match n.checked_sub(OPEN.len()) {
            None => OPEN[n],
            Some(n) if n < key.len() => key[n],
            Some(n) => CLOSE[n - key.len()],
        }
    }
}

/// A decimal number with one more digit. `None` for a byte that is no digit, after a leading zero, and beyond 2³²−1.
fn with_digit(number: Option<u32>, byte: u8) -> Option<u32> {
    let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
    match number {
        None => Some(digit),
        Some(0) => None,
        Some(number) => number.checked_mul(10)?.checked_add(digit),
    }
}

#[cfg(test)]
mod exhaustive;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

    fn check(event: &str) -> Option<Fields> {
        let mut whole = Prefix::new(KEY);
        whole.feed(event.as_bytes());
        let mut bytewise = Prefix::new(KEY);
        event.as_bytes().iter().for_each(|b| bytewise.feed(&[*b]));
        assert_eq!(whole.fields(), bytewise.fields(), "the cut of the bytes must not matter: {event}");
        whole.fields()
    }

    fn with(numbers: &str) -> Option<Fields> {
        check(&format!("[0,\"{KEY}\",{numbers}[],\"hello\"]"))
    }

    #[test]
    fn an_event_of_this_key_is_read() {
        assert_eq!(with("1700000000,1,"), Some(Fields { created_at: 1_700_000_000, kind: 1 }));
        assert_eq!(with("1,0,"), Some(Fields { created_at: 1, kind: 0 }));
        assert_eq!(with("4294967295,65535,"), Some(Fields { created_at: u32::MAX, kind: u16::MAX }));
    }

    #[test]
    fn numbers_that_are_not_canonical_are_malformed() {
        for numbers in [
            "0,1,",
            "01,1,",
            "1,01,",
            "1,00,",
            "-1,1,",
            "1,-1,",
            "+1,1,",
            "1,+1,",
            " 1,1,",
            "1 ,1,",
            "1, 1,",
            "1,1 ,",
            "4294967296,1,",
            "10000000000,1,",
            "1,65536,",
            "1,99999999999999999999,",
            "1e3,1,",
            "1,1e3,",
            "1.0,1,",
            "1,1.0,",
            ",1,",
            "1,,",
            "\"1\",1,",
            "1,\"1\",",
            "1,1",
            "1,1,,",
            "1,0x1,",
            "18446744073709551617,1,",
        ] {
            assert_eq!(with(numbers), None, "{numbers}");
        }
    }

    #[test]
    fn every_shorter_or_altered_prefix_is_malformed() {
        let event = format!("[0,\"{KEY}\",1700000000,1,[],\"\"]");
        let whole = event.find(",[").expect("tags") + 2;
        for end in 0..whole {
            assert_eq!(check(&event[..end]), None);
        }
        let mut accepted = Vec::new();
        for at in 0..whole {
            for byte in 0..128u8 {
                let mut altered = event.clone().into_bytes();
                altered[at] = byte;
                let altered = String::from_utf8(altered).expect("ASCII");
                if altered != event && check(&altered).is_some() {
                    accepted.push(at);
                    assert!(byte.is_ascii_digit() || byte == b',', "{altered}");
                }
            }
        }
        // Only a digit of the two numbers can be another one.
        assert!(accepted.iter().all(|at| (70..whole).contains(at)), "{accepted:?}");
    }
}
