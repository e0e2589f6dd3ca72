//! What counts when a setting is made in several places, and what holds when it is made in none.

use super::*;
use crate::config::{Ceiling, Command, Source, run};
use nsecd_policy::{Kinds, Limits, Method};

const XDG: (&str, u32, u32) = ("/run/user/1000", 1000, 0o700);

fn keyring(name: &str) -> Vec<Source> {
    vec![Source::Keyring(name.to_string())]
}

#[test]
fn flag_then_config_then_environment_then_default() {
    let env = [("NOSTR_SIGNER_SOCKET", "/env.sock"), ("SIGNER_ALERT_LOG", "/env.log"), ("STATE_DIRECTORY", "/env")];
    let file =
        "[state]\ndir = '/file'\n[key]\nsource = 'fd:4'\n[[socket]]\npath = '/file.sock'\nalert_log = '/file.log'";
    let args = ["--socket", "/flag.sock", "--state-dir", "/flag", "--key", "fd:3", "--admin-dir", "/admin"];
    let seen = |s: Start<'_>| {
        let c = s.config().unwrap();
        let of = |p: &Path| p.to_str().unwrap().to_string();
        (of(&c.sockets[0].path), of(&c.sockets[0].alert_log), of(&c.state.dir), c.accounts[0].source[0].clone())
    };
    let text = |a: &str, b: &str, c: &str, d: Source| (a.to_string(), b.to_string(), c.to_string(), d);
    let nsec = || Source::Keyring("nsec".into());
    let default = text("/run/nsecd/agents/signer.sock", "/var/lib/nsecd/alerts-signer.log", "/var/lib/nsecd", nsec());
    assert_eq!(seen(Start::default()), default);
    assert_eq!(seen(Start { env: &env, ..Start::default() }), text("/env.sock", "/env.log", "/env", nsec()));
    let in_file = text("/file.sock", "/file.log", "/file", Source::Fd(4));
    assert_eq!(seen(Start { env: &env, file: Some(file), ..Start::default() }), in_file);
    let flags = Start { args: &args, env: &env, file: Some(file), ..Start::default() };
    assert_eq!(flags.config().unwrap().admin_dir, path("/admin"));
    let admin =
        |args| Start { args, file: Some("[admin]\ndir = '/in-file'"), ..Start::default() }.config().unwrap().admin_dir;
    assert_eq!((admin(&args), admin(&[])), (path("/admin"), path("/in-file")));
    assert_eq!(seen(flags), text("/flag.sock", "/file.log", "/flag", Source::Fd(3)));
}

#[test]
fn settings_of_flag_and_environment_touch_the_first_socket_only() {
    let file = "[[socket]]\n[[socket]]\npath = '/run/b/signer.sock'";
    let env = [("NOSTR_SIGNER_SOCKET", "/run/a/signer.sock"), ("SIGNER_ALERT_LOG", "/a.log")];
    let c = Start { env: &env, file: Some(file), ..Start::default() }.config().unwrap();
    assert_eq!((&c.sockets[0].path, &c.sockets[0].alert_log), (&path("/run/a/signer.sock"), &path("/a.log")));
    assert_eq!(
        (&c.sockets[1].path, &c.sockets[1].alert_log),
        (&path("/run/b/signer.sock"), &path("/var/lib/nsecd/alerts-signer.log"))
    );
    let c = Start { env: &env[..1], file: Some(file), ..Start::default() }.config().unwrap();
    assert_eq!(c.sockets[1].alert_log, path("/var/lib/nsecd/alerts-signer-2.log"));
}

#[test]
fn default_paths_of_an_ordinary_user() {
    let env = [("XDG_RUNTIME_DIR", "/run/user/1000"), ("HOME", "/home/u")];
    let paths = |env: &[(&str, &str)], directories: Vec<(&'static str, u32, u32)>| {
        let machine = Machine { directories, files: Vec::new() };
        let c = Start { env, uid: 1000, machine, ..Start::default() }.config()?;
        Ok::<_, Error>((c.sockets[0].path.clone(), c.admin_dir, c.state.dir))
    };
    let in_run = (
        path("/run/user/1000/nostr-signer.sock"),
        path("/run/user/1000/nsecd-admin"),
        path("/home/u/.local/state/nsecd"),
    );
    assert_eq!(paths(&env, vec![XDG]).unwrap(), in_run);
    assert_eq!(paths(&env[1..], vec![XDG]).unwrap(), in_run);
    let in_tmp = (
        path("/tmp/nsecd-1000/nostr-signer.sock"),
        path("/tmp/nsecd-1000/nsecd-admin"),
        path("/home/u/.local/state/nsecd"),
    );
    // Somebody else's directory does not count.
    assert_eq!(paths(&env, vec![("/run/user/1000", 1001, 0o700)]).unwrap(), in_tmp);
    assert_eq!(paths(&env, vec![("/tmp/nsecd-1000", 1000, 0o700)]).unwrap(), in_tmp);
    for planted in [("/tmp/nsecd-1000", 1001, 0o700), ("/tmp/nsecd-1000", 1000, 0o770)] {
        assert!(
            paths(&env, vec![planted]).unwrap_err().to_string().contains("not a directory of uid 1000 with mode 0700")
        );
    }
    let state = [("XDG_STATE_HOME", "/s"), ("RUNTIME_DIRECTORY", "/run/nsecd:/run/x")];
    let (_, admin, state) = paths(&state, vec![XDG]).unwrap();
    assert_eq!((admin, state), (path("/run/nsecd/nsecd-admin"), path("/s/nsecd")));
    assert!(paths(&[], vec![XDG]).unwrap_err().to_string().contains("HOME is not set"));
}

#[test]
fn default_paths_of_root() {
    let c = Start::default().config().unwrap();
    assert_eq!(c.admin_dir, path("/run/nsecd/admin"));
    let env = [("XDG_RUNTIME_DIR", "/run/user/0")];
    let machine = || Machine { directories: vec![("/run/user/0", 0, 0o700)], files: Vec::new() };
    let c = Start { env: &env, machine: machine(), ..Start::default() }.config().unwrap();
    assert_eq!(
        (c.sockets[0].path.clone(), c.admin_dir),
        (path("/run/user/0/nostr-signer.sock"), path("/run/nsecd/admin"))
    );
    // `sudo -E` keeps the caller's variable.
    let env = [("XDG_RUNTIME_DIR", "/run/user/1000")];
    let c = Start { env: &env, machine: Machine { directories: vec![XDG], files: Vec::new() }, ..Start::default() }
        .config()
        .unwrap();
    assert_eq!(c.sockets[0].path, path("/run/nsecd/agents/signer.sock"));
}

#[test]
fn wrong_variables_are_errors_that_name_them() {
    for (env, expected) in [
        (("NOSTR_SIGNER_SOCKET", "signer.sock"), "NOSTR_SIGNER_SOCKET: \"signer.sock\": expected an absolute path"),
        (("SIGNER_SESSION_FILE", "s.json"), "SIGNER_SESSION_FILE: \"s.json\": expected an absolute path"),
        (("SIGNER_ALERT_LOG", "a.log"), "SIGNER_ALERT_LOG: \"a.log\": expected an absolute path"),
        (("NOSTR_SIGNER_DEFAULT_ACCOUNT", "../x"), "NOSTR_SIGNER_DEFAULT_ACCOUNT: \"../x\": expected a name"),
    ] {
        let text = Start { env: &[env], ..Start::default() }.config().unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
    let c = Start { env: &[("SIGNER_SESSION_FILE", "/s.json")], ..Start::default() }.config().unwrap();
    assert_eq!(c.state.session_file, Some(path("/s.json")));
}

#[test]
fn the_profiles_are_those_of_the_design() {
    let strict = Start::default().config().unwrap();
    let s = &strict.sockets[0];
    assert_eq!((&s.kinds, &s.tokenless), (&Kinds::List(vec![1, 7, 1111, 9734, 24242]), &Kinds::List(vec![])));
    assert_eq!((&s.methods[..], s.max_ttl, s.mode), (&[Method::SignEvent][..], 86_400, 0o600));
    assert_eq!(s.limits, Some(Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 100 }));
    assert_eq!(s.total, Some(Limits { burst: 20, burst_window: 10, per_minute: 40, per_hour: 400 }));
    assert_eq!(
        (s.created_at, s.max_request, s.sessions_per_minute, s.live_sessions),
        (Some((-3600, 900)), 524_288, 6, 8)
    );
    let a = &strict.accounts[0];
    assert_eq!((&a.kinds, a.created_at), (&s.kinds, Some((-3600, 900))));
    assert_eq!(a.ceiling, Some(Ceiling { burst: 480, tokens: 480, seconds: 3600 }));
    assert_eq!(Start { file: Some("[[socket]]"), ..Start::default() }.config().unwrap(), strict);

    let nano = Start { args: &["--profile", "nanoclaw"], ..Start::default() }.config().unwrap();
    let n = &nano.sockets[0];
    let kinds = vec![1, 6, 7, 1111, 9734, 24242, 30023];
    assert_eq!((&n.kinds, &n.tokenless), (&Kinds::List(kinds.clone()), &Kinds::List(kinds.clone())));
    assert_eq!(
        (&n.methods[..], n.tokenless_on_limit_wait, n.on_limit_wait),
        (&[Method::SignEvent, Method::Dm][..], 20, 0)
    );
    assert_eq!((n.limits, n.total), (s.limits, s.total));
    // Kind 13, the seal of its direct messages, joins the account's ceiling and no socket's kinds.
    assert_eq!(nano.accounts[0].kinds, Kinds::List([kinds, vec![13]].concat()));
}

#[test]
fn a_partial_table_changes_what_it_names() {
    let c = of_file("[limits]\nburst = 4\nlive_sessions = 3\n[[socket]]\nlimits = { per_hour = 500, sessions_per_minute = 2 }\ntotal = { per_hour = 600 }").unwrap();
    let s = &c.sockets[0];
    assert_eq!(s.limits, Some(Limits { burst: 4, burst_window: 10, per_minute: 10, per_hour: 500 }));
    assert_eq!(s.total, Some(Limits { burst: 16, burst_window: 10, per_minute: 40, per_hour: 600 }));
    assert_eq!((s.sessions_per_minute, s.live_sessions), (2, 3));
    // What a smaller hour makes unreachable is lowered with it.
    let c = of_file("[[socket]]\nlimits = { per_hour = 3 }\ntotal = 'none'").unwrap();
    assert_eq!(c.sockets[0].limits, Some(Limits { burst: 3, burst_window: 10, per_minute: 3, per_hour: 3 }));
    assert_eq!((c.sockets[0].total, c.accounts[0].ceiling), (None, None));
}

#[test]
fn an_automatic_source_prefers_the_credential() {
    let names = ["nsec", "wn_nsec", "nostr-nsec"].map(|n| Source::Keyring(n.to_string()));
    let env = [("CREDENTIALS_DIRECTORY", "/run/credentials/nsecd")];
    assert_eq!(Start { env: &env, ..Start::default() }.config().unwrap().accounts[0].source, names);
    let machine = Machine { directories: Vec::new(), files: vec!["/run/credentials/nsecd/nsec"] };
    let c = Start { env: &env, machine, ..Start::default() }.config().unwrap();
    assert_eq!(c.accounts[0].source, [&[Source::Credential("nsec".into())], &names[..]].concat());
}

#[test]
fn an_ephemeral_start_keeps_its_state_apart_unless_another_key_needs_it() {
    let start = |args, file| Start { args, file, ..Start::default() }.config().unwrap();
    let c = start(&["--ephemeral"], None);
    assert_eq!((c.ephemeral, c.state.dir), (true, path("/run/nsecd/nsecd-ephemeral-77")));
    assert_eq!(c.sockets[0].alert_log, path("/run/nsecd/nsecd-ephemeral-77/alerts-signer.log"));
    let dir = Some("[key]\nsource = 'keyring:x'\nconsume = true\n[state]\ndir = '/s'");
    let c = start(&["--ephemeral"], dir);
    assert_eq!(
        (c.ephemeral, c.accounts[0].consume, c.accounts[0].source.clone()),
        (true, false, vec![Source::Ephemeral])
    );
    assert_eq!(start(&["--ephemeral", "--state-dir", "/f"], dir).state.dir, path("/f"));
    assert!(!start(&[], Some("[key]\nsource = 'ephemeral'\n[state]\ndir = '/s'")).ephemeral);
    assert!(start(&[], Some("[key]\nsource = 'ephemeral'")).ephemeral);
    let c = start(
        &["--ephemeral"],
        Some("[[account]]\nname = 'a'\nsource = 'fd:3'\n[[socket]]\naccounts = ['default', 'a']"),
    );
    assert_eq!((c.ephemeral, c.state.dir), (false, path("/var/lib/nsecd")));
    assert!(c.notes[0].contains("kept in /var/lib/nsecd"));
}

#[test]
fn the_environment_selects_the_default_account() {
    let env = [("NOSTR_SIGNER_DEFAULT_ACCOUNT", "a")];
    let of = |file, args| {
        let c = Start { env: &env, file: Some(file), args, ..Start::default() }.config().unwrap();
        let accounts: Vec<_> = c.accounts.iter().map(|a| (a.name.clone(), a.source.clone())).collect();
        (c.default_account, accounts, c.sockets[0].accounts.clone(), c.notes.len())
    };
    let a = || vec!["a".to_string()];
    assert_eq!(of("", &[]), ("a".to_string(), vec![("a".to_string(), keyring("nostr:a"))], a(), 0));
    assert_eq!(of("[key]\nkinds = 'any'", &["--key", "keyring:x"]).1, [("a".to_string(), keyring("x"))]);
    assert_eq!(of("[[account]]\nname = 'a'\nconsume = true", &[]).1, [("a".to_string(), keyring("nostr:a"))]);
    let configured = "[[account]]\nname = 'a'\nsource = 'keyring:k'\n";
    assert_eq!(of(configured, &[]), ("a".to_string(), vec![("a".to_string(), keyring("k"))], a(), 0));
    // The file's own choice counts before the environment's.
    let own = "[key]\nsource = 'keyring:k'";
    assert_eq!(
        of(own, &[]),
        ("default".to_string(), vec![("default".to_string(), keyring("k"))], vec!["default".to_string()], 1)
    );
    let b = "default_account = 'b'\n[[account]]\nname = 'b'\nsource = 'fd:3'\n";
    assert_eq!(of(b, &[]).0, "b");
}

#[test]
fn accounts_that_no_socket_uses_are_not_started() {
    let file = "[[account]]\nname = 'a'\nsource = 'fd:3'\n[[socket]]\naccounts = ['a']";
    let c = of_file(file).unwrap();
    assert_eq!((c.accounts.len(), c.accounts[0].name.as_str(), c.default_account.as_str()), (1, "a", "default"));
    let text = Start { args: &["--ephemeral"], file: Some(file), ..Start::default() }.config().unwrap_err().to_string();
    assert!(text.contains("no socket uses the default account"), "{text}");
}

/// The command's status and answer.
fn command(args: &[&str], env: &[(&str, &str)]) -> Result<(Option<i32>, String), Error> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let env = Environment::from_variables(env.iter().map(|(n, v)| (n.into(), v.into())));
    // Files are read for real, so the user is the real one.
    let ids = Ids { uid: nix::unistd::geteuid().as_raw(), gid: 0 };
    let machine = Machine { directories: vec![("/run/user/0", ids.uid, 0o700)], files: Vec::new() };
    let mut answer = String::new();
    let command = run(&args, &Context { env: &env, ids, pid: 77, host: &machine }, &mut answer)?;
    Ok((if let Command::Exit(n) = command { Some(n) } else { None }, answer))
}

#[test]
fn the_answers_of_the_command_line() {
    let env = [("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/0")];
    assert_eq!(command(&[], &env).unwrap(), (None, String::new()));
    let (status, help) = command(&["--help"], &[]).unwrap();
    assert!(status == Some(0) && help.lines().all(|l| l.len() <= 100) && help.contains("--print-config"));
    assert_eq!(command(&["--version"], &[]).unwrap().1, format!("nsecd {}\n", env!("CARGO_PKG_VERSION")));
    let dir = nix::unistd::mkdtemp("/tmp/nsecd-check-XXXXXX").unwrap();
    let file = dir.join("f.toml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "[[socket]]\npath = '/run/x.sock'\n").unwrap();
    let (status, answer) = command(&["--check", name], &env).unwrap();
    assert!(status == Some(0) && answer.starts_with("ok\n") && answer.contains("socket /run/x.sock"), "{answer}");
    std::fs::write(&file, "\n[[socket]]\npath = 'x'\n").unwrap();
    let (status, answer) = command(&["--check", name], &env).unwrap();
    assert!(status == Some(1) && answer.contains("f.toml:3: socket.path"), "{answer}");
    assert!(command(&["--config", name], &env).unwrap_err().to_string().contains(":3: socket.path"));
    std::fs::remove_dir_all(dir).unwrap();
    // A key in the environment stops everything that would start or describe a start.
    let hex = "4".repeat(64);
    let with_key = [env[0], env[1], ("MY_SECRET_KEY", hex.as_str())];
    for args in [&[][..], &["--print-config"], &["--check", name]] {
        let text = command(args, &with_key).unwrap_err().to_string();
        assert!(text.contains("MY_SECRET_KEY") && !text.contains("444"), "{text}");
    }
}
