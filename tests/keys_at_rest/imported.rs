//! The two ways that keys are usually kept: nsecd refuses both and names the command, and the command imports from both.

use crate::support::Setup;
use crate::support::daemon::OPEN;
use crate::support::{sys, until};
use crate::{HEX, NPUB, NSEC, Store, cannot, finish};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[test]
fn a_key_in_a_plain_file_is_refused_by_nsecd_and_imported_by_one_command() {
    if cannot() {
        return;
    }
    let store = Store::new();
    let file = store.dir.file("nsec.txt", 0o600, None, format!("{NSEC}\n").as_bytes());
    let mut setup = Setup::bare(None, OPEN);
    setup.command.arg(format!("--key=file:{}", file.display()));
    let exit = setup.refused();
    assert!(exit.code == Some(2) && exit.stderr.contains("nsecctl key import FILE"), "{}", exit.stderr);
    // In the configuration itself, too.
    let exit = Setup::bare(None, &OPEN.replace("[key]", &format!("[key]\nsource = \"{NSEC}\""))).refused();
    assert!(exit.code == Some(2) && exit.stderr.contains("nsecctl key import FILE"), "{}", exit.stderr);
    assert!(!exit.stderr.contains(&NSEC[..20]));

    let (code, said, why) = store.run(&["import", "nsec.txt", "--to", "credential:nsec"], b"");
    assert_eq!(code, 0, "{why}");
    assert!(said.contains(NPUB) && said.contains("test signature") && said.contains("shred -u nsec.txt"), "{said}");
    assert!(said.contains("nothing was deleted") && file.exists(), "{said}");
    assert_eq!(store.decrypted("nsec"), NSEC);
}

#[test]
fn a_key_in_the_environment_is_refused_by_nsecd_and_imported_by_one_command() {
    if cannot() {
        return;
    }
    let store = Store::new();
    let mut setup = Setup::bare(None, OPEN);
    setup.command.env("NOSTR_PRIVATE_KEY", HEX);
    let exit = setup.refused();
    assert_eq!(exit.code, Some(2));
    for words in ["NOSTR_PRIVATE_KEY holds a private key", "nsecctl key import --from-env NAME"] {
        assert!(exit.stderr.contains(words), "{}", exit.stderr);
    }
    assert!(!exit.stderr.contains(&HEX[..20]));

    let mut command = store.command(&["import", "--from-env", "NOSTR_PRIVATE_KEY", "--to", &store.ring()]);
    command.env("NOSTR_PRIVATE_KEY", HEX);
    let (code, said, why) = finish(command, b"");
    assert_eq!(code, 0, "{why}");
    assert!(said.contains(NPUB) && said.contains("remove it where it is set"), "{said}");
    assert_eq!(store.in_keyring(), NSEC);
    // It is taken from there only when asked.
    let mut command = store.command(&["add", "--to", "credential:x"]);
    command.env("NOSTR_PRIVATE_KEY", HEX);
    assert_eq!(finish(command, b"").0, 2);
}

#[test]
fn a_key_is_imported_from_a_dotenv_file_and_from_json() {
    if cannot() {
        return;
    }
    let store = Store::new();
    store.dir.file(".env", 0o600, None, format!("PORT=80\nexport BOT_NSEC=\"{NSEC}\" # mine\n").as_bytes());
    store.dir.file("bot.json", 0o600, None, format!("{{\"bots\":[{{\"privateKey\":\"{HEX}\"}}]}}").as_bytes());
    for (n, (file, name)) in [(".env", "BOT_NSEC"), ("bot.json", "bots.0.privateKey")].into_iter().enumerate() {
        let to = format!("credential:c{n}");
        let (code, said, why) = store.run(&["import", file, "--to", &to, "--json"], b"");
        assert_eq!(code, 0, "{why}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((said["found"].as_str(), said["npub"].as_str()), (Some(name), Some(NPUB)));
        assert_eq!(store.decrypted(&format!("c{n}")), NSEC);
    }
    let (code, _, why) = store.run(&["import", ".env", "--field", "PORT", "--to", "credential:c3"], b"");
    assert!(code == 2 && why.contains("PORT is no private key"), "{code} {why}");
}

/// Checked: with an open that waits for a writer this never ends.
#[test]
fn an_import_waits_for_nobody_at_a_fifo_and_takes_what_it_is_given_open() {
    let store = Store::new();
    nix::unistd::mkfifo(&store.dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, _, why) = store.run(&["import", "fifo", "--to", "credential:c"], b"");
    assert!(code == 2 && why.contains("reading fifo: not a regular file"), "{code} {why}");
    let (code, _, why) = store.run(&["import", "/dev/stdin", "--to", "credential:c"], b"not a key");
    assert!(code == 2 && !why.contains("not a regular file"), "{code} {why}");
    // So where the path is another option's.
    let text = "ncryptsec1x";
    let (code, _, why) = store.run(&["add", "--to", "credential:c", "--password-file", "fifo"], text.as_bytes());
    assert!(code == 2 && why.contains("reading fifo: not a regular file"), "{code} {why}");
    for arguments in
        [&["sign", "--kind", "1", "--content-file", "fifo"][..], &["session", "revoke", "--token-file", "fifo"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
        command.args(arguments).args(["--socket", "none.sock"]).current_dir(store.dir.path());
        let (code, _, why) = finish(command, b"");
        assert!(code == 2 && why.contains("reading fifo: not a regular file"), "{arguments:?}: {code} {why}");
    }
}

#[test]
fn an_import_names_the_copies_that_it_can_see() {
    if cannot() || crate::support::missing("git", "--version") {
        return;
    }
    let store = Store::new();
    let home = store.dir.subdir("home", 0o700, None);
    let repository = store.dir.subdir("repository", 0o700, None);
    let text = format!("NSEC={NSEC}\n");
    let plain = |name: &str| store.dir.file(&format!("repository/{name}"), 0o600, None, text.as_bytes());
    let file = plain(".env");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=x", "-c", "user.email=x@localhost", "-C"]).arg(&repository).args(arguments);
        assert!(command.env("HOME", &home).output().unwrap().status.success(), "{arguments:?}");
    };
    let import = |to: &str| {
        let mut command = store.command(&["import", file.to_str().unwrap(), "--to", to, "--json"]);
        command.env("HOME", &home);
        let (code, said, why) = finish(command, b"");
        assert_eq!(code, 0, "{why}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["left"]
            .as_array()
            .unwrap()
            .iter()
            .map(|left| left["place"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // Control: nothing is named that is not there, but the file itself.
    plain("other.env~");
    assert_eq!(import("credential:a"), [file.display().to_string()]);

    for copy in [".env~", "..env.swp", ".env.bak"] {
        plain(copy);
    }
    git(&["init", "-q"]);
    git(&["add", ".env"]);
    git(&["commit", "-q", "-m", "x"]);
    // What a repository's configuration names would run as whoever imports.
    let ran = repository.join("ran");
    for name in ["core.fsmonitor", "core.pager", "gpg.program", "core.sshCommand"] {
        let program = format!("touch {}; false", ran.display());
        git(&["config", name, &program]);
    }
    git(&["config", "log.showSignature", "true"]);
    fs::hard_link(&file, store.dir.join("again")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    store.dir.file("home/.bash_history", 0o600, None, format!("ls\nexport NSEC={NSEC}\n").as_bytes());
    let mut agent = Command::new("cat");
    agent.env_clear().env("BOT_KEY", HEX).stdin(Stdio::piped()).stdout(Stdio::null());
    sys::die_with_us(&mut agent);
    let mut agent = agent.spawn().unwrap();
    let comm = format!("/proc/{}/comm", agent.id());
    until("it runs", || fs::read_to_string(&comm).is_ok_and(|comm| comm == "cat\n"));
    let named = import("credential:b").join("\n");
    drop(agent.stdin.take());
    agent.wait().unwrap();
    for place in [
        "/.env~",
        "/..env.swp",
        "/.env.bak",
        "its index names it",
        "1 other names of the same file",
        "can be read by everyone",
        "/home/.bash_history",
        &format!("the environment of process {} (cat)", agent.id()),
    ] {
        assert!(named.contains(place), "not named: {place}\n{named}");
    }
    assert!(!named.contains("other.env~"), "{named}");
    assert!(!ran.exists(), "a program of the repository's ran");
    // Control: git itself runs it.
    git(&["status"]);
    assert!(ran.exists(), "control");
    assert!(file.exists());
}
