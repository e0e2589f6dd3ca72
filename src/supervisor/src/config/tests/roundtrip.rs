//! What --print-config prints reads back as the same configuration; the files that others rely on are accepted.

use super::*;
use crate::config::{Ecdh, print};
use nsecd_policy::Kinds;
use proptest::prelude::*;

/// The policy under which the recorded cases of the reference daemon are replayed.
const CONFORM: &str = r#"
[key]
kinds = "any"
ceiling = "none"
ecdh_ceiling = "none"

[limits]
sessions_per_minute = 100000
live_sessions = 100000

[[socket]]
path = "/run/nsecd/conform.sock"
kinds = "any"
max_ttl = "365d"
tokenless = "any"
methods = ["sign_event", "nip44", "nip04", "dm"]
created_at = "any"
limits = "none"
total = "none"
dm = "none"
crypt = "none"
"#;

#[track_caller]
fn reads_back(start: Start<'_>) -> Config {
    let mut config = start.config().unwrap();
    let printed = print::toml(&config);
    let again = Start { args: &[], file: Some(&printed), ..start };
    let mut read = again.config().unwrap_or_else(|e| panic!("{e}\n{printed}"));
    config.notes.clear();
    read.notes.clear();
    assert_eq!(read, config, "{printed}");
    config
}

#[test]
fn the_conformance_policy_is_wide_open() {
    let c = reads_back(Start { file: Some(CONFORM), ..Start::default() });
    let s = &c.sockets[0];
    assert_eq!((&s.kinds, &s.tokenless, s.methods.len()), (&Kinds::Any, &Kinds::Any, 4));
    assert_eq!((s.limits, s.total, s.created_at, s.max_ttl), (None, None, None, 31_536_000));
    assert_eq!((s.sessions_per_minute, s.live_sessions), (100_000, 100_000));
    let a = &c.accounts[0];
    assert_eq!((&a.kinds, a.ceiling, a.created_at, a.seals, a.ecdh_ceiling), (&Kinds::Any, None, None, None, None));
    assert_eq!((s.dm, s.crypt, &s.peers), (None, None, &None));
    assert_eq!(c.ecdh, Some(Ecdh { ops: vec![1, 2, 3], peers: None }));
}

#[test]
fn the_example_file_is_accepted_as_it_is_and_with_every_line_in_force() {
    let example = include_str!("../../../../../docs/nsecd.example.toml");
    let c = reads_back(Start { file: Some(example), ..Start::default() });
    assert_eq!(c.sockets.len(), 1);
    // Settings are commented out as "#key = …" or "#[table]", remarks as "# …".
    let all: String = example
        .lines()
        .map(|l| {
            l.strip_prefix('#')
                .filter(|r| r.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
                .unwrap_or(l)
                .to_string()
                + "\n"
        })
        .collect();
    let c = reads_back(Start { file: Some(&all), ..Start::default() });
    assert_eq!((c.sockets.len(), c.accounts.len()), (2, 2));
}

#[test]
fn what_flags_and_environment_say_reads_back_too() {
    for args in [
        &[][..],
        &["--profile", "nanoclaw"],
        &["--ephemeral"],
        &["--key", "credential:a", "--socket", "/run/it's.sock"],
    ] {
        reads_back(Start { args, ..Start::default() });
    }
    reads_back(Start {
        args: &["--ephemeral"],
        file: Some("[state]\ndir = '/s'\n[[socket]]\nalert_log = '/l'"),
        ..Start::default()
    });
    let env = [
        ("NOSTR_SIGNER_DEFAULT_ACCOUNT", "a"),
        ("SIGNER_ALERT_LOG", "/a b.log"),
        ("NOSTR_SIGNER_SOCKET", "/run/\"q\".sock"),
    ];
    assert_eq!(reads_back(Start { env: &env, ..Start::default() }).default_account, "a");
}

/// One of these lines, or none.
fn line(lines: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::of(prop::sample::select(lines)).prop_map(|l| l.map(|l| format!("{l}\n")).unwrap_or_default())
}

fn count(key: &'static str, range: std::ops::Range<u32>) -> impl Strategy<Value = String> {
    prop::option::of(range).prop_map(move |n| n.map(|n| format!("{key} = {n}\n")).unwrap_or_default())
}

/// A limits table's body; its windows contradict each other in no combination.
fn limits(sessions: bool) -> impl Strategy<Value = String> {
    let windows = (
        count("burst", 1..6),
        line(&["burst_window = '7s'", "burst_window = '90s'"]),
        count("per_minute", 6..20),
        count("per_hour", 20..2_000),
    );
    let own = (count("sessions_per_minute", 1..9), count("live_sessions", 1..9));
    (windows, own).prop_map(
        move |((a, b, c, d), (e, f))| if sessions { [a, b, c, d, e, f].concat() } else { [a, b, c, d].concat() },
    )
}

fn inline(key: &'static str, sessions: bool) -> impl Strategy<Value = String> {
    let table = limits(sessions).prop_map(|body| format!("{{ {} }}", body.lines().collect::<Vec<_>>().join(", ")));
    prop_oneof![Just(String::new()), Just("\"none\"".to_string()), table]
        .prop_map(move |v| if v.is_empty() { v } else { format!("{key} = {v}\n") })
}

fn socket() -> impl Strategy<Value = String> {
    let kinds = line(&[
        "kinds = 'any'\ntokenless = 'any'",
        "kinds = 'any'",
        "kinds = [30023, 0, 1]\ntokenless = [0]",
        "tokenless = [1111, 1]",
    ]);
    let who = line(&[
        "mode = '0660'\nowner = 'agents'\ngroup = '5'",
        "owner = '1000'",
        "mode = '777'\npeer_uids = [1000, 65534]",
    ]);
    let how = line(&["methods = ['dm', 'sign_event']", "bind = 'starter'\nmethods = ['sign_event', 'nip44', 'nip04']"]);
    let accounts = line(&["accounts = ['a', 'default']", "accounts = ['default']", "accounts = ['b', 'default', 'a']"]);
    let time = (
        line(&["max_ttl = '90s'", "max_ttl = '36h'"]),
        line(&["created_at = 'any'", "created_at = '-49h..+15m'", "created_at = '0s..1s'"]),
    );
    let waits = (line(&["on_limit = 'wait 90s'"]), line(&["tokenless_on_limit = 'wait 1s'"]));
    let rest = (
        line(&["max_request = '100KiB'", "max_request = '2000B'"]),
        line(&[
            "dm = 'none'",
            "dm = { unwrap_burst = 1, wrap_per_minute = 7 }\npeers = ['npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg']",
            "crypt = { per_hour = 5 }",
            "crypt = 'none'\npeers = ['7E7E9C42A91BFEF19FA929E5FDA1B72E0EBC1A4C1141673E2794234D86ADDF4E', '0000000000000000000000000000000000000000000000000000000000000001']",
        ]),
    );
    (kinds, who, how, accounts, time, waits, rest, inline("limits", true), inline("total", false))
        .prop_map(|(a, b, c, d, (e, f), (g, h), (i, j), k, l)| [a, b, c, d, e, f, g, h, i, j, k, l].concat())
}

/// Canaries, which may be of kinds that a socket does not sign.
const RULES: &[&str] = &[
    "",
    "[[socket.rule]]\nkind = 0\ncanary = true\n",
    "[[socket.rule]]\nkind = 10002\ncanary = true\n[[socket.rule]]\nkind = 3\ncanary = true\n",
];

fn account() -> impl Strategy<Value = String> {
    let rate = line(&["ceiling = 'none'", "ceiling = '120, 2/s'", "ceiling = '5, 1/m'", "ceiling = 'auto'"]);
    let rest = line(&["kinds = 'any'", "created_at = 'any'", "ecdh_ceiling = '5, 1/m'", "ecdh_ceiling = 'none'"]);
    (rate, rest).prop_map(|(a, b)| a + &b)
}

#[test]
fn every_rule_reads_back_as_it_was_written() {
    let text = r#"
[[socket]]
path = "/run/a.sock"
kinds = [1, 9734, 27235]
[[socket.rule]]
kind = 9734
max_sats = 5000
max_sats_per_day = 10000
[[socket.rule]]
kind = 27235
tag = { u = ["https://api.example.org/*", "a \" \\ b"], method = ["GET"], "é x" = ["*"] }
[[socket.rule]]
kind = 1
recipients = ["npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"]
require = ["client"]
forbid = ["e"]
max_content = "8KiB"
created_at = "-5m..+5m"
per_day = 50
[[socket.rule]]
kind = 0
canary = true
"#;
    reads_back(Start { file: Some(text), ..Start::default() });
    let rules = &of_file(text).unwrap().sockets[0].rules;
    assert_eq!(rules.len(), 4);
    assert_eq!((rules[0].max_sats, rules[0].max_sats_per_day), (Some(5000), Some(10_000)));
    let names: Vec<&str> = rules[1].tag.iter().map(|tag| &tag.name[..]).collect();
    assert_eq!(names, ["method", "u", "é x"]);
    let note = &rules[2];
    assert_eq!((note.max_content, note.created_at, note.per_day), (Some(8192), Some((-300, 300)), Some(50)));
    assert_eq!(
        note.recipients.as_ref().unwrap()[0],
        "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
    );
    assert!(rules[3].canary);
}

proptest! {
    #[test]
    fn a_printed_configuration_reads_back(
        sockets in prop::collection::vec(socket(), 1..4),
        rules in prop::collection::vec(prop::sample::select(RULES), 1..4),
        key in account(), a in account(), b in account(),
        source in prop::sample::select(&["", "source = 'auto'", "source = 'ephemeral'", "source = 'keyring:é \" x'\nconsume = true"][..]),
        limits in limits(true),
        state in line(&["[state]\ndir = '/var/x y'\nlog_size = '100KiB'\nlog_keep = 3", "[state]\nlog_keep = 1"]),
        holder in line(&["[holder]\nrequire_secretmem = true\nrecord = false", "[holder]\nrecord = true"]),
    ) {
        let mut text = format!("{state}{holder}[limits]\n{limits}[key]\n{source}\n{key}");
        text += &format!("[[account]]\nname = 'a'\nsource = 'fd:3'\n{a}[[account]]\nname = 'b'\nsource = 'credential:b'\n{b}");
        for (i, socket) in sockets.iter().enumerate() {
            text += &format!("[[socket]]\npath = '/run/{i}.sock'\n{socket}");
            text += rules[i % rules.len()];
        }
        // One socket uses every account.
        text += "[[socket]]\npath = '/run/all.sock'\naccounts = ['default', 'a', 'b']\n";
        reads_back(Start { file: Some(&text), ..Start::default() });
    }

    #[test]
    fn no_file_makes_the_reader_panic(text in "[\\[\\]a-z_=\"'0-9 \n{},.#]{0,200}") {
        let _ = of_file(&text);
    }

    #[test]
    fn no_value_makes_the_reader_panic(
        key in prop::sample::select(&["path", "mode", "kinds", "max_ttl", "created_at", "on_limit", "limits", "accounts", "max_request", "owner"][..]),
        value in ".{0,60}",
    ) {
        let quoted = toml::Value::String(value).to_string();
        let _ = of_file(&format!("[[socket]]\n{key} = {quoted}\n"));
        let _ = of_file(&format!("[key]\nsource = {quoted}\nceiling = {quoted}\n"));
    }
}
