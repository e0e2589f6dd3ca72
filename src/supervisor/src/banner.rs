//! What a person who starts nsecd in a terminal reads: what is served where, and requests ready to paste.
//!
//! Must never hold a secret, nor anything an agent sent.

use std::fmt::Write;

use nix::unistd::geteuid;
use nsecd_policy::hello::names;
use nsecd_policy::{Kinds, Method};
use nsecd_sandbox::hello;

use crate::config::Socket;
use crate::service::Service;
use crate::setup::Setup;

/// The whole text.
pub fn text(setup: &Setup, service: &Service) -> String {
    let config = &setup.config;
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!("nsecd {} is ready, started by {}.", hello::VERSION, setup.started_by));
    line("");
    for ((account, holder), freeze) in config.accounts.iter().zip(&setup.holders).zip(&setup.freezes) {
        line(&format!("  account {}: public key {}", account.name, holder.public_key));
        if let Some(since) = freeze.since() {
            line(&format!("          frozen since {since} (nsecctl thaw)"));
        }
    }
    for socket in &config.sockets {
        line(&format!("  socket  {}: kinds {}{}", socket.path.display(), kinds(&socket.kinds), encryption(socket)));
        line(&format!("          refusals are logged in {}", socket.alert_log.display()));
    }
    line(&format!("  state   {}", config.state.dir.display()));
    line(&format!("  admin   {}", config.admin_dir.display()));
    if config.ephemeral {
        line("  The key, its record and its logs are thrown away when nsecd ends (--ephemeral).");
    }
    for missing in missing(setup, service) {
        line(&format!("  missing {missing}"));
    }
    if let Some(socket) = config.sockets.first() {
        line("");
        requests(socket, &mut line);
    }
    line("");
    line("Ctrl-C ends it.");
    out
}

/// One line for each role that lacks an optional step of its confinement.
pub fn missing(setup: &Setup, service: &Service) -> Vec<String> {
    let holders = setup.holders.iter().chain(&setup.ecdh).map(|h| (h.child.name(), h.missing));
    let gates = service.gates.iter().map(|gate| (gate.child.name(), gate.missing));
    let all = holders.chain([(service.broker.name(), service.missing)]).chain(gates);
    let own = (!setup.missing.is_empty()).then(|| format!("for nsecd itself: {}", setup.missing.join(", ")));
    let roles = all.filter(|(_, bits)| *bits != 0).map(|(name, bits)| {
        let why = if geteuid().is_root() || name != "the broker" { "" } else { " (only root can give it these)" };
        format!("for {name}: {}{why}", names(bits).collect::<Vec<_>>().join(", "))
    });
    own.into_iter().chain(roles).collect()
}

fn kinds(kinds: &Kinds) -> String {
    match kinds {
        Kinds::Any => "any".into(),
        Kinds::List(list) => list.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What a socket offers beside signatures.
fn encryption(socket: &Socket) -> String {
    let name = |method: &Method| match method {
        Method::SignEvent => None,
        Method::Nip44 => Some("; nip44"),
        Method::Nip04 => Some("; nip04"),
        Method::Dm => Some("; direct messages"),
    };
    socket.methods.iter().filter_map(name).collect()
}

/// Comments and commands, each fit to be pasted as it is.
fn requests(socket: &Socket, line: &mut impl FnMut(&str)) {
    let path = quoted(&socket.path.display().to_string());
    let tokenless = socket.tokenless.contains(1);
    let token = if tokenless { "" } else { r#""session_token":"TOKEN","# };
    let mut nc = |why: &str, json: &str| {
        line(&format!("  # {why}"));
        line(&format!("  echo '{json}' | nc -U {path} -w 2"));
    };
    nc("the public key", r#"{"method":"get_public_key"}"#);
    nc("a session", r#"{"method":"session_start","params":{"scope":"1,1111","ttl":"28800"}}"#);
    let signed = if tokenless { "a signature" } else { "a signature: put the token of the session for TOKEN" };
    nc(signed, &format!(r#"{{"method":"sign_event","params":{{{token}"kind":1,"content":"hello","tags":[]}}}}"#));
    if !socket.kinds.contains(0) {
        let refused = format!(r#"{{"method":"sign_event","params":{{{token}"kind":0,"content":"{{}}","tags":[]}}}}"#);
        nc("refused, and logged: kind 0 (a profile) is not allowed here", &refused);
    }
    let ctl = std::env::current_exe().ok().map(|me| me.with_file_name("nsecctl"));
    let Some(ctl) = ctl.filter(|ctl| ctl.exists()) else { return };
    let ctl = quoted(&ctl.display().to_string());
    line("");
    line("The same where there is no nc (Debian's netcat-openbsd):");
    line("");
    line(&format!("  {ctl} --socket {path} session start --scope 1,1111 --ttl 8h"));
    line(&format!(
        "  {ctl} --socket {path} sign --kind 1 --content \"hello\"{}",
        if tokenless { "" } else { " --token-file FILE" }
    ));
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(quoted("/run/user/1000/nostr-signer.sock"), "/run/user/1000/nostr-signer.sock");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
    }
}
