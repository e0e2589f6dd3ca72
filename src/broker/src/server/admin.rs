//! The operator's connections: places, bytes and turns that no agent can take.
//!
//! They have an epoll, a crowd and descriptors of their own, and are looked after between any few of the agents' events. A
//! request is framed, read and answered as an agent's is.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use sha2::{Digest, Sha256};
use std::os::fd::{AsRawFd, OwnedFd};

use super::batch::Asking;
use super::decided::not_logged;
use super::requests::{random, too_much_held};
use super::{Client, Job, LISTENER, Server, Then};
use crate::admin::{MAX_REQUEST, Order};
use crate::clock::{Clock, Now};
use crate::connection::{Connection, State};
use crate::crowd::{Crowd, Stand};
use crate::decisions::Wanted;
use crate::event::{Draft, Texts};
use crate::gate::Status;
use crate::policy::MAX_EVENT;
use crate::policy::operator::Issue;
use crate::principal::{Principal, UNMAPPED};
use crate::reply::{self, Code, Error};
use crate::sys;

/// Connections that are held in all, and of one uid: root's and nsecd's own.
pub const CONNECTIONS: usize = 16;
const EACH: usize = 8;
/// Sessions that one reply lists.
const LISTED: usize = 1000;
/// Connections accepted, and events served, at a time.
const BATCH: usize = 32;

/// The admin socket and what is kept for it.
pub(super) struct Desk {
    pub epoll: Epoll,
    pub crowd: Crowd,
    listener: OwnedFd,
    accepting: bool,
    /// When a stranger was last told of in the log (CLOCK_BOOTTIME, ms).
    told: Option<u64>,
}

impl Desk {
    pub fn new(epoll: Epoll, listener: OwnedFd) -> nix::Result<Desk> {
        let crowd = Crowd::new(CONNECTIONS, EACH);
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Desk { epoll, crowd, listener, accepting: true, told: None })
    }
}

impl<C: Clock> Server<C> {
    /// Bytes that a request of this one's may have.
    pub(super) fn max_request(&self, who: Principal) -> usize {
        if who.is_operator() { MAX_REQUEST } else { self.policy.sockets[usize::from(who.socket)].max_request }
    }

    /// Gives the operator a turn.
    pub(super) fn serve_operator(&mut self) {
        let mut events = [EpollEvent::empty(); BATCH];
        let ready = self.desk.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            match event.data() {
                LISTENER => self.accept_operators(),
                id => self.client_ready(id, event.events()),
            }
        }
    }

    fn accept_operators(&mut self) {
        for _ in 0..BATCH {
            if !self.desk.accepting {
                return;
            }
            if self.desk.crowd.is_full() {
                match self.desk.crowd.yielding_of_all(self.clock.now().boot) {
                    Some(oldest) => self.close(oldest),
                    None => return self.stop_operators(),
                }
            }
            match sys::accept(&self.desk.listener) {
                Ok(fd) => self.welcome_operator(fd),
                Err(Errno::EAGAIN) => return,
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                Err(e) => {
                    log::warn!("accept on the admin socket: {e}");
                    return self.stop_operators();
                }
            }
        }
    }

    pub(super) fn welcome_operator(&mut self, fd: OwnedFd) {
        let now = self.clock.now();
        let Ok(who) = Principal::operator(&fd) else { return };
        if !who.may_administer(self.policy.operator_uid) {
            if self.desk.told.is_none_or(|told| now.boot >= told + super::SWEEP) {
                self.desk.told = Some(now.boot);
                log::warn!("uid {} is refused at the admin socket: it is for root and nsecd's own user", who.uid);
            }
            let text =
                format!("uid {} may not use this socket: it is for root and the user that nsecd runs as", who.uid);
            return self.turn_operator_away(&fd, who, &Error::new(Code::Forbidden, text), now);
        }
        if self.desk.crowd.is_crowded(who) {
            match self.desk.crowd.yielding_at_once(who, now.boot) {
                Some(oldest) => self.close(oldest),
                None => {
                    let text = format!("Too many connections: uid {} has {EACH} with requests in flight", who.uid);
                    return self.turn_operator_away(&fd, who, &Error::new(Code::Unavailable, text), now);
                }
            }
        }
        let id = self.next_client;
        self.next_client += 1;
        if self.desk.epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, id)).is_err() {
            return;
        }
        let stand = Stand::Idle(now.boot);
        self.desk.crowd.join(id, who, stand);
        let connection = Connection::new(fd, who, MAX_REQUEST, now.boot);
        self.clients.insert(id, Client::new(connection, stand));
        self.client_ready(id, EpollFlags::EPOLLIN);
    }

    fn turn_operator_away(&mut self, fd: &OwnedFd, who: Principal, error: &Error, now: Now) {
        self.note_turned_away(usize::from(who.socket), Some(who), "connect", error, now);
        let line = error.line() + "\n";
        let _ = send(fd.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // Taken, so that the client reads the line and an end of file rather than a reset.
        let _ = recv(fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT);
    }

    pub(super) fn stop_operators(&mut self) {
        if std::mem::replace(&mut self.desk.accepting, false) {
            let _ = self.desk.epoll.delete(&self.desk.listener);
        }
    }

    /// There is a place again.
    pub(super) fn resume_operators(&mut self) {
        if !self.desk.accepting && self.draining.is_none() {
            self.desk.accepting = true;
            let _ = self.desk.epoll.add(&self.desk.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER));
        }
    }

    /// Does what the operator asks.
    pub(super) fn obey(&mut self, id: u64, order: Order) {
        if self.is_at_rest() && matches!(order, Order::SignEvent { .. }) {
            return self.hold_order(id, order);
        }
        let now = self.clock.now();
        let done = match &order {
            Order::Status => Ok(self.status(now).to_string()),
            Order::GetPublicKey { account } => self
                .engine
                .any_account(account.as_deref())
                .map(|account| reply::public_key(&self.policy.accounts[account].public_key)),
            Order::ListAccounts => Ok(self.engine.all_accounts()),
            Order::SessionStart { .. } => self.issue(id, &order, now),
            Order::SessionList { socket } => {
                match socket.as_deref().map(|name| self.engine.socket_named(name)).transpose() {
                    Ok(socket) => Ok(self.engine.list_sessions(socket, LISTED, now)),
                    Err(error) => Err(error),
                }
            }
            Order::SessionInfo { session } => self.engine.describe_session(session, now),
            Order::SessionRevoke { session } => self.revoke(id, session, now),
            Order::SignEvent { draft, account } => match self.engine.any_account(account.as_deref()) {
                Ok(account) => match self.sign_for_operator(id, draft, account, now) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(line) => {
                self.answer(id, line);
                self.note_served();
            }
            Err(error) => {
                self.note_order(id, &order, Some(&error), &error.text, now);
                self.answer(id, error.line());
            }
        }
    }

    fn issue(&mut self, id: u64, order: &Order, now: Now) -> Result<String, Error> {
        let Order::SessionStart { socket, scope, ttl, account, rules } = order else { return Err(not_kept()) };
        // What is not in the journal would be no session after a restart.
        if !self.can_keep(now) {
            return Err(not_kept());
        }
        let by = self.clients.get(&id).map_or(UNMAPPED, |client| client.connection.who.uid);
        let wish = Issue { socket, scope, ttl: *ttl, account: account.as_deref(), rules, by };
        let done = self.engine.issue(&wish, now, &mut random);
        self.keep();
        done
    }

    fn revoke(&mut self, id: u64, session: &str, now: Now) -> Result<String, Error> {
        let line = self.engine.revoke_named(session)?;
        self.keep();
        let order = Order::SessionRevoke { session: session.to_owned() };
        self.note_order(id, &order, None, &line, now);
        Ok(line)
    }

    /// The owner's own event goes to the gate: no socket's kinds, rules or limits are asked, and both lines are in the log.
    fn sign_for_operator(&mut self, id: u64, draft: &Draft, account: usize, now: Now) -> Result<(), Error> {
        let Some(who) = self.clients.get(&id).map(|c| c.connection.who) else { return Ok(()) };
        if !self.can_log(now) {
            return Err(not_logged());
        }
        let own = &self.policy.accounts[account].public_key;
        if draft.pubkey.as_ref().is_some_and(|named| !named.eq_ignore_ascii_case(own)) {
            return Err(Error::new(Code::BadRequest, "Invalid pubkey: not the account's key"));
        }
        let texts = draft.settle(own, u32::try_from(now.wall_seconds()).unwrap_or(u32::MAX));
        let Texts { canonical, unsigned, created_at } = texts;
        if canonical.len() > MAX_EVENT {
            let text = format!("Event too large: {} bytes in canonical form, at most {MAX_EVENT}", canonical.len());
            return Err(Error::new(Code::TooLarge, text));
        }
        let weight = 2 * canonical.len() + unsigned.len();
        if !self.afford(id, weight) {
            return Err(too_much_held());
        }
        let event = Sha256::digest(&canonical).into();
        let wanted = Wanted {
            who,
            method: "sign_event",
            session: None,
            account,
            agreement: false,
            kind: draft.kind.into(),
            created_at: created_at.into(),
            id: &event,
        };
        let Some(noted) = self.decisions.intend(&wanted, now) else { return Err(not_logged()) };
        if let Some(client) = self.clients.get_mut(&id) {
            client.connection.state = State::Signing { weight };
        }
        let then = Then::Operators { unsigned };
        let job = Job { client: id, who, account, kind: draft.kind, token: None, then, noted, weight: 0 };
        self.ask_together(Asking { canonical, id: event, job });
        Ok(())
    }

    /// What the operator can do about a gate's refusal.
    pub(super) fn advised(&self, mut error: Error, status: Status, job: &Job) -> Error {
        let account = &self.policy.accounts[job.account].name;
        let advice = match status {
            Status::KindNotAllowed => {
                format!("account {account} may not sign it at all: add {} to its kinds in the configuration", job.kind)
            }
            Status::Frozen => format!("nsecctl thaw --account {account}"),
            Status::OverCeiling => {
                format!("it comes back by itself, or give account {account} a higher ceiling in the configuration")
            }
            Status::CreatedAtOutside => {
                format!("give another created_at, or account {account} a wider one in the configuration")
            }
            _ => return error,
        };
        error.text = format!("{}: {advice}", error.text);
        error
    }
}

fn not_kept() -> Error {
    Error::new(Code::Unavailable, "No session can be issued: the journal cannot be written")
}
