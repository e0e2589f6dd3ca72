//! The config file as written: every key checked on its own, nothing filled in. One function per table, its keys in
//! the order of the documentation.

use std::path::PathBuf;

use nsecd_policy::{Bind, Kinds, Method, StartSessions};

use super::Ceiling;
use super::error::{At, Error, Origin};
use super::rules::{self, RawRule};
use super::source::KeySource;
use super::tree::{self, Section, Value};
use super::values::{self, Auto};

/// Largest value of a limit; what is above that is "none". Bounds the memory of the broker's windows.
pub const MAX_LIMIT: u32 = 1_000_000;

/// Largest value of a total: what the largest limits default to.
pub const MAX_TOTAL: u32 = 4 * MAX_LIMIT;

/// Longest TTL of a session in seconds (ten years).
const MAX_TTL: u64 = 3_650 * 86_400;

/// Largest request in bytes: the gate takes no larger event.
const MAX_REQUEST: u64 = 512 << 10;

/// Most sockets, and most accounts beside the default one: each costs descriptors, each account two processes.
const MAX_TABLES: usize = 64;

/// Seconds before and after now; `None` for "any".
type Window = Option<(i64, i64)>;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawFile {
    /// `default_account`.
    pub default_account: Option<At<String>>,
    /// `[key]`.
    pub key: Option<RawAccount>,
    /// `[[account]]`.
    pub accounts: Vec<RawAccount>,
    /// `[limits]`.
    pub limits: RawLimits,
    /// `[holder] require_secretmem`.
    pub require_secretmem: Option<At<bool>>,
    /// `[holder] record`.
    pub record: Option<At<bool>>,
    /// `[state] dir`.
    pub state_dir: Option<At<PathBuf>>,
    /// `[state] log_size`, bytes.
    pub log_size: Option<At<u64>>,
    /// `[state] log_keep`, files.
    pub log_keep: Option<At<u32>>,
    /// `[admin] dir`.
    pub admin_dir: Option<At<PathBuf>>,
    /// `[[socket]]`.
    pub sockets: Vec<RawSocket>,
}

/// `[key]` or an `[[account]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RawAccount {
    /// Where the table begins.
    pub origin: Origin,
    /// Only in an `[[account]]`.
    pub name: Option<At<String>>,
    pub source: Option<At<KeySource>>,
    pub consume: Option<At<bool>>,
    pub kinds: Option<At<Kinds>>,
    pub ceiling: Option<At<Auto<Option<Ceiling>>>>,
    pub created_at: Option<At<Auto<Window>>>,
    pub ecdh_ceiling: Option<At<Auto<Option<Ceiling>>>>,
    /// `None` inside for "none".
    pub seal_ceiling: Option<At<Option<Ceiling>>>,
}

/// `[limits]`, or a socket's `limits` or `total`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawLimits {
    /// The table's name in errors.
    pub name: String,
    pub burst: Option<At<u32>>,
    /// Seconds.
    pub burst_window: Option<At<u64>>,
    pub per_minute: Option<At<u32>>,
    pub per_hour: Option<At<u32>>,
    /// Not in a total.
    pub sessions_per_minute: Option<At<u32>>,
    /// Not in a total.
    pub live_sessions: Option<At<u32>>,
}

/// A socket's `dm`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawDm {
    pub unwrap_burst: Option<At<u32>>,
    pub unwrap_per_minute: Option<At<u32>>,
    pub failed_per_minute: Option<At<u32>>,
    pub wrap_per_minute: Option<At<u32>>,
}

/// A socket's `crypt`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawCrypt {
    pub per_minute: Option<At<u32>>,
    pub per_hour: Option<At<u32>>,
}

/// A `[[socket]]`. Inside `limits`, `total`, `dm` and `crypt`, `None` is "none".
#[derive(Clone, Debug, PartialEq)]
pub struct RawSocket {
    /// Where the table begins.
    pub origin: Origin,
    pub path: Option<At<PathBuf>>,
    pub mode: Option<At<u32>>,
    pub owner: Option<At<String>>,
    pub group: Option<At<String>>,
    pub peer_uids: Option<At<Vec<u32>>>,
    pub kinds: Option<At<Kinds>>,
    /// Seconds.
    pub max_ttl: Option<At<u64>>,
    pub tokenless: Option<At<Kinds>>,
    pub methods: Option<At<Vec<Method>>>,
    pub accounts: Option<At<Vec<String>>>,
    pub start_sessions: Option<At<StartSessions>>,
    pub bind: Option<At<Bind>>,
    /// Seconds.
    pub on_limit: Option<At<u64>>,
    /// Seconds.
    pub tokenless_on_limit: Option<At<u64>>,
    pub created_at: Option<At<Window>>,
    /// Bytes.
    pub max_request: Option<At<u64>>,
    pub alert_log: Option<At<PathBuf>>,
    pub limits: Option<Option<RawLimits>>,
    pub total: Option<Option<RawLimits>>,
    /// 64 lower-case hex digits each.
    pub peers: Option<At<Vec<String>>>,
    pub dm: Option<Option<RawDm>>,
    pub crypt: Option<Option<RawCrypt>>,
    pub rules: Vec<RawRule>,
}

/// Reads a config file's text. `name` is the file's name in errors.
pub fn read(text: &str, name: &str) -> Result<RawFile, Error> {
    let mut top = Section::new("", Origin::Default, tree::parse(text, name)?);
    let mut file = RawFile {
        default_account: top.take("default_account", values::account_name)?,
        key: top.section("key")?.map(|s| account(s, false)).transpose()?,
        accounts: top.sections("account")?.into_iter().map(|s| account(s, true)).collect::<Result<_, _>>()?,
        limits: top.section("limits")?.map(|s| limits(s, MAX_LIMIT, true)).transpose()?.unwrap_or_default(),
        ..RawFile::default()
    };
    if let Some(mut holder) = top.section("holder")? {
        file.require_secretmem = holder.take("require_secretmem", values::flag)?;
        file.record = holder.take("record", values::flag)?;
        holder.finish()?;
    }
    if let Some(mut state) = top.section("state")? {
        file.state_dir = state.take("dir", values::path)?;
        file.log_size = state.take("log_size", |v| values::size(v, 64 << 10, 1 << 30))?;
        file.log_keep = state.take("log_keep", |v| values::count(v, 1_000))?;
        state.finish()?;
    }
    if let Some(mut admin) = top.section("admin")? {
        file.admin_dir = admin.take("dir", values::path)?;
        admin.finish()?;
    }
    file.sockets = top.sections("socket")?.into_iter().map(socket).collect::<Result<_, _>>()?;
    top.finish()?;
    for (name, origin) in [
        ("[[account]]", file.accounts.get(MAX_TABLES).map(|a| &a.origin)),
        ("[[socket]]", file.sockets.get(MAX_TABLES).map(|s| &s.origin)),
    ] {
        if let Some(origin) = origin {
            return Err(Error::at(origin, format!("expected at most {MAX_TABLES} {name} tables")));
        }
    }
    Ok(file)
}

fn account(mut s: Section, named: bool) -> Result<RawAccount, Error> {
    let name = if named { s.take("name", values::account_name)? } else { None };
    match &name {
        None if named => return Err(Error::at(&s.origin(), "[[account]] has no name: expected name = \"…\"")),
        Some(n) if n.value == "default" => {
            return Err(Error::at(
                &n.origin,
                "account.name = \"default\": expected another name; [key] is the default account",
            ));
        }
        _ => {}
    }
    let account = RawAccount {
        origin: s.origin(),
        name,
        source: s.take("source", values::key_source)?,
        consume: s.take("consume", values::flag)?,
        kinds: s.take("kinds", values::kinds)?,
        ceiling: s.take("ceiling", values::ceiling)?,
        created_at: s.take("created_at", values::auto_window)?,
        ecdh_ceiling: s.take("ecdh_ceiling", values::ceiling)?,
        seal_ceiling: s.take("seal_ceiling", values::seal_ceiling)?,
    };
    s.finish()?;
    Ok(account)
}

/// `sessions`: whether the limits on sessions belong to this table.
fn limits(mut s: Section, most: u32, sessions: bool) -> Result<RawLimits, Error> {
    let count = |v: &Value| values::count(v, most);
    let limits = RawLimits {
        // "socket.limits.burst" without its last part.
        name: s.full("").trim_end_matches('.').to_string(),
        burst: s.take("burst", count)?,
        burst_window: s.take("burst_window", |v| values::duration(v, 3_600))?,
        per_minute: s.take("per_minute", count)?,
        per_hour: s.take("per_hour", count)?,
        sessions_per_minute: if sessions { s.take("sessions_per_minute", count)? } else { None },
        live_sessions: if sessions { s.take("live_sessions", count)? } else { None },
    };
    s.finish()?;
    Ok(limits)
}

fn limits_or_none(
    s: &mut Section,
    key: &'static str,
    most: u32,
    own: bool,
) -> Result<Option<Option<RawLimits>>, Error> {
    s.section_or_none(key)?.map(|table| table.map(|t| limits(t, most, own)).transpose()).transpose()
}

fn socket(mut s: Section) -> Result<RawSocket, Error> {
    let path = s.take("path", values::socket_path)?;
    let mode = s.take("mode", values::mode)?;
    let owner = s.take("owner", values::principal)?;
    let group = s.take("group", values::principal)?;
    let peer_uids = s.take("peer_uids", values::uids)?;
    let kinds = s.take("kinds", values::kinds)?;
    let max_ttl = s.take("max_ttl", |v| values::duration(v, MAX_TTL))?;
    let tokenless = s.take("tokenless", values::kinds)?;
    let methods = s.take("methods", values::methods)?;
    let accounts = s.take("accounts", values::account_names)?;
    let socket = RawSocket {
        origin: s.origin(),
        path,
        mode,
        owner,
        group,
        peer_uids,
        kinds,
        max_ttl,
        tokenless,
        methods,
        accounts,
        start_sessions: s.take("start_sessions", values::start_sessions)?,
        bind: s.take("bind", values::bind)?,
        on_limit: s.take("on_limit", values::wait)?,
        tokenless_on_limit: s.take("tokenless_on_limit", values::wait)?,
        created_at: s.take("created_at", values::window)?,
        max_request: s.take("max_request", |v| values::size(v, 1 << 10, MAX_REQUEST))?,
        alert_log: s.take("alert_log", values::path)?,
        limits: limits_or_none(&mut s, "limits", MAX_LIMIT, true)?,
        total: limits_or_none(&mut s, "total", MAX_TOTAL, false)?,
        peers: s.take("peers", values::peers)?,
        dm: s.section_or_none("dm")?.map(|table| table.map(dm).transpose()).transpose()?,
        crypt: s.section_or_none("crypt")?.map(|table| table.map(crypt).transpose()).transpose()?,
        rules: s.sections("rule")?.into_iter().map(rules::rule).collect::<Result<_, _>>()?,
    };
    s.finish()?;
    Ok(socket)
}

fn dm(mut s: Section) -> Result<RawDm, Error> {
    let count = |v: &Value| values::count(v, MAX_LIMIT);
    let dm = RawDm {
        unwrap_burst: s.take("unwrap_burst", count)?,
        unwrap_per_minute: s.take("unwrap_per_minute", count)?,
        failed_per_minute: s.take("failed_per_minute", count)?,
        wrap_per_minute: s.take("wrap_per_minute", count)?,
    };
    s.finish()?;
    Ok(dm)
}

fn crypt(mut s: Section) -> Result<RawCrypt, Error> {
    let count = |v: &Value| values::count(v, MAX_LIMIT);
    let crypt = RawCrypt { per_minute: s.take("per_minute", count)?, per_hour: s.take("per_hour", count)? };
    s.finish()?;
    Ok(crypt)
}

impl RawSocket {
    /// A `[[socket]]` without a key: what stands where a file has none.
    pub fn empty() -> RawSocket {
        RawSocket {
            origin: Origin::Default,
            path: None,
            mode: None,
            owner: None,
            group: None,
            peer_uids: None,
            kinds: None,
            max_ttl: None,
            tokenless: None,
            methods: None,
            accounts: None,
            start_sessions: None,
            bind: None,
            on_limit: None,
            tokenless_on_limit: None,
            created_at: None,
            max_request: None,
            alert_log: None,
            limits: None,
            total: None,
            peers: None,
            dm: None,
            crypt: None,
            rules: Vec::new(),
        }
    }
}

impl RawAccount {
    /// A `[key]` without a key.
    pub fn empty() -> RawAccount {
        RawAccount {
            origin: Origin::Default,
            name: None,
            source: None,
            consume: None,
            kinds: None,
            ceiling: None,
            created_at: None,
            ecdh_ceiling: None,
            seal_ceiling: None,
        }
    }
}
