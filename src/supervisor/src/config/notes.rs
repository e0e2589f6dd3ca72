//! What is allowed and may not be meant: said at the start and by `--check`.

use nsecd_policy::Method;

use super::{Ceiling, Config, Socket, limits, units};

/// Adds what there is to say of a resolved configuration.
pub fn add(config: &mut Config) {
    let mut notes = Vec::new();
    for socket in &config.sockets {
        of_socket(socket, &config.default_account, &mut notes);
    }
    of_ceilings(config, &mut notes);
    config.notes.append(&mut notes);
}

fn of_socket(s: &Socket, default_account: &String, notes: &mut Vec<String>) {
    let path = s.path.display();
    if !s.accounts.contains(default_account) {
        notes.push(format!(
            "{path}: requests that name no account are refused: \"{default_account}\" is not among its accounts"
        ));
    }
    if s.mode & 0o002 != 0 && s.peer_uids.is_none() {
        notes.push(format!("{path}: mode {:04o} without peer_uids lets every user connect", s.mode));
    }
    if s.peers.is_some() && s.methods == [Method::SignEvent] {
        notes.push(format!("{path}: peers has no effect: methods has none of nip44, nip04 and dm"));
    }
}

/// Ceilings that refuse what the sockets' own limits allow.
fn of_ceilings(config: &Config, notes: &mut Vec<String>) {
    for account in &config.accounts {
        let sockets: Vec<&Socket> = config.sockets.iter().filter(|s| s.accounts.contains(&account.name)).collect();
        let name = &account.name;
        let needed = limits::auto_ceiling(sockets.iter().map(|s| &s.total));
        if let (Some(ceiling), Some(needed)) = (&account.ceiling, &needed)
            && hourly(ceiling) < hourly(needed) * 5 / 6
        {
            let (ceiling, totals) = (units::show_ceiling(ceiling), hourly(needed) * 5 / 6);
            notes.push(format!(
                "account {name}: ceiling {ceiling} is less than the {totals} signatures an hour that its sockets allow"
            ));
        }
        if *name != config.default_account || config.ecdh.is_none() {
            continue;
        }
        let needed = limits::auto_ecdh_ceiling(&config.sockets);
        if let Some(ceiling) = &account.ecdh_ceiling
            && (ceiling.burst < needed.burst || hourly(ceiling) < hourly(&needed))
        {
            let (ceiling, needed) = (units::show_ceiling(ceiling), units::show_ceiling(&needed));
            notes.push(format!(
                "account {name}: ecdh_ceiling {ceiling} is less than one client's dm and crypt limits need, {needed}: \
                 messages wait for it up to 30 s"
            ));
        }
    }
}

fn hourly(ceiling: &Ceiling) -> u64 {
    u64::from(ceiling.tokens) * 3_600 / u64::from(ceiling.seconds).max(1)
}
