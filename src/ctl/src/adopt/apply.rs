//! Doing it: each step is noted before it is taken, so that a failure in the middle can be gone back from. What is there already,
//! from an earlier try, is left as it is.

use super::ask::ask;
use super::found::{Thing, thing};
use super::journal::{Journal, Written};
use super::layout::DEFAULT;
use super::plan::{Plan, Step, back};
use super::{system, texts};
use crate::key::Means;
use crate::key::adopted::{self, Carried};
use std::fs;
use std::path::{Path, PathBuf};

/// Does it; what to say.
///
/// # Errors
/// What failed, what was done before, how to go back.
pub(super) fn apply(plan: &Plan, means: &Means) -> Result<Vec<String>, String> {
    let mut doing = Doing { plan, means, journal: plan.journal.clone(), said: Vec::new() };
    for step in &plan.steps {
        if let Err(why) = doing.step(step) {
            return Err(doing.failure(step, &why));
        }
    }
    doing.journal.done = true;
    doing.journal.write()?;
    doing.said.extend(plan.notes.iter().map(|note| format!("  - {note}")));
    doing.said.push(format!("Adopted. Back: {}", back(&plan.account.name)));
    Ok(doing.said)
}

struct Doing<'a> {
    plan: &'a Plan,
    means: &'a Means,
    journal: Journal,
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

    /// What to say of a step that failed.
    fn failure(&self, step: &Step, why: &str) -> String {
        let mut lines = vec![format!("this failed: {}", step.text(self.plan)), why.to_owned()];
        // The first steps are taken back by themselves, and noted from the second on.
        let changed = self.said.iter().any(|line| line.starts_with("done"));
        lines.extend(self.said.iter().map(|line| format!("before it, {line}")));
        lines.push(match changed {
            true => format!("Again: the same command. Back: {}", back(&self.plan.account.name)),
            false => "Nothing is changed.".into(),
        });
        lines.join("\n  ")
    }

    fn seal(&mut self, description: &str, credential: &str, public: &str) -> Result<bool, String> {
        let differs = |found: &str| format!("its public key is {found}, and the reference daemon answers {public}");
        if let Some(sealed) = Carried::sealed(credential, self.means)? {
            let path = self.means.credstore.join(credential);
            return match sealed.public() == public {
                true => Ok(false),
                false => Err(format!(
                    "{} is there already: {}; move it away, if nothing needs it",
                    path.display(),
                    differs(&sealed.public())
                )),
            };
        }
        let mut giving = system::stepping(&self.plan.account, &adopted::Step::Give(description.into()));
        let key = Carried::taken(&mut giving)?;
        if key.public() != public {
            return Err(differs(&key.public()));
        }
        key.seal(credential, self.means)?;
        // What nsecd will get, compared with what is served now.
        let sealed = Carried::sealed(credential, self.means)?.map(|sealed| sealed.public()).unwrap_or_default();
        if sealed != public {
            let _ = fs::remove_file(self.means.credstore.join(credential));
            return Err(format!("decrypted again, {}", differs(&sealed)));
        }
        self.journal.credentials.push((description.into(), credential.into()));
        self.journal.write()?;
        Ok(true)
    }

    fn write(&mut self, path: &Path, text: &str) -> Result<bool, String> {
        let there = fs::read_to_string(path).ok();
        let is_config = path == Path::new(texts::CONFIG);
        if there.as_deref() == Some(text) && self.journal.files.iter().any(|written| written.path == path) {
            return Ok(false);
        }
        let beside = |end: &str| PathBuf::from(format!("{}.{end}", path.display()));
        if is_config {
            let next = beside("adopted");
            texts::put(&next, text, 0o644)?;
            let checked = system::check(&next);
            let _ = fs::remove_file(&next);
            checked?;
        }
        let earlier =
            self.journal.files.iter().find(|written| written.path == path).and_then(|written| written.kept.clone());
        let kept = match there {
            // What an earlier try wrote is not kept over what was there before that.
            _ if earlier.is_some() => earlier,
            Some(old) => {
                let kept = beside("before-adopt");
                texts::put(&kept, &old, 0o644)?;
                Some(kept)
            }
            None => None,
        };
        self.journal.files.retain(|written| written.path != path);
        self.journal.files.push(Written { path: path.into(), text: text.into(), kept });
        self.journal.write()?;
        texts::put(path, text, 0o644)?;
        Ok(true)
    }

    fn stop(&mut self) -> Result<bool, String> {
        let (account, unit) = (&self.plan.account, self.journal.unit.clone());
        let of = |verbs: &[&str]| system::systemctl_of(account, &[verbs, &[unit.as_str()]].concat());
        let was_active = of(&["is-active", "--quiet"]).is_ok();
        of(&["disable"])?;
        // Enabled for all users, it would come back with the next session of this one.
        if of(&["is-enabled"]).is_ok_and(|state| state == "enabled") {
            self.journal.masked = true;
            self.journal.write()?;
            of(&["mask"])?;
        }
        of(&["stop"])?;
        let still = ask(&self.journal.socket).filter(|answer| answer.uid == account.uid);
        match still {
            Some(_) => {
                Err(format!("{unit} is stopped, and somebody still answers on {}", self.journal.socket.display()))
            }
            None => Ok(was_active),
        }
    }

    fn unlink(&mut self) -> Result<bool, String> {
        let Thing::Link(to) = thing(Path::new(DEFAULT)) else { return Ok(false) };
        self.journal.default_link = Some(to);
        self.journal.write()?;
        fs::remove_file(DEFAULT).map_err(|e| format!("{DEFAULT}: {e}"))?;
        Ok(true)
    }

    fn start(&mut self) -> Result<bool, String> {
        let layout = &self.plan.layout;
        let sockets: Vec<_> = layout.sockets.iter().map(|socket| socket.unit.as_str()).collect();
        if !self.journal.done {
            self.journal.sockets.extend(sockets.iter().map(|unit| unit.to_string()));
            self.journal.sockets.sort();
            self.journal.sockets.dedup();
            self.journal.link = layout.link.clone();
            self.journal.write()?;
            let all = [vec!["nsecd.service"], sockets].concat();
            system::systemctl(&["daemon-reload"])?;
            system::systemctl(&[vec!["stop"], all.clone()].concat())?;
            system::systemctl(&[vec!["enable"], all.clone()].concat())?;
            let started = system::systemctl(&[vec!["start"], all].concat());
            started.map_err(|why| format!("{why}. What it said: journalctl -u nsecd"))?;
            if let Some((link, to)) = &layout.link {
                system::link(link, to)?;
            }
        }
        let paths = layout.sockets.iter().map(|socket| &socket.path).chain(layout.link.iter().map(|(link, _)| link));
        for path in paths {
            let found = system::pubkey(&self.plan.account, path)?;
            if found != self.journal.public {
                return Err(format!(
                    "nsecd answers {found} on {}, and the reference daemon has answered {}",
                    path.display(),
                    self.journal.public
                ));
            }
            self.said.push(format!("{} answers {found}", path.display()));
        }
        let doctor = system::doctor();
        self.said.extend(doctor.lines().map(|line| format!("doctor: {line}")));
        Ok(!self.journal.done)
    }

    fn remove(&mut self, description: &str, credential: &str) -> Result<bool, String> {
        self.journal.removed.push((description.into(), credential.into()));
        self.journal.write()?;
        system::step(&self.plan.account, &adopted::Step::Remove(description.into()))?;
        Ok(true)
    }
}
