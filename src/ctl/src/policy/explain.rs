//! `policy explain`: one event through the broker's own engine.

use crate::cli::{duration, tags};
use clap::{ArgGroup, Args, ValueHint};
use nsecd_broker::clock::Now;
use nsecd_broker::ledger::Ledger;
use nsecd_broker::policy::{Engine, Verdict};
use nsecd_broker::principal::Principal;
use nsecd_broker::reply::{Code, Error};
use nsecd_broker::request;
use nsecd_policy::StartSessions;
use nsecd_supervisor::config::{Config, Socket, handed};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// A day after the boot: no window reaches back to before it.
const BOOT: u64 = 2 * 86_400_000;
/// The public key that accounts have here where the event names none: an x coordinate that is on the curve.
const SOMEBODY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

/// `policy explain`.
#[derive(Args, Debug, PartialEq)]
#[command(group(ArgGroup::new("event_source").required(true)))]
pub(crate) struct Explain {
    /// The configuration [default: the profile strict]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Without a configuration: the profile, strict or nanoclaw
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    profile: Option<String>,
    /// Which agent socket: its path, its file's name, or its number from 1 [default: the only one]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<String>,
    /// The event as JSON, with kind, content, tags and created_at as far as they matter; `-` for standard input
    #[arg(long, value_name = "FILE", group = "event_source", value_hint = ValueHint::FilePath)]
    event: Option<PathBuf>,
    /// The event's kind
    #[arg(long, value_name = "N", group = "event_source")]
    kind: Option<u16>,
    /// Its content
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "event")]
    content: Option<String>,
    /// Its tags: a JSON array of arrays of strings
    #[arg(long, value_name = "JSON", value_parser = tags, conflicts_with = "event")]
    tags: Option<Value>,
    /// Its time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS", conflicts_with = "event")]
    created_at: Option<u32>,
    /// Whose key is asked for; without it the default account's
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Ask with a session of these kinds, as 1,1111
    #[arg(long, value_name = "KINDS")]
    scope: Option<String>,
    /// Ask with a session, of the usual kinds unless --scope names some [default: without a token]
    #[arg(long)]
    session: bool,
    /// How long that session shall live
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<u64>,
}

/// What was decided.
struct Decided {
    /// Why not; `None`: it would be signed.
    error: Option<Error>,
    /// The rule on whole events, or the configuration's key.
    rule: String,
    /// What would have allowed it.
    advice: String,
}

impl Explain {
    /// What to say, and whether it would be signed.
    pub fn run(mut self, as_json: bool) -> Result<(String, bool), String> {
        let config = match (&self.config, &self.profile) {
            (Some(file), _) => super::read_file(file)?,
            (None, Some(profile)) => super::read(["--profile".into(), profile.into()])?,
            (None, None) => super::read(["--profile".into(), "strict".into()])?,
        };
        let index = self.socket_in(&config)?;
        let params = self.params()?;
        let decided = self.decide(&config, index, params)?;
        let path = config.sockets[index].path.display().to_string();
        let signed = decided.error.is_none();
        let text = if as_json { decided.json(&path) } else { decided.text(&path) };
        Ok((text, signed))
    }

    fn socket_in(&self, config: &Config) -> Result<usize, String> {
        let named = |(at, socket): (usize, &Socket), name: &str| {
            socket.path.to_str() == Some(name)
                || [socket.path.file_name(), socket.path.file_stem()].iter().flatten().any(|own| *own == name)
                || (at + 1).to_string() == name
        };
        let all = || config.sockets.iter().map(|s| s.path.display().to_string()).collect::<Vec<_>>().join(", ");
        let Some(name) = &self.socket else {
            return match config.sockets.len() {
                1 => Ok(0),
                _ => Err(format!("there are several sockets: say which with --socket: {}", all())),
            };
        };
        let found = config.sockets.iter().enumerate().find(|socket| named(*socket, name));
        found.map(|(at, _)| at).ok_or_else(|| format!("there is no socket {name} among {}", all()))
    }

    /// The parameters of sign_event.
    fn params(&mut self) -> Result<Map<String, Value>, String> {
        let mut params = match &self.event {
            None => {
                let content = self.content.take().unwrap_or_default();
                json!({"kind": self.kind, "content": content, "tags": self.tags, "created_at": self.created_at})
            }
            Some(file) => {
                let mut text = String::new();
                let read = match file.to_str() {
                    Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| text),
                    _ => crate::named::text(file),
                };
                let text = read.map_err(|e| format!("reading {}: {e}", file.display()))?;
                serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?
            }
        };
        let event = params.as_object_mut().ok_or("the event is no JSON object")?;
        if let Some(account) = &self.account {
            event.insert("account".into(), json!(account));
        }
        Ok(std::mem::take(event))
    }

    fn decide(&self, config: &Config, index: usize, mut params: Map<String, Value>) -> Result<Decided, String> {
        // Whose public key it is only a holder knows: what the event says is taken for right.
        let own = params.get("pubkey").and_then(Value::as_str).filter(|key| key.len() == 64).unwrap_or(SOMEBODY);
        let mut policy = handed::policy(config, own);
        let socket = &mut policy.sockets[index];
        if socket.start_sessions == StartSessions::Admin {
            // The operator would have started it, within the same ceiling.
            socket.start_sessions = StartSessions::Own;
        }
        let who = Principal { socket: u16::try_from(index).unwrap_or_default(), uid: 0, cgroup: None };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_millis();
        let now = Now { boot: BOOT, wall: u64::try_from(wall).unwrap_or(u64::MAX) };
        let ledger = Ledger::new(&policy);
        let mut engine = Engine::new(policy, ledger);
        let mut ask = |method: &str, params: &Map<String, Value>| {
            let text = json!({"method": method, "params": params}).to_string();
            match request::parse(text.as_bytes()) {
                Ok(call) => engine.decide(&call, who, false, now, &mut || [7; 32]),
                Err(error) => Verdict::Refused(error.into()),
            }
        };
        let place = Place { config, index, kind: params.get("kind").and_then(Value::as_u64) };
        if self.session || self.scope.is_some() || self.ttl.is_some() {
            let mut wish = json!({"scope": self.scope, "ttl": self.ttl, "account": self.account});
            let wish = wish.as_object_mut().map(std::mem::take).unwrap_or_default();
            match ask("session_start", &wish) {
                Verdict::Answer(answer) => {
                    let started: Value = serde_json::from_str(&answer.line).map_err(|e| e.to_string())?;
                    params.insert("session_token".into(), started["session"]["token"].clone());
                }
                Verdict::Refused(refusal) | Verdict::Limited(refusal, _) => {
                    return Ok(place.refused(refusal.error, "session"));
                }
                other => return Err(format!("no session: {other:?}")),
            }
        }
        Ok(match ask("sign_event", &params) {
            Verdict::Sign(grant) => place.granted(grant.account, i64::from(grant.texts.created_at), now),
            Verdict::Refused(refusal) | Verdict::Limited(refusal, _) => place.refused(refusal.error, "event"),
            other => return Err(format!("no decision: {other:?}")),
        })
    }
}

/// What was asked for, to say what would have allowed it.
struct Place<'a> {
    config: &'a Config,
    index: usize,
    kind: Option<u64>,
}

impl Place<'_> {
    /// Past the broker the gate looks at kind and time, by the account's own ceiling.
    fn granted(&self, account: usize, created_at: i64, now: Now) -> Decided {
        let account = &self.config.accounts[account];
        let kind = self.kind.and_then(|kind| u16::try_from(kind).ok()).unwrap_or_default();
        let window = if kind == 13 { account.seals.or(account.created_at) } else { account.created_at };
        let age = created_at - now.wall_seconds();
        let gate = |rule: &str, text: String| Decided {
            error: Some(Error::new(Code::OutOfScope, text)),
            rule: format!("account {}: {rule}", account.name),
            advice: format!("`{rule}` of the account's own table: the gate holds to it whatever its sockets say"),
        };
        if !account.kinds.contains(kind) {
            return gate("kinds", format!("Event kind {kind} not in account ceiling"));
        }
        if window.is_some_and(|(from, to)| age < from || age > to) {
            return gate("created_at", format!("created_at {created_at} is outside the account's window"));
        }
        let socket = &self.config.sockets[self.index];
        let rule = socket.rules.iter().any(|rule| rule.kind == kind);
        let rule = if rule { format!("kinds, and [[socket.rule]] kind = {kind}") } else { "kinds".into() };
        Decided { error: None, rule, advice: String::new() }
    }

    fn refused(&self, error: Error, what: &str) -> Decided {
        let socket = &self.config.sockets[self.index];
        let path = socket.path.display();
        let kind = self.kind.unwrap_or_default();
        let in_socket = u16::try_from(kind).is_ok_and(|kind| socket.kinds.contains(kind));
        let (rule, advice) = match (error.code, error.rule) {
            (_, Some("canary")) => {
                ("canary", format!("nothing: kind {kind} is a canary here, and an attempt at it an alarm"))
            }
            (_, Some(rule)) => (
                rule,
                format!("an event that `{rule}` of [[socket.rule]] kind = {kind} lets pass, or another `{rule}` there"),
            ),
            (Code::NoSession, _) if in_socket => (
                "tokenless",
                format!("a session with kind {kind} in its scope, or {kind} in `tokenless` of [[socket]] {path}"),
            ),
            (Code::NoSession, _) => (
                "tokenless",
                format!("kind {kind} in `kinds` of [[socket]] {path}, and a session, or {kind} in `tokenless` too"),
            ),
            (Code::OutOfScope, _) if what == "session" => (
                "kinds, max_ttl",
                format!("a session within `kinds` and `max_ttl` of [[socket]] {path}, or wider ones there"),
            ),
            (Code::OutOfScope, _) if error.text.starts_with("created_at ") => {
                ("created_at", format!("a time within `created_at` of [[socket]] {path}, or a wider window there"))
            }
            (Code::OutOfScope, _) if in_socket => ("scope", format!("a session with kind {kind} in its scope")),
            (Code::OutOfScope, _) => ("kinds", format!("kind {kind} in `kinds` of [[socket]] {path}")),
            (Code::Forbidden, _) if error.text.contains("account") => {
                ("accounts", format!("an account of `accounts` of [[socket]] {path}, or another list there"))
            }
            (Code::Forbidden, _) => ("methods", format!("`sign_event` in `methods` of [[socket]] {path}")),
            (Code::RateLimited, _) => {
                ("limits", format!("`limits`, `total` or `sessions_per_minute` of [[socket]] {path}"))
            }
            (Code::TooLarge, _) => ("max_request", "a shorter event".into()),
            _ => ("request", "an event as NIP-01 has it: see the error".into()),
        };
        Decided { error: Some(error), rule: rule.into(), advice }
    }
}

impl Decided {
    fn json(&self, path: &str) -> String {
        let error = self
            .error
            .as_ref()
            .map(|error| json!({"error": error.text, "code": error.code.word(), "rule": error.rule}));
        let advice = self.error.as_ref().map(|_| &self.advice);
        json!({"socket": path, "signed": error.is_none(), "decided_by": self.rule, "refusal": error, "would_allow": advice})
            .to_string()
    }

    fn text(&self, path: &str) -> String {
        match &self.error {
            None => format!("signed       on {path}\ndecided by   {}", self.rule),
            Some(error) => format!(
                "refused      on {path}: {} ({})\ndecided by   {}\nallowed with {}",
                error.text,
                error.code.word(),
                self.rule,
                self.advice
            ),
        }
    }
}
