//! What runs: the reference daemon's service, who answers on its socket, what is in the user's keyring. Changes nothing.

use super::ask::{Answer, ask};
use super::found::{Account, Files};
use super::layout::DEFAULT;
use super::system;
use crate::key::adopted::Step;
use std::path::PathBuf;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Live {
    pub account: Option<Account>,
    /// Of the reference daemon's unit: whether it runs, and whether it is started with the user's session.
    pub is_active: bool,
    pub is_enabled: bool,
    /// Where somebody answers of the sockets that may be the reference daemon's, and what.
    pub answer: Option<(PathBuf, Answer)>,
    /// In the keyring: description, public key (empty: no key).
    pub keys: Vec<(String, String)>,
    /// Why the keyring cannot be looked into.
    pub no_keyring: Option<String>,
    /// Who serves nsecd's default socket, if that is no daemon of the user's.
    pub stranger: Option<u32>,
    /// Whether the system's nsecd runs.
    pub nsecd_is_active: bool,
}

impl Live {
    /// Asks for all of it.
    pub fn ask(account: &Account, files: &Files) -> Live {
        let (keys, no_keyring) = match system::step(account, &Step::List) {
            Ok(printed) => (keys(&printed), None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let of_unit = |verb: &str| {
            let unit = files.units.first()?;
            system::systemctl_of(account, &[verb, &unit.name]).ok()
        };
        let answer = candidates(account, files).into_iter().find_map(|path| Some((path.clone(), ask(&path)?)));
        Live {
            account: Some(account.clone()),
            is_active: of_unit("is-active").is_some(),
            // A static one succeeds too, and cannot be enabled again.
            is_enabled: of_unit("is-enabled").as_deref() == Some("enabled"),
            stranger: ask(DEFAULT.as_ref()).map(|answer| answer.uid).filter(|uid| *uid != account.uid),
            answer,
            keys,
            no_keyring,
            nsecd_is_active: system::systemctl(&["is-active", "--quiet", "nsecd.service"]).is_ok(),
        }
    }
}

/// Where the reference daemon's socket may be: where its unit says, in the runtime directory, where its clients look.
fn candidates(account: &Account, files: &Files) -> Vec<PathBuf> {
    let said = files.units.first().and_then(|unit| unit.environment.get("NOSTR_SIGNER_SOCKET")).map(PathBuf::from);
    said.into_iter().chain([account.runtime().join("nostr-signer.sock"), DEFAULT.into()]).collect()
}

fn keys(printed: &str) -> Vec<(String, String)> {
    printed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(public, name)| (name.into(), public.into()))
        .collect()
}
