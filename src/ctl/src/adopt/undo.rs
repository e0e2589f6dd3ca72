//! Going back, from wherever an adoption has ended: by its notes, each step as far as there is anything to take back.

use super::ask::ask;
use super::found::{Account, Thing, thing};
use super::journal::{Journal, Written};
use super::layout::DEFAULT;
use super::{system, texts};
use crate::key::Means;
use crate::key::adopted::{Carried, Step};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the reference daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Goes back; what to say.
///
/// # Errors
/// What failed; the rest can be tried again with the same command.
pub(super) fn undo(account: &Account, means: &Means) -> Result<Vec<String>, String> {
    let name = &account.name;
    let journal = Journal::read(Path::new("/"), name)
        .ok_or_else(|| format!("nothing was adopted of {name}, or all of it is undone: there are no notes of it"))?;
    let mut said = Vec::new();
    stop_nsecd(&journal, &mut said)?;
    for written in journal.files.iter().rev() {
        said.push(restore(written)?);
    }
    system::systemctl(&["daemon-reload"])?;
    if let Some((link, to)) = journal.link.as_ref().filter(|(link, to)| thing(link) == Thing::Link(to.clone())) {
        fs::remove_file(link).map_err(|e| format!("{}: {e}", link.display()))?;
        said.push(format!("removed the link {} to {}", link.display(), to.display()));
    }
    if let Some(to) = journal.default_link.as_ref().filter(|_| thing(Path::new(DEFAULT)) == Thing::Nothing) {
        system::link(Path::new(DEFAULT), to)?;
        said.push(format!("put the link {DEFAULT} to {} back", to.display()));
    }
    keys(account, &journal, means, &mut said)?;
    start(account, &journal)?;
    said.push(format!(
        "{} of {name} runs, and answers {} on {}",
        journal.unit,
        journal.public,
        journal.socket.display()
    ));
    for (_, credential) in &journal.credentials {
        let path = means.credstore.join(credential);
        said.push(format!("the encrypted key stays: rm {} if it is not to", path.display()));
    }
    said.push("containers that were started meanwhile have nsecd's socket mounted: start them anew".into());
    journal.remove();
    Ok(said)
}

fn stop_nsecd(journal: &Journal, said: &mut Vec<String>) -> Result<(), String> {
    if journal.sockets.is_empty() {
        return Ok(());
    }
    let sockets = journal.sockets.iter().map(String::as_str);
    let all: Vec<_> = sockets.chain(["nsecd.service"]).collect();
    // Sockets first and all at once: one that listens would start the service again.
    system::systemctl(&[vec!["disable"], all.clone()].concat())?;
    system::systemctl(&[vec!["stop"], all].concat())?;
    said.push("nsecd is stopped and disabled".into());
    Ok(())
}

/// A file as it was; one that was edited since is left.
fn restore(written: &Written) -> Result<String, String> {
    let Written { path, text, kept } = written;
    let there = fs::read_to_string(path).unwrap_or_default();
    let old = kept.as_ref().and_then(|kept| Some((kept, fs::read_to_string(kept).ok()?)));
    if there != *text {
        let or = old.map(|(kept, _)| format!("; what it was before is {}", kept.display())).unwrap_or_default();
        return Ok(format!("left: {} is not as it was written{or}", path.display()));
    }
    match old {
        Some((kept, old)) => {
            texts::put(path, &old, 0o644)?;
            let _ = fs::remove_file(kept);
            Ok(format!("put {} back as it was", path.display()))
        }
        None => {
            fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
            // A directory of drop-ins that was made for it; others' stay.
            let _ = path.parent().filter(|dir| dir.extension().is_some_and(|e| e == "d")).map(fs::remove_dir);
            Ok(format!("removed {}", path.display()))
        }
    }
}

/// What was removed from the keyring goes back into it.
fn keys(account: &Account, journal: &Journal, means: &Means, said: &mut Vec<String>) -> Result<(), String> {
    if journal.removed.is_empty() {
        return Ok(());
    }
    let there = system::step(account, &Step::List)?;
    for (description, credential) in &journal.removed {
        if there.lines().any(|line| line.ends_with(&format!("\t{description}"))) {
            continue;
        }
        let key = Carried::sealed(credential, means)?
            .ok_or_else(|| format!("keyring:{description} was removed, and the credential {credential} is gone too"))?;
        key.given_to(&mut system::storing(account, description))?;
        said.push(format!("keyring:{description} of {} is there again", account.name));
    }
    Ok(())
}

fn start(account: &Account, journal: &Journal) -> Result<(), String> {
    let of = |verb: &str| system::systemctl_of(account, &[verb, &journal.unit]);
    if journal.masked {
        of("unmask")?;
    }
    if journal.was_enabled && !journal.masked {
        of("enable")?;
    }
    of("start")?;
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask(&journal.socket).filter(|answer| answer.uid == account.uid);
        match answer {
            Some(answer) if answer.public == journal.public => return Ok(()),
            Some(answer) => {
                return Err(format!(
                    "{} runs, but answers {} where it answered {} before: look at its keyring",
                    journal.unit, answer.public, journal.public
                ));
            }
            None if Instant::now() > until => {
                return Err(format!(
                    "{} is started, and does not answer on {}",
                    journal.unit,
                    journal.socket.display()
                ));
            }
            // A service of Type=simple counts as started before it listens.
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
