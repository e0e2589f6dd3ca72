//! What policy remembers: sessions, and how much of each window is used.
//!
//! It changes by rows only, each of which the journal keeps, so that a broker which reads them again knows what the one
//! before it knew. Decides nothing.

use std::collections::{BTreeSet, VecDeque};

use nsecd_policy::{Policy, StartSessions};
use serde::{Deserialize, Serialize};

use crate::budgets::{self, Budgets, Class};
use crate::clock::Now;
use crate::day::Day;
use crate::held::Held;
use crate::limits::{Exceeded, MINUTE, Meter};
use crate::principal::{Principal, User};
use crate::row::{Binding, Drawing, OfDay, OfPrincipal, OfSession, OfTotal, OfUser, Row, Spending, Use};
use crate::session::{Session, Sessions, Terms, TokenHash};
use crate::table::Table;
use crate::trying::Failures;

/// First sessions remembered for one uid on one socket (`start_sessions = "once"`). Whoever can make so many cgroups can
/// as well make another new one.
const MOST_LATCHES: usize = 16_384;

/// What a principal's first session allows it for good (`start_sessions = "once"`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// Index of the account.
    pub account: usize,
    /// Kinds.
    pub scope: Vec<u16>,
    /// When it ends, whichever clock gets there first.
    pub ends: Now,
    /// When that first session was started; `None` in journals of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Now>,
}

impl Latch {
    fn of(terms: &Terms) -> Latch {
        let Terms { account, ref scope, ends, started, .. } = *terms;
        Latch { account, scope: scope.clone(), ends, started: Some(started) }
    }

    /// Whether either clock has reached its end.
    pub fn is_over(&self, now: Now) -> bool {
        now.boot >= self.ends.boot || now.wall >= self.ends.wall
    }
}

/// A principal's windows outside any session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meters {
    /// Signatures.
    pub signatures: Meter,
    /// Sessions started.
    pub starts: Meter,
    /// Encryption and direct messages.
    #[serde(default)]
    pub budgets: Budgets,
}

impl Meters {
    fn is_empty(&mut self, now: u64) -> bool {
        self.signatures.is_empty(now) && self.starts.is_empty(now) && self.budgets.is_empty(now)
    }

    fn raise(&mut self, other: &Meters) {
        self.signatures.raise(&other.signatures);
        self.starts.raise(&other.starts);
        self.budgets.raise(&other.budgets);
    }

    fn carry(&mut self, from: u64, elapsed: u64, to: u64) {
        self.signatures.carry(from, elapsed, to);
        self.starts.carry(from, elapsed, to);
        self.budgets.carry(from, elapsed, to);
    }
}

#[derive(Default)]
struct Known {
    meters: Meters,
    latch: Option<Latch>,
}

/// What is known of a uid on a socket, whatever the cgroup.
#[derive(Default)]
struct Crowd {
    /// Sessions started in this boot by all its principals.
    starts: Meter,
    /// What its principals of earlier boots had used, in each window the most of any one. Cgroup ids start again at a
    /// boot: each principal may be any of them.
    inherited: Meters,
    /// Its principals with a latch, oldest first.
    latched: VecDeque<Principal>,
}

/// What of a socket's policy decides what is remembered.
struct Rules {
    limited: bool,
    total: bool,
    once: bool,
    budgets: budgets::Rules,
    all_budgets: budgets::Rules,
}

impl Rules {
    fn of(s: &nsecd_policy::Socket) -> Rules {
        Rules {
            limited: s.limits.is_some(),
            total: s.total.is_some(),
            once: s.start_sessions == StartSessions::Once,
            budgets: budgets::Rules::of(s),
            all_budgets: budgets::Rules::of_all(s),
        }
    }
}

/// One piece of a [`Ledger`] that a snapshot writes at a time.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// A socket's total.
    Total(u16),
    /// A rule's budget: socket and kind.
    Day(u16, u16),
    /// A uid on a socket.
    User(User),
    /// A principal.
    Principal(Principal),
    /// A session.
    Session(TokenHash),
    /// A principal that is held.
    Held(Principal),
}

/// All that is remembered.
pub struct Ledger {
    rules: Vec<Rules>,
    sessions: Sessions,
    principals: Table<Principal, Known>,
    users: Table<User, Crowd>,
    totals: Vec<Meter>,
    /// Encryption and direct messages, of each socket.
    budgets: Vec<Budgets>,
    /// What was used of rules' budgets, by socket and kind. Kinds without such a rule stay: a rule may come back.
    days: Table<(u16, u16), Day>,
    held: Held,
    last: Now,
    /// What a principal has used that is not known.
    nothing: Meters,
}

impl Ledger {
    /// With nothing remembered.
    pub fn new(policy: &Policy) -> Ledger {
        Ledger {
            rules: policy.sockets.iter().map(Rules::of).collect(),
            sessions: Sessions::default(),
            principals: Table::default(),
            users: Table::default(),
            totals: policy.sockets.iter().map(|_| Meter::default()).collect(),
            budgets: policy.sockets.iter().map(|_| Budgets::default()).collect(),
            days: Table::default(),
            held: Held::default(),
            last: Now::default(),
            nothing: Meters::default(),
        }
    }

    /// Another policy, in which what is remembered keeps its number, and is held to it: rows as [`conform`](Ledger::conform)'s.
    pub fn adopt(&mut self, policy: &Policy, now: Now) -> Vec<Row> {
        let before = std::mem::replace(&mut self.rules, policy.sockets.iter().map(Rules::of).collect());
        self.totals.resize_with(policy.sockets.len(), Meter::default);
        self.budgets.resize_with(policy.sockets.len(), Budgets::default);
        let mut rows = self.conform(policy, now);
        // Which sessions were first ones is not told by their rows where that has counted at times, and at times has not.
        let changed = |who: &&Principal| {
            let of = |rules: &[Rules]| rules.get(usize::from(who.socket)).map(|rules| rules.once);
            of(&before) != of(&self.rules)
        };
        let pieces = self.principals.keys().filter(changed).map(|who| Piece::Principal(*who));
        rows.extend(pieces.filter_map(|piece| self.row(piece)));
        rows
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A principal's windows.
    pub fn meters(&self, who: Principal) -> &Meters {
        let inherited = || self.users.get(&who.user()).map(|crowd| &crowd.inherited);
        self.principals.get(&who).map(|known| &known.meters).or_else(inherited).unwrap_or(&self.nothing)
    }

    /// Sessions started by all principals of a uid on a socket.
    pub fn starts_of(&self, user: User) -> &Meter {
        self.users.get(&user).map_or(&self.nothing.starts, |crowd| &crowd.starts)
    }

    /// What a principal's first session allows it, if its socket holds it to that.
    pub fn latch(&self, who: Principal) -> Option<&Latch> {
        self.principals.get(&who)?.latch.as_ref().filter(|_| self.rules[usize::from(who.socket)].once)
    }

    /// How one more of a class stands to a principal's budget, and to that of all of its socket's.
    pub fn over_budget(&self, who: Principal, class: Class, now: u64) -> Option<Exceeded> {
        let Rules { budgets, all_budgets, .. } = &self.rules[usize::from(who.socket)];
        let whole = |e: Exceeded| Exceeded { text: format!("{} for the whole socket", e.text), ..e };
        let all = || self.budgets[usize::from(who.socket)].check(class, all_budgets, now).map(whole);
        self.meters(who).budgets.check(class, budgets, now).or_else(all)
    }

    /// How many gift wraps may turn out to be junk on a socket; `None`: any number.
    pub fn failures(&self, socket: u16) -> Option<Failures> {
        let Rules { budgets, all_budgets, .. } = &self.rules[usize::from(socket)];
        let ((own, period), (all, _)) = budgets.opening().zip(all_budgets.opening())?;
        Some(Failures { own, all, period })
    }

    /// Who is held for trying a canary kind.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Principals of a socket that anything is known of.
    pub fn principals(&self, socket: u16) -> impl Iterator<Item = Principal> + '_ {
        self.principals.keys().copied().filter(move |who| who.socket == socket)
    }

    /// What was used of the budget of a socket's rule for a kind.
    pub fn day(&self, socket: u16, kind: u16) -> Option<&Day> {
        self.days.get(&(socket, kind))
    }

    /// A socket's windows.
    pub fn total(&self, socket: u16) -> &Meter {
        &self.totals[usize::from(socket)]
    }

    /// The clocks at the last row that had them.
    pub fn last(&self) -> Now {
        self.last
    }

    /// Notes the use of a session, which no row says.
    pub fn touch(&mut self, hash: &TokenHash) {
        self.sessions.touch(hash);
    }

    /// Lets a row happen, now or again. Rows that name what there is not change nothing.
    pub fn apply(&mut self, row: &Row) {
        match row {
            // Names and boots are the reader's affair.
            Row::Open(open) => self.last = open.now,
            Row::Clock(now) => self.last = *now,
            Row::Start(terms) => self.start(terms),
            Row::Sign(slot) => self.sign(slot),
            Row::Free(slot) => self.free(slot),
            Row::Spend(Spending { who, class, at }) => {
                self.last = *at;
                let Rules { budgets, all_budgets, .. } = self.rules[usize::from(who.socket)];
                self.known(*who).meters.budgets.spend(*class, &budgets, at.boot);
                self.budgets[usize::from(who.socket)].spend(*class, &all_budgets, at.boot);
            }
            Row::Return(Spending { who, class, at }) => {
                if let Some(known) = self.principals.get_mut(who) {
                    known.meters.budgets.give_back(*class, at.boot);
                }
                self.budgets[usize::from(who.socket)].give_back(*class, at.boot);
            }
            Row::Draw(drawing) => {
                self.last = drawing.at;
                self.draw(drawing);
            }
            Row::Undraw(Drawing { socket, kind, msats, at, session }) => {
                let day = match session {
                    None => self.days.get_mut(&(*socket, *kind)),
                    Some(hash) => self.sessions.get_mut(hash).and_then(|session| session.days.get_mut(kind)),
                };
                if let Some(day) = day {
                    day.give_back(*msats, at.boot);
                }
            }
            Row::Hold(who) => self.held.add(*who),
            Row::Bind(Binding { session, who }) => self.bind(session, *who),
            Row::Release => drop(self.held.clear()),
            Row::End(hash) => drop(self.sessions.remove(hash)),
            Row::Session(OfSession { terms, signs, meter, days }) => {
                self.sessions.insert(terms.clone(), *signs, meter.clone());
                if let Some(session) = self.sessions.get_mut(&terms.token) {
                    session.days = days.clone();
                }
            }
            Row::Principal(OfPrincipal { who, meters, latch }) => {
                let known = self.known(*who);
                known.meters = meters.clone();
                // Whether or not it counts at the moment.
                match (latch, known.latch.is_some()) {
                    (Some(latch), false) => self.set_latch(*who, latch.clone()),
                    (latch, _) => known.latch.clone_from(latch),
                }
            }
            Row::User(OfUser { user, starts, inherited }) => {
                let crowd = self.users.entry(*user).or_default();
                (crowd.starts, crowd.inherited) = (starts.clone(), inherited.clone());
            }
            Row::Total(OfTotal { socket, meter, budgets }) => {
                self.totals[usize::from(*socket)] = meter.clone();
                self.budgets[usize::from(*socket)] = budgets.clone();
            }
            Row::Day(OfDay { socket, kind, day }) => drop(self.days.insert((*socket, *kind), day.clone())),
        }
    }

    /// Counts in a rule's budget: the socket's, or a session's. One that a session has lost is lost with it.
    fn draw(&mut self, drawing: &Drawing) {
        let Drawing { socket, kind, msats, at, session } = *drawing;
        let day = match session {
            None => self.days.entry((socket, kind)).or_default(),
            Some(hash) => match self.sessions.get_mut(&hash) {
                Some(session) => session.days.entry(kind).or_default(),
                None => return,
            },
        };
        day.draw(msats, at.boot);
    }

    fn start(&mut self, terms: &Terms) {
        let (who, at) = (terms.starter, terms.started);
        self.last = at;
        // The operator has no windows and no first session.
        if who.is_issuer() {
            self.sessions.insert(terms.clone(), 0, Meter::default());
            return;
        }
        // Asked about by the minute only, and where sessions are many and short, an hour of starts is a large part of all memory.
        self.known(who).meters.starts.reserve_within(MINUTE, at.boot);
        self.users.entry(who.user()).or_default().starts.reserve_within(MINUTE, at.boot);
        // Narrowing is a use: by anybody but the starter, who may be handing it on, it binds as signing does.
        if let Some(parent) = terms.parent.filter(|p| self.sessions.get(p).is_some_and(|s| s.terms.starter != who)) {
            self.bind(&parent, who);
        }
        self.latch_to(who, Latch::of(terms));
        self.sessions.insert(terms.clone(), 0, Meter::default());
    }

    /// Takes a slot in every window, and binds the session to its first signer.
    fn sign(&mut self, slot: &Use) {
        let Use { who, session, at } = *slot;
        self.last = at;
        let Rules { limited, total, .. } = self.rules[usize::from(who.socket)];
        if let Some(hash) = session {
            self.bind(&hash, who);
            self.sessions.touch(&hash);
            if let Some(session) = self.sessions.get_mut(&hash) {
                session.sign_count = session.sign_count.saturating_add(1);
                if limited {
                    session.meter.reserve(at.boot);
                }
            }
        }
        if limited {
            self.known(who).meters.signatures.reserve(at.boot);
        }
        if total {
            self.totals[usize::from(who.socket)].reserve(at.boot);
        }
    }

    /// Gives back what [`sign`](Ledger::sign) took.
    fn free(&mut self, slot: &Use) {
        let Use { who, session, at } = *slot;
        if let Some(session) = session.and_then(|hash| self.sessions.get_mut(&hash)) {
            session.sign_count = session.sign_count.saturating_sub(1);
            session.meter.release(at.boot);
        }
        if let Some(known) = self.principals.get_mut(&who) {
            known.meters.signatures.release(at.boot);
        }
        self.totals[usize::from(who.socket)].release(at.boot);
    }

    /// Makes `who` the owner of a session that has none, which counts as the start of one.
    fn bind(&mut self, hash: &TokenHash, who: Principal) {
        let Some(session) = self.sessions.get_mut(hash).filter(|s| s.terms.owner.is_none()) else { return };
        session.terms.owner = Some(who);
        let latch = Latch::of(&session.terms);
        self.latch_to(who, latch);
    }

    /// Latches a principal, if its socket does and it is not.
    fn latch_to(&mut self, who: Principal, latch: Latch) {
        if self.rules[usize::from(who.socket)].once && self.known(who).latch.is_none() {
            self.set_latch(who, latch);
        }
    }

    fn set_latch(&mut self, who: Principal, latch: Latch) {
        self.known(who).latch = Some(latch);
        let latched = &mut self.users.entry(who.user()).or_default().latched;
        latched.push_back(who);
        let oldest = if latched.len() > MOST_LATCHES { latched.pop_front() } else { None };
        if let Some(oldest) = oldest.and_then(|who| self.principals.get_mut(&who)) {
            oldest.latch = None;
        }
    }

    fn known(&mut self, who: Principal) -> &mut Known {
        let inherited = self.users.get(&who.user()).map(|crowd| &crowd.inherited);
        self.principals
            .entry(who)
            .or_insert_with(|| Known { meters: inherited.cloned().unwrap_or_default(), latch: None })
    }

    /// Forgets what no longer counts.
    pub fn sweep(&mut self, now: Now) {
        self.sessions.sweep(now);
        self.principals.retain(|_, known| !known.meters.is_empty(now.boot) || known.latch.is_some());
        self.days.retain(|_, day| !day.is_empty(now.boot));
        self.users.retain(|_, crowd| {
            !(crowd.starts.is_empty(now.boot) && crowd.inherited.is_empty(now.boot) && crowd.latched.is_empty())
        });
    }

    /// Another boot has begun, where it is `now`: all sessions end, and what has been used counts by the wall clock, as
    /// having happened no later than now.
    pub fn reboot(&mut self, now: Now) {
        let (from, elapsed) = (self.last.boot, now.wall.saturating_sub(self.last.wall));
        self.sessions = Sessions::default();
        self.held.clear();
        for crowd in self.users.values_mut() {
            crowd.inherited.carry(from, elapsed, now.boot);
            crowd.starts.carry(from, elapsed, now.boot);
            crowd.latched.clear();
        }
        for (who, mut known) in std::mem::take(&mut self.principals) {
            known.meters.carry(from, elapsed, now.boot);
            self.users.entry(who.user()).or_default().inherited.raise(&known.meters);
        }
        for total in &mut self.totals {
            total.carry(from, elapsed, now.boot);
        }
        for budgets in &mut self.budgets {
            budgets.carry(from, elapsed, now.boot);
        }
        for day in self.days.values_mut() {
            day.carry(from, elapsed, now.boot);
        }
        self.last = now;
    }

    /// Ends all sessions, for a reason that the caller tells.
    pub fn end_sessions(&mut self) -> usize {
        let all = self.sessions.by_last_use();
        self.sessions = Sessions::default();
        all.len()
    }

    /// Holds what is remembered to a policy that may have become narrower. What that changes comes back as rows to be
    /// written: without them a wider policy would some day give back what this one has taken.
    pub fn conform(&mut self, policy: &Policy, now: Now) -> Vec<Row> {
        self.sessions.relink();
        let mut ended = BTreeSet::new();
        let (mut narrowed, mut narrowed_latches) = (BTreeSet::new(), Vec::new());
        let by_last_use = self.sessions.by_last_use();
        let is_root = |hash: &&TokenHash| self.sessions.get(hash).is_some_and(|s| s.terms.parent.is_none());
        let roots = by_last_use.iter().filter(is_root);
        // Each after the one that it was narrowed from, which it does not outlive.
        let parents_first: Vec<TokenHash> = roots.flat_map(|root| self.sessions.family(root)).collect();
        for hash in parents_first {
            let Some(session) = self.sessions.get(&hash) else { continue };
            let terms = &session.terms;
            let socket = &policy.sockets[usize::from(terms.starter.socket)];
            let scope: Vec<u16> = terms.scope.iter().copied().filter(|kind| socket.kinds.contains(*kind)).collect();
            let parent = terms.parent.and_then(|parent| self.sessions.get(&parent));
            let own = earlier(terms.ends, latest(terms.started, socket.max_ttl));
            let ends = parent.map_or(own, |parent| earlier(own, parent.terms.ends));
            // Where the operator starts them, what an agent has started before is none of his.
            let foreign = socket.start_sessions == StartSessions::Admin && terms.issued.is_none();
            if scope.is_empty() || foreign || !serves(socket, policy, terms.account) {
                ended.extend(self.sessions.family(&hash));
            } else if scope != terms.scope || ends != terms.ends {
                self.sessions.narrow(&hash, scope, ends);
                narrowed.insert(hash);
            }
        }
        let mut rows: Vec<Row> = ended.iter().map(|hash| Row::End(*hash)).collect();
        rows.iter().for_each(|row| self.apply(row));
        for (who, latch) in self.principals.iter_mut().filter_map(|(who, known)| Some((who, known.latch.as_mut()?))) {
            let socket = &policy.sockets[usize::from(who.socket)];
            let before = latch.clone();
            // One that allows nothing stays: it must not become none.
            latch.scope.retain(|kind| socket.kinds.contains(*kind) && serves(socket, policy, latch.account));
            latch.ends = earlier(latch.ends, latest(latch.started.unwrap_or(now), socket.max_ttl));
            if *latch != before || latch.scope.is_empty() {
                narrowed_latches.push(*who);
            }
        }
        let pieces = narrowed_latches.into_iter().map(Piece::Principal);
        rows.extend(
            pieces
                .chain(by_last_use.into_iter().filter(|hash| narrowed.contains(hash)).map(Piece::Session))
                .filter_map(|piece| self.row(piece)),
        );
        rows
    }

    /// Everything that there is to write, the least recently used session first.
    pub fn pieces(&self) -> Vec<Piece> {
        let totals = (0..self.totals.len()).filter_map(|i| u16::try_from(i).ok()).map(Piece::Total);
        let users = self.users.keys().map(|user| Piece::User(*user));
        let principals = self.principals.keys().map(|who| Piece::Principal(*who));
        let sessions = self.sessions.by_last_use().into_iter().map(Piece::Session);
        let days = self.days.keys().map(|(socket, kind)| Piece::Day(*socket, *kind));
        let held = self.held.iter().map(Piece::Held);
        totals.chain(days).chain(held).chain(users).chain(principals).chain(sessions).collect()
    }

    /// The row that sets a piece to what it is now; `None` if it is no more.
    pub fn row(&self, piece: Piece) -> Option<Row> {
        Some(match piece {
            Piece::Total(socket) => {
                let budgets = self.budgets[usize::from(socket)].clone();
                Row::Total(OfTotal { socket, meter: self.total(socket).clone(), budgets })
            }
            Piece::Held(who) => Row::Hold(Some(who).filter(|who| self.held.contains(*who))?),
            Piece::Day(socket, kind) => Row::Day(OfDay { socket, kind, day: self.day(socket, kind)?.clone() }),
            Piece::User(user) => {
                let crowd = self.users.get(&user)?;
                Row::User(OfUser { user, starts: crowd.starts.clone(), inherited: crowd.inherited.clone() })
            }
            Piece::Principal(who) => {
                let known = self.principals.get(&who)?;
                Row::Principal(OfPrincipal { who, meters: known.meters.clone(), latch: known.latch.clone() })
            }
            Piece::Session(hash) => {
                let Session { terms, sign_count, meter, days, .. } = self.sessions.get(&hash)?;
                let (terms, meter, days) = (terms.clone(), meter.clone(), days.clone());
                Row::Session(OfSession { terms, signs: *sign_count, meter, days })
            }
        })
    }
}

/// Whether a socket may use an account.
fn serves(socket: &nsecd_policy::Socket, policy: &Policy, account: usize) -> bool {
    policy.accounts.get(account).is_some_and(|account| socket.accounts.contains(&account.name))
}

/// When a session ends at the latest that was started at `started`, by each clock.
fn latest(started: Now, max_ttl: u64) -> Now {
    let longest = max_ttl.saturating_mul(1000);
    Now { boot: started.boot.saturating_add(longest), wall: started.wall.saturating_add(longest) }
}

/// The earlier one, by each clock.
fn earlier(one: Now, other: Now) -> Now {
    Now { boot: one.boot.min(other.boot), wall: one.wall.min(other.wall) }
}
