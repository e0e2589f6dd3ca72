//! The decision: may this principal have this, now?
//!
//! Every method goes the same way: token, method, account, the session's life, then the method's own rules, windows
//! last. Pure: time and randomness are arguments, nothing is written. The gate holds the account's ceiling besides, for
//! the day this code is hijacked; what is decided here is per socket, session and principal.

use nsecd_policy::rules::Rule;
use nsecd_policy::{Policy, Socket};

use crate::alert::Rank;
use crate::budgets::Class;
use crate::clock::Now;
use crate::day::Day;
use crate::event::{Draft, Texts};
use crate::ledger::Ledger;
use crate::limits::{Exceeded, Meter};
use crate::principal::Principal;
use crate::reply::{self, Code, Error};
use crate::request::{Call, Crypto, Method, Token};
use crate::row::{Binding, Drawing, Row, Spending, Use};
use crate::rules::{self, Broken};
use crate::session::{Denial, TokenHash};

pub mod operator;
mod sessions;

/// The gate takes no longer event: bytes of its canonical form.
pub const MAX_EVENT: usize = 512 * 1024;
/// Characters of an account's name that an error repeats.
const NAME_SHOWN: usize = 100;
const MINUTE: u64 = 60_000;
/// Milliseconds by which the wall clock may drift from the other before it counts as set.
const SET: i128 = 1000;
/// What the alert log says of a token that another principal presents.
const FOREIGN: &str = "Invalid session token: the session is another principal's";

/// What a first session's end says (`start_sessions = "once"`).
const BEYOND_FIRST: &str = "First session expired: this socket allows nothing beyond it";

/// What a principal reads that is held.
const HELD: &str = "Sessions frozen: a canary kind was tried, and the operator has not thawed them";

/// What becomes of a call.
#[derive(Debug)]
pub enum Verdict {
    /// This line, and perhaps an alert.
    Answer(Answer),
    /// An error, and perhaps an alert.
    Refused(Refusal),
    /// A window is full; the socket's policy lets such a request wait this many seconds (0: not at all).
    Limited(Refusal, u64),
    /// To the gate.
    Sign(Grant),
    /// To the ECDH holder, and what is to be counted for it once it is known to be well formed.
    Errand(Spending),
}

/// A call that is answered at once.
#[derive(Debug)]
pub struct Answer {
    /// What the client reads.
    pub line: String,
    /// What the alert log says, if anything.
    pub alert: Option<String>,
}

impl From<String> for Answer {
    fn from(line: String) -> Answer {
        Answer { line, alert: None }
    }
}

/// A call that is answered with an error.
#[derive(Debug)]
pub struct Refusal {
    /// What the client reads.
    pub error: Error,
    /// What the alert log says, where it says more than the client may know.
    pub alert: Option<String>,
    /// How grave it is.
    pub rank: Rank,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { error, alert: None, rank: Rank::Common }
    }
}

fn refuse<T>(code: Code, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Error::new(code, text).into())
}

/// An admitted signature.
#[derive(Debug)]
pub struct Grant {
    /// Index of the account, and so of the gate.
    pub account: usize,
    /// The event.
    pub texts: Texts,
    /// Its slot in every window it counts in: given back with [`Engine::free`] if no signature comes of it.
    pub slot: Slot,
}

/// What a signature counts in.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Windows.
    pub used: Use,
    /// The budgets of a rule of the socket's, and of one of the session's.
    pub drawn: [Option<Drawing>; 2],
}

/// The policy and everything it has to remember.
pub struct Engine {
    policy: Policy,
    ledger: Ledger,
    /// What has happened and is not in the journal yet.
    rows: Vec<Row>,
    /// Until when an account's ceiling is known to be reached (CLOCK_BOOTTIME, ms), by number.
    full_until: Vec<u64>,
}

/// Where the randomness of tokens comes from.
pub type Random<'a> = &'a mut dyn FnMut() -> [u8; 32];

/// What sign_event asks for, its account and session settled.
struct Wanted<'a> {
    draft: &'a Draft,
    account: usize,
    session: Option<TokenHash>,
    behind: bool,
}

/// The session that a call presents, found but not yet known to live.
#[derive(Clone, Copy)]
struct Presented {
    hash: TokenHash,
    account: usize,
}

impl Engine {
    /// With what is remembered so far.
    pub fn new(policy: Policy, ledger: Ledger) -> Engine {
        let full_until = vec![0; policy.accounts.len()];
        Engine { policy, ledger, rows: Vec::new(), full_until }
    }

    /// What is remembered.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A new policy, to which everything remembered is held at once. Sockets and accounts have kept their numbers.
    pub fn adopt(&mut self, policy: Policy, now: Now) {
        self.full_until = vec![0; policy.accounts.len()];
        self.happen(Row::Open(crate::replay::open(&policy, now)));
        let changed = self.ledger.adopt(&policy, now);
        self.rows.extend(changed);
        self.policy = policy;
    }

    /// What has happened since this was last asked, for the journal.
    pub fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// Decides one call. Called again for a call that waited: everything is looked at anew. `behind`: requests of this
    /// principal's are waiting, so that one which may wait has to, whatever the windows say.
    pub fn decide(&mut self, call: &Call, who: Principal, behind: bool, now: Now, random: Random) -> Verdict {
        match self.answer(call, who, behind, now, random) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    /// Gives a slot back: no signature came of it.
    pub fn free(&mut self, slot: Slot) {
        self.happen(Row::Free(slot.used));
        for drawn in slot.drawn.into_iter().flatten() {
            self.happen(Row::Undraw(drawn));
        }
    }

    /// A gate has said that its account's ceiling is reached: it is asked again after half the time in which that gives one
    /// more, since each question is two rows of the journal.
    pub fn note_full(&mut self, account: usize, now: Now) {
        self.full_until[account] = now.boot.saturating_add(self.policy.accounts[account].ceiling_period_ms / 2);
    }

    /// What a client is told whose signature is over an account's ceiling.
    pub fn over_ceiling(&self, account: usize) -> Error {
        let mut error = Error::new(Code::RateLimited, "Rate limit: account ceiling reached");
        error.retry_after_ms = Some(self.policy.accounts[account].ceiling_period_ms);
        error
    }

    /// Forgets what no longer counts. To be called now and then.
    pub fn sweep(&mut self, now: Now) {
        self.ledger.sweep(now);
        // A boot's end is told by the wall clock: the journal has to know by how much it was set.
        let last = self.ledger.last();
        let passed = |now: u64, then: u64| i128::from(now) - i128::from(then);
        if (passed(now.wall, last.wall) - passed(now.boot, last.boot)).abs() > SET {
            self.happen(Row::Clock(now));
        }
    }

    fn happen(&mut self, row: Row) {
        self.ledger.apply(&row);
        self.rows.push(row);
    }

    /// Ends a session and those narrowed from it; false if there is none.
    fn end(&mut self, hash: &TokenHash) -> bool {
        let family = self.ledger.sessions().family(hash);
        for hash in &family {
            self.happen(Row::End(*hash));
        }
        !family.is_empty()
    }

    fn socket(&self, who: Principal) -> &Socket {
        &self.policy.sockets[usize::from(who.socket)]
    }

    fn answer(
        &mut self,
        call: &Call,
        who: Principal,
        behind: bool,
        now: Now,
        random: Random,
    ) -> Result<Verdict, Refusal> {
        if let Method::SignEvent(draft) = &call.method {
            self.avoids_canaries(draft.kind, who, None)?;
        }
        let uses_key =
            matches!(call.method, Method::SignEvent(_) | Method::SessionStart { .. } | Method::Crypto { .. });
        if uses_key && self.ledger.held().contains(who) {
            return refuse(Code::Frozen, HELD);
        }
        let presented = self.presented(&call.token, who)?;
        if let (Method::SignEvent(draft), Some(Presented { hash, .. })) = (&call.method, presented) {
            self.avoids_canaries(draft.kind, who, Some(&hash))?;
        }
        self.offers(&call.method, who)?;
        let account = match call.method {
            // These name no account: what such a parameter says cannot contradict anything.
            Method::ListAccounts | Method::SessionInfo(_) | Method::SessionRevoke(_) | Method::Crypto { .. } => Ok(0),
            _ => self.account(call.account.as_deref(), presented, who),
        }?;
        if let Some(Presented { hash, .. }) = presented {
            self.live(&hash, now)?;
        }
        let session = presented.map(|p| p.hash);
        Ok(Verdict::Answer(match &call.method {
            Method::GetPublicKey => reply::public_key(&self.policy.accounts[account].public_key).into(),
            Method::ListAccounts => self.list_accounts(who).into(),
            Method::SessionStart { scope, ttl } => {
                self.start(sessions::Wish { scope, ttl: *ttl, account, parent: session }, who, now, random)?.into()
            }
            Method::SessionInfo(token) => self.info(token, who, now),
            Method::SessionRevoke(token) => self.revoke(token, who),
            Method::SignEvent(draft) => return self.sign(Wanted { draft, account, session, behind }, who, now),
            Method::Crypto { method, .. } => return self.errand(*method, session.as_ref(), who, now),
        }))
    }

    fn presented(&self, token: &Token, who: Principal) -> Result<Option<Presented>, Refusal> {
        let hash = match token {
            Token::None => return Ok(None),
            Token::Malformed => return Err(denied(Denial::Unknown)),
            Token::Given(token) => TokenHash::of(token),
        };
        let session = self.ledger.sessions().find(&hash, who).map_err(denied)?;
        // Whoever was handed a session of theirs has no use of it either.
        let of = [Some(session.terms.starter), session.terms.owner];
        if of.into_iter().flatten().any(|who| self.ledger.held().contains(who)) {
            return refuse(Code::Frozen, HELD);
        }
        Ok(Some(Presented { hash, account: session.terms.account }))
    }

    /// Notes a use of a session; ends it if its time is over.
    fn live(&mut self, hash: &TokenHash, now: Now) -> Result<(), Refusal> {
        match self.ledger.sessions().get(hash) {
            None => Err(denied(Denial::Unknown)),
            Some(session) if session.terms.has_expired(now) => {
                self.end(hash);
                Err(denied(Denial::Expired))
            }
            Some(_) => {
                self.ledger.touch(hash);
                Ok(())
            }
        }
    }

    fn offers(&self, method: &Method, who: Principal) -> Result<(), Refusal> {
        let has = |wanted| self.socket(who).methods.contains(&wanted);
        const WHY: &str = "this socket does not allow it";
        match method {
            Method::SignEvent(_) if !has(nsecd_policy::Method::SignEvent) => {
                refuse(Code::Forbidden, format!("Method not allowed: sign_event: {WHY}"))
            }
            Method::Crypto { method, .. } if !has(class(*method)) => Err(method.failure(Code::Forbidden, WHY).into()),
            _ => Ok(()),
        }
    }

    /// The account that a call means. Never another one than it names.
    fn account(&self, name: Option<&str>, presented: Option<Presented>, who: Principal) -> Result<usize, Refusal> {
        let named = name.filter(|name| *name != "default");
        let wanted = match (name, presented) {
            (None, Some(presented)) => return Ok(presented.account),
            (None, None) | (Some("default"), _) => &self.policy.default_account,
            (Some(name), _) => name,
        };
        let loaded = &self.socket(who).accounts;
        let found = self.policy.accounts.iter().position(|a| a.name == wanted && loaded.contains(&a.name));
        let Some(found) = found else {
            let shown: String = named.unwrap_or("default").chars().take(NAME_SHOWN).collect();
            let text = format!("Unknown or unloaded account: {shown}. Loaded: {}", loaded.join(", "));
            return refuse(Code::Forbidden, text);
        };
        match presented {
            Some(presented) if presented.account != found => {
                let own = &self.policy.accounts[presented.account].name;
                refuse(Code::OutOfScope, format!("Account {wanted} is not the session's account {own}"))
            }
            _ => Ok(found),
        }
    }

    fn list_accounts(&self, who: Principal) -> String {
        let default = &self.policy.default_account;
        let listed = &self.socket(who).accounts;
        let mut accounts: Vec<_> = self.policy.accounts.iter().filter(|a| listed.contains(&a.name)).collect();
        accounts.sort_by_key(|a| a.name != *default);
        reply::accounts(accounts.iter().map(|a| (a.name.as_str(), a.public_key.as_str(), a.name == *default)))
    }

    fn sign(&mut self, wanted: Wanted, who: Principal, now: Now) -> Result<Verdict, Refusal> {
        let Wanted { draft, account, session, behind } = wanted;
        self.allows_kind(draft.kind, session.as_ref(), who)?;
        if !self.is_issued(session.as_ref()) {
            self.allows_beyond_first(draft.kind, account, who, now)?;
        }
        let socket = self.socket(who);
        let created_at = draft.created_at.map_or(now.wall_seconds(), i64::from);
        if let Some((lo, hi)) = socket.created_at {
            let age = created_at - now.wall_seconds();
            if age < lo || age > hi {
                let text =
                    format!("created_at {created_at} is outside the window of {lo:+} to {hi:+} seconds from now");
                return refuse(Code::OutOfScope, text);
            }
        }
        let own = &self.policy.accounts[account].public_key;
        if draft.pubkey.as_ref().is_some_and(|named| !named.eq_ignore_ascii_case(own)) {
            return refuse(Code::BadRequest, "Invalid pubkey: not the account's key");
        }
        let drawn = self.follows_rules(draft, created_at, session.as_ref(), who, now)?;
        // The windows before the event's text: a try that comes to nothing must cost little, however large the event.
        let wait = if session.is_some() { socket.on_limit_wait } else { socket.tokenless_on_limit_wait };
        if let Some(exceeded) = self.exceeded(session.as_ref(), who, now.boot) {
            return Ok(Verdict::Limited(rate_error(exceeded), wait));
        }
        if behind && wait > 0 {
            let text = "Rate limit: earlier requests are still waiting".to_owned();
            return Ok(Verdict::Limited(rate_error(Exceeded { text, retry_after_ms: 1000 }), wait));
        }
        if now.boot < self.full_until[account] {
            return Err(self.over_ceiling(account).into());
        }
        let texts = draft.settle(own, u32::try_from(created_at).unwrap_or(u32::MAX));
        if texts.canonical.len() > MAX_EVENT {
            let text =
                format!("Event too large: {} bytes in canonical form, at most {MAX_EVENT}", texts.canonical.len());
            return refuse(Code::TooLarge, text);
        }
        let used = Use { who, session, at: now };
        self.happen(Row::Sign(used));
        for drawn in drawn.into_iter().flatten() {
            self.happen(Row::Draw(drawn));
        }
        Ok(Verdict::Sign(Grant { account, texts, slot: Slot { used, drawn } }))
    }

    fn errand(
        &self,
        method: Crypto,
        session: Option<&TokenHash>,
        who: Principal,
        now: Now,
    ) -> Result<Verdict, Refusal> {
        if self.policy.ecdh_fd.is_none() {
            return Err(method.failure(Code::Unavailable, "no key agreement").into());
        }
        // Encryption knows no kinds: what a first session holds it to is the account, which is always the default one, and
        // the time.
        if let Some(latch) = self.ledger.latch(who).filter(|_| !self.is_issued(session)) {
            let account = self.policy.accounts.get(latch.account).map(|account| &account.name);
            if latch.is_over(now) {
                return Err(method.failure(Code::Expired, BEYOND_FIRST).into());
            }
            if account != Some(&self.policy.default_account) {
                let why = "Account is not the first session's account";
                return Err(method.failure(Code::OutOfScope, why).into());
            }
        }
        let class = match method {
            Crypto::WrapDm => Class::Wrap,
            Crypto::UnwrapGiftWrap => Class::Unwrap,
            _ => Class::Crypt,
        };
        self.within_budget(method, who, class, now)?;
        Ok(Verdict::Errand(Spending { who, class, at: now }))
    }

    /// Counts an errand that sets out, where it can be counted before it is done.
    pub fn spend(&mut self, spent: Spending) {
        if spent.class != Class::Unwrap {
            self.happen(Row::Spend(spent));
        }
    }

    fn within_budget(&self, method: Crypto, who: Principal, class: Class, now: Now) -> Result<(), Refusal> {
        let Some(Exceeded { text, retry_after_ms }) = self.ledger.over_budget(who, class, now.boot) else {
            return Ok(());
        };
        let mut error = method.failure(Code::RateLimited, &text);
        error.retry_after_ms = Some(retry_after_ms.max(1));
        Err(error.into())
    }

    /// An errand came to nothing for no fault of its own.
    pub fn forgo(&mut self, spent: Spending) {
        if spent.class != Class::Unwrap {
            self.happen(Row::Return(spent));
        }
    }

    /// A gift wrap has been opened, or has turned out not to be for this key, or forged. What it counts as is known only
    /// now: strangers' junk must not use up what the owner's messages have.
    ///
    /// # Errors
    /// The budget that it draws on is used up: nothing of it is to be told.
    pub fn unwrapped(&mut self, who: Principal, opened: bool, now: Now) -> Result<(), Refusal> {
        let class = if opened { Class::Unwrap } else { Class::Failed };
        self.within_budget(Crypto::UnwrapGiftWrap, who, class, now)?;
        self.happen(Row::Spend(Spending { who, class, at: now }));
        Ok(())
    }

    /// An attempt at a canary kind is an alarm, whether the kind could be signed or not. Whoever tries it is held, if the kernel
    /// tells it from others of its uid.
    fn avoids_canaries(&mut self, kind: u16, who: Principal, session: Option<&TokenHash>) -> Result<(), Refusal> {
        let rules = match session {
            None => &self.socket(who).rules,
            Some(hash) => match self.issued_rules(hash)? {
                Some((_, rules)) => rules,
                None => return Ok(()),
            },
        };
        if !rules.iter().any(|rule| rule.canary && rule.kind == kind) {
            return Ok(());
        }
        let hold = who.cgroup.is_some() && !self.ledger.held().contains(who);
        let what = if hold { "its sessions are frozen" } else { "nothing is frozen" };
        let mut error = Error::new(Code::Rule, format!("Event kind {kind} refused by rule canary"));
        error.rule = Some("canary");
        let alert = Some(format!("Event kind {kind} refused by rule canary: {who} tried it, {what}"));
        if hold {
            log::warn!("{who} tried kind {kind}, a canary: its sessions are frozen until nsecctl thaw");
            self.happen(Row::Hold(who));
            // What it was tried with is its own from now on, and held with it: nobody else goes on with that token.
            if let Some(session) = session {
                self.happen(Row::Bind(Binding { session: *session, who }));
            }
        }
        Err(Refusal { error, alert, rank: Rank::Canary })
    }

    /// The operator thaws: lets all go that are held.
    pub fn release(&mut self) {
        if self.ledger.held().iter().next().is_some() {
            self.happen(Row::Release);
        }
    }

    /// Holds an event to the rules that its socket has for its kind, and then to those that the operator gave its session; what
    /// is to be drawn of either's budget.
    fn follows_rules(
        &self,
        draft: &Draft,
        created_at: i64,
        session: Option<&TokenHash>,
        who: Principal,
        now: Now,
    ) -> Result<[Option<Drawing>; 2], Refusal> {
        let times = (created_at, now);
        let day = self.ledger.day(who.socket, draft.kind);
        let of_socket = self.follows(&self.socket(who).rules, "rule", draft, times, day)?;
        let mut drawn = [of_socket, None].map(|msats: Option<u64>| {
            msats.map(|msats| Drawing { socket: who.socket, kind: draft.kind, msats, at: now, session: None })
        });
        let issued = session.map(|hash| self.issued_rules(hash)).transpose()?.flatten();
        if let Some((first, rules)) = issued {
            let day = self.ledger.sessions().get(&first).and_then(|first| first.days.get(&draft.kind));
            let msats = self.follows(rules, "the session's rule", draft, times, day)?;
            drawn[1] = msats.map(|msats| Drawing {
                socket: who.socket,
                kind: draft.kind,
                msats,
                at: now,
                session: Some(first),
            });
        }
        Ok(drawn)
    }

    /// Holds an event to one of these rules, `what` they are called; the millisatoshis to be drawn, if there is a budget, of
    /// which so much is used.
    fn follows(
        &self,
        rules: &[Rule],
        what: &str,
        draft: &Draft,
        (created_at, now): (i64, Now),
        day: Option<&Day>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(rule) = rules.iter().find(|rule| rule.kind == draft.kind) else { return Ok(None) };
        let refused = |code, Broken { rule, text }: Broken| {
            let mut error = Error::new(code, format!("Event kind {} refused by {what} {rule}: {text}", draft.kind));
            error.rule = Some(rule);
            error
        };
        let msats = rules::check(rule, draft, created_at, now.wall_seconds()).map_err(|b| refused(Code::Rule, b))?;
        if !rules::has_day(rule) {
            return Ok(None);
        }
        let used = day.map_or((0, 0), |day| day.used(now.boot));
        match rules::check_day(rule, msats, used) {
            Ok(()) => Ok(Some(msats)),
            Err(broken) => {
                let mut error = refused(Code::RateLimited, broken);
                error.retry_after_ms = day.and_then(|day| day.wait(now.boot)).map(|ms| ms.max(1));
                Err(error.into())
            }
        }
    }

    /// Whether the operator issued this session, or the one that it was narrowed from.
    fn is_issued(&self, session: Option<&TokenHash>) -> bool {
        session.and_then(|hash| self.ledger.sessions().get(hash)).is_some_and(|s| s.terms.issued.is_some())
    }

    /// The operator's session that this one is or was narrowed from, and the rules that go with it.
    fn issued_rules(&self, hash: &TokenHash) -> Result<Option<(TokenHash, &[Rule])>, Refusal> {
        let sessions = self.ledger.sessions();
        let Some(issued) = sessions.get(hash).and_then(|session| session.terms.issued) else { return Ok(None) };
        match sessions.get(&issued.first) {
            Some(first) => Ok(Some((issued.first, &first.terms.rules))),
            // It ends with that one; and what its rules were is not known any more.
            None => Err(denied(Denial::Unknown)),
        }
    }

    fn allows_kind(&self, kind: u16, session: Option<&TokenHash>, who: Principal) -> Result<(), Refusal> {
        let Socket { kinds, tokenless, .. } = self.socket(who);
        let session = session.and_then(|hash| self.ledger.sessions().on_socket(hash, who.socket));
        match session.map(|s| &s.terms.scope) {
            Some(scope) if !scope.contains(&kind) => {
                let scope = reply::kinds(scope);
                refuse(Code::OutOfScope, format!("Event kind {kind} not in session scope {scope}"))
            }
            None if !tokenless.contains(kind) => {
                refuse(Code::NoSession, format!("Event kind {kind} not allowed without a session token"))
            }
            // A scope lies within the ceiling from the start; a list of tokenless kinds is held to it here.
            _ if !kinds.contains(kind) => {
                let ceiling = reply::ceiling(kinds);
                refuse(Code::OutOfScope, format!("Event kind {kind} not in socket ceiling {ceiling}"))
            }
            _ => Ok(()),
        }
    }

    /// Where a principal's first session holds it (`start_sessions = "once"`), no token is no way round it, nor another's.
    fn allows_beyond_first(&self, kind: u16, account: usize, who: Principal, now: Now) -> Result<(), Refusal> {
        let Some(latch) = self.ledger.latch(who) else { return Ok(()) };
        if latch.is_over(now) {
            return refuse(Code::Expired, BEYOND_FIRST);
        }
        if latch.account != account {
            return refuse(Code::OutOfScope, "Account is not the first session's account");
        }
        if !latch.scope.contains(&kind) {
            let scope = reply::kinds(&latch.scope);
            return refuse(Code::OutOfScope, format!("Event kind {kind} not in first session's scope {scope}"));
        }
        Ok(())
    }

    /// The first full window: the session's, then the principal's, then the socket's total.
    fn exceeded(&self, session: Option<&TokenHash>, who: Principal, now: u64) -> Option<Exceeded> {
        let Socket { limits, total, .. } = self.socket(who);
        let check = |meter: &Meter, limits: &Option<_>| limits.as_ref().and_then(|l| meter.check(l, now));
        let session = session.and_then(|hash| self.ledger.sessions().on_socket(hash, who.socket));
        let full = [
            session.and_then(|s| check(&s.meter, limits)),
            check(&self.ledger.meters(who).signatures, limits),
            check(self.ledger.total(who.socket), total)
                .map(|e| Exceeded { text: format!("{} for the whole socket", e.text), ..e }),
        ];
        full.into_iter()
            .flatten()
            .reduce(|first, other| Exceeded { retry_after_ms: first.retry_after_ms.max(other.retry_after_ms), ..first })
    }

    /// How long a socket's total refuses every signature, if it does.
    pub fn total_wait(&self, socket: u16, now: u64) -> Option<u64> {
        let total = self.policy.sockets[usize::from(socket)].total.as_ref()?;
        self.ledger.total(socket).check(total, now).map(|exceeded| exceeded.retry_after_ms)
    }
}

/// The method of the configuration that a call belongs to.
fn class(crypto: Crypto) -> nsecd_policy::Method {
    match crypto {
        Crypto::Nip44Encrypt | Crypto::Nip44Decrypt => nsecd_policy::Method::Nip44,
        Crypto::Nip04Encrypt | Crypto::Nip04Decrypt => nsecd_policy::Method::Nip04,
        Crypto::WrapDm | Crypto::UnwrapGiftWrap => nsecd_policy::Method::Dm,
    }
}

fn denied(denial: Denial) -> Refusal {
    let invalid = Error::new(Code::NoSession, "Invalid session token");
    match denial {
        Denial::Unknown => invalid.into(),
        Denial::Foreign => Refusal { error: invalid, alert: Some(FOREIGN.to_owned()), rank: Rank::Foreign },
        Denial::Expired => Error::new(Code::Expired, "Session expired").into(),
    }
}

fn rate_error(exceeded: Exceeded) -> Refusal {
    let mut error = Error::new(Code::RateLimited, exceeded.text);
    error.retry_after_ms = Some(exceeded.retry_after_ms.max(1));
    error.into()
}

#[cfg(test)]
mod tests;
