//! The configuration as text: TOML that reads back as the same configuration, and a summary for people.

use std::fmt::Write;
use std::path::Path;

use nsecd_policy::{Bind, CryptLimits, DmLimits, Kinds, Limits, Method};

use super::accounts::DEFAULT;
use super::{Account, Ceiling, Config, Socket, rules, source, units, values};

/// A TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// A path as a TOML string. Paths are UTF-8: they came from TOML, or were checked on the command line.
fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    format!("[{}]", items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", "))
}

fn kinds(kinds: &Kinds) -> String {
    match kinds {
        Kinds::Any => quoted("any"),
        Kinds::List(kinds) => list(kinds),
    }
}

fn windows(l: &Limits) -> String {
    let window = quoted(&units::show_duration(l.burst_window));
    format!("burst = {}, burst_window = {window}, per_minute = {}, per_hour = {}", l.burst, l.per_minute, l.per_hour)
}

fn dm(l: &DmLimits) -> String {
    format!(
        "unwrap_burst = {}, unwrap_per_minute = {}, failed_per_minute = {}, wrap_per_minute = {}",
        l.unwrap_burst, l.unwrap_per_minute, l.failed_per_minute, l.wrap_per_minute
    )
}

fn crypt(l: &CryptLimits) -> String {
    format!("per_minute = {}, per_hour = {}", l.per_minute, l.per_hour)
}

/// An inline table, or "none".
fn table<T>(limits: &Option<T>, body: impl Fn(&T) -> String) -> String {
    limits.as_ref().map_or(quoted("none"), |l| format!("{{ {} }}", body(l)))
}

fn ceiling(c: &Option<Ceiling>) -> String {
    c.as_ref().map_or("none".to_string(), units::show_ceiling)
}

/// The configuration in force as a config file.
pub fn toml(c: &Config) -> String {
    let mut out = String::from("# The configuration in force\n");
    if c.default_account != DEFAULT {
        line(&mut out, "default_account", &quoted(&c.default_account));
    }
    for a in &c.accounts {
        account(&mut out, a);
        if a.name == c.default_account {
            line(&mut out, "ecdh_ceiling", &quoted(&ceiling(&a.ecdh_ceiling)));
            if let Some(seals) = &a.seal_ceiling {
                line(&mut out, "seal_ceiling", &quoted(&ceiling(seals)));
            }
        }
    }
    // Sockets without limits of their own get their limits on sessions from here.
    if let Some(s) = c.sockets.iter().find(|s| s.limits.is_none()) {
        out.push_str("\n[limits]\n");
        line(&mut out, "sessions_per_minute", &s.sessions_per_minute.to_string());
        line(&mut out, "live_sessions", &s.live_sessions.to_string());
    }
    out.push_str("\n[holder]\n");
    line(&mut out, "require_secretmem", &c.holder.require_secretmem.to_string());
    line(&mut out, "record", &c.holder.record.to_string());
    out.push_str("\n[state]\n");
    // The private directory of a throw-away key bears the process's number; the next one has another.
    line(&mut out, if c.ephemeral { "# dir" } else { "dir" }, &path(&c.state.dir));
    if let Some(journal) = &c.state.session_file {
        // It has a variable and no key: a file of the reference daemon's may lie there.
        line(&mut out, "# SIGNER_SESSION_FILE", &path(journal));
    }
    line(&mut out, "log_size", &quoted(&units::show_size(c.state.log_size)));
    line(&mut out, "log_keep", &c.state.log_keep.to_string());
    out.push_str("\n[admin]\n");
    line(&mut out, "dir", &path(&c.admin_dir));
    for s in &c.sockets {
        let in_private = c.ephemeral && s.alert_log.starts_with(&c.state.dir);
        socket(&mut out, s, if in_private { "# alert_log" } else { "alert_log" });
    }
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key} = {value}");
}

fn account(out: &mut String, a: &Account) {
    if a.name == DEFAULT {
        out.push_str("\n[key]\n");
    } else {
        out.push_str("\n[[account]]\n");
        line(out, "name", &quoted(&a.name));
    }
    line(out, "source", &quoted(&source::show(&a.source)));
    line(out, "consume", &a.consume.to_string());
    line(out, "kinds", &kinds(&a.kinds));
    line(out, "ceiling", &quoted(&ceiling(&a.ceiling)));
    line(out, "created_at", &quoted(&units::show_window(a.created_at)));
}

fn socket(out: &mut String, s: &Socket, alert_log: &str) {
    out.push_str("\n[[socket]]\n");
    line(out, "path", &path(&s.path));
    line(out, "mode", &quoted(&format!("{:04o}", s.mode)));
    if let Some(owner) = &s.owner {
        line(out, "owner", &quoted(owner));
    }
    if let Some(group) = &s.group {
        line(out, "group", &quoted(group));
    }
    if let Some(uids) = &s.peer_uids {
        line(out, "peer_uids", &list(uids));
    }
    line(out, "kinds", &kinds(&s.kinds));
    line(out, "max_ttl", &quoted(&units::show_duration(s.max_ttl)));
    line(out, "tokenless", &kinds(&s.tokenless));
    line(out, "methods", &list(s.methods.iter().map(|m| quoted(values::method_name(*m)))));
    line(out, "accounts", &list(s.accounts.iter().map(|a| quoted(a))));
    line(out, "start_sessions", &quoted(s.start_sessions.name()));
    line(out, "bind", &quoted(if s.bind == Bind::FirstUse { "first_use" } else { "starter" }));
    line(out, "on_limit", &quoted(&units::show_wait(s.on_limit_wait)));
    line(out, "tokenless_on_limit", &quoted(&units::show_wait(s.tokenless_on_limit_wait)));
    line(out, "created_at", &quoted(&units::show_window(s.created_at)));
    line(out, "max_request", &quoted(&units::show_size(s.max_request as u64)));
    line(out, alert_log, &path(&s.alert_log));
    let sessions = format!("sessions_per_minute = {}, live_sessions = {}", s.sessions_per_minute, s.live_sessions);
    line(out, "limits", &table(&s.limits, |l| format!("{}, {sessions}", windows(l))));
    line(out, "total", &table(&s.total, windows));
    if let Some(peers) = &s.peers {
        line(out, "peers", &list(peers.iter().map(|p| quoted(p))));
    }
    line(out, "dm", &table(&s.dm, dm));
    line(out, "crypt", &table(&s.crypt, crypt));
    for rule in &s.rules {
        out.push_str("\n[[socket.rule]]\n");
        out.push_str(&rules::print(rule));
    }
}

/// Who may connect, as far as the file says it.
fn access(s: &Socket) -> String {
    let named = |what: &str, name: &Option<String>| name.as_ref().map_or(String::new(), |n| format!(" {what} {n}"));
    let uids = s.peer_uids.as_ref().map_or(String::new(), |u| format!(" uids {u:?}"));
    format!("mode {:04o}{}{}{uids}", s.mode, named("owner", &s.owner), named("group", &s.group))
}

/// How often a client may encrypt and send, as far as a socket lets it.
fn encryption(s: &Socket) -> String {
    let has = |wanted: &[Method]| s.methods.iter().any(|method| wanted.contains(method));
    let mut out = String::new();
    if has(&[Method::Nip44, Method::Nip04]) {
        let often =
            s.crypt.map_or("no limit".to_string(), |c| format!("{} a minute, {} an hour", c.per_minute, c.per_hour));
        let _ = write!(out, ", nip44 and nip04 {often}");
    }
    if has(&[Method::Dm]) {
        let often = s.dm.map_or("no limit".to_string(), |dm| {
            format!(
                "{} sent a minute, {} opened at once and {} a minute, {} that fail",
                dm.wrap_per_minute, dm.unwrap_burst, dm.unwrap_per_minute, dm.failed_per_minute
            )
        });
        let _ = write!(out, ", messages {often}");
    }
    if let Some(peers) = s.peers.as_ref().filter(|_| has(&[Method::Nip44, Method::Nip04, Method::Dm])) {
        let _ = write!(out, ", with {} peers only", peers.len());
    }
    out
}

/// What `--check` says of a good file.
pub fn summary(c: &Config) -> String {
    let mut out = String::from("ok\n");
    for a in &c.accounts {
        let (kinds, window) = (kinds(&a.kinds), units::show_window(a.created_at));
        let text = format!(
            "key {}, kinds {kinds}, ceiling {}, created_at {window}",
            source::show(&a.source),
            ceiling(&a.ceiling)
        );
        let _ = writeln!(out, "account {}: {text}", a.name);
    }
    for s in &c.sockets {
        let methods = s.methods.iter().map(|m| values::method_name(*m)).collect::<Vec<_>>().join(", ");
        let hourly =
            |l: &Option<Limits>| l.as_ref().map_or("no limit".to_string(), |l| format!("{} an hour", l.per_hour));
        let _ = writeln!(
            out,
            "socket {}: {}; accounts {}; {methods}{}; kinds {}; without a token {}; a session {}, at most {} s, in all {}; alerts to {}",
            s.path.display(),
            access(s),
            s.accounts.join(", "),
            encryption(s),
            kinds(&s.kinds),
            kinds(&s.tokenless),
            hourly(&s.limits),
            s.max_ttl,
            hourly(&s.total),
            s.alert_log.display()
        );
    }
    if let (Some(ecdh), Some(account)) = (&c.ecdh, c.accounts.first()) {
        let peers = if ecdh.peers.is_some() { "its sockets' peers" } else { "anybody" };
        let keys = ceiling(&account.ecdh_ceiling);
        let seals = account.seal_ceiling.as_ref().map_or(String::new(), |c| format!(", seals {}", ceiling(c)));
        let _ = writeln!(out, "encryption of account {}: with {peers}, ceiling of keys {keys}{seals}", account.name);
    }
    let _ = writeln!(out, "state in {}, admin directory {}", c.state.dir.display(), c.admin_dir.display());
    for note in &c.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}
