//! Accounts: which one is the default, where each key comes from, and the hard ceiling that follows from the sockets
//! that use it. Finds what an account forbids though one of its sockets offers it.

use nsecd_policy::{Kinds, Method};

use super::error::{At, Error, Origin};
use super::profiles::SEALS;
use super::raw::{RawAccount, RawFile};
use super::secrets::shown;
use super::source::{AUTO_CREDENTIAL, AUTO_KEYRING, KeySource, Source};
use super::values::{self, Auto};
use super::{Account, Context, Socket, limits, units};

/// What a socket's `accounts` and the wire call the default account, whatever its name.
pub const DEFAULT: &str = "default";

/// NIP-59's seal: what a direct message's author signs.
const SEAL: u16 = 13;

/// An account before its sockets are known.
pub struct Plan {
    /// The name on the wire.
    pub name: String,
    /// Whether it is the default account.
    pub is_default: bool,
    /// The places of its key, in the order they are tried.
    pub source: Vec<Source>,
    raw: RawAccount,
}

/// The accounts that the sockets name, the default one first. `key` is the command line's source, which replaces the
/// default account's. What is not quite as asked for goes to `notes`.
pub fn plan(
    file: &RawFile,
    key: Option<&At<KeySource>>,
    cx: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Plan>, Error> {
    for (i, a) in file.accounts.iter().enumerate() {
        let same = |b: &&RawAccount| b.name.as_ref().map(|n| &n.value) == a.name.as_ref().map(|n| &n.value);
        if let (Some(first), Some(name)) = (file.accounts[..i].iter().find(same), &a.name) {
            let text =
                format!("account.name = \"{}\": expected another name; it is used at {}", name.value, first.origin);
            return Err(Error::at(&name.origin, text));
        }
    }
    let default = default_name(file, cx, notes)?;
    let mut plans = Vec::new();
    if default_is_used(file, &default) {
        plans.push(default_plan(file, key, cx, &default));
    } else if let Some(key) = key {
        return Err(Error::at(
            &key.origin,
            "no socket uses the default account: expected \"default\" in a socket's accounts",
        ));
    } else if let Some(raw) = &file.key {
        return Err(Error::at(&raw.origin, unused("[key]", DEFAULT)));
    }
    for raw in &file.accounts {
        let Some(name) = raw.name.as_ref().map(|n| n.value.clone()).filter(|n| *n != default) else { continue };
        if !names(file).any(|n| n == name) {
            return Err(Error::at(&raw.origin, unused(&format!("account \"{name}\""), &name)));
        }
        if raw.ecdh_ceiling.is_some() {
            notes.push(format!("account {name}: ecdh_ceiling has no effect: encryption uses the default account"));
        }
        plans.push(Plan { source: sources(raw, &name, cx), name, is_default: false, raw: raw.clone() });
    }
    distinct_sources(&plans)?;
    Ok(plans)
}

fn unused(what: &str, name: &str) -> String {
    format!("{what} is used by no socket: expected \"{name}\" in a socket's accounts, or no such table")
}

/// Every name in a socket's `accounts`.
fn names(file: &RawFile) -> impl Iterator<Item = &str> {
    let of = |s: &super::raw::RawSocket| s.accounts.is_none();
    let implied = file.sockets.is_empty() || file.sockets.iter().any(of);
    let written = file.sockets.iter().flat_map(|s| s.accounts.iter().flat_map(|a| a.value.iter().map(String::as_str)));
    written.chain(implied.then_some(DEFAULT))
}

fn default_is_used(file: &RawFile, default: &str) -> bool {
    names(file).any(|n| n == DEFAULT || n == default)
}

fn find<'a>(file: &'a RawFile, name: &str) -> Option<&'a RawAccount> {
    file.accounts.iter().find(|a| a.name.as_ref().is_some_and(|n| n.value == name))
}

/// Which account is the default one: the config file says, else NOSTR_SIGNER_DEFAULT_ACCOUNT, else it is [key].
fn default_name(file: &RawFile, cx: &Context<'_>, notes: &mut Vec<String>) -> Result<String, Error> {
    if let Some(At { value, origin }) = &file.default_account {
        return match (find(file, value), &file.key) {
            _ if value == DEFAULT => Ok(value.clone()),
            (None, _) => {
                Err(Error::at(origin, format!("default_account = \"{value}\": expected the name of an [[account]]")))
            }
            (_, Some(key)) => {
                Err(Error::at(&key.origin, format!("[key] and default_account = \"{value}\" are two default accounts")))
            }
            _ => Ok(value.clone()),
        };
    }
    const VARIABLE: &str = "NOSTR_SIGNER_DEFAULT_ACCOUNT";
    let Some(value) = &cx.env.default_account else { return Ok(DEFAULT.to_string()) };
    let name = value.to_str().filter(|n| values::is_account_name(n)).ok_or_else(|| {
        Error::at(
            &Origin::Variable(VARIABLE),
            format!("\"{}\": expected {}", shown(&value.to_string_lossy()), values::ACCOUNT_NAME),
        )
    })?;
    // A [key] that names a source, or that stands beside the account meant, is the file's own choice.
    let chosen = file.key.as_ref().filter(|k| k.source.is_some() || find(file, name).is_some());
    match chosen {
        Some(key) if name != DEFAULT => {
            notes.push(format!("{VARIABLE}={name} has no effect: [key] at {} is the default account", key.origin));
            Ok(DEFAULT.to_string())
        }
        _ => Ok(name.to_string()),
    }
}

fn default_plan(file: &RawFile, key: Option<&At<KeySource>>, cx: &Context<'_>, name: &str) -> Plan {
    let mut raw = find(file, name).or(file.key.as_ref()).cloned().unwrap_or_else(RawAccount::empty);
    if let Some(key) = key {
        raw.source = Some(key.clone());
        // It was said of the source that is replaced.
        raw.consume = raw.consume.filter(|_| matches!(key.value, KeySource::One(Source::Keyring(_)) | KeySource::Auto));
    }
    Plan { source: sources(&raw, name, cx), name: name.to_string(), is_default: true, raw }
}

/// The places of an account's key. Where nothing is said, a named account is the keyring's `nostr:NAME`, as the
/// reference daemon has it: `auto` would give it the default account's key.
fn sources(raw: &RawAccount, name: &str, cx: &Context<'_>) -> Vec<Source> {
    match raw.source.as_ref().map(|s| &s.value) {
        Some(KeySource::One(source)) => vec![source.clone()],
        None if name != DEFAULT => vec![Source::Keyring(format!("nostr:{name}"))],
        None | Some(KeySource::Auto) => {
            let there = |dir: &std::path::PathBuf| cx.host.exists(&dir.join(AUTO_CREDENTIAL));
            let credential = cx.env.credentials_directory.as_ref().filter(|d| there(d));
            let keyring = AUTO_KEYRING.into_iter().map(|d| Source::Keyring(d.to_string()));
            credential.map(|_| Source::Credential(AUTO_CREDENTIAL.to_string())).into_iter().chain(keyring).collect()
        }
    }
}

/// Refuses two accounts with one source: a descriptor is read once, and one key with two ceilings has none.
fn distinct_sources(plans: &[Plan]) -> Result<(), Error> {
    for (i, a) in plans.iter().enumerate() {
        if a.source == [Source::Ephemeral] {
            continue;
        }
        if let Some(b) = plans[..i].iter().find(|b| b.source.iter().any(|s| a.source.contains(s))) {
            let origin = a.raw.source.as_ref().map_or(&a.raw.origin, |s| &s.origin);
            let text =
                format!("account \"{}\" has the key source of account \"{}\": expected one of its own", a.name, b.name);
            return Err(Error::at(origin, text));
        }
    }
    Ok(())
}

/// The account that a plan becomes under the sockets that use it.
pub fn resolve(plan: &Plan, all: &[Socket]) -> Result<Account, Error> {
    let sockets: Vec<&Socket> = all.iter().filter(|s| s.accounts.contains(&plan.name)).collect();
    let Plan { name, source, raw, is_default } = plan;
    let (mut kinds, mut created_at) = (Kinds::List(Vec::new()), Some((0, 0)));
    for s in &sockets {
        kinds = union(kinds, &s.kinds);
        created_at = created_at.zip(s.created_at).map(|(a, b): ((i64, i64), _)| (a.0.min(b.0), a.1.max(b.1)));
    }
    let signs_seals = sockets.iter().any(|s| s.kinds.contains(SEAL));
    let dm = *is_default && sockets.iter().any(|s| s.methods.contains(&Method::Dm));
    if dm {
        kinds = union(kinds, &Kinds::List(vec![SEAL]));
    }
    if let Some(written) = &raw.kinds {
        if let Some(missing) = outside(&kinds, &written.value) {
            let missing = match missing.as_str() {
                "kind 13" if !signs_seals => "dm, which signs kind 13".to_string(),
                _ => missing,
            };
            let text =
                format!("account \"{name}\": kinds: its sockets offer {missing}: expected it here too, or not there");
            return Err(Error::at(&written.origin, text));
        }
        kinds = written.value.clone();
    }
    if let Some(At { value: Auto::Fixed(written), origin }) = &raw.created_at {
        let covers = |w: (i64, i64)| created_at.is_some_and(|c: (i64, i64)| w.0 <= c.0 && c.1 <= w.1);
        if !written.is_none_or(covers) {
            let wide = units::show_window(created_at);
            let text =
                format!("account \"{name}\": created_at is narrower than its sockets', {wide}: expected at least that");
            return Err(Error::at(origin, text));
        }
        created_at = *written;
    }
    let seals = match created_at {
        _ if dm && !signs_seals => Some(SEALS),
        Some((from, to)) if dm => Some((from.min(SEALS.0), to.max(SEALS.1))),
        same => same,
    };
    let ceiling = match raw.ceiling.as_ref().map(|c| &c.value) {
        Some(Auto::Fixed(ceiling)) => *ceiling,
        _ => limits::auto_ceiling(sockets.iter().map(|s| &s.total)),
    };
    // A ceiling that is written holds for all that the key signs, if it says no other for seals. The automatic one is for what
    // totals count: messages have limits of their own, and must not use up what notes have.
    let automatic = !matches!(raw.ceiling.as_ref().map(|c| &c.value), Some(Auto::Fixed(_)));
    let with_dm = sockets.iter().filter(|s| s.methods.contains(&Method::Dm)).map(|s| &s.dm);
    let seal_ceiling = match &raw.seal_ceiling {
        Some(written) => dm.then_some(written.value),
        None => (automatic && dm).then(|| limits::auto_seal_ceiling(with_dm)),
    };
    let consume = raw.consume.as_ref().filter(|c| c.value);
    if let Some(At { origin, .. }) = consume
        && !source.iter().any(|s| matches!(s, Source::Keyring(_)))
    {
        return Err(Error::at(
            origin,
            format!("account \"{name}\": consume unlinks a keyring key: expected a keyring source, or false"),
        ));
    }
    Ok(Account {
        name: name.clone(),
        source: source.clone(),
        consume: consume.is_some(),
        kinds,
        ceiling,
        seal_ceiling,
        created_at,
        seals,
        ecdh_ceiling: match raw.ecdh_ceiling.as_ref().filter(|_| *is_default).map(|c| &c.value) {
            Some(Auto::Fixed(ceiling)) => *ceiling,
            _ => Some(limits::auto_ecdh_ceiling(all)),
        },
    })
}

fn union(a: Kinds, b: &Kinds) -> Kinds {
    match (a, b) {
        (Kinds::List(mut a), Kinds::List(b)) => {
            let new: Vec<u16> = b.iter().copied().filter(|k| !a.contains(k)).collect();
            a.extend(new);
            Kinds::List(a)
        }
        _ => Kinds::Any,
    }
}

/// Names a kind of `inner` that `outer` lacks, if there is one.
pub fn outside(inner: &Kinds, outer: &Kinds) -> Option<String> {
    match (inner, outer) {
        (_, Kinds::Any) => None,
        (Kinds::Any, Kinds::List(_)) => Some("\"any\"".to_string()),
        (Kinds::List(inner), outer) => inner.iter().find(|k| !outer.contains(**k)).map(|k| format!("kind {k}")),
    }
}
