//! `status`: what the operator is told of everything at once. Reads only; no token, no key, no path of one.

use std::collections::BTreeSet;

use nsecd_policy::{Bind, Kinds, Limits, Method, units};
use serde_json::{Map, Value, json};

use super::Server;
use crate::clock::{Clock, Now};
use crate::limits::{HOUR, MINUTE, Meter};
use crate::policy::operator::{principal, socket_name};
use crate::principal::{ADMIN, Principal};

/// Principals of a socket that are listed, those with most connections first.
const LISTED: usize = 100;

impl<C: Clock> Server<C> {
    pub(super) fn status(&mut self, now: Now) -> Value {
        let journal = json!({"writable": self.journal.is_whole(), "bytes": self.journal.size()});
        let (bytes, line) = self.decisions.extent();
        let log = json!({"writable": self.decisions.is_whole(), "bytes": bytes, "line": line});
        let sessions = self.engine.ledger().sessions();
        let live: Vec<bool> = sessions
            .iter()
            .filter(|(_, session)| !session.terms.has_expired(now))
            .map(|(_, session)| session.terms.starter.is_issuer())
            .collect();
        let issued = live.iter().filter(|issued| **issued).count();
        // Not of what is no more.
        let served = |index: &usize| self.alerts.get(*index).is_some_and(Option::is_some);
        let named = |index: &usize| !self.policy.accounts[*index].name.is_empty();
        let sockets = (0..self.policy.sockets.len()).filter(served);
        let sockets: Vec<Value> = sockets.map(|index| self.of_socket(index, now)).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "boot_id": self.policy.boot_id,
            "now_ms": now.wall,
            "since_ms": self.since.wall,
            "processes": self.processes(),
            "accounts": (0..self.policy.accounts.len()).filter(named).map(|index| self.of_account(index)).collect::<Vec<_>>(),
            "sockets": sockets,
            "sessions": {"live": live.len(), "issued": issued},
            "connections": {"agents": self.crowd.count(), "most": self.policy.max_connections, "admin": self.desk.crowd.count()},
            "refusals": counted(self.decisions.refusals(usize::from(ADMIN))),
            "journal": journal,
            "decision_log": log,
            "cgroup_identity": self.with_cgroup,
            "warnings": self.warnings(&journal, &log),
        })
    }

    fn processes(&self) -> Vec<Value> {
        self.policy
            .processes
            .iter()
            .map(|p| json!({"name": p.name, "pid": p.pid, "uid": p.uid, "missing": p.missing}))
            .collect()
    }

    fn of_account(&self, index: usize) -> Value {
        let account = &self.policy.accounts[index];
        let record = self.decisions.rows(index).map(|(last, oldest)| json!({"rows": last, "oldest_kept": oldest}));
        json!({
            "name": account.name,
            "pubkey": account.public_key,
            "default": account.name == self.policy.default_account,
            "kinds": kinds(&account.kinds),
            "ceiling": account.ceiling.as_ref().map_or("none".to_owned(), units::show_ceiling),
            "created_at": units::show_window(account.created_at),
            "record": record,
        })
    }

    fn of_socket(&self, index: usize, now: Now) -> Value {
        let socket = &self.policy.sockets[index];
        let number = u16::try_from(index).unwrap_or(ADMIN);
        let ledger = self.engine.ledger();
        let methods: Vec<&str> = socket.methods.iter().map(|method| method_name(*method)).collect();
        let live =
            |(_, s): &(_, &crate::session::Session)| s.terms.starter.socket == number && !s.terms.has_expired(now);
        let connected: Vec<(Principal, usize)> = self.crowd.of_socket(number).collect();
        let all: BTreeSet<Principal> = connected.iter().map(|(who, _)| *who).chain(ledger.principals(number)).collect();
        let mut all: Vec<Principal> = all.into_iter().collect();
        all.sort_by_key(|who| std::cmp::Reverse(self.crowd.connections(*who)));
        let of = |who: &Principal| {
            let mut shown = principal(*who);
            shown["connections"] = json!(self.crowd.connections(*who));
            shown["rates"] = rates(&ledger.meters(*who).signatures, socket.limits.as_ref(), now);
            shown["frozen"] = json!(ledger.held().contains(*who));
            shown
        };
        json!({
            "name": socket_name(&socket.path),
            "path": socket.path,
            "kinds": kinds(&socket.kinds),
            "tokenless": kinds(&socket.tokenless),
            "methods": methods,
            "accounts": socket.accounts,
            "max_ttl": units::show_duration(socket.max_ttl),
            "start_sessions": socket.start_sessions.name(),
            "bind": if socket.bind == Bind::Starter { "starter" } else { "first_use" },
            "rules": socket.rules.iter().map(crate::admin::rules::show).collect::<Vec<_>>(),
            "connections": connected.iter().map(|(_, n)| n).sum::<usize>(),
            "sessions": ledger.sessions().iter().filter(live).count(),
            "total": rates(ledger.total(number), socket.total.as_ref(), now),
            "principals": all.iter().take(LISTED).map(of).collect::<Vec<_>>(),
            "principals_left_out": all.len().saturating_sub(LISTED),
            "refusals": counted(self.decisions.refusals(index)),
        })
    }

    /// What an operator should know without having asked.
    fn warnings(&self, journal: &Value, log: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, account) in self.policy.accounts.iter().enumerate().filter(|(_, a)| !a.name.is_empty()) {
            if self.decisions.rows(index).is_none() {
                warnings.push(format!("record = false: signatures of account {} leave no record", account.name));
            }
            if account.ceiling.is_none() {
                warnings.push(format!("ceiling = \"none\": account {} signs without a limit of its own", account.name));
            }
        }
        for socket in self.policy.sockets.iter().filter(|socket| !socket.accounts.is_empty()) {
            for (limits, name) in [(socket.limits, "limits"), (socket.total, "total")] {
                if limits.is_none() {
                    warnings.push(format!("{name} = \"none\" on {}", socket.path));
                }
            }
        }
        for process in self.policy.processes.iter().filter(|process| !process.missing.is_empty()) {
            warnings.push(format!("{} lacks {}", process.name, process.missing.join(", ")));
        }
        if !self.with_cgroup {
            warnings
                .push("the kernel does not tell a peer's cgroup: containers of one uid on a socket are one".to_owned());
        }
        for (state, name) in [(journal, "journal"), (log, "decision log")] {
            if state["writable"] != json!(true) {
                warnings.push(format!("the {name} cannot be written, so nothing is signed: free space where it lies"));
            }
        }
        warnings
    }
}

fn counted(counts: impl Iterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(counts.map(|(rule, n)| (rule.to_owned(), json!(n))).collect::<Map<_, _>>())
}

fn kinds(kinds: &Kinds) -> Value {
    match kinds {
        Kinds::Any => json!("any"),
        Kinds::List(list) => json!(list),
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::SignEvent => "sign_event",
        Method::Nip44 => "nip44",
        Method::Nip04 => "nip04",
        Method::Dm => "dm",
    }
}

/// How full each window is; null where nothing is limited.
fn rates(meter: &Meter, limits: Option<&Limits>, now: Now) -> Value {
    let Some(limits) = limits else { return Value::Null };
    let used = |span: u64| meter.used(span, now.boot);
    json!({
        "burst": {"used": used(limits.burst_window.saturating_mul(1000)), "most": limits.burst, "seconds": limits.burst_window},
        "minute": {"used": used(MINUTE), "most": limits.per_minute},
        "hour": {"used": used(HOUR), "most": limits.per_hour},
    })
}
