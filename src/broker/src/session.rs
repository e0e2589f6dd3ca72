//! Sessions: what a token stands for, for whom and how long.
//!
//! Only SHA-256 of a token is kept, so that no memory, log or file of the broker can be presented as a token. A session
//! belongs to one socket; it ends at its TTL, on either clock, when it is revoked, when its principal has too many, or
//! with the session it was narrowed from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nsecd_policy::rules::Rule;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Now;
use crate::day::Day;
use crate::limits::Meter;
use crate::principal::{Principal, User};
use crate::reply::hex;
use crate::table::Table;

/// How long an ended session is remembered, so that its next use is told `Session expired`. Milliseconds.
const REMEMBERED: u64 = 3_600_000;

/// SHA-256 of a token's text. The journal writes it as hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of any text that a client presents.
    pub fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token).into())
    }

    /// All 64 digits.
    pub fn digits(&self) -> String {
        hex(&self.0)
    }

    /// The first 12 digits, as log lines show it.
    pub fn label(&self) -> String {
        hex(&self.0[..6])
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> String {
        hex(&hash.0)
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<TokenHash, &'static str> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("64 hex digits expected");
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(TokenHash(hash))
    }
}

/// What a session was granted, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// SHA-256 of its token.
    pub token: TokenHash,
    /// Who started it.
    pub starter: Principal,
    /// Who owns it; `None` until the first signature under `bind = "first_use"`.
    pub owner: Option<Principal>,
    /// Index of its account in the policy.
    pub account: usize,
    /// Kinds it may sign, in the order asked for.
    pub scope: Vec<u16>,
    /// When it was started.
    pub started: Now,
    /// When it ends: whichever clock gets there first.
    pub ends: Now,
    /// The session it narrows.
    pub parent: Option<TokenHash>,
    /// The operator's session that it is, or was narrowed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Issued>,
    /// What its events must keep to beside its socket's rules, at most one for a kind. Of one that the operator issued; those
    /// narrowed from it keep to the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Where a session of the operator's comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The operator's uid.
    pub by: u32,
    /// The session that was issued, whose rules hold and whose budgets are used.
    pub first: TokenHash,
}

impl Terms {
    /// Whether either clock has reached the end.
    pub fn has_expired(&self, now: Now) -> bool {
        now.boot >= self.ends.boot || now.wall >= self.ends.wall
    }

    /// Milliseconds left on the clock that gets there first.
    pub fn left(&self, now: Now) -> u64 {
        self.ends.boot.saturating_sub(now.boot).min(self.ends.wall.saturating_sub(now.wall))
    }

    /// Whether this principal may know of it.
    pub fn is_known_to(&self, who: Principal) -> bool {
        self.starter == who || self.owner == Some(who)
    }
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// What it was granted.
    pub terms: Terms,
    /// Signatures made, or under way.
    pub sign_count: u64,
    /// Its windows.
    pub meter: Meter,
    /// What was used of its rules' budgets, by kind.
    pub days: BTreeMap<u16, Day>,
    children: Vec<TokenHash>,
    used: u64,
}

/// Why a token is not good for what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No session has this token on this socket.
    Unknown,
    /// Another principal owns it.
    Foreign,
    /// It had ended; it is unknown from now on.
    Expired,
}

/// All sessions of all sockets.
#[derive(Default)]
pub struct Sessions {
    all: HashMap<TokenHash, Session>,
    /// Per starter, by last use: the first is the least recently used.
    by_use: Table<Principal, BTreeMap<u64, TokenHash>>,
    by_end: BTreeSet<(u64, TokenHash)>,
    by_user: Table<User, usize>,
    uses: u64,
}

impl Sessions {
    /// The session that `who` may use with this token. Does not bind it.
    pub fn find(&self, hash: &TokenHash, who: Principal) -> Result<&Session, Denial> {
        let session = self.on_socket(hash, who.socket).ok_or(Denial::Unknown)?;
        match session.terms.owner {
            Some(owner) if owner != who => Err(Denial::Foreign),
            _ => Ok(session),
        }
    }

    /// The session whatever its owner, of this socket.
    pub fn on_socket(&self, hash: &TokenHash, socket: u16) -> Option<&Session> {
        self.all.get(hash).filter(|s| s.terms.starter.socket == socket)
    }

    /// The session with this hash.
    pub fn get(&self, hash: &TokenHash) -> Option<&Session> {
        self.all.get(hash)
    }

    /// The session, for counting.
    pub fn get_mut(&mut self, hash: &TokenHash) -> Option<&mut Session> {
        self.all.get_mut(hash)
    }

    /// Those of this starter, the least recently used first.
    pub fn of_starter(&self, who: Principal) -> impl Iterator<Item = TokenHash> + '_ {
        self.by_use.get(&who).into_iter().flat_map(|order| order.values().copied())
    }

    /// Each with its hash, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&TokenHash, &Session)> {
        self.all.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All of them, the least recently used first.
    pub fn by_last_use(&self) -> Vec<TokenHash> {
        let mut all: Vec<(u64, TokenHash)> = self.all.iter().map(|(hash, s)| (s.used, *hash)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, hash)| hash).collect()
    }

    /// Notes a use.
    pub fn touch(&mut self, hash: &TokenHash) {
        let Some(session) = self.all.get_mut(hash) else { return };
        self.uses += 1;
        if let Some(order) = self.by_use.get_mut(&session.terms.starter) {
            order.remove(&session.used);
            order.insert(self.uses, *hash);
        }
        session.used = self.uses;
    }

    /// Sessions of a principal that count towards `live_sessions`.
    pub fn started_by(&self, who: Principal) -> usize {
        self.by_use.get(&who).map_or(0, BTreeMap::len)
    }

    /// Sessions of a uid on a socket, in whatever cgroups.
    pub fn of_user(&self, user: User) -> usize {
        self.by_user.get(&user).copied().unwrap_or_default()
    }

    /// Takes kinds and time from a session.
    pub fn narrow(&mut self, hash: &TokenHash, scope: Vec<u16>, ends: Now) {
        let Some(session) = self.all.get_mut(hash) else { return };
        self.by_end.remove(&(session.terms.ends.boot, *hash));
        (session.terms.scope, session.terms.ends) = (scope, ends);
        self.by_end.insert((ends.boot, *hash));
    }

    /// Which sessions have to end for one more of this principal's: ended ones first, then the least recently used.
    /// `keep` and those it was narrowed from stay; `None` if there is no room to make.
    pub fn giving_way(
        &self,
        who: Principal,
        most: usize,
        keep: Option<&TokenHash>,
        now: Now,
    ) -> Option<Vec<TokenHash>> {
        let most = most.max(1);
        let Some(order) = self.by_use.get(&who).filter(|order| order.len() >= most) else { return Some(Vec::new()) };
        let ancestors = std::iter::successors(keep.copied(), |hash| self.all.get(hash).and_then(|s| s.terms.parent));
        let kept: BTreeSet<TokenHash> = ancestors.collect();
        let live = |hash: &TokenHash| self.all.get(hash).is_some_and(|s| !s.terms.has_expired(now));
        let mut candidates: Vec<TokenHash> = order.values().filter(|hash| !kept.contains(hash)).copied().collect();
        candidates.sort_by_key(live);
        let (mut named, mut ending) = (Vec::new(), BTreeSet::new());
        for hash in candidates {
            if order.len() - ending.len() < most {
                break;
            }
            if !ending.contains(&hash) {
                named.push(hash);
                let own = |hash: &TokenHash| self.all.get(hash).is_some_and(|s| s.terms.starter == who);
                ending.extend(self.family(&hash).into_iter().filter(own));
            }
        }
        (order.len() - ending.len() < most).then_some(named)
    }

    /// Files a session.
    pub fn insert(&mut self, terms: Terms, sign_count: u64, meter: Meter) -> &Session {
        let hash = terms.token;
        self.remove(&hash);
        self.uses += 1;
        if let Some(parent) = terms.parent.and_then(|p| self.all.get_mut(&p)) {
            parent.children.push(hash);
        }
        self.by_use.entry(terms.starter).or_default().insert(self.uses, hash);
        self.by_end.insert((terms.ends.boot, hash));
        *self.by_user.entry(terms.starter.user()).or_default() += 1;
        let session =
            Session { terms, sign_count, meter, days: BTreeMap::new(), children: Vec::new(), used: self.uses };
        self.all.entry(hash).insert_entry(session).into_mut()
    }

    /// A session and all that were narrowed from it, if there is one.
    pub fn family(&self, hash: &TokenHash) -> Vec<TokenHash> {
        let mut family = Vec::new();
        // A list, not recursion: clients choose how long a chain of narrower sessions is.
        let mut next = vec![*hash];
        while let Some((hash, session)) = next.pop().and_then(|hash| self.all.get_key_value(&hash)) {
            next.extend(&session.children);
            family.push(*hash);
        }
        family
    }

    /// Ends this one session; false if there is none.
    pub fn remove(&mut self, hash: &TokenHash) -> bool {
        let Some(Session { terms, used, .. }) = self.all.remove(hash) else { return false };
        self.by_end.remove(&(terms.ends.boot, *hash));
        if let Some(count) = self.by_user.get_mut(&terms.starter.user()) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(&terms.starter.user());
            }
        }
        if let Some(parent) = terms.parent.and_then(|p| self.all.get_mut(&p)) {
            parent.children.retain(|child| child != hash);
        }
        if let Some(order) = self.by_use.get_mut(&terms.starter) {
            order.remove(&used);
            if order.is_empty() {
                self.by_use.remove(&terms.starter);
            }
        }
        true
    }

    /// Tells parents of their children, and ends sessions whose parent is gone: to be called when sessions were filed in
    /// another order than they were started in.
    pub fn relink(&mut self) {
        self.all.values_mut().for_each(|s| s.children.clear());
        let links: Vec<_> = self.all.iter().filter_map(|(hash, s)| s.terms.parent.map(|p| (p, *hash))).collect();
        for (parent, child) in links {
            if let Some(parent) = self.all.get_mut(&parent) {
                parent.children.push(child);
            }
        }
        // What no chain of parents ties to a session without one: orphans, and what a forged journal has in a circle.
        let first = |(hash, s): (&TokenHash, &Session)| s.terms.parent.is_none().then_some(*hash);
        let mut tied: BTreeSet<TokenHash> = self.all.iter().filter_map(first).collect();
        let mut next: Vec<TokenHash> = tied.iter().copied().collect();
        while let Some(session) = next.pop().and_then(|hash| self.all.get(&hash)) {
            next.extend(session.children.iter().filter(|child| tied.insert(**child)));
        }
        for hash in self.all.keys().copied().filter(|hash| !tied.contains(hash)).collect::<Vec<_>>() {
            self.remove(&hash);
        }
    }

    /// Forgets sessions that ended long ago and were never asked for again.
    pub fn sweep(&mut self, now: Now) {
        while let Some(&(ends, hash)) = self.by_end.first() {
            if now.boot < ends.saturating_add(REMEMBERED) {
                break;
            }
            for hash in self.family(&hash) {
                self.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Principal = Principal { socket: 0, uid: 1, cgroup: None };
    const OTHER: Principal = Principal { socket: 0, uid: 2, cgroup: None };

    fn at(boot: u64, wall: u64) -> Now {
        Now { boot, wall }
    }

    fn start(sessions: &mut Sessions, seed: u8, parent: Option<TokenHash>) -> TokenHash {
        let token = TokenHash([seed; 32]);
        let (started, ends) = (at(0, 0), at(1000, 1000));
        let (issued, rules) = (None, Vec::new());
        let terms = Terms {
            token,
            starter: WHO,
            owner: None,
            account: 0,
            scope: vec![1],
            started,
            ends,
            parent,
            issued,
            rules,
        };
        sessions.insert(terms, 0, Meter::default());
        token
    }

    fn end(sessions: &mut Sessions, hash: &TokenHash) {
        for hash in sessions.family(hash) {
            assert!(sessions.remove(&hash));
        }
    }

    #[test]
    fn a_hash_is_64_digits_in_the_journal_and_12_in_logs() {
        let hash = TokenHash::of("abc");
        assert_eq!(hash.label(), "ba7816bf8f01");
        let json = serde_json::to_string(&hash).expect("JSON");
        assert_eq!(json.len(), 66);
        assert_eq!(serde_json::from_str::<TokenHash>(&json).expect("the same"), hash);
        for bad in ["", "ba78", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert!(TokenHash::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_belongs_to_its_socket_and_its_owner() {
        let mut sessions = Sessions::default();
        let hash = start(&mut sessions, 1, None);
        assert!(sessions.find(&hash, OTHER).is_ok(), "unbound");
        assert_eq!(sessions.find(&hash, Principal { socket: 1, uid: 1, cgroup: None }).err(), Some(Denial::Unknown));
        sessions.get_mut(&hash).expect("started").terms.owner = Some(OTHER);
        assert_eq!(sessions.find(&hash, WHO).err(), Some(Denial::Foreign));
    }

    #[test]
    fn either_clock_ends_a_session() {
        let mut sessions = Sessions::default();
        let hash = start(&mut sessions, 1, None);
        let terms = &sessions.get(&hash).expect("started").terms;
        assert!(!terms.has_expired(at(999, 999)) && terms.has_expired(at(1000, 0)) && terms.has_expired(at(0, 1000)));
        assert_eq!((terms.left(at(400, 0)), terms.left(at(0, 300))), (600, 700));
    }

    #[test]
    fn the_least_recently_used_session_gives_way_and_an_ended_one_before_it() {
        let mut sessions = Sessions::default();
        let [a, b, c] = [1, 2, 3].map(|seed| start(&mut sessions, seed, None));
        sessions.touch(&a);
        assert_eq!(sessions.giving_way(WHO, 3, None, at(2, 2)), Some(vec![b]));
        assert_eq!(sessions.giving_way(WHO, 2, None, at(2, 2)), Some(vec![b, c]));
        assert_eq!(sessions.giving_way(WHO, 4, None, at(2, 2)), Some(vec![]));
        assert_eq!(sessions.giving_way(OTHER, 1, None, at(2, 2)), Some(vec![]));
        sessions.get_mut(&c).expect("started").terms.ends = at(1, 1);
        assert_eq!(sessions.giving_way(WHO, 3, None, at(2, 2)), Some(vec![c]));
    }

    #[test]
    fn a_session_being_narrowed_never_gives_way_nor_what_it_came_from() {
        let mut sessions = Sessions::default();
        let a = start(&mut sessions, 1, None);
        let b = start(&mut sessions, 2, Some(a));
        assert_eq!(sessions.giving_way(WHO, 2, Some(&b), at(1, 1)), None);
        let c = start(&mut sessions, 3, None);
        assert_eq!(sessions.giving_way(WHO, 3, Some(&b), at(1, 1)), Some(vec![c]));
    }

    #[test]
    fn one_that_ends_with_another_is_not_asked_to_end_twice() {
        let mut sessions = Sessions::default();
        let a = start(&mut sessions, 1, None);
        start(&mut sessions, 2, Some(a));
        let c = start(&mut sessions, 3, None);
        assert_eq!(sessions.giving_way(WHO, 2, Some(&c), at(1, 1)), Some(vec![a]));
    }

    #[test]
    fn narrower_sessions_end_with_the_one_they_came_from() {
        let mut sessions = Sessions::default();
        let a = start(&mut sessions, 1, None);
        let b = start(&mut sessions, 2, Some(a));
        let c = start(&mut sessions, 3, Some(b));
        let d = start(&mut sessions, 4, None);
        end(&mut sessions, &a);
        for hash in [a, b, c] {
            assert!(sessions.find(&hash, WHO).is_err());
        }
        assert!(!sessions.remove(&b));
        assert_eq!((sessions.started_by(WHO), sessions.of_user(WHO.user())), (1, 1));
        end(&mut sessions, &d);
        assert!(sessions.by_use.is_empty() && sessions.by_end.is_empty() && sessions.all.is_empty());
        assert!(sessions.by_user.is_empty());
    }

    #[test]
    fn sessions_filed_in_any_order_are_linked_and_orphans_end() {
        let mut sessions = Sessions::default();
        let [a, missing] = [1, 9].map(|seed| TokenHash([seed; 32]));
        let b = start(&mut sessions, 2, Some(a));
        start(&mut sessions, 1, None);
        let orphan = start(&mut sessions, 3, Some(missing));
        let its_child = start(&mut sessions, 4, Some(orphan));
        let circle = start(&mut sessions, 5, Some(TokenHash([6; 32])));
        start(&mut sessions, 6, Some(circle));
        sessions.relink();
        assert!(sessions.get(&orphan).is_none() && sessions.get(&its_child).is_none());
        assert!(sessions.get(&circle).is_none());
        end(&mut sessions, &a);
        assert!(sessions.get(&b).is_none());
    }

    #[test]
    fn ended_sessions_are_forgotten_in_the_end() {
        let mut sessions = Sessions::default();
        let hash = start(&mut sessions, 1, None);
        sessions.sweep(at(1000 + REMEMBERED - 1, 0));
        assert!(sessions.find(&hash, WHO).is_ok());
        sessions.sweep(at(1000 + REMEMBERED, 0));
        assert_eq!(sessions.find(&hash, WHO).err(), Some(Denial::Unknown));
    }
}
