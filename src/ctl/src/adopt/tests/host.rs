//! A host in memory: nora's reference daemon, both systemds, keyring, credentials and files, as far as an adoption meets them. Any deed
//! can be made to fail, or to be the last one before nsecctl dies.

use super::{KEY, OTHER, SOCKET, nora};
use crate::adopt::apply::apply;
use crate::adopt::ask::Answer;
use crate::adopt::found::{Account, Files, Thing, Unit};
use crate::adopt::journal::Journal;
use crate::adopt::layout::DEFAULT;
use crate::adopt::live::Live;
use crate::adopt::plan::plan;
use crate::adopt::system::Host;
use crate::adopt::texts::CONFIG;
use crate::adopt::undo::undo;
use crate::key::adopted::Carried;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// The secrets of [`KEY`] and [`OTHER`].
const SECRETS: [&str; 2] = [
    "0000000000000000000000000000000000000000000000000000000000000003",
    "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
];
pub const REFERENCE: &str = "nostr-signer.service";
pub const NOTES: &str = "/etc/nsecd/adopted-nora.json";

/// The host's state. A key is known by its public one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Text and mode.
    pub files: BTreeMap<PathBuf, (String, u32)>,
    pub links: BTreeMap<PathBuf, PathBuf>,
    pub keyring: BTreeMap<String, &'static str>,
    pub credentials: BTreeMap<String, &'static str>,
    /// Of the reference daemon's unit: enabled by the user, and for all users; masked; where it listens; the file that it is a link to,
    /// and whether that link is there; and the keys that it has loaded while it runs.
    pub enabled: bool,
    pub for_all: bool,
    pub masked: bool,
    pub socket: PathBuf,
    pub unit_file: Option<(PathBuf, bool)>,
    pub running: Option<BTreeMap<String, &'static str>>,
    /// nsecd's units.
    pub nsecd_enabled: BTreeSet<String>,
    pub nsecd_active: BTreeSet<String>,
}

/// How a deed goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// It is not done, and says so.
    Fails,
    /// It is done, and nsecctl goes no further.
    Dies,
}

/// What is not as it seems.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// The keyring's key is this one by the time it is taken.
    pub taken: Option<&'static str>,
    /// What is encrypted comes back as this one.
    pub sealed: Option<&'static str>,
    /// nsecd answers so, for the default account and for others.
    pub served: Option<&'static str>,
    pub served_for_others: Option<&'static str>,
    /// Somebody of the user's goes on answering.
    pub will_not_stop: bool,
}

pub struct Fake {
    pub state: RefCell<State>,
    pub lies: Lies,
    wrong: Option<(usize, Way)>,
    /// What was done, in order.
    pub deeds: RefCell<Vec<String>>,
    died: Cell<bool>,
}

impl State {
    /// As NanoClaw leaves a host.
    pub fn new() -> State {
        let keyring = BTreeMap::from([("nsec".to_owned(), KEY)]);
        let running = Some(keyring.clone());
        State { keyring, running, enabled: true, socket: SOCKET.into(), ..State::default() }
    }

    pub fn with_file(mut self, path: &str, text: &str, mode: u32) -> State {
        self.files.insert(path.into(), (text.into(), mode));
        self
    }

    /// Without what stays after an adoption that was gone back from.
    pub fn without_credentials(&self) -> State {
        State { credentials: BTreeMap::new(), ..self.clone() }
    }

    /// Without the notes.
    pub fn without_notes(&self) -> State {
        let mut state = self.clone();
        state.files.remove(Path::new(NOTES));
        state
    }

    /// Whether nsecd serves.
    pub fn nsecd_runs(&self) -> bool {
        self.nsecd_active.contains("nsecd.service")
    }
}

impl Fake {
    pub fn new(state: State, wrong: Option<(usize, Way)>) -> Fake {
        Fake { state: state.into(), lies: Lies::default(), wrong, deeds: RefCell::default(), died: Cell::default() }
    }

    pub fn lying(state: State, lies: Lies) -> Fake {
        Fake { lies, ..Fake::new(state, None) }
    }

    pub fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// Whether the deed that was to go wrong was reached.
    pub fn went_wrong(&self) -> bool {
        self.wrong.is_some_and(|(at, _)| self.deeds.borrow().len() > at)
    }

    /// `adopt --apply`; `None`: nsecctl has died.
    pub fn apply(&self, line: &str) -> Option<Result<Vec<String>, String>> {
        let (files, live) = self.look();
        let plan = match plan(&files, &live, &super::options(line)) {
            Ok(plan) => plan,
            Err(stops) => return Some(Err(stops.lines.join("\n"))),
        };
        self.until_death(|| apply(&plan, self))
    }

    /// `adopt --undo`.
    pub fn undo(&self) -> Option<Result<Vec<String>, String>> {
        self.until_death(|| undo(&nora(), self))
    }

    fn until_death<T>(&self, action: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(action)) {
            Ok(done) => Some(done),
            Err(_) if self.died.get() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What would be found there.
    pub fn look(&self) -> (Files, Live) {
        let state = self.now();
        let path: PathBuf = "/home/nora/.config/systemd/user/nostr-signer.service".into();
        let unit = match &state.unit_file {
            Some((_, false)) => None,
            file => {
                let link = file.clone().map(|(file, _)| file);
                Some(Unit { name: REFERENCE.into(), path, link, ..Unit::default() })
            }
        };
        let is_known = unit.is_some();
        let files = Files {
            units: unit.into_iter().collect(),
            at_default: self.thing(Path::new(DEFAULT)),
            config: self.read(Path::new(CONFIG)),
            has_units: true,
            has_systemd: true,
            logs: vec![],
            journal: Journal::of(self, "nora"),
        };
        let of_user = |path: &str| Some((PathBuf::from(path), self.ask(Path::new(path))?));
        let live = Live {
            account: Some(nora()),
            is_active: is_known && state.running.is_some(),
            is_enabled: is_known && !state.masked && (state.enabled || state.for_all),
            answer: of_user(SOCKET).or_else(|| of_user(DEFAULT)),
            keys: state.keyring.iter().map(|(name, public)| (name.clone(), (*public).into())).collect(),
            no_keyring: None,
            stranger: self.ask(Path::new(DEFAULT)).map(|answer| answer.uid).filter(|uid| *uid != 1000),
            nsecd_is_active: state.nsecd_runs(),
        };
        (files, live)
    }

    fn deed<T>(&self, what: String, change: impl FnOnce(&mut State) -> Result<T, String>) -> Result<T, String> {
        let number = self.deeds.borrow().len();
        self.deeds.borrow_mut().push(what.clone());
        match self.wrong.filter(|(at, _)| *at == number) {
            Some((_, Way::Fails)) => Err(format!("{what}: made to fail")),
            Some((_, Way::Dies)) => {
                change(&mut self.state.borrow_mut()).expect("nothing else is in its way");
                self.died.set(true);
                // Not a panic's message.
                resume_unwind(Box::new("died"));
            }
            None => change(&mut self.state.borrow_mut()),
        }
    }

    fn carried(public: &str) -> Carried {
        Carried::of_text(if public == KEY { SECRETS[0] } else { SECRETS[1] })
    }

    /// By its public key again.
    fn public(key: &Carried) -> &'static str {
        [KEY, OTHER].into_iter().find(|public| *public == key.public()).expect("one of the two")
    }
}

/// The unit that makes a socket of nsecd's.
fn unit_of(path: &Path) -> Option<String> {
    let name = path.strip_prefix("/run/nostr").ok()?.file_stem()?.to_str()?;
    Some(if name == "signer" { "nsecd.socket".into() } else { format!("nsecd@{name}.socket") })
}

fn start_nsecd(state: &mut State) -> Result<(), String> {
    let Some((config, _)) = state.files.get(Path::new(CONFIG)) else { return Err("no configuration".into()) };
    let paths = config.lines().filter_map(|line| line.strip_prefix("path = \"")).map(|rest| rest.trim_end_matches('"'));
    let listens = |path: &str| unit_of(Path::new(path)).is_some_and(|unit| state.nsecd_active.contains(&unit));
    match paths.clone().all(listens) && paths.count() > 0 && state.credentials.contains_key("nsec") {
        true => state.nsecd_active.insert("nsecd.service".into()),
        false => return Err("a socket or the key is missing".into()),
    };
    Ok(())
}

impl Host for Fake {
    fn systemctl(&self, arguments: &[&str]) -> Result<String, String> {
        let (verb, units) = (arguments[0], &arguments[1..]);
        let is = |set: &BTreeSet<String>| set.contains(units[0]);
        let told = |yes, word: &str| if yes { Ok(word.to_owned()) } else { Err(format!("not {word}")) };
        match verb {
            "is-enabled" => return told(is(&self.state.borrow().nsecd_enabled), "enabled"),
            "is-active" => return told(is(&self.state.borrow().nsecd_active), "active"),
            "daemon-reload" => return self.deed(verb.into(), |_| Ok(String::new())),
            _ => {}
        }
        // Each may be the one that fails.
        for &unit in units {
            self.deed(format!("{verb} {unit}"), |state| {
                let also = |unit: &str| (unit == "nsecd.service").then(|| "nsecd.socket".to_owned());
                let all = also(unit).into_iter().chain([unit.to_owned()]);
                let (enabled, active) = (&mut state.nsecd_enabled, &mut state.nsecd_active);
                let _ = match (verb, unit) {
                    ("enable", _) => all.map(|unit| enabled.insert(unit)).all(|_| true),
                    ("disable", _) => all.map(|unit| enabled.remove(&unit)).all(|_| true),
                    ("stop", _) => active.remove(unit),
                    ("start", "nsecd.service") => return start_nsecd(state),
                    ("start", _) => active.insert(unit.into()),
                    other => panic!("{other:?}"),
                };
                Ok(())
            })?;
        }
        Ok(String::new())
    }

    fn systemctl_of(&self, _: &Account, arguments: &[&str]) -> Result<String, String> {
        let state = self.now();
        let is_there = state.unit_file.as_ref().is_none_or(|(_, is_linked)| *is_linked);
        let verb = arguments[0];
        match verb {
            "is-active" => return state.running.map(|_| "active".into()).ok_or_else(|| "inactive".into()),
            "is-enabled" => {
                return match () {
                    () if !is_there => Err("no such file".into()),
                    () if state.masked => Err("masked".into()),
                    () if state.enabled || state.for_all => Ok("enabled".into()),
                    () => Err("disabled".into()),
                };
            }
            "cat" => return if is_there { Ok(String::new()) } else { Err("no such file".into()) },
            _ => {}
        }
        self.deed(format!("--user {}", arguments.join(" ")), |state| {
            match verb {
                "disable" => {
                    state.enabled = false;
                    // systemctl(1): links to the unit's file go too.
                    state.unit_file = state.unit_file.take().map(|(file, _)| (file, false));
                }
                "link" => {
                    let (file, is_linked) = state.unit_file.as_mut().ok_or("it is no link")?;
                    assert_eq!(*file, Path::new(arguments[1]));
                    *is_linked = true;
                }
                "mask" => state.masked = true,
                "unmask" => state.masked = false,
                "stop" => state.running = None,
                "enable" if is_there => state.enabled = true,
                "start" if !is_there => return Err("there is no such unit".into()),
                "start" if state.masked => return Err("it is masked".into()),
                "start" if state.socket == Path::new(SOCKET) && state.links.contains_key(Path::new(SOCKET)) => {
                    return Err("the address is in use".into());
                }
                "start" if !state.keyring.contains_key("nsec") => return Err("it finds no key".into()),
                "start" => state.running = Some(state.keyring.clone()),
                other => panic!("{other}"),
            }
            Ok(String::new())
        })
    }

    fn check(&self, config: &str) -> Result<(), String> {
        let is_one = config.contains("[[socket]]");
        self.deed("check".into(), |_| is_one.then_some(()).ok_or_else(|| "no socket".into()))
    }

    fn ask(&self, socket: &Path) -> Option<Answer> {
        let state = self.now();
        let end = state.links.get(socket).map_or(socket, |to| to);
        let answer = |uid, keys: BTreeMap<String, &str>, prefix: &str, default: &str| {
            let others =
                keys.iter().filter_map(|(name, public)| Some((name.strip_prefix(prefix)?.into(), (*public).into())));
            Some(Answer {
                uid,
                public: (*keys.get(default)?).into(),
                accounts: others.collect(),
                default: "default".into(),
            })
        };
        if end == state.socket
            && let Some(keys) = state.running.or_else(|| self.lies.will_not_stop.then(|| state.keyring.clone()))
        {
            return answer(1000, keys, "nostr:", "nsec");
        }
        let listens = unit_of(end).is_some_and(|unit| state.nsecd_active.contains(&unit));
        if !listens || !state.nsecd_active.contains("nsecd.service") {
            return None;
        }
        let mut keys = state.credentials;
        let lies = [("nsec", self.lies.served), ("nsec-business", self.lies.served_for_others)];
        keys.extend(lies.into_iter().filter_map(|(name, lie)| Some((name.to_owned(), lie?))));
        answer(0, keys, "nsec-", "nsec")
    }

    fn pubkey(&self, _: &Account, socket: &Path) -> Result<String, String> {
        self.deed(format!("ask {}", socket.display()), |_| Ok(()))?;
        self.ask(socket).map(|answer| answer.public).ok_or_else(|| "nobody answers".into())
    }

    fn doctor(&self) -> String {
        "ok       examined".into()
    }

    fn keys(&self, _: &Account) -> Result<Vec<String>, String> {
        self.deed("list the keyring".into(), |state| Ok(state.keyring.keys().cloned().collect()))
    }

    fn take(&self, _: &Account, description: &str) -> Result<Carried, String> {
        let lie = self.lies.taken;
        self.deed(format!("take {description}"), |state| {
            let public = state.keyring.get(description).copied().ok_or("it is not there")?;
            Ok(Self::carried(lie.unwrap_or(public)))
        })
    }

    fn give(&self, _: &Account, description: &str, key: &Carried) -> Result<(), String> {
        self.deed(format!("give {description}"), |state| {
            state.keyring.insert(description.into(), Self::public(key));
            Ok(())
        })
    }

    fn forget(&self, _: &Account, description: &str) -> Result<(), String> {
        self.deed(format!("forget {description}"), |state| {
            state.keyring.remove(description).map(drop).ok_or_else(|| "it is not there".into())
        })
    }

    fn sealed(&self, credential: &str) -> Result<Option<Carried>, String> {
        let public = self.state.borrow().credentials.get(credential).copied();
        Ok(public.map(|public| Self::carried(self.lies.sealed.unwrap_or(public))))
    }

    fn seal(&self, credential: &str, key: &Carried) -> Result<(), String> {
        self.deed(format!("seal {credential}"), |state| {
            let earlier = state.credentials.insert(credential.into(), Self::public(key));
            assert_eq!(earlier, None, "a credential is overwritten");
            Ok(())
        })
    }

    fn credential(&self, name: &str) -> PathBuf {
        Path::new("/etc/credstore.encrypted").join(name)
    }

    fn read(&self, path: &Path) -> Option<String> {
        self.state.borrow().files.get(path).map(|(text, _)| text.clone())
    }

    fn thing(&self, path: &Path) -> Thing {
        let state = self.now();
        let credential = path.strip_prefix("/etc/credstore.encrypted").ok().and_then(Path::to_str);
        match state.links.get(path) {
            Some(to) => Thing::Link(to.clone()),
            None if state.files.contains_key(path) => Thing::Other,
            None if credential.is_some_and(|name| state.credentials.contains_key(name)) => Thing::Other,
            None if state.socket == path && state.running.is_some() => Thing::Socket,
            None if unit_of(path).is_some_and(|unit| state.nsecd_active.contains(&unit)) => Thing::Socket,
            None => Thing::Nothing,
        }
    }

    fn put(&self, path: &Path, text: &str, mode: u32) -> Result<(), String> {
        self.deed(format!("put {}", path.display()), |state| {
            state.files.insert(path.into(), (text.into(), mode));
            Ok(())
        })
    }

    fn keep(&self, path: &Path, second: &Path) -> Result<(), String> {
        self.deed(format!("keep {} as {}", path.display(), second.display()), |state| {
            assert!(!state.files.contains_key(second), "link(2) refuses");
            let file = state.files.get(path).cloned().ok_or("it is not there")?;
            state.files.insert(second.into(), file);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), String> {
        self.deed(format!("rename {}", from.display()), |state| {
            let file = state.files.remove(from).ok_or("it is not there")?;
            state.files.insert(to.into(), file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), String> {
        self.deed(format!("remove {}", path.display()), |state| {
            let credential = path.strip_prefix("/etc/credstore.encrypted").ok().and_then(Path::to_str);
            let link = state.links.remove(path).is_some();
            let other = credential.is_some_and(|name| state.credentials.remove(name).is_some());
            let is_gone = link || other || state.files.remove(path).is_some();
            is_gone.then_some(()).ok_or_else(|| "it is not there".into())
        })
    }

    fn link(&self, link: &Path, to: &Path) -> Result<(), String> {
        self.deed(format!("link {}", link.display()), |state| {
            state.links.insert(link.into(), to.into());
            Ok(())
        })
    }
}
