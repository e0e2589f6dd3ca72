//! Going back, from wherever an adoption has ended: by its notes, each step as far as there is anything to take back.

use super::found::{Account, Thing};
use super::journal::{Journal, Written};
use super::layout::DEFAULT;
use super::plan::back;
use super::system::Host;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the reference daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Goes back; what to say.
///
/// # Errors
/// What failed, and what was done before; the rest can be tried again with the same command.
pub(super) fn undo(account: &Account, host: &dyn Host) -> Result<Vec<String>, String> {
    let name = &account.name;
    let journal = Journal::of(host, name)
        .ok_or_else(|| format!("nothing was adopted of {name}, or all of it is undone: there are no notes of it"))?;
    let mut said = Vec::new();
    match go_back(account, journal, host, &mut said) {
        Ok(()) => Ok(said),
        Err(why) => {
            let mut lines = vec![format!("not all of it is undone: {why}")];
            lines.extend(said.iter().map(|line| format!("before it: {line}")));
            lines.push(format!("Again: {}. Forward again: the same with --apply", back(name)));
            Err(lines.join("\n  "))
        }
    }
}

fn go_back(account: &Account, mut journal: Journal, host: &dyn Host, said: &mut Vec<String>) -> Result<(), String> {
    // From here on it is an adoption that has not come to its end.
    journal.done = false;
    journal.write(host)?;
    stop_nsecd(&journal, host, said)?;
    while let Some(written) = journal.files.last() {
        said.push(restore(written, host)?);
        journal.files.pop();
        journal.write(host)?;
    }
    host.systemctl(&["daemon-reload"])?;
    for before in journal.before.iter().filter(|before| before.active && before.unit.ends_with(".socket")) {
        host.systemctl(&["start", &before.unit])?;
        said.push(format!("{} listens, as before", before.unit));
    }
    if let Some((link, to)) = journal.link.as_ref().filter(|(link, to)| host.thing(link) == Thing::Link(to.clone())) {
        host.remove(link)?;
        said.push(format!("removed the link {} to {}", link.display(), to.display()));
    }
    let links = [
        (Some(Path::new(DEFAULT)), &journal.default_link),
        (journal.link.as_ref().map(|(link, _)| &**link), &journal.linked),
    ];
    for (link, to) in links {
        if let (Some(link), Some(to)) = (link, to)
            && host.thing(link) == Thing::Nothing
        {
            host.link(link, to)?;
            said.push(format!("put the link {} to {} back", link.display(), to.display()));
        }
    }
    keys(account, &journal, host, said)?;
    start(account, &journal, host)?;
    said.push(format!(
        "{} of {} runs, and answers {} on {}",
        journal.unit,
        account.name,
        journal.public,
        journal.socket.display()
    ));
    for (_, credential) in &journal.credentials {
        let path = host.credential(credential);
        if host.thing(&path) != Thing::Nothing {
            said.push(format!("the encrypted key stays: rm {} if it is not to", path.display()));
        }
    }
    said.push("containers that were started meanwhile have nsecd's socket mounted: start them anew".into());
    journal.remove(host)
}

fn stop_nsecd(journal: &Journal, host: &dyn Host, said: &mut Vec<String>) -> Result<(), String> {
    if journal.sockets.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = journal.sockets.iter().map(String::as_str).chain(["nsecd.service"]).collect();
    let was_enabled = |unit: &&str| journal.before.iter().any(|before| before.unit == *unit && before.enabled);
    let (enabled, disabled): (Vec<_>, Vec<_>) = all.iter().copied().partition(was_enabled);
    // In this order: with the service its first socket is disabled too (Also=).
    for (verb, units) in [("disable", &disabled), ("enable", &enabled)] {
        if !units.is_empty() {
            host.systemctl(&[&[verb], units.as_slice()].concat())?;
        }
    }
    // All at once: a socket that listens would start the service again.
    host.systemctl(&[vec!["stop"], all].concat())?;
    said.push(match disabled.contains(&"nsecd.service") {
        true => "nsecd is stopped and disabled".into(),
        false => "nsecd is stopped; it was enabled before, and stays so".into(),
    });
    Ok(())
}

/// A file as it was; one that was edited since is left.
fn restore(written: &Written, host: &dyn Host) -> Result<String, String> {
    let Written { path, text, kept } = written;
    let (there, shown) = (host.read(path), path.display());
    let Some(kept) = kept else {
        if there.as_deref() == Some(text) {
            host.remove(path)?;
            return Ok(format!("removed {shown}"));
        }
        return Ok(match host.thing(path) {
            Thing::Nothing => format!("{shown} is not there"),
            _ => format!("left: {shown} is not as it was written"),
        });
    };
    if host.thing(kept) == Thing::Nothing {
        // It is kept before anything takes its place.
        return Ok(format!("{shown} was not replaced"));
    }
    if there.as_deref() == Some(text) || host.thing(path) == Thing::Nothing {
        host.rename(kept, path)?;
        // rename(2) does nothing where both are names of the same file: it was not replaced yet.
        if host.thing(kept) != Thing::Nothing {
            host.remove(kept)?;
        }
        return Ok(format!("put {shown} back as it was"));
    }
    if there.is_some() && there == host.read(kept) {
        host.remove(kept)?;
        return Ok(format!("{shown} was not replaced"));
    }
    Ok(format!("left: {shown} is not as it was written; what it was before is {}", kept.display()))
}

/// What was removed from the keyring goes back into it.
fn keys(account: &Account, journal: &Journal, host: &dyn Host, said: &mut Vec<String>) -> Result<(), String> {
    if journal.removed.is_empty() {
        return Ok(());
    }
    let there = host.keys(account)?;
    for (description, credential) in journal.removed.iter().filter(|(description, _)| !there.contains(description)) {
        let key = host
            .sealed(credential)?
            .ok_or_else(|| format!("keyring:{description} was removed, and the credential {credential} is gone too"))?;
        host.give(account, description, &key)?;
        said.push(format!("keyring:{description} of {} is there again", account.name));
    }
    Ok(())
}

fn start(account: &Account, journal: &Journal, host: &dyn Host) -> Result<(), String> {
    let of = |verb: &str| host.systemctl_of(account, &[verb, &journal.unit]);
    if journal.masked {
        of("unmask")?;
    }
    if let Some(file) = &journal.unit_file
        && of("cat").is_err()
    {
        host.systemctl_of(account, &["link", &file.display().to_string()])?;
    }
    // Where it is enabled for all users it is so still.
    if journal.was_enabled && !journal.masked && of("is-enabled").as_deref() != Ok("enabled") {
        of("enable")?;
    }
    of("start")?;
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = host.ask(&journal.socket).filter(|answer| answer.uid == account.uid);
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
