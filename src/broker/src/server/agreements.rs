//! What is asked of the ECDH holder: in turn, with room for as many failures as a budget has, and for no longer than patience
//! lasts.
//!
//! An errand that waits has a place of its own and no claim on anybody's connection: it leaves with its client, and its
//! principal may have so many waiting that others of its requests always find room.

use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::os::fd::AsFd;
use zeroize::Zeroize;

use super::decided::not_logged;
use super::errands::Trip;
use super::{ECDH, End, HUNG, Server};
use crate::agreement::{self, Agreements, Op, Request, Status};
use crate::clock::{Clock, Now};
use crate::connection::State;
use crate::errand::Errand;
use crate::principal::Principal;
use crate::reply::{Code, Error};
use crate::request::Crypto;
use nsecd_trail::entry::Outcome;

/// An errand and the key that it waits for.
pub(super) type Waiting = (Request, (Trip, Errand));

/// Milliseconds between tries where the ECDH holder's ceiling is reached.
const RETRY: u64 = 100;

/// Whether it is a gift wrap's first agreement, of which nobody knows yet whether it is junk.
fn is_unopened((request, (trip, _)): &Waiting) -> bool {
    request.op == Op::GiftWrap && trip.place.is_none()
}

/// Whether one agreement of two has been made: of a gift wrap's the second.
fn is_half_done((request, (trip, _)): &Waiting) -> bool {
    trip.method == Crypto::UnwrapGiftWrap && request.op != Op::GiftWrap
}

fn over_ceiling(method: Crypto) -> Error {
    let mut error = method.failure(Code::RateLimited, "Rate limit: account ceiling of key agreements reached");
    error.retry_after_ms = Some(1000);
    error
}

fn silent(method: Crypto) -> Error {
    method.failure(Code::Unavailable, "the process that agrees on keys does not answer")
}

/// Overwrites the stack below: what the ciphers' frames have left of a message's keys.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0u8; 16 * 1024];
    below.zeroize();
    std::hint::black_box(&below);
}

impl<C: Clock> Server<C> {
    /// Asks at once if nobody waits; nobody who does is overtaken.
    pub(super) fn agree_in_turn(&mut self, waiting: Waiting, now: Now) {
        let who = waiting.1.0.who;
        if is_unopened(&waiting) {
            return match self.may_open(who, now) {
                true => self.open(waiting, now),
                false => self.stand_in_line(waiting, now),
            };
        }
        match self.stalled.is_empty() {
            true => self.agree(waiting, now),
            false => self.stand_in_line(waiting, now),
        }
    }

    /// In one of the two lines, if there is room and its client is still there.
    fn stand_in_line(&mut self, waiting: Waiting, now: Now) {
        let begun = waiting.1.0.waited || is_half_done(&waiting);
        let (client, who, class) = (waiting.1.0.client, waiting.1.0.who, waiting.1.0.class());
        if self.clients.get(&client).is_none_or(|client| client.interest.is_none()) {
            self.forgo(&waiting.1.0);
            return self.close(client);
        }
        if self.stalled.is_empty() && self.unopened.is_empty() {
            self.retry_at = now.boot.saturating_add(RETRY);
        }
        let line = if is_unopened(&waiting) { &mut self.unopened } else { &mut self.stalled };
        // Whoever has waited keeps its place, and one that is half done has none yet but has cost something.
        if begun || line.has_room(who, &self.room) {
            line.join(who, class, waiting, begun);
        } else {
            let (_, (trip, _)) = waiting;
            let error = self.why_waiting(&trip, now);
            self.turn_back(trip, error, now);
        }
    }

    /// What a wait that comes to nothing is answered with.
    fn why_waiting(&self, trip: &Trip, now: Now) -> Error {
        match self.engine.ledger().failures(trip.who.socket) {
            Some(failures) if trip.method == Crypto::UnwrapGiftWrap && trip.place.is_none() => {
                let text = self.trying.why_not(trip.who, failures, now.boot);
                let mut error = trip.method.failure(Code::RateLimited, &text);
                error.retry_after_ms = Some(failures.period.max(1));
                error
            }
            _ => over_ceiling(trip.method),
        }
    }

    /// Whether a gift wrap may be opened at once: it may fail, or nobody else waits for the one that a socket has tried all
    /// the same.
    fn may_open(&self, who: Principal, now: Now) -> bool {
        let failures = self.engine.ledger().failures(who.socket);
        self.trying.may_fail(who, failures, now.boot)
            || self.unopened.is_empty() && self.trying.may(who, failures, now.boot)
    }

    /// The first agreement of a gift wrap, which may fail.
    fn open(&mut self, mut waiting: Waiting, now: Now) {
        let who = waiting.1.0.who;
        let failures = self.engine.ledger().failures(who.socket);
        let trip = &mut waiting.1.0;
        trip.place = Some(self.trying.place(who, failures, now.boot));
        trip.waited = false;
        self.agree_in_turn(waiting, now);
    }

    fn agree(&mut self, (request, mut job): Waiting, now: Now) {
        let Some(agreements) = &mut self.agreements else { return };
        if agreements.is_silent() {
            let error = silent(job.0.method);
            return self.turn_back(job.0, error, now);
        }
        let account = self.encrypting.as_ref().map_or(0, |(account, _)| *account);
        let noted = self.note_intent(&job.0.wanted(account, &request));
        if noted.is_none() {
            let error = job.0.method.failure(Code::Unavailable, &not_logged().text);
            return self.turn_back(job.0, error, now);
        }
        job.0.noted = noted;
        let Some(agreements) = &mut self.agreements else { return };
        agreements.ask(request, job, now.boot);
        if let Err(why) = self.push_agreements() {
            log::debug!("{why}");
        }
    }

    /// Sends what the ECDH holder takes now, and asks epoll for the rest.
    pub(super) fn push_agreements(&mut self) -> Result<(), End> {
        let Some(agreements) = &mut self.agreements else { return Ok(()) };
        let waited = agreements.wants_write();
        agreements.send()?;
        if waited || agreements.wants_write() {
            let more = if agreements.wants_write() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | more, ECDH);
            self.epoll.modify(agreements.as_fd(), &mut event).map_err(|e| format!("epoll_ctl: {e}"))?;
        }
        Ok(())
    }

    /// Sends to the ECDH holder and takes its replies.
    pub(super) fn agreements_ready(&mut self) -> Result<(), End> {
        self.push_agreements()?;
        while let Some(agreements) = &mut self.agreements {
            let Some(answer) = agreements.receive()? else { break };
            let client = answer.job.0.client;
            self.agreed(answer);
            wipe_stack();
            self.advance(client);
        }
        Ok(())
    }

    fn agreed(&mut self, answer: agreement::Answer<(Trip, Errand)>) {
        let now = self.clock.now();
        let agreement::Answer { job: (mut trip, errand), request, status, code, key } = answer;
        if let Some(noted) = trip.noted.take() {
            self.decisions.outcome(noted, code, now);
            self.decisions.flush(now);
        }
        let method = trip.method;
        trip.begun |= status == Status::Agreed;
        let error = match status {
            Status::Agreed => {
                let who = trip.who;
                self.stalled.served(who, trip.class());
                // There was room: perhaps for the next as well.
                self.retry_at = now.boot;
                return match self.with_world(who, |world| errand.agreed(key, world)) {
                    Ok((errand, step)) => self.follow(trip, errand, step),
                    Err(failure) => self.failed(trip, failure, now),
                };
            }
            Status::OverCeiling if now.boot < trip.until && self.draining.is_none() => {
                return self.stand_in_line((request, (trip, errand)), now);
            }
            Status::OverCeiling => over_ceiling(method),
            Status::NotRecorded => {
                self.tell_operator(
                    now,
                    "the ECDH holder cannot write its record, so no key is agreed on: free space in the state directory",
                );
                method.failure(Code::Unavailable, "the record cannot be written")
            }
            Status::NotAllowed => method.failure(Code::Forbidden, "this account does not allow it"),
            Status::Frozen => method.failure(Code::Frozen, "the account is frozen by its operator"),
            Status::Malformed => method.failure(Code::BadRequest, "not a valid public key"),
            Status::Failed(code) => {
                self.tell_operator(now, &format!("the ECDH holder answered {code}"));
                method.failure(Code::Unavailable, "the key agreement failed")
            }
        };
        self.turn_back(trip, error, now);
    }

    /// Those whose patience is over, or all if nsecd ends, have waited for nothing; the others have their turns: gift wraps
    /// for which there is room to fail, and one of those that the ceiling put off.
    pub(super) fn retry_agreements(&mut self, now: Now) {
        self.give_up_if_hung(now);
        if self.is_at_rest() || (self.stalled.is_empty() && self.unopened.is_empty()) || now.boot < self.retry_at {
            return;
        }
        self.retry_at = now.boot.saturating_add(RETRY);
        let ending = self.draining.is_some();
        self.send_away(|trip| ending || now.boot >= trip.until, Self::why_waiting, now);
        loop {
            let (engine, trying) = (&self.engine, &self.trying);
            let may = |who: Principal| trying.may(who, engine.ledger().failures(who.socket), now.boot);
            let Some((who, class, waiting)) = self.unopened.turn(may) else { break };
            self.unopened.served(who, class);
            let client = waiting.1.0.client;
            self.open(waiting, now);
            // One that could not be asked for has its answer.
            self.advance(client);
        }
        if let Some((.., mut waiting)) = self.stalled.turn(|_| true) {
            waiting.1.0.waited = true;
            let client = waiting.1.0.client;
            self.agree(waiting, now);
            self.advance(client);
        }
    }

    /// Answers those that wait and for whom `leaves` holds.
    pub(super) fn send_away(
        &mut self,
        leaves: impl Fn(&Trip) -> bool,
        why: impl Fn(&Self, &Trip, Now) -> Error,
        now: Now,
    ) {
        let leaves = |waiting: &Waiting| leaves(&waiting.1.0);
        let unopened = self.unopened.leaving(leaves);
        for (_, (trip, _)) in unopened.into_iter().chain(self.stalled.leaving(leaves)) {
            let (client, error) = (trip.client, why(self, &trip, now));
            self.turn_back(trip, error, now);
            self.advance(client);
        }
    }

    /// An agreement takes a fraction of a millisecond: a holder this late has stopped. Signing goes on without it.
    fn give_up_if_hung(&mut self, now: Now) {
        let since = self.agreements.as_ref().and_then(Agreements::waiting_since);
        if since.is_none_or(|since| now.boot < since.saturating_add(HUNG)) {
            return;
        }
        self.tell_operator(now, "the ECDH holder does not answer: no message is encrypted or opened until it does");
        let jobs = self.agreements.as_mut().map(Agreements::give_up).unwrap_or_default();
        for (mut trip, _) in jobs {
            if let Some(noted) = trip.noted.take() {
                self.decisions.outcome(noted, Outcome::NO_ANSWER, now);
            }
            let (client, error) = (trip.client, silent(trip.method));
            self.turn_back(trip, error, now);
            self.advance(client);
        }
        self.send_away(|_| true, |_, trip, _| silent(trip.method), now);
    }

    /// When something is due here (CLOCK_BOOTTIME, ms).
    pub(super) fn agreements_due(&self) -> u64 {
        let hung = self.agreements.as_ref().and_then(Agreements::waiting_since).map(|since| since.saturating_add(HUNG));
        let waits = !self.is_at_rest() && (!self.stalled.is_empty() || !self.unopened.is_empty());
        hung.into_iter().chain(waits.then_some(self.retry_at)).min().unwrap_or(u64::MAX)
    }

    /// A client has gone: true if its errand waited here, and now does no longer.
    pub(super) fn abandon(&mut self, id: u64) -> bool {
        let Some(connection) = self.clients.get(&id).map(|c| &c.connection) else { return false };
        if !matches!(connection.state, State::Agreeing { .. }) {
            return false;
        }
        let (who, is) = (connection.who, |waiting: &Waiting| waiting.1.0.client == id);
        let Some((_, (trip, _))) = self.stalled.remove(who, is).or_else(|| self.unopened.remove(who, is)) else {
            return false;
        };
        self.forgo(&trip);
        true
    }
}
