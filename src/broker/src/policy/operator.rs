//! What the operator may have: every account, and sessions for every socket.

use super::{Engine, NAME_SHOWN};
use crate::reply::{self, Code, Error};

impl Engine {
    /// The account of this name, whatever sockets serve it; `None` and `default` mean the default one.
    ///
    /// # Errors
    /// There is none, with those that there are.
    pub fn any_account(&self, name: Option<&str>) -> Result<usize, Error> {
        let all = &self.policy.accounts;
        let of = |name: &str| all.iter().position(|account| account.name == name);
        let default = || of(&self.policy.default_account);
        let found = match name {
            None => default(),
            Some("default") => of("default").or_else(default),
            Some(name) => of(name),
        };
        found.ok_or_else(|| {
            let shown: String = name.unwrap_or("default").chars().take(NAME_SHOWN).collect();
            let names: Vec<&str> = all.iter().map(|account| account.name.as_str()).collect();
            Error::new(Code::Forbidden, format!("Unknown or unloaded account: {shown}. Loaded: {}", names.join(", ")))
        })
    }

    /// list_accounts, all of them.
    pub fn all_accounts(&self) -> String {
        let default = &self.policy.default_account;
        let mut accounts: Vec<_> = self.policy.accounts.iter().collect();
        accounts.sort_by_key(|a| a.name != *default);
        reply::accounts(accounts.iter().map(|a| (a.name.as_str(), a.public_key.as_str(), a.name == *default)))
    }
}
