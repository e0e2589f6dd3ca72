//! What goes into the decision log, and when.

use nsecd_policy::control::Control;

use super::Server;
use crate::admin::Order;
use crate::clock::{Clock, Now};
use crate::decisions::{Decision, Noted, Wanted};
use crate::policy::{Answer, Refusal};
use crate::principal::{ADMIN, Principal};
use crate::reply::{Code, Error};
use crate::request::{Call, Method};

impl<C: Clock> Server<C> {
    /// Whether the decision log takes lines; if not, what needs one is refused: a signature nobody can account for is none.
    pub(super) fn can_log(&mut self, now: Now) -> bool {
        let whole = self.decisions.flush(now);
        if !whole {
            self.tell_operator(
                now,
                "the decision log cannot be written, so nothing is signed: free space in the state directory",
            );
        }
        whole
    }

    /// Writes that a key is about to be used. `None`: it could not be written, and the key must not be used.
    pub(super) fn note_intent(&mut self, wanted: &Wanted<'_>) -> Option<Noted> {
        let now = self.clock.now();
        let noted = self.decisions.intent(wanted, now);
        if noted.is_none() {
            self.can_log(now);
        }
        noted
    }

    /// A call that was refused by this broker, and not by a gate or the ECDH holder.
    pub(super) fn note_refused(&mut self, who: Principal, call: &Call, refusal: &Refusal, now: Now) {
        let (kind, session) = super::requests::facts(call);
        let foreign = refusal.alert.is_some();
        let decision = Decision {
            socket: usize::from(who.socket),
            who: Some(who),
            method: call.method.name(),
            session,
            account: call.account.as_deref(),
            kind,
            rule: Some(if foreign { "foreign_session" } else { refusal.error.code.word() }),
            why: refusal.alert.as_deref().unwrap_or(&refusal.error.text),
            urgent: foreign,
        };
        self.decisions.decided(decision, now);
    }

    /// A call that was answered. What is only read is no decision; a session that ends has its own line.
    pub(super) fn note_answered(&mut self, who: Principal, call: &Call, answer: &Answer, now: Now) {
        let revokes = matches!(call.method, Method::SessionRevoke(_));
        if !revokes && answer.alert.is_none() {
            return;
        }
        let (kind, session) = super::requests::facts(call);
        let decision = Decision {
            socket: usize::from(who.socket),
            who: Some(who),
            method: call.method.name(),
            session,
            account: None,
            kind,
            rule: answer.alert.as_ref().map(|_| "foreign_session"),
            why: answer.alert.as_deref().unwrap_or(&answer.line),
            urgent: answer.alert.is_some(),
        };
        self.decisions.decided(decision, now);
    }

    /// What became of an order of the operator's. What is only read is no decision, and a session that begins has its own line.
    pub(super) fn note_order(&mut self, id: u64, order: &Order, error: Option<&Error>, why: &str, now: Now) {
        let kind = match order {
            Order::SignEvent { draft, .. } => Some(draft.kind),
            _ => None,
        };
        let session = match order {
            Order::SessionRevoke { session } if error.is_none() => session.get(..12).map(str::to_ascii_lowercase),
            _ => None,
        };
        let decision = Decision {
            socket: usize::from(ADMIN),
            who: self.clients.get(&id).map(|c| c.connection.who),
            method: order.name(),
            session,
            account: order.account(),
            kind,
            rule: error.map(|error| error.code.word()),
            why,
            urgent: error.is_none(),
        };
        self.decisions.decided(decision, now);
    }

    /// A request that was not understood, or a connection that was not taken.
    pub(super) fn note_turned_away(
        &mut self,
        socket: usize,
        who: Option<Principal>,
        method: &'static str,
        error: &Error,
        now: Now,
    ) {
        let (rule, why) = (Some(error.code.word()), &error.text);
        let decision =
            Decision { socket, who, method, session: None, account: None, kind: None, rule, why, urgent: false };
        self.decisions.decided(decision, now);
    }

    /// Asks for a new file when this one is full.
    pub(super) fn renew_decisions(&mut self, now: Now) {
        if self.decisions.wants_new_file(now) {
            self.tell(Control::NextDecisionLog);
        }
    }
}

/// What a client is told whose intent could not be written.
pub(super) fn not_logged() -> Error {
    Error::new(Code::Unavailable, "Signing is unavailable: not recorded, since the decision log cannot be written")
}
