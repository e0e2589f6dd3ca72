//! The start-up, in order. [`run`] reads as the list of what happens.

use std::process::ExitCode;

use nix::unistd::{getegid, geteuid};
use nsecd_policy::operator::ADMIN_SOCKET;

use crate::activation::Given;
use crate::config::{self, Command, Config, Ids, Source};
use crate::control::{self, AdminDir, ControlSocket};
use crate::decisionlog::DecisionLog;
use crate::environment::Environment;
use crate::fault::Fault;
use crate::harden::{drop_capabilities, harden, lock};
use crate::holders::{self, Means, Standard};
use crate::images::Images;
use crate::keyring;
use crate::keysource::KeySource;
use crate::notify::Notify;
use crate::output::offer;
use crate::ready::{KEY_PATIENCE, NotReady};
use crate::service::Service;
use crate::setup::{self, Setup, State};
use crate::signals::Signals;
use crate::uids::Roles;
use crate::{banner, life, logging, names};

/// Exit code: the command line or the configuration is wrong.
const USAGE: u8 = 2;
/// Exit code: there is no key where the configuration says, or what is there is none. Apart from other failures so that a
/// service manager does not try again and again. systemd calls this one NOTCONFIGURED.
const NO_KEY: u8 = 6;

/// nsecd's main.
pub fn main() -> ExitCode {
    let environment = Environment::from_process();
    let ids = Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let start = config::Start {
        args: args.clone(),
        environment: environment.clone(),
        ids,
        directory: std::env::current_dir().unwrap_or_default(),
    };
    let config = match config::from_command_line(args, &environment, ids) {
        Ok(Command::Run(config)) => config,
        Ok(Command::Exit(code)) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(why) => {
            offer(std::io::stderr(), format!("nsecd: {why}\n").as_bytes());
            return ExitCode::from(USAGE);
        }
    };
    logging::start_early();
    match run(config, start, &environment) {
        Ok(()) | Err(NotReady::Stopped) => {
            log::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(NotReady::Failed(why)) => {
            log::error!("{why}");
            if why.is_for_want_of_a_key() { ExitCode::from(NO_KEY) } else { ExitCode::FAILURE }
        }
    }
}

fn run(config: Box<Config>, start: config::Start, environment: &Environment) -> Result<(), NotReady> {
    let given = Given::read(environment)?;
    let mut inherited = harden(&[given.descriptors(), key_descriptors(&config)?].concat())?;
    logging::start();
    let signals = Signals::block()?;
    let mut notify = Notify::open(environment)?;

    // Everything that needs a path, before any role exists.
    let images = Images::open(config.ecdh.is_some())?;
    let standard = Standard::open()?;
    let ids = Roles::assign(config.accounts.len(), config.ecdh.is_some(), geteuid().is_root())?;
    drop_capabilities()?; // not before: with hidepid it takes one to see which uids are in use
    // Where there is no key nothing is made.
    let credentials = environment.credentials_directory.as_deref();
    let mut source = |account| KeySource::open(account, credentials, &mut inherited);
    let sources = config.accounts.iter().map(&mut source).collect::<Result<Vec<_>, Fault>>();
    let mut sources = sources.map_err(Fault::for_want_of_a_key)?;
    // Before state and sockets, which may lie in a directory that is made for all of them; given up after them.
    let admin_dir = AdminDir::open(&config.admin_dir)?;
    let state = State::open(&config.state.dir, config.ephemeral)?;
    let listeners = setup::listeners(&config, &given, &mut inherited)?;
    let control = ControlSocket::open(&admin_dir)?;
    let admin = control::bind(&admin_dir, ADMIN_SOCKET)?;
    let alert_logs = setup::alert_logs(&config)?;
    let records = setup::records(&config, &state, &ids)?;
    let ecdh_record = setup::ecdh_record(&config, &state, &ids)?;
    let journal = setup::journal(&config)?;
    let freezes = setup::freezes(&config, &state)?;
    let decisions = DecisionLog::open(&state)?;
    setup::distinct(&alert_logs, records.iter().chain(&ecdh_record), &journal, &decisions)?;
    let boot_id = setup::boot_id()?;
    let consumable = config.accounts.iter().zip(&sources).filter(|(account, _)| account.consume);
    let serial = |source: &KeySource| if let KeySource::Keyring(serial) = source { Some(*serial) } else { None };
    let consumed: Vec<i32> = consumable.filter_map(|(_, source)| serial(source)).collect();
    let second = match (&config.ecdh, config.accounts.first(), sources.first_mut()) {
        (Some(_), Some(account), Some(source)) => Some(source.twice(account, &signals)?),
        _ => None,
    };

    let started_by = names::of_user(geteuid()).unwrap_or_else(|| geteuid().to_string());

    // From here on nothing is looked up and no address bound; what is still opened lies in directories that were looked at.
    let missing = lock()?;

    // The holders read their keys and lock themselves; then gates and broker.
    let means = Means { config: &config, images: &images, ids: &ids, standard: &standard, signals: &signals };
    let keyed =
        config.accounts.iter().zip(&ids.holders).zip(sources).map(|((account, ids), source)| (account, *ids, source));
    let holders = holders::start(&means, keyed.collect(), KEY_PATIENCE)?;
    let ecdh = holders::start_ecdh(&means, second, ecdh_record.as_ref(), &state, holders.first().zip(freezes.first()))?;
    // Every process that needs a key has it.
    consumed.into_iter().try_for_each(keyring::consume)?;
    let mut setup = Setup {
        started_by,
        missing,
        holders,
        ecdh,
        listeners,
        control,
        admin,
        alert_logs,
        records,
        freezes,
        ecdh_record,
        journal,
        decisions,
        boot_id,
        images,
        ids,
        standard,
        signals,
        config,
        start,
        sockets_given: !given.is_empty(),
        state,
    };
    let service = Service::start(&mut setup)?;

    // Every role is locked: ready.
    nsecd_pages::drop_clean_pages();
    announce(&setup, &service, &notify);
    let result = life::run(&mut setup, service, &mut notify);
    notify.tell("STOPPING=1");
    holders::stop(std::mem::take(&mut setup.holders).into_iter().chain(setup.ecdh.take()));
    Ok(result?)
}

/// Descriptors that hold keys. 1 and 2 are in use, and one descriptor holds one key.
fn key_descriptors(config: &Config) -> Result<Vec<i32>, Fault> {
    let mut fds = Vec::new();
    for source in config.accounts.iter().flat_map(|a| &a.source) {
        if let Source::Fd(fd) = source {
            if matches!(fd, 1 | 2) || *fd < 0 || fds.contains(fd) {
                return Err(Fault::new(format!("fd:{fd} cannot be a key source, or not of two accounts")));
            }
            fds.push(*fd);
        }
    }
    Ok(fds)
}

fn announce(setup: &Setup, service: &Service, notify: &Notify) {
    for note in &setup.config.notes {
        log::warn!("{note}");
    }
    for missing in banner::missing(setup, service) {
        log::warn!("optional confinement missing {missing}");
    }
    if !setup.config.holder.record {
        log::warn!(
            "record = false: signatures leave no record, and a restart refills the ceiling; for load tests only"
        );
    }
    for freeze in &setup.freezes {
        if let Some(since) = freeze.since() {
            let name = freeze.account();
            log::warn!("account {name} is frozen since {since}: `nsecctl thaw --account {name}` ends that");
        }
    }
    for (account, holder) in setup.config.accounts.iter().zip(&setup.holders) {
        log::info!("account {}: public key {}", account.name, holder.public_key);
    }
    for listener in &setup.listeners {
        log::info!("serving {}", listener.path.display());
    }
    if notify.is_connected() {
        notify.tell("READY=1\nSTATUS=serving");
    } else {
        offer(std::io::stdout(), banner::text(setup, service).as_bytes());
    }
}
