//! From what was written to what holds: each setting is the flag's, else the config file's, else the environment's,
//! else the default. The order of the steps is that of what they need from each other.

use std::path::PathBuf;

use super::accounts::{self, DEFAULT};
use super::error::{At, Error, Origin};
use super::profiles::{self, Profile};
use super::raw::{RawFile, RawSocket};
use super::sockets::{self, Shared};
use super::source::Source;
use super::values;
use super::{Config, Context, Holder, State, defaults, ecdh, notes};
use crate::cli::Cli;

/// The configuration that `cli` and `file` give in `cx`; `profile` fills what a socket omits.
pub fn resolve(cli: &Cli, mut file: RawFile, profile: Profile, cx: &Context<'_>) -> Result<Config, Error> {
    let mut notes = Vec::new();
    if file.sockets.is_empty() {
        file.sockets.push(RawSocket::empty());
    }
    let plans = accounts::plan(&file, cli.key.as_ref(), cx, &mut notes)?;
    let default_account = plans.iter().find(|p| p.is_default).map_or(DEFAULT.to_string(), |p| p.name.clone());

    // A record outlives its process so that no restart refills a ceiling: it goes only if every key goes with it.
    let throw_away = plans.iter().all(|p| p.source == [Source::Ephemeral]);
    let kept = cli.state_dir.is_some() || (file.state_dir.is_some() && !cli.ephemeral);
    let ephemeral = throw_away && !kept;
    let written_dir = cli.state_dir.as_ref().or(file.state_dir.as_ref());
    let state_dir = match written_dir {
        _ if ephemeral => defaults::ephemeral_dir(cx)?,
        Some(dir) => dir.value.clone(),
        None => defaults::state_dir(cx)?,
    };
    if cli.ephemeral && !ephemeral {
        notes.push(format!("records and logs are kept in {}", state_dir.display()));
    }
    let admin_dir = admin_dir(cli, &file, cx)?;
    let defaults = profile.defaults();
    let shared = Shared {
        defaults: &defaults,
        limits: &file.limits,
        plans: &plans,
        state: &state_dir,
        admin: &admin_dir,
        first_path: cli.socket.clone(),
    };
    let sockets = sockets::resolve(&file.sockets, &shared, cx)?;
    let accounts = plans.iter().map(|p| accounts::resolve(p, &sockets)).collect::<Result<_, _>>()?;
    let holder = Holder { require_secretmem: flag(&file.require_secretmem, false), record: flag(&file.record, true) };
    if !holder.record {
        notes.push("record = false: signatures leave no record; for load tests only".to_string());
    }
    let (log_size, log_keep) = profiles::LOG;
    let named = cx.env.session_file.as_deref();
    let session_file = sockets::variable("SIGNER_SESSION_FILE", named, values::absolute, values::ABSOLUTE)?;
    let state = State {
        journal: state_dir.join("journal"),
        session_file: session_file.map(|at| at.value),
        dir: state_dir,
        log_size: file.log_size.map_or(log_size, |a| a.value),
        log_keep: file.log_keep.map_or(log_keep, |a| a.value),
    };
    let ecdh = ecdh::resolve(&sockets)?;
    let mut config = Config { accounts, sockets, holder, ecdh, state, admin_dir, ephemeral, default_account, notes };
    notes::add(&mut config);
    Ok(config)
}

/// The admin directory, in which a socket must have room for its name.
fn admin_dir(cli: &Cli, file: &RawFile, cx: &Context<'_>) -> Result<PathBuf, Error> {
    let At { value, origin } = match cli.admin_dir.as_ref().or(file.admin_dir.as_ref()) {
        Some(dir) => dir.clone(),
        None => At::new(defaults::admin_dir(cx)?, Origin::Default),
    };
    let socket = value.join(nsecd_policy::operator::SOCKET);
    match socket.to_str().and_then(values::absolute_socket) {
        Some(_) => Ok(value),
        None => {
            let text = format!("admin directory: for {}, expected {}", socket.display(), values::SOCKET_PATH);
            Err(Error::at(&origin, text))
        }
    }
}

fn flag(written: &Option<At<bool>>, default: bool) -> bool {
    written.as_ref().map_or(default, |a| a.value)
}
