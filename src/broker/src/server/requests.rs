//! A request's way: framed, parsed, decided, asked of the gate, answered.

use super::batch::Asking;
use super::decided::not_logged;
use super::{Job, Server, Then};
use crate::admin;
use crate::alert::{Alert, Rank};
use crate::clock::{Clock, Now};
use crate::connection::{Connection, State};
use crate::decisions::Wanted;
use crate::event::Texts;
use crate::frame::{Fault, Next};
use crate::gate::{Answer, Status};
use crate::policy::{self, Grant, Refusal, Slot, Verdict};
use crate::principal::Principal;
use crate::reply::{self, Code, Error};
use crate::request::{self, Call, Method, Token};
use crate::session::TokenHash;
use sha2::{Digest, Sha256};

impl<C: Clock> Server<C> {
    /// Takes the next request out of what has come; true if the connection can go on.
    pub(super) fn read(&mut self, id: u64) -> bool {
        let now = self.clock.now();
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let connection = &mut client.connection;
        if let Some(call) = connection.next.take() {
            self.decide(id, *call);
            return true;
        }
        let (mut looked, owes) = (connection.ended, connection.owes());
        loop {
            match connection.framer.next(looked) {
                Next::More if connection.ended => {
                    let cut = connection.framer.finish();
                    match cut {
                        Some(fault) => self.broken(id, fault, false),
                        None => self.close(id),
                    }
                    return true;
                }
                Next::More => {
                    connection.backlog = false;
                    note_beginning(connection, now.boot);
                    return false;
                }
                // Once: whoever goes on sending what ends no request is answered by what is here.
                Next::Look => {
                    connection.receive(&mut self.buffer, now.boot);
                    looked = true;
                }
                Next::Request { text, keep_open } => {
                    *self.eaten.entry(connection.who).or_default() += 3 * text.len();
                    if connection.who.is_operator() {
                        let order = admin::parse(text);
                        connection.last = !keep_open;
                        match order {
                            Ok(order) => self.obey(id, order),
                            Err(error) => self.refuse(id, error, false),
                        }
                        return true;
                    }
                    let call = request::parse(text);
                    connection.last = !keep_open;
                    match call {
                        Ok(call) if owes && matches!(call.method, Method::Crypto { .. }) => {
                            self.put_off(id, call);
                        }
                        Ok(call) => self.decide(id, call),
                        Err(error) => self.refuse(id, error, false),
                    }
                    return true;
                }
                Next::Broken { fault, keep_open } => {
                    self.broken(id, fault, keep_open);
                    return true;
                }
            }
        }
    }

    fn broken(&mut self, id: u64, fault: Fault, keep_open: bool) {
        let max = self.clients.get(&id).map_or(0, |c| self.max_request(c.connection.who));
        let error = match fault {
            Fault::NotAnObject(first) => {
                let text = format!("Parse error: a JSON object expected, found {:?}", char::from(first));
                Error::new(Code::BadRequest, text)
            }
            Fault::Newline => Error::new(Code::BadRequest, "Parse error: newline before the end of the JSON object"),
            Fault::Truncated => Error::new(Code::BadRequest, "Parse error: the JSON object is not complete"),
            Fault::TooLarge => Error::new(Code::TooLarge, format!("Request too large: more than {max} bytes")),
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.linger = fault == Fault::TooLarge;
        }
        self.refuse(id, error, !keep_open);
    }

    /// Answers with an error that no policy decided, and closes if it is the last.
    pub(super) fn refuse(&mut self, id: u64, error: Error, last: bool) {
        let now = self.clock.now();
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.connection.last |= last;
        client.connection.reply(error.line());
        let who = client.connection.who;
        let socket = usize::from(who.socket);
        self.note_turned_away(socket, Some(who), "request", &error, now);
        let alert = Alert {
            method: "request",
            verb: "rejected",
            text: &error.text,
            kind: None,
            token: None,
            rank: Rank::Common,
        };
        self.alert(socket, &alert, now);
    }

    /// Decides a call that is new. Whoever waits for a signature on its socket and is due comes first: none is
    /// overtaken in the instant between a slot's coming free and its own next try.
    pub(super) fn decide(&mut self, id: u64, call: Call) {
        if self.is_at_rest() {
            return self.hold(id, call);
        }
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        if matches!(call.method, Method::SignEvent(_)) {
            self.serve_waiting(who.socket);
        }
        let now = self.clock.now();
        let behind = self.queues.is_busy(who);
        match self.consult(&call, who, behind, now) {
            Verdict::Answer(answer) => {
                self.answered(id, &call, answer, now);
                self.note_served();
            }
            Verdict::Refused(refusal) => self.refused(id, &call, refusal, now),
            Verdict::Sign(grant) => self.ask(id, &call, grant),
            Verdict::Errand(spent) => self.set_out(id, &call, spent),
            // One before it may give its slot back.
            Verdict::Limited(..) if self.owes(id) => self.put_off(id, call),
            Verdict::Limited(refusal, 0) => self.refused(id, &call, refusal, now),
            Verdict::Limited(refusal, seconds) => self.wait(id, call, refusal, seconds, now),
        }
    }

    /// Whether those before a request are not answered yet, or their replies not sent.
    fn owes(&self, id: u64) -> bool {
        let owes = |connection: &Connection| connection.owes() || matches!(connection.state, State::Replying);
        self.clients.get(&id).is_some_and(|client| owes(&client.connection))
    }

    /// Keeps what may have to wait until all before it are answered: a connection waits for one thing at a time.
    fn put_off(&mut self, id: u64, call: Call) {
        if !self.afford(id, call.weight()) {
            return self.refuse(id, too_much_held(), false);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.next = Some(Box::new(call));
        }
    }

    /// The verdict, and what it changed in the journal: what is not there could be done again after a restart.
    fn consult(&mut self, call: &Call, who: Principal, behind: bool, now: Now) -> Verdict {
        let lasting = matches!(call.method, Method::SignEvent(_) | Method::SessionStart { .. } | Method::Crypto { .. });
        if lasting && self.journal.is_stuck() && !self.can_keep(now) {
            return Verdict::Refused(journal_lacking().into());
        }
        // A session that begins uses no key: its line can come later.
        let uses_key = lasting && !matches!(call.method, Method::SessionStart { .. });
        if uses_key && self.decisions.is_stuck() && !self.can_log(now) {
            return Verdict::Refused(not_logged().into());
        }
        let verdict = self.engine.decide(call, who, behind, now, &mut random);
        match verdict {
            // Written before the gate is asked, with others'.
            Verdict::Sign(_) => self.keep_together(),
            _ => drop(self.keep()),
        }
        verdict
    }

    /// No signature came of a slot: somebody else may have it.
    pub(super) fn give_back(&mut self, slot: Slot) {
        self.engine.free(slot);
        self.keep();
        self.queues.wake(slot.used.who);
    }

    /// Stands in line for a slot.
    fn wait(&mut self, id: u64, call: Call, refusal: Refusal, seconds: u64, now: Now) {
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        // Nobody waits for what cannot come in time.
        let hopeless = refusal.error.retry_after_ms.is_some_and(|ms| ms > seconds.saturating_mul(1000));
        // What waits is held in memory: within the budget, or not at all.
        let held = self.afford(id, call.weight());
        let until = now.boot.saturating_add(seconds.saturating_mul(1000));
        if hopeless || !held || self.draining.is_some() || !self.queues.join(who, id, until) {
            return self.refused(id, &call, refusal, now);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.state = State::Waiting { call: Box::new(call) };
        }
    }

    /// Tries those who wait on a socket and are due, each in its turn. Nothing is done twice: a try ends a wait, or
    /// puts its line off.
    pub(super) fn serve_waiting(&mut self, socket: u16) {
        let now = self.clock.now();
        while let Some((who, id)) = self.queues.turn(socket, now.boot) {
            match self.engine.total_wait(socket, now.boot) {
                Some(ms) => self.queues.hold(socket, now.boot.saturating_add(ms.max(1))),
                None => self.attempt(who, id, now, false),
            }
        }
    }

    /// Patience that is over: a last try, and then its answer, whatever it is.
    pub(super) fn end_patience(&mut self) {
        let now = self.clock.now();
        while let Some((who, id)) = self.queues.over(now.boot) {
            self.attempt(who, id, now, true);
        }
    }

    fn attempt(&mut self, who: Principal, id: u64, now: Now, last: bool) {
        let behind = self.queues.head(who) != Some(id);
        let Some(call) = self.take_waiting(id) else { return self.queues.leave(who, id) };
        match self.consult(&call, who, behind, now) {
            Verdict::Limited(refusal, _) if !last => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.connection.state = State::Waiting { call };
                }
                let ms = refusal.error.retry_after_ms.unwrap_or(u64::MAX);
                return self.queues.rest(who, now.boot.saturating_add(ms.max(1)));
            }
            Verdict::Sign(grant) => {
                self.queues.served(who);
                // Before it is asked for: what the client has sent behind it may then come to stand in this line.
                self.queues.leave(who, id);
                self.ask(id, &call, grant);
                return self.file(id);
            }
            // Only signatures wait.
            Verdict::Errand(spent) => self.set_out(id, &call, spent),
            Verdict::Answer(answer) => self.answered(id, &call, answer, now),
            Verdict::Refused(refusal) | Verdict::Limited(refusal, _) => self.refused(id, &call, refusal, now),
        }
        self.queues.leave(who, id);
        // Not advanced: its next request has its turn when epoll reports it, after whoever is being decided now.
        self.file(id);
    }

    pub(super) fn take_waiting(&mut self, id: u64) -> Option<Box<Call>> {
        let state = &mut self.clients.get_mut(&id)?.connection.state;
        match std::mem::replace(state, State::Reading) {
            State::Waiting { call } => Some(call),
            other => {
                *state = other;
                None
            }
        }
    }

    /// nsecd ends: a request that waits for a slot is answered now.
    pub(super) fn give_up_waiting(&mut self, id: u64, now: Now) {
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        let Some(call) = self.take_waiting(id) else { return };
        let error = Error::new(Code::RateLimited, "Rate limit: no slot came free before nsecd was stopped");
        self.queues.leave(who, id);
        self.refused(id, &call, error.into(), now);
        self.advance(id);
    }

    /// Charges a connection for bytes that it is going to hold; false if its principal's or the common budget is used up.
    pub(super) fn afford(&mut self, id: u64, weight: usize) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let who = client.connection.who;
        let crowd = if who.is_operator() { &mut self.desk.crowd } else { &mut self.crowd };
        let (charged, within) = crowd.charge(who, client.charged, client.connection.weight() + weight);
        client.charged = charged;
        within
    }

    fn ask(&mut self, id: u64, call: &Call, grant: Grant) {
        let Grant { account, texts, slot } = grant;
        let weight = 2 * texts.canonical.len() + texts.unsigned.len();
        if !self.afford(id, weight) {
            self.give_back(slot);
            return self.refused(id, call, too_much_held().into(), self.clock.now());
        }
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        let (kind, token) = facts(call);
        let kind = kind.unwrap_or_default();
        let now = self.clock.now();
        let Texts { canonical, unsigned, created_at } = texts;
        let event = Sha256::digest(&canonical).into();
        let wanted = Wanted {
            who,
            method: "sign_event",
            session: token.clone(),
            account,
            agreement: false,
            kind: kind.into(),
            created_at: created_at.into(),
            id: &event,
        };
        let Some(noted) = self.decisions.intend(&wanted, now) else {
            self.give_back(slot);
            return self.refused(id, call, not_logged().into(), now);
        };
        let place = self.clients.get_mut(&id).map_or(0, |client| client.connection.owe(weight));
        let then = Then::Event { slot: Box::new(slot), unsigned, place };
        let job = Job { client: id, who, account, kind, token, then, noted, weight: 0 };
        self.ask_together(Asking { canonical, id: event, job });
    }

    /// A gate's reply: the slot is settled whether or not the client is still there.
    pub(super) fn signed(&mut self, answer: Answer<Job>) {
        let now = self.clock.now();
        let Answer { job, id, status, signature, .. } = answer;
        let client = job.client;
        self.come_back(&job);
        let outcome = self.outcome(status, &job, now);
        let outcome =
            if job.who.is_operator() { outcome.map_err(|error| self.advised(error, status, &job)) } else { outcome };
        match (job.then, outcome) {
            (then, Err(error)) => self.unsigned(Job { then, ..job }, error, now),
            (Then::Operators { unsigned }, Ok(())) => self.answer(client, reply::signed(&unsigned, &id, &signature)),
            (Then::Event { unsigned, place, .. }, Ok(())) => {
                self.note_served();
                self.settle(client, place, reply::signed(&unsigned, &id, &signature));
            }
            (Then::Seal(errand), Ok(())) => self.sealed(*errand, Ok((id, signature)), now),
        }
        self.advance(client);
    }

    /// What a gate's verdict means to whoever asked.
    fn outcome(&mut self, status: Status, job: &Job, now: Now) -> Result<(), Error> {
        Err(match status {
            Status::Signed => return Ok(()),
            Status::OverCeiling => {
                let is_seal = matches!(job.then, Then::Seal(_));
                let mut error = self.engine.over_ceiling(job.account);
                match self.policy.accounts[job.account].seal_ceiling_period_ms.filter(|_| is_seal) {
                    // Seals have a ceiling of their own, which says nothing about the other.
                    Some(period) => error.retry_after_ms = Some(period),
                    None => self.engine.note_full(job.account, now),
                }
                error
            }
            Status::NotRecorded => {
                self.tell_operator(
                    now,
                    "the gate cannot write its record, so nothing is signed: free space in the state directory",
                );
                Error::new(Code::Unavailable, "Signing is unavailable: the record cannot be written")
            }
            Status::KindNotAllowed => {
                Error::new(Code::OutOfScope, format!("Event kind {} not in account ceiling", job.kind))
            }
            Status::Frozen => Error::new(Code::Frozen, "The account is frozen by its operator"),
            Status::CreatedAtOutside => Error::new(Code::OutOfScope, "created_at is outside the account's window"),
            Status::Failed(code) => {
                let text = format!("the gate of account {} answered {code}", self.policy.accounts[job.account].name);
                self.tell_operator(now, &text);
                Error::new(Code::Unavailable, "Signing failed")
            }
        })
    }

    /// At most one line in a while: agents choose how often a gate refuses.
    pub(super) fn tell_operator(&mut self, now: Now, text: &str) {
        if now.boot >= self.told {
            self.told = now.boot + super::SWEEP;
            log::error!("{text}");
        }
    }

    fn refused(&mut self, id: u64, call: &Call, refusal: Refusal, now: Now) {
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        let (kind, token) = facts(call);
        let verb = if refusal.error.code == Code::RateLimited { "rate-limited" } else { "rejected" };
        let kind = kind.filter(|_| refusal.error.code != Code::RateLimited);
        self.note_refused(who, call, &refusal, now);
        let (text, rank) = (refusal.alert.as_deref().unwrap_or(&refusal.error.text), refusal.rank);
        let alert = Alert { method: call.method.name(), verb, text, kind, token, rank };
        self.alert(usize::from(who.socket), &alert, now);
        self.answer(id, refusal.error.line());
    }

    fn answered(&mut self, id: u64, call: &Call, answer: policy::Answer, now: Now) {
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return };
        self.note_answered(who, call, &answer, now);
        if let Some(text) = &answer.alert {
            let (kind, token) = facts(call);
            let alert = Alert { method: call.method.name(), verb: "rejected", text, kind, token, rank: Rank::Foreign };
            self.alert(usize::from(who.socket), &alert, now);
        }
        self.answer(id, answer.line);
    }

    /// Starts a reply, if the client is still there.
    pub(super) fn answer(&mut self, id: u64, line: String) {
        let now = self.clock.now().boot;
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.heard = now;
            client.connection.reply(line);
        }
    }

    /// A reply that was owed, if the client is still there.
    pub(super) fn settle(&mut self, id: u64, place: u64, line: String) {
        let now = self.clock.now().boot;
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.heard = now;
            client.connection.settle(place, line);
        }
    }
}

/// What a client is told whose principal, or all together, hold too much.
pub(super) fn too_much_held() -> Error {
    Error::new(Code::Unavailable, "Too many bytes held by requests in flight: try again later")
}

/// What a client is told whose row could not be written.
pub(super) fn journal_lacking() -> Error {
    Error::new(Code::Unavailable, "Signing is unavailable: the journal cannot be written")
}

/// A request begins with its first byte that is not blank.
fn note_beginning(connection: &mut Connection, now: u64) {
    if connection.framer.is_partial() {
        connection.began.get_or_insert(now);
    }
}

/// What an alert says of a call: its kind, and the first digits of its token's hash.
pub(super) fn facts(call: &Call) -> (Option<u16>, Option<String>) {
    let kind = match &call.method {
        Method::SignEvent(draft) => Some(draft.kind),
        _ => None,
    };
    let token = match (&call.token, &call.method) {
        (Token::Given(token), _) | (_, Method::SessionInfo(token) | Method::SessionRevoke(token)) => {
            Some(TokenHash::of(token).label())
        }
        _ => None,
    };
    (kind, token)
}

/// 32 bytes for a token. Without the kernel's generator there can be no token, and so no broker.
pub(super) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    if nsecd_sandbox::lock::random(&mut bytes).is_err() {
        nsecd_sandbox::lock::exit(5);
    }
    bytes
}
