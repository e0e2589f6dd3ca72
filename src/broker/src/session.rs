//! Sessions: what a token stands for, for whom and how long.
//!
//! Only SHA-256 of a token is kept, so that no memory, log or file of the broker can be presented as a token. A session
//! belongs to one socket; it ends at its TTL, on either clock, when it is revoked, when its principal has too many, or
//! with the session it was narrowed from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use crate::clock::Now;
use crate::limits::Meter;
use crate::principal::Principal;
use crate::reply::hex;

/// How long an ended session is remembered, so that its next use is told `Session expired`. Milliseconds.
const REMEMBERED: u64 = 3_600_000;

/// SHA-256 of a token's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of any text that a client presents.
    pub fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token).into())
    }

    /// The first 12 digits, as log lines show it.
    pub fn label(&self) -> String {
        hex(&self.0[..6])
    }
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
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
    /// Signatures made.
    pub sign_count: u64,
    /// Its windows.
    pub meter: Meter,
    parent: Option<TokenHash>,
    children: Vec<TokenHash>,
    used: u64,
}

impl Session {
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

/// What a new session is to be.
pub struct Terms {
    /// Who starts it.
    pub starter: Principal,
    /// Who owns it from the start, if anybody.
    pub owner: Option<Principal>,
    /// Index of the account.
    pub account: usize,
    /// Kinds.
    pub scope: Vec<u16>,
    /// Milliseconds.
    pub ttl: u64,
    /// The session it narrows.
    pub parent: Option<TokenHash>,
}

/// All sessions of all sockets.
#[derive(Default)]
pub struct Sessions {
    all: HashMap<TokenHash, Session>,
    /// Per starter, by last use: the first is the least recently used.
    by_use: HashMap<Principal, BTreeMap<u64, TokenHash>>,
    by_end: BTreeSet<(u64, TokenHash)>,
    /// Per socket and uid, whatever the cgroup: a uid may be able to make itself new cgroups.
    by_user: HashMap<(u16, u32), usize>,
    uses: u64,
}

impl Sessions {
    /// The session that `who` may use with this token. Does not bind it.
    pub fn find(&self, hash: &TokenHash, who: Principal) -> Result<&Session, Denial> {
        let session = self.all.get(hash).filter(|s| s.starter.socket == who.socket).ok_or(Denial::Unknown)?;
        match session.owner {
            Some(owner) if owner != who => Err(Denial::Foreign),
            _ => Ok(session),
        }
    }

    /// The session whatever its owner, of this socket.
    pub fn on_socket(&self, hash: &TokenHash, socket: u16) -> Option<&Session> {
        self.all.get(hash).filter(|s| s.starter.socket == socket)
    }

    /// Notes a use; ends the session if its time is over.
    pub fn touch(&mut self, hash: &TokenHash, now: Now) -> Result<&mut Session, Denial> {
        let session = self.all.get(hash).ok_or(Denial::Unknown)?;
        if session.has_expired(now) {
            self.end(hash);
            return Err(Denial::Expired);
        }
        let (starter, used) = (session.starter, session.used);
        self.uses += 1;
        if let Some(order) = self.by_use.get_mut(&starter) {
            order.remove(&used);
            order.insert(self.uses, *hash);
        }
        let session = self.all.get_mut(hash).ok_or(Denial::Unknown)?;
        session.used = self.uses;
        Ok(session)
    }

    /// The session, for counting.
    pub fn get_mut(&mut self, hash: &TokenHash) -> Option<&mut Session> {
        self.all.get_mut(hash)
    }

    /// Sessions of a principal that count towards `live_sessions`.
    pub fn started_by(&self, who: Principal) -> usize {
        self.by_use.get(&who).map_or(0, BTreeMap::len)
    }

    /// Sessions of a uid on a socket, in whatever cgroups.
    pub fn of_user(&self, who: Principal) -> usize {
        self.by_user.get(&(who.socket, who.uid)).copied().unwrap_or_default()
    }

    /// Makes room for one more of this principal's: an ended one goes first, else the least recently used. `keep` and
    /// those it was narrowed from stay. Returns what was ended; `None`, and nothing ended, if there is no room to make.
    pub fn make_room(
        &mut self,
        who: Principal,
        most: usize,
        keep: Option<&TokenHash>,
        now: Now,
    ) -> Option<Vec<TokenHash>> {
        let ancestors = std::iter::successors(keep.copied(), |hash| self.all.get(hash).and_then(|s| s.parent));
        let kept: BTreeSet<TokenHash> = ancestors.collect();
        let mut ended = Vec::new();
        while self.started_by(who) >= most.max(1) {
            let order = self.by_use.get(&who)?;
            let mut candidates = order.values().filter(|hash| !kept.contains(hash));
            let first = candidates.clone().next();
            let over = candidates.find(|hash| self.all.get(hash).is_none_or(|s| s.has_expired(now)));
            let hash = *over.or(first)?;
            self.end(&hash);
            ended.push(hash);
        }
        Some(ended)
    }

    /// Starts a session whose token is `random`; returns the token's text and the session.
    pub fn start(&mut self, terms: Terms, random: [u8; 32], now: Now) -> (String, &Session) {
        let token = hex(&random);
        let hash = TokenHash::of(&token);
        self.uses += 1;
        let ends = Now { boot: now.boot.saturating_add(terms.ttl), wall: now.wall.saturating_add(terms.ttl) };
        let Terms { starter, owner, account, scope, parent, .. } = terms;
        if let Some(parent) = parent.and_then(|p| self.all.get_mut(&p)) {
            parent.children.push(hash);
        }
        self.by_use.entry(starter).or_default().insert(self.uses, hash);
        self.by_end.insert((ends.boot, hash));
        *self.by_user.entry((starter.socket, starter.uid)).or_default() += 1;
        let session = Session {
            starter,
            owner,
            account,
            scope,
            started: now,
            ends,
            sign_count: 0,
            meter: Meter::default(),
            parent,
            children: Vec::new(),
            used: self.uses,
        };
        (token, self.all.entry(hash).insert_entry(session).into_mut())
    }

    /// Ends a session and those narrowed from it; `false` if there is none.
    pub fn end(&mut self, hash: &TokenHash) -> bool {
        let known = self.all.contains_key(hash);
        // A list, not recursion: clients choose how long a chain of narrower sessions is.
        let mut ending = vec![*hash];
        while let Some(hash) = ending.pop() {
            let Some(session) = self.all.remove(&hash) else { continue };
            ending.extend(session.children);
            self.by_end.remove(&(session.ends.boot, hash));
            let user = (session.starter.socket, session.starter.uid);
            if let Some(count) = self.by_user.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    self.by_user.remove(&user);
                }
            }
            if let Some(parent) = session.parent.and_then(|p| self.all.get_mut(&p)) {
                parent.children.retain(|child| *child != hash);
            }
            if let Some(order) = self.by_use.get_mut(&session.starter) {
                order.remove(&session.used);
                if order.is_empty() {
                    self.by_use.remove(&session.starter);
                }
            }
        }
        known
    }

    /// Forgets sessions that ended long ago and were never asked for again.
    pub fn sweep(&mut self, now: Now) {
        while let Some(&(ends, hash)) = self.by_end.first() {
            if now.boot < ends.saturating_add(REMEMBERED) {
                break;
            }
            self.end(&hash);
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

    fn terms(starter: Principal, parent: Option<TokenHash>) -> Terms {
        Terms { starter, owner: None, account: 0, scope: vec![1], ttl: 1000, parent }
    }

    fn start(sessions: &mut Sessions, seed: u8, parent: Option<TokenHash>) -> TokenHash {
        TokenHash::of(&sessions.start(terms(WHO, parent), [seed; 32], at(0, 0)).0)
    }

    #[test]
    fn a_token_is_64_digits_and_only_its_hash_is_kept() {
        let mut sessions = Sessions::default();
        let (token, _) = sessions.start(terms(WHO, None), [0xab; 32], at(0, 0));
        assert_eq!(token, "ab".repeat(32));
        assert!(sessions.find(&TokenHash::of(&token), WHO).is_ok());
        assert_eq!(TokenHash::of("abc").label(), "ba7816bf8f01");
        assert_eq!(sessions.find(&TokenHash([0xab; 32]), WHO).err(), Some(Denial::Unknown));
    }

    #[test]
    fn a_session_belongs_to_its_socket_and_its_owner() {
        let mut sessions = Sessions::default();
        let hash = start(&mut sessions, 1, None);
        assert!(sessions.find(&hash, OTHER).is_ok(), "unbound");
        assert_eq!(sessions.find(&hash, Principal { socket: 1, uid: 1, cgroup: None }).err(), Some(Denial::Unknown));
        sessions.get_mut(&hash).expect("started").owner = Some(OTHER);
        assert_eq!(sessions.find(&hash, WHO).err(), Some(Denial::Foreign));
    }

    #[test]
    fn either_clock_ends_a_session_and_it_is_said_once() {
        for now in [at(1000, 0), at(0, 1000)] {
            let mut sessions = Sessions::default();
            let hash = start(&mut sessions, 1, None);
            assert!(sessions.touch(&hash, at(999, 999)).is_ok());
            assert_eq!(sessions.touch(&hash, now).err(), Some(Denial::Expired));
            assert_eq!(sessions.touch(&hash, now).err(), Some(Denial::Unknown));
        }
    }

    #[test]
    fn the_least_recently_used_session_gives_way() {
        let mut sessions = Sessions::default();
        let [a, b, c] = [1, 2, 3].map(|seed| start(&mut sessions, seed, None));
        assert!(sessions.touch(&a, at(1, 1)).is_ok());
        assert_eq!(sessions.make_room(WHO, 3, None, at(2, 2)), Some(vec![b]));
        assert_eq!(sessions.make_room(WHO, 3, None, at(2, 2)), Some(vec![]));
        assert_eq!(sessions.make_room(OTHER, 1, None, at(2, 2)), Some(vec![]));
        assert!(sessions.find(&a, WHO).is_ok() && sessions.find(&c, WHO).is_ok());
    }

    #[test]
    fn a_session_being_narrowed_never_gives_way_nor_what_it_came_from() {
        let mut sessions = Sessions::default();
        let a = start(&mut sessions, 1, None);
        let b = start(&mut sessions, 2, Some(a));
        assert_eq!(sessions.make_room(WHO, 2, Some(&b), at(1, 1)), None);
        let c = start(&mut sessions, 3, None);
        assert_eq!(sessions.make_room(WHO, 3, Some(&b), at(1, 1)), Some(vec![c]));
        assert!(sessions.find(&a, WHO).is_ok() && sessions.find(&b, WHO).is_ok());
    }

    #[test]
    fn narrower_sessions_end_with_the_one_they_came_from() {
        let mut sessions = Sessions::default();
        let a = start(&mut sessions, 1, None);
        let b = start(&mut sessions, 2, Some(a));
        let c = start(&mut sessions, 3, Some(b));
        let d = start(&mut sessions, 4, None);
        assert!(sessions.end(&a));
        for hash in [a, b, c] {
            assert!(sessions.find(&hash, WHO).is_err());
        }
        assert!(!sessions.end(&b));
        assert_eq!(sessions.started_by(WHO), 1);
        assert!(sessions.end(&d));
        assert!(sessions.by_use.is_empty() && sessions.by_end.is_empty() && sessions.all.is_empty());
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
