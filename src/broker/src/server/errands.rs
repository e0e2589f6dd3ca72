//! Errands on their way between ECDH holder and gate: nip44, nip04, wrap_dm, unwrap_gift_wrap.

use super::batch::Asking;
use super::decided::not_logged;
use super::{Job, Server, Then};
use crate::agreement::Request;
use crate::alert::{Alert, Rank};
use crate::budgets::Class;
use crate::clock::{Clock, Now};
use crate::connection::State;
use crate::decisions::{Decision, Noted, Wanted};
use crate::errand::{Errand, Failure, Step, World};
use crate::principal::Principal;
use crate::reply::{Code, Error};
use crate::request::{Call, Crypto, Method};
use crate::row::Spending;
use crate::trying::Place;
use sha2::{Digest, Sha256};

/// Milliseconds that an errand waits for its turn at the ECDH holder: a client that has hundreds of messages to open at
/// once never comes again with one that was refused.
const PATIENCE: u64 = 30_000;
/// What verifying a gift wrap takes of its principal's share of a round, in bytes received.
const VERIFYING: usize = 48 * 1024;

/// Whose errand it is, and what has been counted for it.
pub(super) struct Trip {
    pub client: u64,
    pub who: Principal,
    token: Option<String>,
    pub method: Crypto,
    spent: Spending,
    /// Of a gift wrap's: its place among those being opened.
    pub place: Option<Place>,
    /// Whether it has stood in line for the ECDH holder already, and so keeps its place there.
    pub waited: bool,
    /// Whether a key was agreed on for it: what has cost something is counted, whatever comes of it.
    pub begun: bool,
    /// When its patience ends (CLOCK_BOOTTIME, ms).
    pub until: u64,
    /// The line of its last intent in the decision log.
    pub noted: Option<Noted>,
}

impl Trip {
    /// What it is counted as.
    pub fn class(&self) -> Class {
        self.spent.class
    }

    /// What the decision log says of a key agreement for it.
    pub fn wanted<'a>(&self, account: usize, request: &'a Request) -> Wanted<'a> {
        Wanted {
            who: self.who,
            method: self.method.name(),
            session: self.token.clone(),
            account,
            agreement: true,
            kind: request.op as u32,
            created_at: 0,
            id: &request.peer,
        }
    }
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
        let (method, place) = (*method, None);
        let (waited, begun, noted) = (false, false, None);
        let trip = Trip { client: id, who, token, method, spent, place, waited, begun, until, noted };
        if !self.afford(id, weight) {
            let text = "too many bytes held by requests in flight: try again later";
            return self.end_trip(&trip, &method.failure(Code::Unavailable, text), Rank::Common, now);
        }
        if method == Crypto::UnwrapGiftWrap {
            *self.eaten.entry(who).or_default() += VERIFYING;
        }
        // Nothing is counted before it is known to be well formed: what is refused for its form writes no row.
        let (errand, step) = match self.with_world(who, |world| Errand::begin(method, fields, world)) {
            Ok(begun) => begun,
            Err(failure) => return self.failed(trip, failure, now),
        };
        self.engine.spend(spent);
        if !self.keep() {
            let text = "the journal cannot be written";
            return self.turn_back(trip, method.failure(Code::Unavailable, text), now);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.state = State::Agreeing { weight };
        }
        self.follow(trip, Some(errand), step);
    }

    pub(super) fn with_world<T>(&mut self, who: Principal, deed: impl FnOnce(&mut World) -> T) -> T {
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
    pub(super) fn follow(&mut self, trip: Trip, errand: Option<Errand>, step: Step) {
        let now = self.clock.now();
        match (step, errand) {
            (Step::Agree(request), Some(errand)) => {
                self.wait_for(trip.client, |weight| State::Agreeing { weight });
                self.agree_in_turn((request, (trip, errand)), now);
            }
            (Step::Sign(texts), Some(errand)) => {
                let Some((account, _)) = self.encrypting else { return };
                self.wait_for(trip.client, |weight| State::Signing { weight });
                let (client, who, token) = (trip.client, trip.who, trip.token.clone());
                let id = Sha256::digest(&texts.canonical).into();
                let wanted = Wanted {
                    who,
                    method: trip.method.name(),
                    session: token.clone(),
                    account,
                    agreement: false,
                    kind: crate::nostr::nip59::SEAL.into(),
                    created_at: texts.created_at.into(),
                    id: &id,
                };
                let Some(noted) = self.decisions.intend(&wanted, now) else {
                    return self.sealed((trip, errand), Err(not_logged()), now);
                };
                let then = Then::Seal(Box::new((trip, errand)));
                let job = Job { client, who, account, kind: crate::nostr::nip59::SEAL, token, then, noted, weight: 0 };
                self.ask_together(Asking { canonical: texts.canonical, id, job });
            }
            (Step::Done(mut line), _) => {
                if trip.method == Crypto::UnwrapGiftWrap
                    && let Err(refusal) = self.count_unwrapped(trip.who, true, now)
                {
                    return self.turn_back(trip, refusal, now);
                }
                self.note_served();
                self.answer(trip.client, std::mem::take(&mut *line));
            }
            // A step that has another after it always comes with who takes it.
            (Step::Agree(_) | Step::Sign(_), None) => {}
        }
    }

    /// Notes which of the other processes an errand waits for.
    fn wait_for(&mut self, id: u64, state: impl FnOnce(usize) -> State) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let State::Signing { weight } | State::Agreeing { weight } = client.connection.state {
            client.connection.state = state(weight);
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
                let mut own = trip.method.failure(error.code, &error.text);
                own.retry_after_ms = error.retry_after_ms;
                self.turn_back(trip, own, now);
            }
        }
    }

    fn count_unwrapped(&mut self, who: Principal, opened: bool, now: Now) -> Result<(), Error> {
        let counted = self.engine.unwrapped(who, opened, now).map_err(|refusal| refusal.error);
        self.keep();
        counted
    }

    /// Counts a gift wrap that was not opened; one that has cost an agreement, among those besides.
    fn count_failed(&mut self, trip: &Trip, now: Now) -> Result<(), Error> {
        if trip.begun {
            self.trying.note_failed(trip.who, now.boot);
        }
        self.count_unwrapped(trip.who, false, now)
    }

    /// What it was about is at fault: whatever was counted stays counted. The alert says of a forgery what it is, even where
    /// the client is only told that its budget of failures is used up.
    pub(super) fn failed(&mut self, trip: Trip, failure: Failure, now: Now) {
        let Failure { error, forged } = failure;
        let counted = match trip.method {
            Crypto::UnwrapGiftWrap => self.count_failed(&trip, now),
            _ => Ok(()),
        };
        let rank = if forged { Rank::Forgery } else { Rank::Common };
        match counted {
            Ok(()) => self.end_trip(&trip, &error, rank, now),
            Err(limit) if forged => {
                self.tell_alert(&trip, &error, rank, now);
                self.answer(trip.client, limit.line());
            }
            Err(limit) => self.end_trip(&trip, &limit, rank, now),
        }
    }

    /// It came to nothing, through no fault of its own.
    pub(super) fn turn_back(&mut self, trip: Trip, error: Error, now: Now) {
        self.forgo(&trip);
        self.end_trip(&trip, &error, Rank::Common, now);
    }

    /// Gives back what was counted for it, if it has cost nothing.
    pub(super) fn forgo(&mut self, trip: &Trip) {
        match trip.class() {
            Class::Unwrap if trip.begun => drop(self.count_failed(trip, self.clock.now())),
            _ if trip.begun => {}
            _ => self.engine.forgo(trip.spent),
        }
        self.keep();
    }

    fn end_trip(&mut self, trip: &Trip, error: &Error, rank: Rank, now: Now) {
        self.tell_alert(trip, error, rank, now);
        self.answer(trip.client, error.line());
    }

    fn tell_alert(&mut self, trip: &Trip, error: &Error, rank: Rank, now: Now) {
        let forged = matches!(rank, Rank::Forgery);
        let decision = Decision {
            socket: usize::from(trip.who.socket),
            who: Some(trip.who),
            method: trip.method.name(),
            session: trip.token.clone(),
            account: None,
            kind: None,
            rule: Some(if forged { "forged" } else { error.code.word() }),
            why: &error.text,
            urgent: forged,
        };
        self.decisions.decided(decision, now);
        let verb = if error.code == Code::RateLimited { "rate-limited" } else { "rejected" };
        let (method, token) = (trip.method.name(), trip.token.clone());
        let alert = Alert { method, verb, text: &error.text, kind: None, token, rank };
        self.alert(usize::from(trip.who.socket), &alert, now);
    }
}
