//! What a reload cannot change: what running processes were started with and cannot be told anew.

use crate::config::{Account, Config, Ecdh, source};

/// Each key that differs and would need a restart.
pub fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let mut fixed = Vec::new();
    let mut differs = |differs: bool, key: &str| {
        if differs {
            fixed.push(key.to_owned());
        }
    };
    differs(old.state.dir != new.state.dir, "[state] dir");
    differs(old.state.log_size != new.state.log_size, "[state] log_size");
    differs(old.state.log_keep != new.state.log_keep, "[state] log_keep");
    differs(old.admin_dir != new.admin_dir, "[admin] dir");
    differs(old.holder.require_secretmem != new.holder.require_secretmem, "[holder] require_secretmem");
    differs(old.holder.record != new.holder.record, "[holder] record");
    differs(old.ephemeral != new.ephemeral, "source = \"ephemeral\" of every account, or of not every one any more");
    differs(old.default_account != new.default_account, "the default account's name");
    for (before, after) in old.accounts.iter().filter_map(|a| Some((a, named(new, &a.name)?))) {
        differs(!same_source(before, after), &format!("account {}: source", before.name));
        differs(before.consume != after.consume, &format!("account {}: consume", before.name));
    }
    if let Some(running) = &old.ecdh {
        let name = &old.default_account;
        match (named(old, name), named(new, name)) {
            (Some(before), Some(after)) => {
                differs(before.ecdh_ceiling != after.ecdh_ceiling, &format!("account {name}: ecdh_ceiling"));
            }
            _ => differs(true, &format!("account {name}, whose key the ECDH holder has, in the accounts of no socket")),
        }
        differs(!new.ecdh.as_ref().is_none_or(|new| is_within(new, running)), ECDH);
    } else {
        differs(new.ecdh.is_some(), ECDH);
    }
    fixed
}

/// Whether both name the same place. Both `auto`: what that found at the start is in use, wherever it would look by now.
fn same_source(before: &Account, after: &Account) -> bool {
    before.source == after.source || source::is_auto(&before.source) && source::is_auto(&after.source)
}

const ECDH: &str =
    "methods nip44, nip04 and dm of all sockets together, or their peers, beyond what the ECDH holder was started for";

/// Whether a running ECDH holder that allows `running` allows all of `new`.
fn is_within(new: &Ecdh, running: &Ecdh) -> bool {
    let ops = new.ops.iter().all(|op| running.ops.contains(op));
    let peers = match (&new.peers, &running.peers) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(new), Some(running)) => new.iter().all(|peer| running.contains(peer)),
    };
    ops && peers
}

/// The account of that name.
pub fn named<'a>(config: &'a Config, name: &str) -> Option<&'a Account> {
    config.accounts.iter().find(|account| account.name == name)
}

/// Whether a gate that was started for `old` is not the one for `new`.
pub fn needs_gate(old: &Account, new: &Account) -> bool {
    (&old.kinds, old.ceiling, old.seal_ceiling, old.created_at, old.seals)
        != (&new.kinds, new.ceiling, new.seal_ceiling, new.created_at, new.seals)
}
