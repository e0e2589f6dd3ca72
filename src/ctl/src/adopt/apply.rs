//! Doing it: each step is noted before it is taken, so that a failure in the middle can be gone back from. What is there already,
//! from an earlier try, is left as it is.

use super::found::Thing;
use super::journal::{Before, Journal, Written};
use super::layout::DEFAULT;
use super::plan::{Plan, Step, back};
use super::system::Host;
use super::texts;
use std::path::Path;

/// Does it; what to say.
///
/// # Errors
/// What failed, what was done before, how to go back.
pub(super) fn apply(plan: &Plan, host: &dyn Host) -> Result<Vec<String>, String> {
    let mut doing = Doing { plan, host, journal: plan.journal.clone(), noted: false, said: Vec::new() };
    for step in &plan.steps {
        if let Err(why) = doing.step(step) {
            return Err(doing.failure(step, &why));
        }
    }
    doing.journal.done = true;
    if let Err(why) = doing.note() {
        return Err(doing.words("noting that all of it is done", &why));
    }
    doing.said.extend(plan.notes.iter().map(|note| format!("  - {note}")));
    doing.said.push(format!("Adopted. Back: {}", back(&plan.account.name)));
    Ok(doing.said)
}

struct Doing<'a> {
    plan: &'a Plan,
    host: &'a dyn Host,
    journal: Journal,
    /// Whether anything was noted: before that nothing is changed.
    noted: bool,
    said: Vec<String>,
}

impl Doing<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let text = step.text(self.plan);
        let done = match step {
            Step::Seal { description, credential, public } => self.seal(description, credential, public),
            Step::Write { path, text } => self.write(path, text),
            Step::Stop => self.stop(),
            Step::Unlink => self.unlink(),
            Step::Start => self.start(),
            Step::Remove { description, credential } => self.remove(description, credential),
        }?;
        self.said.push(match done {
            true => format!("done: {text}"),
            false => format!("as it was: {text}"),
        });
        Ok(())
    }

    fn note(&mut self) -> Result<(), String> {
        self.journal.write(self.host)?;
        self.noted = true;
        Ok(())
    }

    /// What to say of a step that failed.
    fn failure(&self, step: &Step, why: &str) -> String {
        self.words(&step.text(self.plan), why)
    }

    fn words(&self, what: &str, why: &str) -> String {
        let mut lines = vec![format!("this failed: {what}"), why.to_owned()];
        lines.extend(self.said.iter().map(|line| format!("before it, {line}")));
        match self.noted {
            true => {
                lines.push(state(self.host, self.plan, &self.journal));
                lines.push(format!("Again: the same command. Back: {}", back(&self.plan.account.name)));
            }
            false => lines.push("Nothing is changed.".into()),
        }
        lines.join("\n  ")
    }

    fn seal(&mut self, description: &str, credential: &str, public: &str) -> Result<bool, String> {
        let differs = |found: &str| format!("its public key is {found}, and the reference daemon answers {public}");
        let path = self.host.credential(credential);
        if let Some(sealed) = self.host.sealed(credential)? {
            return match sealed.public() == public {
                true => Ok(false),
                false => Err(format!(
                    "{} is there already: {}; move it away, if nothing needs it",
                    path.display(),
                    differs(&sealed.public())
                )),
            };
        }
        let key = self.host.take(&self.plan.account, description)?;
        if key.public() != public {
            return Err(differs(&key.public()));
        }
        let noted = (description.to_owned(), credential.to_owned());
        if !self.journal.credentials.contains(&noted) {
            self.journal.credentials.push(noted);
        }
        self.note()?;
        self.host.seal(credential, &key)?;
        // What nsecd will get, compared with what is served now.
        let sealed = self.host.sealed(credential)?.map(|sealed| sealed.public()).unwrap_or_default();
        if sealed != public {
            let _ = self.host.remove(&path);
            return Err(format!("decrypted again, {}", differs(&sealed)));
        }
        Ok(true)
    }

    fn write(&mut self, path: &Path, text: &str) -> Result<bool, String> {
        let there = self.host.read(path);
        let earlier = self.journal.files.iter().find(|written| written.path == path);
        if there.as_deref() == Some(text) && earlier.is_some() {
            return Ok(false);
        }
        let is_ours = earlier.is_some_and(|written| there.as_deref() == Some(&*written.text));
        if path == Path::new(texts::CONFIG) {
            self.host.check(text)?;
        }
        let kept = match (earlier.and_then(|written| written.kept.clone()), self.host.thing(path)) {
            // What an earlier try wrote is not kept over what was there before that.
            (Some(kept), _) => Some(kept),
            (None, Thing::Nothing) => None,
            (None, _) if is_ours => None,
            (None, _) => Some(texts::beside(path, "before-adopt", |path| self.host.thing(path) == Thing::Nothing)),
        };
        self.journal.files.retain(|written| written.path != path);
        self.journal.files.push(Written { path: path.into(), text: text.into(), kept: kept.clone() });
        self.note()?;
        if let Some(kept) = kept.filter(|kept| !is_ours && self.host.thing(kept) == Thing::Nothing) {
            self.host.keep(path, &kept)?;
        }
        self.host.put(path, text, 0o644)?;
        Ok(true)
    }

    fn stop(&mut self) -> Result<bool, String> {
        let (host, account, unit) = (self.host, &self.plan.account, self.journal.unit.clone());
        let of = |verbs: &[&str]| host.systemctl_of(account, &[verbs, &[unit.as_str()]].concat());
        let was_active = of(&["is-active", "--quiet"]).is_ok();
        // Before it is disabled, which takes a unit that is a link out of systemd's sight.
        self.note()?;
        of(&["stop"])?;
        // One that is gone is disabled already.
        if of(&["cat"]).is_ok() {
            of(&["disable"])?;
        }
        // Enabled for all users, it would come back with the next session of this one.
        if of(&["is-enabled"]).is_ok_and(|state| state == "enabled") {
            self.journal.masked = true;
            self.note()?;
            of(&["mask"])?;
        }
        match host.ask(&self.journal.socket).filter(|answer| answer.uid == account.uid) {
            Some(_) => {
                Err(format!("{unit} is stopped, and somebody still answers on {}", self.journal.socket.display()))
            }
            None => Ok(was_active),
        }
    }

    fn unlink(&mut self) -> Result<bool, String> {
        let Thing::Link(to) = self.host.thing(Path::new(DEFAULT)) else { return Ok(false) };
        self.journal.default_link = Some(to);
        self.note()?;
        self.host.remove(Path::new(DEFAULT))?;
        Ok(true)
    }

    fn start(&mut self) -> Result<bool, String> {
        let layout = &self.plan.layout;
        if !self.journal.done {
            let sockets: Vec<_> = layout.sockets.iter().map(|socket| socket.unit.clone()).collect();
            self.launch(&sockets)?;
        }
        let paths = layout.sockets.iter().map(|socket| &socket.path).chain(layout.link.iter().map(|(link, _)| link));
        for path in paths {
            let found = self.host.pubkey(&self.plan.account, path)?;
            self.compare("", &found, &self.journal.public, path)?;
            // What root is told of further accounts is what the user is told.
            let others = self.host.ask(path).map(|answer| answer.accounts).unwrap_or_default();
            for (name, public) in &self.journal.accounts {
                let found = others.iter().find(|(other, _)| other == name).map_or("nothing", |(_, public)| public);
                self.compare(&format!(" for account {name}"), found, public, path)?;
            }
            self.said.push(format!("{} answers {found}", path.display()));
        }
        let doctor = self.host.doctor();
        self.said.extend(doctor.lines().map(|line| format!("doctor: {line}")));
        Ok(!self.journal.done)
    }

    fn compare(&self, whose: &str, found: &str, public: &str, path: &Path) -> Result<(), String> {
        if found == public {
            return Ok(());
        }
        let at = path.display();
        Err(format!("nsecd answers {found}{whose} on {at}, and the reference daemon has answered {public}"))
    }

    /// Starts nsecd, now and at boot.
    fn launch(&mut self, sockets: &[String]) -> Result<(), String> {
        let (host, link) = (self.host, self.plan.layout.link.as_ref());
        // nsecd takes the sockets that there are when it starts. It is started by a client too, and brings nsecd.socket then, which is the
        // last of them therefore.
        let mut all: Vec<_> = sockets.iter().map(String::as_str).collect();
        all.sort_by_key(|unit| *unit == "nsecd.socket");
        all.push("nsecd.service");
        for unit in &all {
            let is = |verb: &str| host.systemctl(&[verb, unit]);
            if !self.journal.before.iter().any(|before| before.unit == *unit) {
                let (enabled, active) = (is("is-enabled").as_deref() == Ok("enabled"), is("is-active").is_ok());
                self.journal.before.push(Before { unit: unit.to_string(), enabled, active });
            }
        }
        self.journal.sockets.extend(sockets.iter().cloned());
        self.journal.sockets.sort();
        self.journal.sockets.dedup();
        self.journal.link = link.cloned();
        if let Some((link, to)) = link
            && let Thing::Link(old) = host.thing(link)
            && old != *to
        {
            self.journal.linked = Some(old);
        }
        self.note()?;
        let run = |verb: &str| host.systemctl(&[vec![verb], all.clone()].concat());
        host.systemctl(&["daemon-reload"])?;
        run("stop")?;
        run("enable")?;
        // One after the other: systemctl waits for each.
        for unit in &all {
            let started = host.systemctl(&["start", unit]);
            started.map_err(|why| format!("{why}. What it said: journalctl -u nsecd"))?;
        }
        link.map_or(Ok(()), |(link, to)| host.link(link, to))
    }

    fn remove(&mut self, description: &str, credential: &str) -> Result<bool, String> {
        let removed = (description.to_owned(), credential.to_owned());
        if !self.journal.removed.contains(&removed) {
            self.journal.removed.push(removed);
        }
        self.note()?;
        self.host.forget(&self.plan.account, description)?;
        Ok(true)
    }
}

/// Who serves by now.
fn state(host: &dyn Host, plan: &Plan, journal: &Journal) -> String {
    let user = &plan.account.name;
    let old = host.systemctl_of(&plan.account, &["is-active", &journal.unit]).is_ok();
    let new = host.systemctl(&["is-active", "nsecd.service"]).is_ok();
    let runs = |yes: bool| if yes { "runs" } else { "does not run" };
    format!("Now {} of {user} {}, and nsecd {}.", journal.unit, runs(old), runs(new))
}
