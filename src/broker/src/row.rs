//! The journal's rows: what happens to the [`Ledger`](crate::ledger::Ledger), one line of text each.
//!
//! A line is the first eight hex digits of SHA-256 of its JSON, a space, the JSON, a newline. Only hashes of tokens are
//! in it. Sockets and accounts are numbers of the [`Open`] row before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::budgets::{Budgets, Class};
use crate::clock::Now;
use crate::day::Day;
use crate::ledger::{Latch, Meters};
use crate::limits::Meter;
use crate::principal::{Principal, User};
use crate::reply::hex;
use crate::session::{Terms, TokenHash};

/// Digits of the checksum.
const SUM: usize = 8;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// A broker begins to write.
    Open(Open),
    /// What the clocks say, where they have been set since the last row.
    Clock(Now),
    /// A session begins.
    Start(Terms),
    /// A slot is taken for a signature: before the gate is asked for it.
    Sign(Use),
    /// That slot is given back, since no signature came of it.
    Free(Use),
    /// Something is counted in a budget of a principal's.
    Spend(Spending),
    /// It came to nothing, and is not.
    Return(Spending),
    /// Something is counted in a rule's budget of a day: before the gate is asked for it.
    Draw(Drawing),
    /// It came to nothing, and is not.
    Undraw(Drawing),
    /// A principal tried a canary kind, and is held.
    Hold(Principal),
    /// A principal has used a session, if not to sign: it is that one's if it was nobody's.
    Bind(Binding),
    /// The operator lets all go that are held.
    Release,
    /// A session has ended before its time.
    End(TokenHash),
    /// A snapshot's: a session as it is.
    Session(OfSession),
    /// A snapshot's: a principal as it is.
    Principal(OfPrincipal),
    /// A snapshot's: a uid on a socket.
    User(OfUser),
    /// A snapshot's: a socket's total.
    Total(OfTotal),
    /// A snapshot's: what was used of a rule's budget.
    Day(OfDay),
}

/// Whose numbers the rows after it use, and in which boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Version of the format: 1.
    pub version: u32,
    /// The boot's random id (proc_sys_kernel(5)).
    pub boot: String,
    /// The clocks.
    pub now: Now,
    /// Paths of the sockets, by number.
    pub sockets: Vec<String>,
    /// Names and public keys of the accounts, by number.
    pub accounts: Vec<(String, String)>,
}

/// A slot in the windows of a principal, and of a session if one was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Who signs.
    pub who: Principal,
    /// With which session.
    pub session: Option<TokenHash>,
    /// When.
    pub at: Now,
}

/// Whose a session becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Which.
    pub session: TokenHash,
    /// Whose.
    pub who: Principal,
}

/// One of a class, in a principal's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// Whose.
    pub who: Principal,
    /// Of which class.
    pub class: Class,
    /// When.
    pub at: Now,
}

/// One of a kind, in the budget of a socket's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawing {
    /// The socket's number.
    pub socket: u16,
    /// The event's kind.
    pub kind: u16,
    /// Of so many millisatoshis.
    pub msats: u64,
    /// When.
    pub at: Now,
    /// The session whose rule it is; none: the socket's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<TokenHash>,
}

/// A session, the signatures made with it, their times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfSession {
    /// What it was granted.
    pub terms: Terms,
    /// Signatures made.
    pub signs: u64,
    /// Those of the last hour.
    pub meter: Meter,
    /// What was used of its rules' budgets, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub days: BTreeMap<u16, Day>,
}

/// A principal's windows and latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfPrincipal {
    /// Who.
    pub who: Principal,
    /// Its windows.
    pub meters: Meters,
    /// What its first session allows it.
    pub latch: Option<Latch>,
}

/// What a uid's principals have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfUser {
    /// Socket and uid.
    pub user: User,
    /// Sessions started.
    pub starts: Meter,
    /// What was used in earlier boots.
    pub inherited: Meters,
}

/// A socket's windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfTotal {
    /// Its number.
    pub socket: u16,
    /// Signatures of the last hour.
    pub meter: Meter,
    /// Encryption and direct messages.
    #[serde(default)]
    pub budgets: Budgets,
}

/// What was used of a rule's budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfDay {
    /// The socket's number.
    pub socket: u16,
    /// The rule's kind.
    pub kind: u16,
    /// Signatures and millisatoshis of the last day.
    pub day: Day,
}

impl Row {
    /// The line, newline included.
    pub fn line(&self) -> String {
        let mut line = Vec::new();
        self.write(&mut line);
        String::from_utf8(line).unwrap_or_default()
    }

    /// Appends the line, newline included.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[b' '; SUM + 1]);
        let json = out.len();
        // Strings, numbers and lists of them: nothing that JSON could refuse.
        if serde_json::to_writer(&mut *out, self).is_err() {
            return out.truncate(start);
        }
        let sum = sum(&out[json..]);
        out[start..start + SUM].copy_from_slice(sum.as_bytes());
        out.push(b'\n');
    }

    /// The row of a line without its newline; `None` if it is not whole.
    pub fn parse(line: &[u8]) -> Option<Row> {
        let (digits, rest) = line.split_at_checked(SUM)?;
        let json = rest.strip_prefix(b" ")?;
        if digits != sum(json).as_bytes() {
            return None;
        }
        serde_json::from_slice(json).ok()
    }

    /// The sockets and accounts that the row names, to be renumbered; `false` from either function: the row is about
    /// what there is no more.
    pub fn renumber(&mut self, socket: impl Fn(&mut u16) -> bool, account: impl Fn(&mut usize) -> bool) -> bool {
        let terms = |terms: &mut Terms| {
            socket(&mut terms.starter.socket)
                && terms.owner.as_mut().is_none_or(|owner| socket(&mut owner.socket))
                && account(&mut terms.account)
        };
        match self {
            Row::Open(_) | Row::Clock(_) | Row::End(_) | Row::Release => true,
            Row::Hold(who) => socket(&mut who.socket),
            Row::Bind(binding) => socket(&mut binding.who.socket),
            Row::Start(start) => terms(start),
            Row::Session(session) => terms(&mut session.terms),
            Row::Sign(slot) | Row::Free(slot) => socket(&mut slot.who.socket),
            Row::Spend(spent) | Row::Return(spent) => socket(&mut spent.who.socket),
            Row::Principal(of) => {
                // A latch to an account that is gone allows nothing; it must not become none.
                if let Some(latch) = &mut of.latch
                    && !account(&mut latch.account)
                {
                    latch.scope.clear();
                }
                socket(&mut of.who.socket)
            }
            Row::User(of) => socket(&mut of.user.0),
            Row::Total(of) => socket(&mut of.socket),
            Row::Draw(drawing) | Row::Undraw(drawing) => socket(&mut drawing.socket),
            Row::Day(of) => socket(&mut of.socket),
        }
    }
}

fn sum(json: &[u8]) -> String {
    hex(&Sha256::digest(json)[..SUM / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_readable_and_every_changed_byte_shows() {
        let at = Now { boot: 5, wall: 9 };
        let who = Principal { socket: 0, uid: 1000, cgroup: Some(77) };
        let row = Row::Sign(Use { who, session: Some(TokenHash::of("abc")), at });
        let line = row.line();
        assert!(line.contains(r#" {"sign":{"who":[0,1000,77],"session":"ba7816bf"#), "{line}");
        assert!(line.ends_with("\"at\":[5,9]}}\n"), "{line}");
        let whole = line.trim_end().as_bytes();
        assert_eq!(Row::parse(whole), Some(row));
        for i in 0..whole.len() {
            let mut altered = whole.to_vec();
            altered[i] ^= 1;
            assert_eq!(Row::parse(&altered), None, "byte {i}");
            assert_eq!(Row::parse(&whole[..i]), None, "{i} bytes");
        }
    }
}
