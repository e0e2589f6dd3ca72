//! The host that is adopted, and all that is done to it: files; commands that are run, systemctl as root and as the user, nsecd to
//! check a configuration, nsecctl itself as the user.

use super::ask::{self, Answer};
use super::found::{self, Account, Thing};
use super::texts;
use crate::child;
use crate::key::Means;
use crate::key::adopted::{Carried, PATIENCE, Step};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long systemctl may wait for units: a service has 90 s to start or stop unless its unit says otherwise.
const UNITS: Duration = Duration::from_secs(300);

/// What applying and undoing do, and ask before they do it. Each deed fails whole, with what to say, or is done; in the tests another
/// host stands in, on which each can be made to fail.
pub(super) trait Host {
    /// `systemctl …` of the system's manager; what it prints.
    fn systemctl(&self, arguments: &[&str]) -> Result<String, String>;
    /// `systemctl --user …` of the user's manager.
    fn systemctl_of(&self, account: &Account, arguments: &[&str]) -> Result<String, String>;
    /// Whether nsecd takes that configuration.
    fn check(&self, config: &str) -> Result<(), String>;
    /// Who answers on a socket, and with what.
    fn ask(&self, socket: &Path) -> Option<Answer>;
    /// The public key that the user is told on a socket.
    fn pubkey(&self, account: &Account, socket: &Path) -> Result<String, String>;
    /// What `nsecctl doctor` finds.
    fn doctor(&self) -> String;

    /// The descriptions of the keys in the user's keyring.
    fn keys(&self, account: &Account) -> Result<Vec<String>, String>;
    /// A key out of it.
    fn take(&self, account: &Account, description: &str) -> Result<Carried, String>;
    /// A key into it.
    fn give(&self, account: &Account, description: &str, key: &Carried) -> Result<(), String>;
    /// A key is removed from it.
    fn forget(&self, account: &Account, description: &str) -> Result<(), String>;
    /// The key in an encrypted credential; `None`: there is no such file.
    fn sealed(&self, credential: &str) -> Result<Option<Carried>, String>;
    /// A key into an encrypted credential, where there is none.
    fn seal(&self, credential: &str, key: &Carried) -> Result<(), String>;
    /// The path of a credential's file.
    fn credential(&self, name: &str) -> std::path::PathBuf;

    /// A file's text.
    fn read(&self, path: &Path) -> Option<String>;
    /// What lies at a path.
    fn thing(&self, path: &Path) -> Thing;
    /// A file of root's, there whole or not at all.
    fn put(&self, path: &Path, text: &str, mode: u32) -> Result<(), String>;
    /// A file gets a second name, which nothing has yet: the file itself stays, with its owner and mode.
    fn keep(&self, path: &Path, second: &Path) -> Result<(), String>;
    /// A file gets another name, in place of what has that.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), String>;
    /// A file is removed.
    fn remove(&self, path: &Path) -> Result<(), String>;
    /// A link, in place of what is there.
    fn link(&self, link: &Path, to: &Path) -> Result<(), String>;
}

/// This machine.
pub(super) struct Here<'a>(pub &'a Means);

impl Host for Here<'_> {
    fn systemctl(&self, arguments: &[&str]) -> Result<String, String> {
        systemctl(arguments)
    }

    fn systemctl_of(&self, account: &Account, arguments: &[&str]) -> Result<String, String> {
        systemctl_of(account, arguments)
    }

    fn check(&self, config: &str) -> Result<(), String> {
        let path = Path::new("/run/nsecd-adopt.toml");
        texts::put(path, config, 0o644)?;
        let checked = output(program("nsecd").arg("--check").arg(path), PATIENCE).map(drop);
        let _ = fs::remove_file(path);
        checked
    }

    fn ask(&self, socket: &Path) -> Option<Answer> {
        ask::ask(socket)
    }

    fn pubkey(&self, account: &Account, socket: &Path) -> Result<String, String> {
        let said = output(itself(account).args(["pubkey", "--socket"]).arg(socket), PATIENCE)?;
        let reply: serde_json::Value = serde_json::from_str(&said).map_err(|e| format!("{}: {e}", socket.display()))?;
        Ok(reply["pubkey"].as_str().unwrap_or_default().to_owned())
    }

    fn doctor(&self) -> String {
        match child::run(program("/proc/self/exe").args(["doctor", "--config", texts::CONFIG]), PATIENCE) {
            Ok((_, stdout, _)) => String::from_utf8_lossy(&stdout).trim().to_owned(),
            Err(e) => format!("it cannot be run: {e}"),
        }
    }

    fn keys(&self, account: &Account) -> Result<Vec<String>, String> {
        let printed = step(account, &Step::List)?;
        Ok(printed.lines().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())).collect())
    }

    fn take(&self, account: &Account, description: &str) -> Result<Carried, String> {
        Carried::taken(&mut stepping(account, &Step::Give(description.into())))
    }

    fn give(&self, account: &Account, description: &str, key: &Carried) -> Result<(), String> {
        // It takes the key from standard input.
        let mut command = itself(account);
        command.args(["key", "add", "--to"]).arg(format!("keyring:{description}"));
        key.given_to(&mut command)
    }

    fn forget(&self, account: &Account, description: &str) -> Result<(), String> {
        step(account, &Step::Remove(description.into())).map(drop)
    }

    fn sealed(&self, credential: &str) -> Result<Option<Carried>, String> {
        Carried::sealed(credential, self.0)
    }

    fn seal(&self, credential: &str, key: &Carried) -> Result<(), String> {
        key.seal(credential, self.0)
    }

    fn credential(&self, name: &str) -> std::path::PathBuf {
        self.0.credstore.join(name)
    }

    fn read(&self, path: &Path) -> Option<String> {
        crate::named::text(path).ok()
    }

    fn thing(&self, path: &Path) -> Thing {
        found::thing(path)
    }

    fn put(&self, path: &Path, text: &str, mode: u32) -> Result<(), String> {
        texts::put(path, text, mode)
    }

    fn keep(&self, path: &Path, second: &Path) -> Result<(), String> {
        fs::hard_link(path, second).map_err(|e| format!("keeping {} as {}: {e}", path.display(), second.display()))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), String> {
        fs::rename(from, to).map_err(|e| format!("putting {} back: {e}", to.display()))
    }

    fn remove(&self, path: &Path) -> Result<(), String> {
        fs::remove_file(path).map_err(|e| format!("removing {}: {e}", path.display()))?;
        // A directory of drop-ins that was made for it; one with others' in it stays.
        let _ = path.parent().filter(|dir| dir.extension().is_some_and(|e| e == "d")).map(fs::remove_dir);
        Ok(())
    }

    fn link(&self, link: &Path, to: &Path) -> Result<(), String> {
        output(program("ln").arg("-sfT").arg(to).arg(link), PATIENCE).map(drop)
    }
}

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

fn output(command: &mut Command, within: Duration) -> Result<String, String> {
    let shown = shown(command);
    let (status, stdout, stderr) = child::run(command, within).map_err(|e| format!("{shown}: {e}"))?;
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
    output(program("systemctl").args(arguments), UNITS)
}

/// `systemctl --user …` of the user's manager.
///
/// # Errors
/// What it says.
pub(super) fn systemctl_of(account: &Account, arguments: &[&str]) -> Result<String, String> {
    output(becoming(&mut program("systemctl"), account).arg("--user").args(arguments), UNITS)
}

/// This program, as the user.
fn itself(account: &Account) -> Command {
    let mut command = program("/proc/self/exe");
    becoming(&mut command, account);
    command
}

/// It takes a step in the user's keyring.
fn stepping(account: &Account, step: &Step) -> Command {
    let mut command = itself(account);
    command.arg("adopt").arg(format!("--step={}", step.show()));
    command
}

/// Takes a step; what it printed.
///
/// # Errors
/// What it said.
pub(super) fn step(account: &Account, step: &Step) -> Result<String, String> {
    let (status, stdout, stderr) = child::run(&mut stepping(account, step), PATIENCE)
        .map_err(|e| format!("running nsecctl as {}: {e}", account.name))?;
    let why = String::from_utf8_lossy(&stderr).trim().trim_start_matches("nsecctl: ").to_owned();
    if status.success() { Ok(String::from_utf8_lossy(&stdout).into_owned()) } else { Err(why) }
}
