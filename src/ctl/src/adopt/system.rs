//! Commands that are run: systemctl, as root and as the user; nsecd to check a configuration; nsecctl itself, as the user.

use super::found::Account;
use crate::key::adopted::Step;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A program without our environment.
fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SYSTEMD_COLORS", "0").stdin(Stdio::null());
    command.current_dir("/");
    command
}

/// As the user, without root's groups.
fn becoming<'a>(command: &'a mut Command, account: &Account) -> &'a mut Command {
    command.uid(account.uid).gid(account.gid).env("HOME", &account.home).env("XDG_RUNTIME_DIR", account.runtime())
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = shown(command);
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{shown}: {e}"))?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match status.success() {
        true => Ok(words(&stdout)),
        false => Err(format!("{shown}: {}", [words(&stderr), words(&stdout)].join(" ").trim())),
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// `systemctl …` of the system's manager; what it prints.
///
/// # Errors
/// What it says.
pub(super) fn systemctl(arguments: &[&str]) -> Result<String, String> {
    output(program("systemctl").args(arguments))
}

/// `systemctl --user …` of the user's manager.
///
/// # Errors
/// What it says.
pub(super) fn systemctl_of(account: &Account, arguments: &[&str]) -> Result<String, String> {
    output(becoming(&mut program("systemctl"), account).arg("--user").args(arguments))
}

/// Whether nsecd takes that configuration.
///
/// # Errors
/// Why not.
pub(super) fn check(config: &Path) -> Result<(), String> {
    output(program("nsecd").arg("--check").arg(config)).map(drop)
}

/// This program, as the user.
fn itself(account: &Account) -> Command {
    let mut command = program("/proc/self/exe");
    becoming(&mut command, account);
    command
}

/// It takes a step in the user's keyring.
pub(super) fn stepping(account: &Account, step: &Step) -> Command {
    let mut command = itself(account);
    command.arg("adopt").arg(format!("--step={}", step.show()));
    command
}

/// It stores what comes in by standard input in the user's keyring.
pub(super) fn storing(account: &Account, description: &str) -> Command {
    let mut command = itself(account);
    command.args(["key", "add", "--to"]).arg(format!("keyring:{description}"));
    command
}

/// Takes a step; what it printed.
///
/// # Errors
/// What it said.
pub(super) fn step(account: &Account, step: &Step) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        stepping(account, step).output().map_err(|e| format!("starting nsecctl as {}: {e}", account.name))?;
    let why = String::from_utf8_lossy(&stderr).trim().trim_start_matches("nsecctl: ").to_owned();
    if status.success() { Ok(String::from_utf8_lossy(&stdout).into_owned()) } else { Err(why) }
}

/// The public key that the user is told on a socket.
///
/// # Errors
/// There is no answer, or the user may not connect.
pub(super) fn pubkey(account: &Account, socket: &Path) -> Result<String, String> {
    let said = output(itself(account).args(["pubkey", "--socket"]).arg(socket))?;
    let reply: serde_json::Value = serde_json::from_str(&said).map_err(|e| format!("{}: {e}", socket.display()))?;
    Ok(reply["pubkey"].as_str().unwrap_or_default().to_owned())
}

/// A link, in place of what is there.
///
/// # Errors
/// It cannot be made.
pub(super) fn link(link: &Path, to: &Path) -> Result<(), String> {
    output(program("ln").arg("-sfT").arg(to).arg(link)).map(drop)
}

/// What `nsecctl doctor` finds.
pub(super) fn doctor() -> String {
    match program("/proc/self/exe").arg("doctor").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(e) => format!("it cannot be run: {e}"),
    }
}
