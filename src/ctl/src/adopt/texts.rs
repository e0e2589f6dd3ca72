//! The files that an adoption writes: nsecd's configuration, drop-ins of its units, and of the one that makes the user's runtime
//! directory.

use super::found::Account;
use super::layout::Layout;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// nsecd's configuration.
pub(super) const CONFIG: &str = "/etc/nsecd/nsecd.toml";
/// What a package puts there.
pub(super) const SHIPPED: &str = include_str!("../../../../docs/nsecd.example.toml");
/// What NanoClaw's tools sign, without a token too: those of the profile nanoclaw.
const KINDS: &str = "[1, 6, 7, 1111, 9734, 24242, 30023]";

/// The credential of an account's key; `None` is the default one.
pub(super) fn credential(account: Option<&str>) -> String {
    account.map_or_else(|| "nsec".into(), |name| format!("nsec-{name}"))
}

/// The configuration, for the default account (called that, or by its name) and these others.
pub(super) fn config(account: &Account, layout: &Layout, default: &str, others: &[String]) -> String {
    let user = &account.name;
    let mut out = format!(
        "# Written by `nsecctl adopt --user {user}`, for what the nostr-signer of that user did. Every key is explained in\n\
         # docs/policy.md. Check a change with `nsecd --check {CONFIG}`.\n\n"
    );
    match default {
        "default" => out += "[key]\nsource = \"credential:nsec\"\n",
        name => {
            out += &format!(
                "default_account = \"{name}\"\n\n[[account]]\nname = \"{name}\"\nsource = \"credential:nsec\"\n"
            )
        }
    }
    for name in others {
        let source = credential(Some(name));
        out += &format!("\n[[account]]\nname = \"{name}\"\nsource = \"credential:{source}\"\n");
    }
    let accounts: Vec<_> = std::iter::once("default").chain(others.iter().map(String::as_str)).collect();
    for socket in &layout.sockets {
        let (what, methods) = match (socket.name, socket.dm) {
            ("shared", _) => ("for all, as the reference daemon had it", r#"["sign_event", "dm"]"#),
            (_, true) => ("for the host's tools: direct messages too", r#"["sign_event", "dm"]"#),
            _ => ("for agents in containers: no direct messages", r#"["sign_event"]"#),
        };
        out += &format!(
            "\n# {name}: {what}. Its file's owner is said in {unit}; owner here lets that user read the alert log.\n\
             [[socket]]\npath = \"{path}\"\nowner = \"{user}\"\nkinds = {KINDS}\ntokenless = {KINDS}\nmethods = {methods}\n\
             accounts = {accounts:?}\ntokenless_on_limit = \"wait 20s\"\nalert_log = \"/var/log/nsecd/{name}.log\"\n",
            name = socket.name,
            unit = socket.unit,
            path = socket.path.display(),
        );
    }
    out
}

/// Drop-ins: the sockets' owner, the credentials of more accounts, the link that is made anew with the runtime directory.
pub(super) fn dropins(account: &Account, layout: &Layout, others: &[String]) -> Vec<(PathBuf, String)> {
    let head = format!("# Written by `nsecctl adopt --user {}`.\n", account.name);
    let at = |unit: &str| PathBuf::from(format!("/etc/systemd/system/{unit}.d/adopted.conf"));
    let owner = format!("{head}[Socket]\nSocketUser={}\n", account.name);
    let mut all: Vec<_> = layout.sockets.iter().map(|socket| (at(&socket.unit), owner.clone())).collect();
    if !others.is_empty() {
        let lines = others.iter().map(|name| format!("LoadCredentialEncrypted={}\n", credential(Some(name))));
        all.push((at("nsecd.service"), format!("{head}[Service]\n{}", lines.collect::<String>())));
    }
    if let Some((link, to)) = &layout.link {
        let line = format!("ExecStartPost=/bin/ln -sfT {} {}\n", to.display(), link.display());
        all.push((at(&format!("user-runtime-dir@{}.service", account.uid)), format!("{head}[Service]\n{line}")));
    }
    all
}

/// A name beside a file for what belongs to it, the first that is free.
pub(super) fn beside(path: &Path, end: &str, is_free: impl Fn(&Path) -> bool) -> PathBuf {
    let name = |count: u32| match count {
        1 => PathBuf::from(format!("{}.{end}", path.display())),
        count => PathBuf::from(format!("{}.{end}-{count}", path.display())),
    };
    (1..1000).map(name).find(|name| is_free(name)).unwrap_or_else(|| name(1000))
}

/// A file of root's that is there whole or not at all.
///
/// # Errors
/// It cannot be written.
pub(super) fn put(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let next = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        let _ = fs::remove_file(&next);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&next);
        format!("writing {}: {e}", path.display())
    })
}
