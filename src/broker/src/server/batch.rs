//! What came together is written with one call to each file, and only then passed on.
//!
//! The order of each request stays what it was: its row in the journal and its intent are on disk before its gate hears of
//! it, its outcome before its client does (or, on a full disk, as soon as there is room). Must never leave anything behind when the server waits.

use super::decided::not_logged;
use super::requests::journal_lacking;
use super::{End, Job, Server, Then};
use crate::alert::{Alert, Rank};
use crate::clock::{Clock, Now};
use crate::reply::{Code, Error};

/// Events that wait for each other at most: the gate could be at work on the first.
pub(super) const MOST: usize = 16;

/// An event whose row and intent are to be written before its gate is asked.
pub(super) struct Asking {
    /// NIP-01's serialisation.
    pub canonical: String,
    /// SHA-256 of that.
    pub id: [u8; 32],
    pub job: Job,
}

impl<C: Clock> Server<C> {
    /// Asks a gate with the others of this round. All that gates are asked goes this way: they answer in the order in which the
    /// intents are in the log.
    pub(super) fn ask_together(&mut self, mut asking: Asking) {
        self.send_ahead(&mut asking);
        self.asking.push(asking);
        if self.asking.len() >= MOST {
            self.commit();
        }
    }

    /// Writes what the events of this round need, and asks their gates. What cannot be written is not asked.
    pub(super) fn commit(&mut self) {
        // A client that is refused goes on with what it has sent behind.
        while !self.asking.is_empty() {
            self.commit_once();
        }
    }

    fn commit_once(&mut self) {
        let now = self.clock.now();
        // Both, whatever the first one says.
        let (kept, logged) = (self.journal.has_all() & self.can_keep(now), self.can_log(now));
        let mut asked = Vec::new();
        let mut all = std::mem::take(&mut self.asking);
        for Asking { canonical, id, job } in all.drain(..) {
            let account = job.account;
            let gate = self.gates.get_mut(account).and_then(Option::as_mut);
            if let Some(gate) = gate.filter(|_| kept && logged) {
                gate.ask(&canonical, id, job, now.boot);
                if !asked.contains(&account) {
                    asked.push(account);
                }
                continue;
            }
            self.decisions.not_asked(job.noted, now);
            self.come_back(&job);
            let client = job.client;
            let error = match (kept, logged) {
                (false, _) => journal_lacking(),
                (true, false) => not_logged(),
                (true, true) => no_gate(),
            };
            self.unsigned(job, error, now);
            self.advance(client);
        }
        if self.asking.is_empty() {
            // Its room, for the next round.
            self.asking = all;
        }
        for account in asked {
            // A gate that is gone shows in epoll as well: the loop ends there, with the reason.
            if let Err(why) = self.push_gate(account) {
                log::debug!("{why}");
            }
        }
    }

    /// Sends to a gate, and takes the replies that have come: all their outcomes first, then what follows from each.
    pub(super) fn gate_ready(&mut self, index: usize) -> Result<(), End> {
        match self.exchange(index) {
            // A new one takes its place.
            Err(_) if self.gate_may_end(index) => Ok(()),
            other => other,
        }
    }

    fn exchange(&mut self, index: usize) -> Result<(), End> {
        self.push_gate(index)?;
        let (now, mut answers) = (self.clock.now(), Vec::new());
        let end = loop {
            let Some(gate) = self.gates.get_mut(index).and_then(Option::as_mut) else { break Ok(()) };
            match gate.receive() {
                Ok(Some(answer)) => {
                    self.decisions.outcome(answer.job.noted, answer.code, now);
                    answers.push(answer);
                }
                Ok(None) => break Ok(()),
                Err(end) => break Err(end),
            }
        };
        self.decisions.flush(now);
        let mut clients: Vec<u64> = answers.iter().map(|answer| answer.job.client).collect();
        for answer in answers {
            self.signed(answer);
        }
        // Those who are owed more have their first replies now, together.
        clients.dedup();
        for id in clients {
            self.send_early(id);
        }
        end
    }

    /// No signature comes of it: its client is told why, and others may have its slot.
    pub(super) fn unsigned(&mut self, job: Job, error: Error, now: Now) {
        let (slot, place) = match job.then {
            Then::Event { slot, place, .. } => (slot, place),
            Then::Operators { .. } => return self.answer(job.client, error.line()),
            Then::Seal(errand) => return self.sealed(*errand, Err(error), now),
        };
        self.give_back(*slot);
        self.decisions.count(usize::from(job.who.socket), error.code.word());
        let verb = if error.code == Code::RateLimited { "rate-limited" } else { "rejected" };
        // The reference daemon names the kind where it was the reason.
        let kind = (error.code != Code::RateLimited).then_some(job.kind);
        let (method, token) = ("sign_event", job.token);
        let alert = Alert { method, verb, text: &error.text, kind, token, rank: Rank::Common };
        self.alert(usize::from(job.who.socket), &alert, now);
        self.settle(job.client, place, error.line());
    }
}

/// What a client is told whose account has no gate.
fn no_gate() -> Error {
    Error::new(Code::Unavailable, "Signing is unavailable: the account's gate is not there; try again in a few seconds")
}
