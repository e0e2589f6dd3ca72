//! What the operator may have: every account, and sessions for every socket.

use std::path::Path;

use serde_json::{Value, json};

use super::sessions::{lasting, within};
use super::{Engine, NAME_SHOWN, Random};
use crate::admin::rules;
use crate::clock::Now;
use crate::principal::Principal;
use crate::reply::{self, Code, Error, hex};
use crate::row::Row;
use crate::session::{Issued, Session, Terms, TokenHash};
use nsecd_policy::rules::Rule;

/// Sessions of the operator's on one socket that have not ended.
const MOST_ISSUED: usize = 1024;

/// A session that the operator issues.
pub struct Issue<'a> {
    /// For the socket of this name.
    pub socket: &'a str,
    /// Kinds; `None`: the default ones.
    pub scope: &'a Option<Vec<u16>>,
    /// Seconds; `None`: the default.
    pub ttl: Option<u64>,
    /// The account's name.
    pub account: Option<&'a str>,
    /// What its events must keep to beside the socket's rules.
    pub rules: &'a [Rule],
    /// The operator's uid.
    pub by: u32,
}

impl Engine {
    /// The account of this name, whatever sockets serve it; `None` and `default` mean the default one.
    ///
    /// # Errors
    /// There is none, with those that there are.
    pub fn any_account(&self, name: Option<&str>) -> Result<usize, Error> {
        let all = &self.policy.accounts;
        // Without a name are those that are no more.
        let of = |name: &str| all.iter().position(|account| account.name == name && !name.is_empty());
        let default = || of(&self.policy.default_account);
        let found = match name {
            None => default(),
            Some("default") => of("default").or_else(default),
            Some(name) => of(name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> =
                all.iter().map(|account| account.name.as_str()).filter(|name| !name.is_empty()).collect();
            let shown = cut(name.unwrap_or("default"));
            Error::new(Code::Forbidden, format!("Unknown or unloaded account: {shown}. Loaded: {}", names.join(", ")))
        })
    }

    /// list_accounts, all of them.
    pub fn all_accounts(&self) -> String {
        let default = &self.policy.default_account;
        let mut accounts: Vec<_> = self.policy.accounts.iter().filter(|a| !a.name.is_empty()).collect();
        accounts.sort_by_key(|a| a.name != *default);
        reply::accounts(accounts.iter().map(|a| (a.name.as_str(), a.public_key.as_str(), a.name == *default)))
    }

    /// The socket of this path, or of this file name without suffix.
    ///
    /// # Errors
    /// There is none, or more than one, with those that there are.
    pub fn socket_named(&self, name: &str) -> Result<u16, Error> {
        let sockets = &self.policy.sockets;
        // Without accounts are those that are no more.
        let numbered = || (0u16..).zip(sockets).filter(|(_, socket)| !socket.accounts.is_empty());
        if let Some((number, _)) = numbered().find(|(_, socket)| socket.path == name) {
            return Ok(number);
        }
        let named: Vec<_> = numbered().filter(|(_, socket)| socket_name(&socket.path) == name).collect();
        match named[..] {
            [(number, _)] => Ok(number),
            [] => {
                let all: Vec<&str> = numbered().map(|(_, socket)| socket.path.as_str()).collect();
                let text = format!("Unknown socket: {}. There are {}", cut(name), all.join(", "));
                Err(Error::new(Code::BadRequest, text))
            }
            _ => {
                let paths: Vec<&str> = named.iter().map(|(_, socket)| socket.path.as_str()).collect();
                let text = format!("Ambiguous socket: {}. Name one of {} by its path", cut(name), paths.join(", "));
                Err(Error::new(Code::BadRequest, text))
            }
        }
    }

    /// Issues a session within its socket's ceiling, whoever may start sessions there. Its first user owns it.
    ///
    /// # Errors
    /// It would not lie within, or rules are for kinds that it has not.
    pub fn issue(&mut self, wish: &Issue<'_>, now: Now, random: Random) -> Result<String, Error> {
        let number = self.socket_named(wish.socket)?;
        let starter = Principal::issuer(number);
        let account = self.account(wish.account, None, starter).map_err(|refusal| refusal.error)?;
        let socket = self.socket(starter);
        let scope = within("socket ceiling", wish.scope.as_deref(), &socket.kinds).map_err(|refusal| refusal.error)?;
        let longest = socket.max_ttl.saturating_mul(1000);
        let ttl = lasting("socket ceiling", wish.ttl, longest).map_err(|refusal| refusal.error)?;
        if let Some(rule) = wish.rules.iter().find(|rule| !rule.canary && !scope.contains(&rule.kind)) {
            let scope = reply::kinds(&scope);
            let text = format!("rule for kind {}, which is not in the session's scope {scope}", rule.kind);
            return Err(Error::new(Code::OutOfScope, text));
        }
        let path = socket.path.clone();
        if self.ledger.sessions().started_by(starter) >= MOST_ISSUED {
            let over = |hash: &TokenHash| self.ledger.sessions().get(hash).is_none_or(|s| s.terms.has_expired(now));
            let over: Vec<TokenHash> = self.ledger.sessions().of_starter(starter).filter(over).collect();
            for hash in over {
                self.end(&hash);
            }
            if self.ledger.sessions().started_by(starter) >= MOST_ISSUED {
                let text = format!("Too many sessions: {MOST_ISSUED} issued for {path} have not ended: revoke some");
                return Err(Error::new(Code::Unavailable, text));
            }
        }
        let token = hex(&random());
        let hash = TokenHash::of(&token);
        let ends = Now { boot: now.boot.saturating_add(ttl), wall: now.wall.saturating_add(ttl) };
        let name = &self.policy.accounts[account].name;
        let line = json!({"session": {
            "token": token, "expiresAt": ends.wall, "allowedKinds": scope, "session": hash.label(), "socket": path,
            "account": name,
        }})
        .to_string();
        log::info!("session {} for {path} is issued by uid {}", hash.label(), wish.by);
        let (issued, rules) = (Some(Issued { by: wish.by, first: hash }), wish.rules.to_vec());
        let (started, owner, parent) = (now, None, None);
        let terms = Terms { token: hash, starter, owner, account, scope, started, ends, parent, issued, rules };
        self.happen(Row::Start(terms));
        Ok(line)
    }

    /// The session that is called so: by the 12 digits that logs show, or all 64 of its token's hash.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn session_named(&self, name: &str) -> Result<TokenHash, Error> {
        let digits = matches!(name.len(), 12 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits {
            let text = "Invalid session: expected the 12 or 64 digits that session_list shows, never a token";
            return Err(Error::new(Code::BadRequest, text));
        }
        let name = name.to_ascii_lowercase();
        let all = self.ledger.sessions().iter().map(|(hash, _)| *hash);
        let named: Vec<TokenHash> = all.filter(|hash| hash.digits().starts_with(&name)).collect();
        match named[..] {
            [hash] => Ok(hash),
            // Not all of it: a token that was given for a name would stand in the log.
            [] => Err(Error::new(Code::NoSession, format!("No session {}: it has ended, or never was", &name[..12]))),
            _ => {
                let text = format!("Ambiguous session: {} begin with {name}: give all 64 digits", named.len());
                Err(Error::new(Code::BadRequest, text))
            }
        }
    }

    /// session_list: those of one socket, or of all, the newest first, and how many are left out.
    pub fn list_sessions(&self, socket: Option<u16>, most: usize, now: Now) -> String {
        let all = self.ledger.sessions().iter().filter(|(_, s)| socket.is_none_or(|n| s.terms.starter.socket == n));
        let mut all: Vec<(&TokenHash, &Session)> = all.collect();
        all.sort_unstable_by_key(|(hash, s)| (std::cmp::Reverse(s.terms.started.wall), **hash));
        let left_out = all.len().saturating_sub(most);
        let shown: Vec<Value> = all.iter().take(most).map(|(hash, session)| self.shown(hash, session, now)).collect();
        json!({"sessions": shown, "left_out": left_out}).to_string()
    }

    /// session_info.
    ///
    /// # Errors
    /// As [`Engine::session_named`].
    pub fn describe_session(&self, name: &str, now: Now) -> Result<String, Error> {
        let hash = self.session_named(name)?;
        let Some(session) = self.ledger.sessions().get(&hash) else { return Ok(json!({"session": null}).to_string()) };
        Ok(json!({"session": self.shown(&hash, session, now)}).to_string())
    }

    /// Ends a session and those narrowed from it; the labels of all.
    ///
    /// # Errors
    /// As [`Engine::session_named`].
    pub fn revoke_named(&mut self, name: &str) -> Result<String, Error> {
        let hash = self.session_named(name)?;
        let ended: Vec<String> = self.ledger.sessions().family(&hash).iter().map(TokenHash::label).collect();
        self.end(&hash);
        Ok(json!({"revoked": ended}).to_string())
    }

    /// A session without its token.
    fn shown(&self, hash: &TokenHash, session: &Session, now: Now) -> Value {
        let terms = &session.terms;
        let socket = self.policy.sockets.get(usize::from(terms.starter.socket));
        let first = terms.issued.and_then(|issued| self.ledger.sessions().get(&issued.first));
        let rules: Vec<Value> = first.iter().flat_map(|first| &first.terms.rules).map(rules::show).collect();
        let starter = match terms.issued {
            Some(issued) if terms.starter.is_issuer() => json!({"operator": issued.by}),
            _ => principal(terms.starter),
        };
        let held = self.ledger.held();
        let frozen = [Some(terms.starter), terms.owner].into_iter().flatten().any(|who| held.contains(who));
        json!({
            "session": hash.label(),
            "hash": hash.digits(),
            "socket": socket.map(|socket| socket.path.as_str()),
            "starter": starter,
            "owner": terms.owner.map(principal),
            "account": self.policy.accounts.get(terms.account).map(|account| account.name.as_str()),
            "scope": terms.scope,
            "createdAt": terms.started.wall,
            "expiresAt": terms.ends.wall,
            "expired": terms.has_expired(now),
            "signCount": session.sign_count,
            "parent": terms.parent.map(|parent| parent.label()),
            "issued": terms.issued.map(|issued| issued.first.label()),
            "rules": rules,
            "frozen": frozen,
        })
    }
}

/// A principal of a socket's, for the operator.
pub fn principal(who: Principal) -> Value {
    json!({"uid": who.uid, "cgroup": who.cgroup})
}

/// A socket's file name without suffix.
pub fn socket_name(path: &str) -> String {
    Path::new(path).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn cut(text: &str) -> String {
    text.chars().take(NAME_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{A, B, START, ask, at, engine_with, policy_with, sign, token, unique};
    use crate::ledger::{Ledger, Piece};
    use crate::policy::Verdict;
    use nsecd_policy::{Bind, StartSessions};

    fn issue(engine: &mut Engine, scope: &[u16], rules: &[Rule]) -> Result<String, Error> {
        let scope = Some(scope.to_vec());
        let wish = Issue { socket: "a", scope: &scope, ttl: None, account: None, rules, by: 0 };
        engine.issue(&wish, START, &mut unique).map(|line| {
            let reply: Value = serde_json::from_str(&line).expect("JSON");
            reply["session"]["token"].as_str().expect("a token").to_owned()
        })
    }

    fn code(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Refused(refusal) | Verdict::Limited(refusal, _) => refusal.error.code.word(),
            Verdict::Sign(_) => "signed",
            _ => "answered",
        }
    }

    /// Narrows a session; its token, or why not.
    fn narrow(engine: &mut Engine, who: Principal, from: &str, scope: &str) -> Result<String, &'static str> {
        let params = format!(r#"{{"scope":"{scope}","session_token":"{from}"}}"#);
        match ask(engine, who, at(1), &format!(r#"{{"method":"session_start","params":{params}}}"#)) {
            Verdict::Answer(answer) => Ok(token(&answer.line)),
            other => Err(code(&other)),
        }
    }

    /// Checked: with `start_sessions` not looked at this fails.
    #[test]
    fn where_the_operator_starts_sessions_an_agent_only_narrows_them() {
        let mut engine = engine_with(|s| s.start_sessions = StartSessions::Admin);
        let start = r#"{"method":"session_start","params":{"scope":"1"}}"#;
        assert_eq!(code(&ask(&mut engine, A, START, start)), "forbidden");
        let given = issue(&mut engine, &[1, 7], &[]).expect("within the ceiling");
        assert_eq!(narrow(&mut engine, A, &given, "1,1111"), Err("out_of_scope"));
        let narrower = narrow(&mut engine, A, &given, "7").expect("within");
        assert_eq!(narrow(&mut engine, A, &narrower, "1,7"), Err("out_of_scope"));
        assert_eq!(code(&sign(&mut engine, A, at(2), 7, Some(&narrower))), "signed");
        assert_eq!(code(&sign(&mut engine, A, at(2), 1, Some(&narrower))), "out_of_scope");
        // Who uses it first owns it, whatever `bind` says.
        assert_eq!(code(&sign(&mut engine, B, at(2), 1, Some(&given))), "no_session");
        let mut engine = engine_with(|s| (s.start_sessions, s.bind) = (StartSessions::Admin, Bind::Starter));
        let given = issue(&mut engine, &[1], &[]).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, B, START, 1, Some(&given))), "signed");
        assert_eq!(code(&sign(&mut engine, A, START, 1, Some(&given))), "no_session");
    }

    /// Checked: with a budget counted for each narrower session this fails.
    #[test]
    fn rules_of_a_session_hold_for_all_that_is_narrowed_from_it_and_its_budget_is_one() {
        let rules = [Rule { kind: 1, per_day: Some(2), max_content: Some(1), ..Rule::default() }];
        let mut engine = engine_with(|_| {});
        let given = issue(&mut engine, &[1, 7], &rules).expect("within the ceiling");
        let narrower = narrow(&mut engine, A, &given, "1").expect("within");
        assert_eq!(code(&sign(&mut engine, A, at(1), 1, Some(&given))), "signed");
        assert_eq!(code(&sign(&mut engine, A, at(2), 1, Some(&narrower))), "signed");
        let another = narrow(&mut engine, A, &narrower, "1").expect("within");
        for token in [&given, &narrower, &another] {
            let Verdict::Refused(refusal) = sign(&mut engine, A, at(3), 1, Some(token)) else { panic!("not refused") };
            assert_eq!((refusal.error.code.word(), refusal.error.rule), ("rate_limited", Some("per_day")));
            assert_eq!(refusal.error.text, "Event kind 1 refused by the session's rule per_day: 2/2 in 24 hours");
        }
        assert_eq!(code(&sign(&mut engine, A, at(3), 7, Some(&given))), "signed", "another kind");
        // Another session has a budget of its own.
        let other = issue(&mut engine, &[1], &rules).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, A, at(3), 1, Some(&other))), "signed");
        let long =
            format!(r#"{{"method":"sign_event","params":{{"kind":1,"content":"xx","session_token":"{other}"}}}}"#);
        assert_eq!(code(&ask(&mut engine, A, at(4), &long)), "rule");
    }

    /// Checked: with latches asked of issued sessions too this fails.
    #[test]
    fn under_once_the_operators_session_holds_a_new_principal_and_reaches_beyond_an_old_ones_first() {
        let mut engine = engine_with(|s| s.start_sessions = StartSessions::Once);
        let first = issue(&mut engine, &[1], &[]).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, A, START, 1, Some(&first))), "signed");
        let start = r#"{"method":"session_start","params":{"scope":"7"}}"#;
        assert_eq!(code(&ask(&mut engine, A, START, start)), "out_of_scope", "held to it");
        let second = issue(&mut engine, &[7], &[]).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, A, START, 7, Some(&second))), "signed");
        assert_eq!(code(&ask(&mut engine, A, START, start)), "out_of_scope", "still");
    }

    #[test]
    fn a_snapshot_of_a_session_keeps_its_rules_and_what_was_used_of_them() {
        let rules = [Rule { kind: 1, per_day: Some(1), ..Rule::default() }];
        let mut engine = engine_with(|_| {});
        let given = issue(&mut engine, &[1], &rules).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, A, at(1), 1, Some(&given))), "signed");
        let row = engine.ledger().row(Piece::Session(TokenHash::of(&given))).expect("it is there");
        let row = Row::parse(row.line().trim_end().as_bytes()).expect("whole");
        let policy = policy_with(|_| {});
        let mut ledger = Ledger::new(&policy);
        ledger.apply(&row);
        let mut engine = Engine::new(policy, ledger);
        assert_eq!(code(&sign(&mut engine, A, at(2), 1, Some(&given))), "rate_limited");
    }

    /// Checked: with the session left unbound, this fails.
    #[test]
    fn a_session_whose_first_use_is_a_canary_is_frozen_for_whoever_else_has_its_token() {
        let [a, b] = [A, B].map(|who| Principal { cgroup: Some(7), ..who });
        let rules = [Rule { kind: 7, canary: true, ..Rule::default() }];
        let mut engine = engine_with(|_| {});
        let given = issue(&mut engine, &[1], &rules).expect("within the ceiling");
        assert_eq!(code(&sign(&mut engine, a, at(1), 7, Some(&given))), "rule");
        assert_ne!(code(&sign(&mut engine, b, at(2), 1, Some(&given))), "signed");
        engine.release();
        assert_eq!(code(&sign(&mut engine, a, at(3), 1, Some(&given))), "signed");
    }

    #[test]
    fn what_is_issued_lies_within_the_socket_and_counts_for_no_principal() {
        let mut engine = engine_with(|s| (s.live_sessions, s.sessions_per_minute) = (1, 1));
        let scope = Some(vec![0]);
        let of = |scope, ttl, account| Issue { socket: "a", scope, ttl, account, rules: &[], by: 0 };
        let code = |result: Result<String, Error>| result.expect_err("outside").code.word();
        assert_eq!(code(engine.issue(&of(&scope, None, None), START, &mut unique)), "out_of_scope");
        assert_eq!(code(engine.issue(&of(&None, Some(3601), None), START, &mut unique)), "out_of_scope");
        assert_eq!(code(engine.issue(&of(&None, None, Some("business")), START, &mut unique)), "forbidden");
        assert!(engine.issue(&of(&None, Some(3600), Some("default")), START, &mut unique).is_ok());
        for _ in 1..MOST_ISSUED {
            issue(&mut engine, &[1], &[]).expect("room");
        }
        assert_eq!(code(issue(&mut engine, &[1], &[])), "unavailable");
        // None gave way, and agents have theirs.
        assert!(matches!(ask(&mut engine, A, START, r#"{"method":"session_start","params":{}}"#), Verdict::Answer(_)));
        assert_eq!(engine.ledger().sessions().count(), MOST_ISSUED + 1);
        let late = at(3601);
        let wish = Some(vec![1]);
        assert!(engine.issue(&of(&wish, None, None), late, &mut unique).is_ok(), "those that have ended make room");
    }
}
