//! What is to be done, in order, as it follows from what was found; or what stands in the way. Decides and prints, does nothing.

use super::Options;
use super::ask::Answer;
use super::found::{Account, Files, Thing};
use super::journal::Journal;
use super::layout::{DEFAULT, Layout};
use super::live::Live;
use super::texts;
use crate::key::adopted;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One thing that is done. All but the last four change nothing that runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A keyring key into a credential, whose public key must be this.
    Seal { description: String, credential: String, public: String },
    /// A file.
    Write { path: PathBuf, text: String },
    /// Stop the reference daemon, and keep it from starting.
    Stop,
    /// Take the link at nsecd's default socket away.
    Unlink,
    /// Start nsecd, now and at boot, and compare what it answers.
    Start,
    /// A keyring key is removed.
    Remove { description: String, credential: String },
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub account: Account,
    pub layout: Layout,
    /// With what is known of the reference daemon.
    pub journal: Journal,
    pub steps: Vec<Step>,
    /// What is said besides.
    pub notes: Vec<String>,
}

/// What stands in the way, each with what to do about it; and the configuration that would have been written over another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stops {
    pub lines: Vec<String>,
    pub config: Option<String>,
}

/// Makes the plan.
///
/// # Errors
/// Something stands in the way.
pub(super) fn plan(files: &Files, live: &Live, options: &Options) -> Result<Plan, Stops> {
    let Some(account) = live.account.clone() else { return Err(Stops::default()) };
    let mut stops = surroundings(files, live, &account);
    let (journal, default) = match reference(files, live, &account) {
        Ok(found) => found,
        Err(why) => {
            stops.push(why);
            return Err(Stops { lines: stops, config: None });
        }
    };
    // One that was adopted stays as it was laid out.
    let is_shared = if journal.done { journal.sockets.len() == 1 } else { options.shared };
    let layout = Layout::of(&journal.socket, &account, is_shared).map_err(|why| stops.push(why)).ok();
    let mut notes = Vec::new();
    let keys = keys(&journal, &default, live, &mut notes).map_err(|why| stops.extend(why)).unwrap_or_default();
    let Some(layout) = layout.filter(|_| stops.is_empty()) else { return Err(Stops { lines: stops, config: None }) };
    let others: Vec<_> = journal.accounts.iter().map(|(name, _)| name.clone()).collect();
    let mut steps = keys.clone();
    if !journal.done {
        let config = texts::config(&account, &layout, &default, &others);
        if !may_write(files, &journal, &config) && !options.replace {
            let line = format!(
                "{} was edited: --replace replaces it (it is kept beside it, and comes back with --undo); with --apply what would be written \
                 is put beside it",
                texts::CONFIG
            );
            return Err(Stops { lines: vec![line], config: Some(config) });
        }
        steps.push(Step::Write { path: texts::CONFIG.into(), text: config });
        let dropins = texts::dropins(&account, &layout, &others).into_iter();
        steps.extend(dropins.map(|(path, text)| Step::Write { path, text }));
        steps.push(Step::Stop);
        steps.extend(matches!(files.at_default, Thing::Link(_)).then_some(Step::Unlink));
    }
    steps.push(Step::Start);
    if options.remove_key {
        steps.extend(keys.into_iter().filter_map(|step| match step {
            Step::Seal { description, credential, .. } => Some(Step::Remove { description, credential }),
            _ => None,
        }));
    }
    notes.extend(remarks(files, &account, &layout, options));
    Ok(Plan { account, layout, journal, steps, notes })
}

/// What of this host stands in the way.
fn surroundings(files: &Files, live: &Live, account: &Account) -> Vec<String> {
    let mut stops = Vec::new();
    if !files.has_systemd {
        stops.push(
            "this machine does not run systemd: take it over by hand (docs/migrating-from-nostr-signer.md)".into(),
        );
    }
    if !files.has_units {
        stops.push("nsecd.service, nsecd.socket and nsecd@.socket are not installed: install the package first".into());
    }
    if files.at_default == Thing::Other {
        stops.push(format!("{DEFAULT} is neither a socket nor a link: move it away"));
    }
    if let Some(uid) = live.stranger.filter(|_| files.journal.is_none()) {
        stops.push(format!(
            "{DEFAULT} is served by uid {uid}, and would be nsecd's: stop that daemon, or take this one over by hand"
        ));
    }
    if live.nsecd_is_active && files.journal.is_none() {
        let how = "stop and set it up by hand, or `systemctl stop nsecd.service nsecd.socket` and try again";
        stops.push(format!("nsecd runs here already, with a key of its own: {how}"));
    }
    if !account.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        stops.push(format!("{:?} cannot stand in a unit: take it over by hand", account.name));
    }
    if let Some(why) = &live.no_keyring {
        stops.push(format!("the keyring of {} cannot be looked into: {why}", account.name));
    }
    stops
}

/// The reference daemon: what it answers now, or what an adoption that has not come to its end has noted; and the name of its
/// default account.
fn reference(files: &Files, live: &Live, account: &Account) -> Result<(Journal, String), String> {
    let name = &account.name;
    let answer = live.answer.as_ref().filter(|(_, answer)| answer.uid == account.uid);
    let earlier = files.journal.clone();
    let Some((socket, Answer { public, accounts, default, .. })) = answer else {
        if let Some(journal) = earlier {
            let default = journal.default.clone();
            return Ok((journal, default));
        }
        return Err(match (&live.answer, files.units.first()) {
            (Some((socket, other)), _) => {
                format!(
                    "{} is served by uid {}, not by {name}: this is no daemon of {name}'s",
                    socket.display(),
                    other.uid
                )
            }
            (None, None) => format!(
                "no nostr-signer found: no unit of {name}'s has such a name (--service names it), and no socket answers"
            ),
            (None, Some(unit)) => format!(
                "{} does not answer: its public key cannot be compared. Start it: systemctl --user -M {name}@ start {}",
                unit.path.display(),
                unit.name
            ),
        });
    };
    let unit = match files.units.as_slice() {
        [unit] => unit,
        [] => {
            return Err(format!(
                "{} answers, but no unit of {name}'s has a name like nostr-signer: --service names the one that starts it",
                socket.display()
            ));
        }
        many => {
            let names: Vec<_> = many.iter().map(|unit| unit.name.as_str()).collect();
            return Err(format!("which is it: {}? --service names it", names.join(", ")));
        }
    };
    if !live.is_active {
        return Err(format!(
            "{} answers, but {} does not run: something else serves there; stop that, or name its unit with --service",
            socket.display(),
            unit.name
        ));
    }
    let mut journal = earlier.unwrap_or_default();
    // One that was undone in part is begun anew.
    journal.done = false;
    journal.was_enabled |= live.is_enabled;
    journal.unit_file = unit.link.clone().or(journal.unit_file);
    (journal.user, journal.unit, journal.socket) = (name.clone(), unit.name.clone(), socket.clone());
    (journal.public, journal.accounts, journal.default) = (public.clone(), accounts.clone(), default.clone());
    Ok((journal, default.clone()))
}

/// Which keyring keys go where. Each must have the public key that the reference daemon answers.
fn keys(journal: &Journal, default: &str, live: &Live, notes: &mut Vec<String>) -> Result<Vec<Step>, Vec<String>> {
    let find = |description: &str| live.keys.iter().find(|(name, _)| name == description);
    let (mut steps, mut wrong) = (Vec::new(), Vec::new());
    let all = std::iter::once((None, default, &journal.public));
    for (account, name, public) in all.chain(journal.accounts.iter().map(|(n, p)| (Some(n.as_str()), n.as_str(), p))) {
        let places = match name {
            "default" => adopted::DEFAULT.map(str::to_owned).to_vec(),
            name => vec![format!("{}{name}", adopted::ACCOUNT)],
        };
        let credential = texts::credential(account);
        if !credential.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) || account == Some("default") {
            wrong.push(format!("account {name}: no credential can have that name; take it over by hand"));
            continue;
        }
        match places.iter().find_map(|place| find(place)) {
            None if journal.removed.iter().any(|(description, _)| places.contains(description)) => {}
            None => wrong.push(format!(
                "the user's keyring (@u) has no key {}, though the reference daemon answers for account {name}",
                places.join(", ")
            )),
            Some((description, found)) if found != public => wrong.push(format!(
                "keyring key {description} is not what the reference daemon signs with: its public key is {}, and the daemon answers \
                 {public}. Restart the daemon, or put the right key there",
                if found.is_empty() { "none, it is no key" } else { found }
            )),
            Some((description, _)) => {
                steps.push(Step::Seal { description: description.clone(), credential, public: public.clone() });
            }
        }
    }
    let used =
        |name: &str| steps.iter().any(|step| matches!(step, Step::Seal { description, .. } if description == name));
    let unused: Vec<_> = live.keys.iter().map(|(name, _)| name.as_str()).filter(|name| !used(name)).collect();
    if !unused.is_empty() && wrong.is_empty() {
        notes.push(format!(
            "not taken over, since the reference daemon has not loaded it: keyring {}",
            unused.join(", ")
        ));
    }
    if wrong.is_empty() { Ok(steps) } else { Err(wrong) }
}

/// Whether the configuration that is there is nobody's work.
fn may_write(files: &Files, journal: &Journal, config: &str) -> bool {
    let ours = journal.files.iter().find(|written| written.path == Path::new(texts::CONFIG));
    files.config.as_deref().is_none_or(|there| {
        there == texts::SHIPPED || there == config || ours.is_some_and(|written| written.text == there)
    })
}

/// What is said besides.
fn remarks(files: &Files, account: &Account, layout: &Layout, options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    for (path, _) in files.logs.iter().filter(|(_, is_there)| *is_there) {
        notes.push(format!("untouched: {}, the reference daemon's own", path.display()));
    }
    if !options.remove_key {
        notes.push(format!(
            "the key also stays in {}'s keyring, for a way back: until --remove-key, or the next reboot, every process of that user can read it",
            account.name
        ));
    }
    notes.push(
        "containers that run have the old socket's file mounted, which is dead once its daemon stops: start them anew"
            .into(),
    );
    if let Some(host) = layout.sockets.iter().find(|socket| socket.name == "host") {
        notes.push(format!(
            "direct messages are only on {}: tools of the host that read them (nostr-dm) need NOSTR_SIGNER_SOCKET={0}, or none",
            host.path.display()
        ));
    }
    notes.push(
        "kinds 0, 3, 5, 8, 10002, 27235, 30008, 30009 are refused until kinds in the configuration has them".into(),
    );
    notes
}

impl Step {
    /// In words.
    pub fn text(&self, plan: &Plan) -> String {
        let (user, journal) = (&plan.account.name, &plan.journal);
        match self {
            Step::Seal { description, credential, public } => format!(
                "encrypt keyring:{description} of {user} as /etc/credstore.encrypted/{credential}, decrypt it, compare its public key with {public}"
            ),
            Step::Write { path, .. } => format!("write {}", path.display()),
            Step::Stop => format!("stop and disable {} of {user}", journal.unit),
            Step::Unlink => format!("remove the link {DEFAULT}"),
            Step::Start => {
                let paths: Vec<_> =
                    plan.layout.sockets.iter().map(|s| format!("{} ({})", s.path.display(), s.name)).collect();
                let link = plan
                    .layout
                    .link
                    .iter()
                    .map(|(link, to)| format!("; {} becomes a link to {}", link.display(), to.display()));
                format!(
                    "enable and start nsecd on {}{}; ask for its public key as {user}, run doctor",
                    paths.join(" and "),
                    link.collect::<String>()
                )
            }
            Step::Remove { description, .. } => format!("remove keyring:{description} of {user}"),
        }
    }
}

impl Plan {
    fn head(&self) -> String {
        let journal = &self.journal;
        let accounts = match journal.accounts.len() {
            0 => String::new(),
            count => format!(", and {count} more accounts"),
        };
        format!(
            "{} of {}, on {}: public key {}{accounts}",
            journal.unit,
            self.account.name,
            journal.socket.display(),
            journal.public
        )
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut lines = vec![self.head(), "With --apply:".into()];
        lines.extend(self.steps.iter().enumerate().map(|(n, step)| format!("{:3}. {}", n + 1, step.text(self))));
        lines.extend(self.notes.iter().map(|note| format!("  - {note}")));
        lines.push(format!("Back: {}. Nothing is changed yet.", back(&self.account.name)));
        lines.join("\n")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let steps: Vec<_> = self.steps.iter().map(|step| step.text(self)).collect();
        json!({"found": self.head(), "public_key": self.journal.public, "steps": steps, "notes": self.notes})
    }
}

/// The command that goes back.
pub(super) fn back(user: &str) -> String {
    format!("nsecctl adopt --user {user} --undo")
}
