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

enum State {
    /// Before byte n of `[0,"<key>",`.
    Key(usize),
    /// In a number: its value, its digits so far, and the number before it.
    Number { value: u64, digits: u32, created_at: Option<u32> },
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
            self.state = match self.state {
                State::Whole(_) | State::Malformed => return,
                State::Key(n) if byte == self.expected(n) && n + 1 == self.length() => {
                    State::Number { value: 0, digits: 0, created_at: None }
                }
                State::Key(n) if byte == self.expected(n) => State::Key(n + 1),
                State::Number { value, digits, created_at } => number(byte, value, digits, created_at),
                State::Tags(fields) if byte == b'[' => State::Whole(fields),
                State::Key(_) | State::Tags(_) => State::Malformed,
            };
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

/// One byte of a decimal number without sign, blank or leading zero; the comma ends it.
fn number(byte: u8, value: u64, digits: u32, created_at: Option<u32>) -> State {
    match (byte, created_at) {
        // Ten digits at most: 2³²−1 has ten, and a u64 holds any ten.
        (b'0'..=b'9', _) if digits < 10 && !(digits > 0 && value == 0) => {
            State::Number { value: value * 10 + u64::from(byte - b'0'), digits: digits + 1, created_at }
        }
        (b',', None) => match u32::try_from(value) {
            Ok(created_at) if created_at > 0 => State::Number { value: 0, digits: 0, created_at: Some(created_at) },
            _ => State::Malformed,
        },
        (b',', Some(created_at)) if digits > 0 => match u16::try_from(value) {
            Ok(kind) => State::Tags(Fields { created_at, kind }),
            Err(_) => State::Malformed,
        },
        _ => State::Malformed,
    }
}

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
