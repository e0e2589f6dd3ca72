//! Sockets: what is written, filled up from the profile, and checked against itself, its neighbours and the admin
//! directory.

use std::path::{Path, PathBuf};

use nsecd_policy::{Kinds, Limits, Method};

use super::accounts::{self, DEFAULT, Plan};
use super::error::{At, Error, Origin};
use super::profiles::{self, Defaults};
use super::raw::{RawLimits, RawSocket};
use super::secrets::shown;
use super::values;
use super::{Context, Socket, defaults, limits, rules};

/// What the sockets have in common.
pub struct Shared<'a> {
    /// What fills omitted keys.
    pub defaults: &'a Defaults,
    /// `[limits]`.
    pub limits: &'a RawLimits,
    /// The accounts.
    pub plans: &'a [Plan],
    /// The state directory.
    pub state: &'a Path,
    /// The admin directory.
    pub admin: &'a Path,
    /// `--socket`.
    pub first_path: Option<At<PathBuf>>,
}

/// All sockets, in order.
pub fn resolve(raw: &[RawSocket], shared: &Shared<'_>, cx: &Context<'_>) -> Result<Vec<Socket>, Error> {
    let mut out: Vec<Socket> = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let path = path(i, raw, shared, cx)?;
        for other in &out {
            if path.value.starts_with(&other.path) || other.path.starts_with(&path.value) {
                let text =
                    format!("the socket {} collides with the socket {}", path.value.display(), other.path.display());
                return Err(Error::at(&path.origin, text));
            }
        }
        let taken: Vec<PathBuf> = out.iter().map(|s| s.alert_log.clone()).collect();
        let alert_log = alert_log(i, raw, &path.value, &taken, shared, cx)?;
        if taken.contains(&alert_log.value) {
            let text = format!("two sockets write the alert log {}: expected one for each", alert_log.value.display());
            return Err(Error::at(&alert_log.origin, text));
        }
        out.push(socket(raw, path, alert_log.value, shared, cx)?);
    }
    Ok(out)
}

/// The path: for the first socket, flag, config, environment, default; for others, config.
fn path(i: usize, raw: &RawSocket, shared: &Shared<'_>, cx: &Context<'_>) -> Result<At<PathBuf>, Error> {
    let variable = || {
        variable("NOSTR_SIGNER_SOCKET", cx.env.signer_socket.as_deref(), values::absolute_socket, values::SOCKET_PATH)
    };
    let path = match (i, &shared.first_path, &raw.path) {
        (0, Some(flag), _) => flag.clone(),
        (_, _, Some(written)) => written.clone(),
        (0, ..) => match variable()? {
            Some(path) => path,
            None => At::new(defaults::agent_socket(cx)?, raw.origin.clone()),
        },
        _ => return Err(Error::at(&raw.origin, "this [[socket]] has no path: only the first one has a default")),
    };
    // The admin directory holds the sockets that can freeze, thaw and see everything.
    if path.value.starts_with(shared.admin) || shared.admin.starts_with(&path.value) {
        let (path_text, admin) = (path.value.display(), shared.admin.display());
        let text =
            format!("the agent socket {path_text} collides with the admin directory {admin}: expected a path outside");
        return Err(Error::at(&path.origin, text));
    }
    Ok(path)
}

/// The alert log: config, for the first socket environment, default.
fn alert_log(
    i: usize,
    raw: &RawSocket,
    path: &Path,
    taken: &[PathBuf],
    shared: &Shared<'_>,
    cx: &Context<'_>,
) -> Result<At<PathBuf>, Error> {
    if let Some(written) = &raw.alert_log {
        return Ok(written.clone());
    }
    let own = if i == 0 { cx.env.alert_log.as_deref() } else { None };
    match variable("SIGNER_ALERT_LOG", own, values::absolute, values::ABSOLUTE)? {
        Some(log) => Ok(log),
        None => Ok(At::new(defaults::alert_log(shared.state, path, taken), raw.origin.clone())),
    }
}

/// A path in an environment variable.
pub(super) fn variable(
    name: &'static str,
    value: Option<&std::ffi::OsStr>,
    read: impl Fn(&str) -> Option<PathBuf>,
    expected: &str,
) -> Result<Option<At<PathBuf>>, Error> {
    let Some(value) = value else { return Ok(None) };
    let origin = Origin::Variable(name);
    match value.to_str().and_then(read) {
        Some(path) => Ok(Some(At::new(path, origin))),
        None => Err(Error::at(&origin, format!("\"{}\": expected {expected}", shown(&value.to_string_lossy())))),
    }
}

fn socket(
    raw: &RawSocket,
    path: At<PathBuf>,
    alert_log: PathBuf,
    shared: &Shared<'_>,
    cx: &Context<'_>,
) -> Result<Socket, Error> {
    let d = shared.defaults;
    let kinds = or(&raw.kinds, &d.kinds);
    let methods = or(&raw.methods, &d.methods);
    let tokenless = tokenless(raw, &kinds, &methods, d)?;
    if methods.contains(&Method::SignEvent) && kinds == Kinds::List(Vec::new()) {
        return Err(Error::at(at(&raw.kinds, raw), "socket.kinds = []: expected kinds, since methods has sign_event"));
    }
    let accounts = account_names(raw, &methods, shared)?;
    names_exist(raw, cx)?;
    let rules = rules::resolve(&raw.rules, &kinds, &methods)?;
    let (windows, total) = windows(raw, shared.limits)?;
    let sessions = |of: fn(&RawLimits) -> &Option<At<u32>>, default: u32| {
        let own = raw.limits.iter().flatten().find_map(|l| of(l).as_ref());
        own.or(of(shared.limits).as_ref()).map_or(default, |a| a.value)
    };
    Ok(Socket {
        path: path.value,
        mode: or(&raw.mode, &d.mode),
        owner: raw.owner.as_ref().map(|o| o.value.clone()),
        group: raw.group.as_ref().map(|g| g.value.clone()),
        alert_log,
        peer_uids: raw.peer_uids.as_ref().map(|u| u.value.clone()),
        kinds,
        max_ttl: or(&raw.max_ttl, &d.max_ttl),
        tokenless,
        methods,
        accounts,
        start_sessions: or(&raw.start_sessions, &d.start_sessions),
        bind: or(&raw.bind, &d.bind),
        on_limit_wait: or(&raw.on_limit, &d.on_limit_wait),
        tokenless_on_limit_wait: or(&raw.tokenless_on_limit, &d.tokenless_on_limit_wait),
        created_at: or(&raw.created_at, &d.created_at),
        max_request: usize::try_from(or(&raw.max_request, &d.max_request)).unwrap_or(usize::MAX),
        limits: windows,
        total,
        peers: raw.peers.as_ref().map(|p| p.value.clone()),
        dm: limits::dm(&raw.dm),
        crypt: limits::crypt(&raw.crypt)?,
        rules,
        sessions_per_minute: sessions(|l| &l.sessions_per_minute, profiles::SESSIONS_PER_MINUTE),
        live_sessions: sessions(|l| &l.live_sessions, profiles::LIVE_SESSIONS) as usize,
    })
}

fn or<T: Clone>(written: &Option<At<T>>, default: &T) -> T {
    written.as_ref().map_or(default, |a| &a.value).clone()
}

/// Where a key was written, or else where its socket begins.
fn at<'a, T>(written: &'a Option<At<T>>, raw: &'a RawSocket) -> &'a Origin {
    written.as_ref().map_or(&raw.origin, |a| &a.origin)
}

fn tokenless(raw: &RawSocket, kinds: &Kinds, methods: &[Method], d: &Defaults) -> Result<Kinds, Error> {
    let tokenless = or(&raw.tokenless, &d.tokenless);
    let origin = at(&raw.tokenless, raw);
    if let Some(missing) = accounts::outside(&tokenless, kinds) {
        return Err(Error::at(
            origin,
            format!("socket.tokenless has {missing}, socket.kinds has not: expected kinds of that list"),
        ));
    }
    if tokenless != Kinds::List(Vec::new()) && !methods.contains(&Method::SignEvent) {
        return Err(Error::at(origin, "socket.tokenless: expected [], since methods lacks sign_event"));
    }
    Ok(tokenless)
}

/// The accounts by their own names.
fn account_names(raw: &RawSocket, methods: &[Method], shared: &Shared<'_>) -> Result<Vec<String>, Error> {
    let origin = at(&raw.accounts, raw);
    let mut out: Vec<String> = Vec::new();
    for name in or(&raw.accounts, &vec![DEFAULT.to_string()]) {
        let found = shared.plans.iter().find(|p| p.name == name || (p.is_default && name == DEFAULT));
        let Some(plan) = found else {
            let text = format!("socket.accounts: nobody defines \"{name}\": expected an [[account]] of that name");
            return Err(Error::at(origin, text));
        };
        if out.contains(&plan.name) {
            return Err(Error::at(
                origin,
                format!("socket.accounts: \"{}\" is there twice: it is the default account", plan.name),
            ));
        }
        out.push(plan.name.clone());
    }
    let has_default = shared.plans.iter().any(|p| p.is_default && out.contains(&p.name));
    if let Some(m) = methods.iter().find(|m| **m != Method::SignEvent && !has_default) {
        let name = values::method_name(*m);
        let text = format!(
            "socket.methods has {name}, which uses the default account: expected \"default\" in socket.accounts"
        );
        return Err(Error::at(at(&raw.methods, raw), text));
    }
    Ok(out)
}

/// Refuses an owner or group that the machine does not know.
fn names_exist(raw: &RawSocket, cx: &Context<'_>) -> Result<(), Error> {
    let user: (_, _, fn(&Context<'_>, &str) -> bool) = (&raw.owner, ("owner", "user"), |cx, n| cx.host.is_user(n));
    let group: (_, _, fn(&Context<'_>, &str) -> bool) = (&raw.group, ("group", "group"), |cx, n| cx.host.is_group(n));
    for (written, (key, what), exists) in [user, group] {
        let Some(At { value, origin }) = written else { continue };
        // chown(2) takes the largest number for "leave as it is".
        let number = value.parse::<u32>().is_ok_and(|n| n != u32::MAX && value.bytes().all(|b| b.is_ascii_digit()));
        if !number && !exists(cx, value) {
            let text = format!("socket.{key} = \"{}\": no such {what}: expected its name or number", shown(value));
            return Err(Error::at(origin, text));
        }
    }
    Ok(())
}

/// Limits and total; `None` is unlimited.
fn windows(raw: &RawSocket, shared: &RawLimits) -> Result<(Option<Limits>, Option<Limits>), Error> {
    let base = limits::merge(profiles::LIMITS, shared)?;
    let own = match &raw.limits {
        None => Some(base),
        Some(None) => None,
        Some(Some(over)) => Some(limits::merge(base, over)?),
    };
    // Where limits are "none", a total that is written fills its gaps from [limits].
    let total = match &raw.total {
        None => own.map(limits::default_total),
        Some(None) => None,
        Some(Some(over)) => Some(limits::merge(limits::default_total(own.unwrap_or(base)), over)?),
    };
    Ok((own, total))
}
