//! Errands on their way between ECDH holder and gate: nip44, nip04, wrap_dm, unwrap_gift_wrap.

use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::os::fd::AsFd;

use super::{ECDH, End, Job, Server, Then};
use crate::agreement::{self, Request, Status};
use crate::alert::Alert;
use crate::clock::{Clock, Now};
use crate::connection::State;
use crate::errand::{Errand, Failure, Step, World};
use crate::principal::Principal;
use crate::reply::{Code, Error};
use crate::request::{Call, Crypto, Method};
use crate::row::Spending;
use zeroize::Zeroize;

/// Milliseconds that an errand waits where the ECDH holder's ceiling is reached, and between its tries: a client that has
/// hundreds of messages to open at once never comes again with one that was refused.
const PATIENCE: u64 = 30_000;
const RETRY: u64 = 100;

/// Whether one agreement of two has been made: of a gift wrap's the second.
fn is_half_done(request: &Request, trip: &Trip) -> bool {
    trip.method == Crypto::UnwrapGiftWrap && request.op != agreement::Op::GiftWrap
}

fn over_ceiling(method: Crypto) -> Error {
    let mut error = method.failure(Code::RateLimited, "Rate limit: account ceiling of key agreements reached");
    error.retry_after_ms = Some(1000);
    error
}

/// Overwrites the stack below: what the ciphers' frames have left of a message's keys.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0u8; 16 * 1024];
    below.zeroize();
    std::hint::black_box(&below);
}

/// Whose errand it is, and what has been counted for it.
pub(super) struct Trip {
    client: u64,
    who: Principal,
    token: Option<String>,
    method: Crypto,
    spent: Spending,
    /// Whether it has stood in line for the ECDH holder already, and so keeps its place.
    waited: bool,
    /// When its patience ends (CLOCK_BOOTTIME, ms).
    until: u64,
}

impl<C: Clock> Server<C> {
    /// Sets out. Whoever calls it sees to the connection, as for a call that is answered at once.
    pub(super) fn set_out(&mut self, id: u64, call: &Call, spent: Spending) {
        let Method::Crypto { method, fields, size } = &call.method else { return };
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        let now = self.clock.now();
        // A gift wrap in a gift wrap, in base64 and JSON each time: eight times what came in covers every stage.
        let weight = 8 * size;
        let (_, token) = super::requests::facts(call);
        let until = now.boot.saturating_add(PATIENCE);
        let trip = Trip { client: id, who, token, method: *method, spent, waited: false, until };
        if !self.afford(id, weight) {
            let text = "too many bytes held by requests in flight: try again later";
            return self.turn_back(trip, method.failure(Code::Unavailable, text), now);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.state = State::Signing { weight };
        }
        let begun = self.with_world(who, |world| Errand::begin(*method, fields, world));
        match begun {
            Ok((errand, step)) => self.follow(trip, Some(errand), step),
            Err(failure) if *method == Crypto::UnwrapGiftWrap => self.failed(trip, failure, now),
            // Nothing was done yet that a budget should count.
            Err(failure) => {
                self.forgo(trip.spent);
                self.failed(trip, failure, now);
            }
        }
    }

    fn with_world<T>(&mut self, who: Principal, deed: impl FnOnce(&mut World) -> T) -> T {
        let now = self.clock.now();
        let mut world = World {
            own: self.encrypting.as_ref().map_or("", |(_, key)| key),
            peers: self.policy.sockets[usize::from(who.socket)].peers.as_deref(),
            now: u32::try_from(now.wall_seconds()).unwrap_or(u32::MAX),
            random: &mut super::requests::random,
        };
        deed(&mut world)
    }

    /// Takes the next step, whatever it is.
    fn follow(&mut self, trip: Trip, errand: Option<Errand>, step: Step) {
        let now = self.clock.now();
        match (step, errand) {
            (Step::Agree(request), Some(errand)) => self.agree_in_turn(request, (trip, errand), now.boot),
            (Step::Sign(texts), Some(errand)) => {
                let Some((account, _)) = self.encrypting else { return };
                let (client, who, token) = (trip.client, trip.who, trip.token.clone());
                let then = Then::Seal(Box::new((trip, errand)));
                let job = Job { client, who, account, kind: crate::nostr::nip59::SEAL, token, then };
                self.gates[account].ask(&texts.canonical, job, now.boot);
                if let Err(why) = self.push_gate(account) {
                    log::debug!("{why}");
                }
            }
            (Step::Done(line), _) => {
                if trip.method == Crypto::UnwrapGiftWrap
                    && let Err(refusal) = self.count_unwrapped(trip.who, true, now)
                {
                    return self.turn_back(trip, refusal, now);
                }
                self.note_served();
                self.answer(trip.client, &line);
            }
            // A step that has another after it always comes with who takes it.
            (Step::Agree(_) | Step::Sign(_), None) => {}
        }
    }

    /// Asks at once if nobody waits; nobody who does is overtaken.
    fn agree_in_turn(&mut self, request: Request, job: (Trip, Errand), now: u64) {
        if self.stalled.is_empty() {
            return self.agree(request, job, now);
        }
        let begun = is_half_done(&request, &job.0);
        self.stalled.join(job.0.who, (request, job), begun);
    }

    fn agree(&mut self, request: Request, job: (Trip, Errand), now: u64) {
        let Some(agreements) = &mut self.agreements else { return };
        agreements.ask(request, job, now);
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
        let agreement::Answer { job: (mut trip, errand), request, status, key } = answer;
        let method = trip.method;
        let error = match status {
            Status::Agreed => {
                let who = trip.who;
                self.stalled.served(who);
                // There was room: perhaps for the next as well.
                self.retry_at = now.boot;
                return match self.with_world(who, |world| errand.agreed(key, world)) {
                    Ok((errand, step)) => self.follow(trip, errand, step),
                    Err(failure) => self.failed(trip, failure, now),
                };
            }
            Status::OverCeiling if now.boot < trip.until && self.draining.is_none() => {
                self.retry_at = now.boot.saturating_add(RETRY);
                let begun = std::mem::replace(&mut trip.waited, true) || is_half_done(&request, &trip);
                return self.stalled.join(trip.who, (request, (trip, errand)), begun);
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
        self.forgo(trip.spent);
        self.turn_back(trip, error, now);
    }

    /// One of those whose agreement was over the ceiling tries again, in turn; those whose patience is over, or all if nsecd
    /// ends, have waited for nothing.
    pub(super) fn retry_agreements(&mut self, now: Now) {
        if self.stalled.is_empty() || now.boot < self.retry_at {
            return;
        }
        self.retry_at = now.boot.saturating_add(RETRY);
        let ending = self.draining.is_some();
        for (_, (trip, _)) in self.stalled.leaving(|(_, (trip, _))| ending || now.boot >= trip.until) {
            self.forgo(trip.spent);
            let client = trip.client;
            let error = over_ceiling(trip.method);
            self.turn_back(trip, error, now);
            self.advance(client);
        }
        if let Some((_, (request, job))) = self.stalled.turn() {
            self.agree(request, job, now.boot);
        }
    }

    /// The gate's reply to a seal.
    pub(super) fn sealed(&mut self, job: (Trip, Errand), outcome: Result<([u8; 32], [u8; 64]), Error>, now: Now) {
        let (trip, errand) = job;
        let who = trip.who;
        match outcome {
            Ok((id, signature)) => match self.with_world(who, |world| errand.signed(&id, &signature, world)) {
                Ok((errand, step)) => self.follow(trip, errand, step),
                Err(failure) => self.failed(trip, failure, now),
            },
            Err(error) => {
                self.forgo(trip.spent);
                let mut own = trip.method.failure(error.code, &error.text);
                own.retry_after_ms = error.retry_after_ms;
                self.turn_back(trip, own, now);
            }
        }
    }

    fn forgo(&mut self, spent: Spending) {
        self.engine.forgo(spent);
        self.keep();
    }

    fn count_unwrapped(&mut self, who: Principal, opened: bool, now: Now) -> Result<(), Error> {
        let counted = self.engine.unwrapped(who, opened, now).map_err(|refusal| refusal.error);
        self.keep();
        counted
    }

    /// What it was about is at fault.
    fn failed(&mut self, trip: Trip, failure: Failure, now: Now) {
        let Failure { error, forged } = failure;
        let counted = match trip.method {
            Crypto::UnwrapGiftWrap => self.count_unwrapped(trip.who, false, now),
            _ => Ok(()),
        };
        self.end_trip(&trip, &counted.err().unwrap_or(error), forged, now);
    }

    fn turn_back(&mut self, trip: Trip, error: Error, now: Now) {
        self.end_trip(&trip, &error, false, now);
    }

    fn end_trip(&mut self, trip: &Trip, error: &Error, urgent: bool, now: Now) {
        let verb = if error.code == Code::RateLimited { "rate-limited" } else { "rejected" };
        let (method, token) = (trip.method.name(), trip.token.clone());
        let alert = Alert { method, verb, text: &error.text, kind: None, token, urgent };
        self.alert(usize::from(trip.who.socket), &alert, now);
        self.answer(trip.client, &error.line());
    }
}
