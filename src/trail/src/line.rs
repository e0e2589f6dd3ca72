//! A line of the decision log and its link to the one before.
//!
//! A line is one JSON object whose last member is `chain`: SHA-256, as 64 hex digits, over the 64 digits of the line before (zeros before the
//! first) and then the line's own bytes as far as `,"chain":"`. So each line can be checked with the one above it, and an altered line is
//! told from one whose neighbour is gone.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::push_hex;

/// What stands between a line's content and its link.
const LINK: &str = ",\"chain\":\"";
/// What stands after it.
const END: &str = "\"}";
/// Digits of a link.
const DIGITS: usize = 64;
/// The longest line in bytes, newline included; longer ones are nobody's.
pub const LONGEST: usize = 1 << 20;

/// No number of a line, file, row or millisecond is greater: what a broker that was taken over has written beyond is no line, and
/// nobody who counts on from there overflows.
pub const MOST: u64 = 1 << 62;

/// The number after this one. After the greatest, which only a lie reaches, it begins again.
pub fn after(n: u64) -> u64 {
    if n >= MOST { 1 } else { n + 1 }
}

/// The link before the first line.
pub fn origin() -> String {
    "0".repeat(DIGITS)
}

/// A line's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number since the log began: 1, 2, …
    pub n: u64,
    /// Milliseconds since 1970 (CLOCK_REALTIME), which may step.
    pub ms: u64,
    /// Milliseconds since the boot (CLOCK_BOOTTIME), which only goes on.
    pub boot_ms: u64,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The end of a chain: what the next line continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last line; 0 before the first.
    pub n: u64,
    /// Its link.
    pub chain: String,
}

impl Head {
    /// Before the first line.
    pub fn origin() -> Head {
        Head { n: 0, chain: origin() }
    }

    /// Appends the next line, newline included: content with the number after this one's, a JSON object ([`hot`](crate::hot)).
    pub fn write(&mut self, out: &mut Vec<u8>, content: &impl Serialize) {
        self.n = after(self.n);
        let start = out.len();
        // As below.
        if serde_json::to_writer(&mut *out, content).is_err() {
            return out.truncate(start);
        }
        out.pop();
        relink(&mut self.chain, &out[start..]);
        [LINK, &self.chain, END, "\n"].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    }

    /// The next line, newline included.
    pub fn next(&mut self, ms: u64, boot_ms: u64, entry: Entry) -> String {
        self.n = after(self.n);
        // Strings, numbers and lists of them: nothing that JSON could refuse.
        let mut text = serde_json::to_string(&Line { n: self.n, ms, boot_ms, entry }).unwrap_or_default();
        text.pop();
        relink(&mut self.chain, text.as_bytes());
        text.extend([LINK, &self.chain, END, "\n"]);
        text
    }
}

/// A line that has been read, newline taken off.
#[derive(Clone, Debug)]
pub struct Read<'a> {
    /// Its content.
    pub line: Line,
    /// The link that it states.
    pub chain: &'a str,
    body: &'a [u8],
}

impl<'a> Read<'a> {
    /// `None` for what is no line of the log.
    pub fn parse(text: &'a [u8]) -> Option<Read<'a>> {
        let body = text.len().checked_sub(LINK.len() + DIGITS + END.len())?;
        let (body, rest) = text.split_at(body);
        let chain = std::str::from_utf8(rest.strip_prefix(LINK.as_bytes())?.strip_suffix(END.as_bytes())?).ok()?;
        let digits = chain.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits {
            return None;
        }
        let line: Line = serde_json::from_slice(text).ok()?;
        let sane = line.n <= MOST && line.ms <= MOST && line.boot_ms <= MOST && line.entry.numbers().all(|n| n <= MOST);
        sane.then_some(Read { line, chain, body })
    }

    /// Whether it is what was written after the line with this link.
    pub fn continues(&self, before: &str) -> bool {
        let mut chain = before.to_owned();
        relink(&mut chain, self.body);
        chain == self.chain
    }

    /// The end of the chain with this line.
    pub fn head(&self) -> Head {
        Head { n: self.line.n, chain: self.chain.to_owned() }
    }
}

/// The link of a line with this body takes the place of that of the line before.
fn relink(chain: &mut String, body: &[u8]) {
    let link = Sha256::new().chain_update(&*chain).chain_update(body).finalize();
    chain.clear();
    push_hex(chain, &link);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Asked, Intent, Outcome};

    fn intent() -> Entry {
        let asked = Asked {
            method: "sign_event".into(),
            socket: "/run/a.sock".into(),
            uid: Some(1000),
            cgroup: None,
            session: Some("0123456789ab".into()),
        };
        let (account, record) = ("default".into(), "default".into());
        Entry::Intent(Intent { asked, account, record, kind: 1, created_at: 5, id: "ab".repeat(32) })
    }

    #[test]
    fn each_line_continues_the_one_before_and_no_other() {
        let mut head = Head::origin();
        let first = head.next(7, 3, intent());
        let after_first = head.clone();
        let second = head.next(8, 4, Entry::Outcome(Outcome::new(1, "default", Some(1))));
        assert!(first.starts_with(r#"{"n":1,"ms":7,"boot_ms":3,"is":"intent","method":"sign_event","socket":"/run/a.sock","uid":1000,"session":"0123456789ab","account":"default","#), "{first}");
        assert!(
            second.contains(r#""is":"outcome","intent":1,"record":"default","status":1,"verdict":"refused","rule":"ceiling","chain":""#),
            "{second}"
        );
        let [a, b] = [&first, &second].map(|line| Read::parse(line.trim_end().as_bytes()).expect("a line"));
        assert_eq!((a.line.entry.clone(), a.head()), (intent(), after_first));
        assert!(a.continues(&origin()) && b.continues(a.chain));
        assert!(!b.continues(&origin()) && !a.continues(b.chain));
    }

    #[test]
    fn every_changed_byte_shows() {
        let line = Head::origin().next(7, 3, intent());
        let whole = line.trim_end().as_bytes();
        for i in 0..whole.len() {
            for bit in [1, 32] {
                let mut altered = whole.to_vec();
                altered[i] ^= bit;
                assert!(Read::parse(&altered).is_none_or(|read| !read.continues(&origin())), "byte {i}");
            }
            assert!(Read::parse(&whole[..i]).is_none(), "{i} bytes");
        }
    }
}
