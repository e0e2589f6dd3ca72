//! session_start, session_info, session_revoke.

use nsecd_policy::{Bind, Kinds};

use super::{Answer, Engine, FOREIGN, MINUTE, Random, Refusal, rate_error, refuse};
use crate::clock::Now;
use crate::limits::Exceeded;
use crate::principal::Principal;
use crate::reply::{self, Code};
use crate::session::{Session, Terms, TokenHash};

/// The scope of a session whose starter names none, as far as the ceiling has it.
const DEFAULT_SCOPE: [u16; 3] = [1, 9734, 1111];
/// Seconds a session lasts whose starter does not say, as far as the ceiling allows.
const DEFAULT_TTL: u64 = 28_800;

/// Cgroups of one uid that may have all their sessions on one socket.
const MOST_CGROUPS: usize = 128;

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
        let longest = socket.max_ttl.saturating_mul(1000);
        let mut terms = Terms {
            starter: who,
            owner: (socket.bind == Bind::Starter).then_some(who),
            account: wish.account,
            scope: within("socket ceiling", wish.scope.as_deref(), &socket.kinds)?,
            ttl: lasting("socket ceiling", wish.ttl, longest)?,
            parent: wish.parent,
        };
        if let Some(parent) = wish.parent.and_then(|hash| self.sessions.on_socket(&hash, who.socket)) {
            terms.scope = within("session scope", wish.scope.as_deref(), &Kinds::List(parent.scope.clone()))?;
            terms.ttl = lasting("rest of the session", wish.ttl, longest.min(parent.left(now)))?;
        }
        let (most, live) = (socket.sessions_per_minute, socket.live_sessions);
        let first_use = socket.bind == Bind::FirstUse;
        self.may_start(who, most, now)?;
        // New cgroups are new principals, but not new memory without end.
        let crowd = live.saturating_mul(MOST_CGROUPS);
        if self.sessions.of_user(who) >= crowd {
            let text = format!("Too many sessions: uid {} has {crowd} on this socket", who.uid);
            return refuse(Code::Unavailable, text);
        }
        let Some(ended) = self.sessions.make_room(who, live, wish.parent.as_ref(), now) else {
            let text = format!("No room for a narrower session: this principal may have {live} sessions at a time");
            return refuse(Code::OutOfScope, text);
        };
        for ended in ended {
            log::info!("session {} of {who} ended: it has {live}, the most it may have", ended.label());
        }
        self.principals.entry(who).or_default().starts.reserve(now.boot);
        if let Some(parent) = wish.parent.and_then(|hash| self.sessions.get_mut(&hash)) {
            // Narrowing is a use: by anybody but the starter, who may be handing it on, it binds as signing does.
            if first_use && parent.starter != who {
                parent.owner.get_or_insert(who);
            }
        }
        let (token, session) = self.sessions.start(terms, random(), now);
        Ok(reply::session(&token, session.ends.wall, &session.scope))
    }

    fn may_start(&mut self, who: Principal, most: u32, now: Now) -> Result<(), Refusal> {
        let starts = &self.principals.entry(who).or_default().starts;
        match starts.wait(most, MINUTE, now.boot) {
            None => Ok(()),
            Some(retry_after_ms) => {
                let text = format!("Rate limit: {}/{most} sessions per minute", starts.used(MINUTE, now.boot));
                Err(rate_error(Exceeded { text, retry_after_ms }))
            }
        }
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
            allowed: &session.scope,
            created_at: session.started.wall,
            expires_at: session.ends.wall,
            sign_count: session.sign_count,
            expired: session.has_expired(now),
        };
        reply::session_info(&shown, stats).into()
    }

    /// Ends a session of this principal's; another's is not touched and raises an alert.
    pub(super) fn revoke(&mut self, token: &str, who: Principal) -> Answer {
        let hash = TokenHash::of(token);
        match self.known(&hash, who).map(drop) {
            Ok(()) => reply::revoked(self.sessions.end(&hash)).into(),
            Err(alert) => Answer { line: reply::revoked(false), alert },
        }
    }

    /// The session if `who` started or owns it; else what to alert of, if it exists at all.
    fn known(&self, hash: &TokenHash, who: Principal) -> Result<&Session, Option<String>> {
        match self.sessions.on_socket(hash, who.socket) {
            Some(session) if session.is_known_to(who) => Ok(session),
            Some(_) => Err(Some(FOREIGN.to_owned())),
            None => Err(None),
        }
    }
}

/// The scope asked for, if it lies within `ceiling`; the default one clipped to it, if none is asked for.
fn within(name: &str, wish: Option<&[u16]>, ceiling: &Kinds) -> Result<Vec<u16>, Refusal> {
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
fn lasting(name: &str, wish: Option<u64>, longest: u64) -> Result<u64, Refusal> {
    match wish.map(|seconds| (seconds, seconds.saturating_mul(1000))) {
        Some((seconds, ttl)) if ttl > longest => {
            refuse(Code::OutOfScope, format!("ttl {seconds} exceeds the {name}, {} seconds", longest / 1000))
        }
        Some((_, ttl)) => Ok(ttl),
        None => Ok(longest.min(DEFAULT_TTL * 1000)),
    }
}
