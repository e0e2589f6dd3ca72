//! session_start, session_info, session_revoke.

use nsecd_policy::units::counted;
use nsecd_policy::{Bind, Kinds, StartSessions};

use super::{Answer, BEYOND_FIRST, Engine, FOREIGN, MINUTE, Random, Refusal, rate_error, refuse};
use crate::clock::Now;
use crate::limits::Exceeded;
use crate::principal::Principal;
use crate::reply::{self, Code, hex};
use crate::row::Row;
use crate::session::{Session, Terms, TokenHash};

/// The scope of a session whose starter names none, as far as the ceiling has it.
const DEFAULT_SCOPE: [u16; 3] = [1, 9734, 1111];
/// Seconds a session lasts whose starter does not say, as far as the ceiling allows.
const DEFAULT_TTL: u64 = 28_800;

/// Cgroups of one uid that may have all their sessions on one socket, and start them as often as they may.
const MOST_CGROUPS: u32 = 128;

/// What an agent reads that starts a session where only the operator does.
const BY_OPERATOR: &str = "Sessions on this socket are started by its operator: ask for a token (nsecctl session start). With \
                           session_token a narrower one can be started";

/// What session_start asks for.
pub(super) struct Wish<'a> {
    pub scope: &'a Option<Vec<u16>>,
    pub ttl: Option<u64>,
    pub account: usize,
    pub parent: Option<TokenHash>,
}

impl Engine {
    pub(super) fn start(&mut self, wish: Wish, who: Principal, now: Now, random: Random) -> Result<String, Refusal> {
        let socket = self.socket(who);
        if socket.start_sessions == StartSessions::Admin && wish.parent.is_none() {
            return refuse(Code::Forbidden, BY_OPERATOR);
        }
        let issued = wish.parent.and_then(|hash| self.ledger.sessions().get(&hash)).and_then(|s| s.terms.issued);
        let latch = self.ledger.latch(who).filter(|_| issued.is_none());
        let longest = socket.max_ttl.saturating_mul(1000);
        let mut scope = within("socket ceiling", wish.scope.as_deref(), &socket.kinds)?;
        let mut ttl = lasting("socket ceiling", wish.ttl, longest)?;
        if let Some(latch) = latch {
            if latch.account != wish.account {
                return refuse(Code::OutOfScope, "Account is not the first session's account");
            }
            let left = latch.ends.boot.saturating_sub(now.boot).min(latch.ends.wall.saturating_sub(now.wall));
            if left == 0 {
                return refuse(Code::Expired, BEYOND_FIRST);
            }
            scope = within("first session's scope", wish.scope.as_deref(), &Kinds::List(latch.scope.clone()))?;
            ttl = lasting("rest of the first session", wish.ttl, longest.min(left))?;
        }
        if let Some(parent) = wish.parent.and_then(|hash| self.ledger.sessions().on_socket(&hash, who.socket)) {
            let (most, left) = (Kinds::List(parent.terms.scope.clone()), parent.terms.left(now));
            // Within both, where a first session holds as well.
            let own = scope;
            scope = within("session scope", wish.scope.as_deref(), &most)?;
            scope.retain(|kind| latch.is_none() || own.contains(kind));
            ttl = lasting("rest of the session", wish.ttl, longest.min(left))?.min(ttl);
        }
        let (most, live) = (socket.sessions_per_minute, socket.live_sessions);
        let owner = (socket.bind == Bind::Starter).then_some(who);
        self.may_start(who, most, live, now)?;
        let Some(ending) = self.ledger.sessions().giving_way(who, live, wish.parent.as_ref(), now) else {
            let text = format!(
                "No room for a narrower session: this principal may have {} at a time",
                counted(live as u64, "session")
            );
            return refuse(Code::OutOfScope, text);
        };
        for hash in ending {
            log::info!("session {} of {who} ended: it has {live}, the most it may have", hash.label());
            self.end(&hash);
        }
        let token = hex(&random());
        let ends = Now { boot: now.boot.saturating_add(ttl), wall: now.wall.saturating_add(ttl) };
        let line = reply::session(&token, ends.wall, &scope);
        let token = TokenHash::of(&token);
        let Wish { account, parent, .. } = wish;
        let (started, rules) = (now, Vec::new());
        let terms = Terms { token, starter: who, owner, account, scope, started, ends, parent, issued, rules };
        self.happen(Row::Start(terms));
        Ok(line)
    }

    fn may_start(&self, who: Principal, most: u32, live: usize, now: Now) -> Result<(), Refusal> {
        // New cgroups are new principals, but not new memory without end.
        let crowd = live.saturating_mul(MOST_CGROUPS as usize);
        if self.ledger.sessions().of_user(who.user()) >= crowd {
            let text = format!("Too many sessions: uid {} has {crowd} on this socket", who.uid);
            return refuse(Code::Unavailable, text);
        }
        let own = (&self.ledger.meters(who).starts, most);
        let all = (self.ledger.starts_of(who.user()), most.saturating_mul(MOST_CGROUPS));
        for (starts, most) in [own, all] {
            if let Some(retry_after_ms) = starts.wait(most, MINUTE, now.boot) {
                let text = format!("Rate limit: {}/{most} sessions per minute", starts.used(MINUTE, now.boot));
                return Err(rate_error(Exceeded { text, retry_after_ms }));
            }
        }
        Ok(())
    }

    /// Another principal's session reads like none, and raises an alert.
    pub(super) fn info(&self, token: &str, who: Principal, now: Now) -> Answer {
        let session = match self.known(&TokenHash::of(token), who) {
            Ok(session) => session,
            Err(alert) => return Answer { line: reply::NO_SESSION_INFO.to_owned(), alert },
        };
        let stats = self.socket(who).limits.as_ref().map(|limits| reply::RateStats {
            last_minute: session.meter.used(MINUTE, now.boot),
            last_hour: session.meter.used(60 * MINUTE, now.boot),
            limits,
        });
        let shown = reply::SessionInfo {
            allowed: &session.terms.scope,
            created_at: session.terms.started.wall,
            expires_at: session.terms.ends.wall,
            sign_count: session.sign_count,
            expired: session.terms.has_expired(now),
        };
        reply::session_info(&shown, stats).into()
    }

    /// Ends a session of this principal's; another's is not touched and raises an alert.
    pub(super) fn revoke(&mut self, token: &str, who: Principal) -> Answer {
        let hash = TokenHash::of(token);
        match self.known(&hash, who).map(drop) {
            Ok(()) => reply::revoked(self.end(&hash)).into(),
            Err(alert) => Answer { line: reply::revoked(false), alert },
        }
    }

    /// The session if `who` started or owns it; else what to alert of, if it exists at all.
    fn known(&self, hash: &TokenHash, who: Principal) -> Result<&Session, Option<String>> {
        match self.ledger.sessions().on_socket(hash, who.socket) {
            Some(session) if session.terms.is_known_to(who) => Ok(session),
            Some(_) => Err(Some(FOREIGN.to_owned())),
            None => Err(None),
        }
    }
}

/// The scope asked for, if it lies within `ceiling`; the default one clipped to it, if none is asked for.
pub(super) fn within(name: &str, wish: Option<&[u16]>, ceiling: &Kinds) -> Result<Vec<u16>, Refusal> {
    if let Some(wish) = wish {
        return match wish.iter().find(|kind| !ceiling.contains(**kind)) {
            None => Ok(wish.to_vec()),
            Some(kind) => {
                let ceiling = reply::ceiling(ceiling);
                refuse(Code::OutOfScope, format!("Scope kind {kind} not in {name} {ceiling}"))
            }
        };
    }
    let clipped: Vec<u16> = DEFAULT_SCOPE.into_iter().filter(|kind| ceiling.contains(*kind)).collect();
    Ok(match ceiling {
        Kinds::List(list) if clipped.is_empty() => list.clone(),
        _ => clipped,
    })
}

/// The TTL asked for in seconds, if it is no longer than `longest` milliseconds; the default one clipped to it, if none
/// is asked for. Milliseconds.
pub(super) fn lasting(name: &str, wish: Option<u64>, longest: u64) -> Result<u64, Refusal> {
    match wish.map(|seconds| (seconds, seconds.saturating_mul(1000))) {
        Some((seconds, ttl)) if ttl > longest => {
            refuse(Code::OutOfScope, format!("ttl {seconds} exceeds the {name}, {} seconds", longest / 1000))
        }
        Some((_, ttl)) => Ok(ttl),
        None => Ok(longest.min(DEFAULT_TTL * 1000)),
    }
}
