//! Every mistake in a config file is an error with its line and what was expected; nothing starts.

use super::*;

const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
const NPUB_HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

/// The error of a config file.
fn refused(text: &str) -> String {
    match of_file(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn all_refused(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n gave     {error}\n expected {expected}");
    }
}

#[test]
fn the_papers_example_of_an_error() {
    let text = "[key]\n\n[[socket]]\npath = \"/run/x.sock\"\nmax_ttl = \"24 hours\"\n";
    let expected =
        "nsecd.toml:5: socket.max_ttl = \"24 hours\": expected a whole number with s, m, h or d, such as \"24h\"";
    assert_eq!(refused(text), expected);
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    all_refused(&[
        ("sockets = 1", "nsecd.toml:1: unknown key sockets: expected one of default_account, key, account"),
        ("[key]\nnsec = 'x'", ":2: unknown key key.nsec: expected one of source, consume"),
        ("[key]\nname = 'x'", "unknown key key.name"),
        ("[[account]]\nname='a'\nttl=1", ":3: unknown key account.ttl"),
        ("[limits]\nper_day = 1", "unknown key limits.per_day"),
        ("[holder]\nx = 1", "unknown key holder.x"),
        ("[state]\nx = 1", "unknown key state.x"),
        ("[admin]\nx = 1", "unknown key admin.x: expected one of dir"),
        ("[[socket]]\n\n\nx = 1", ":4: unknown key socket.x"),
        ("[[socket]]\nlimits = { x = 1 }", ":2: unknown key socket.limits.x"),
        ("[[socket]]\ntotal = { live_sessions = 1 }", "unknown key socket.total.live_sessions"),
        ("[[socket]]\ndm = { x = 1 }", "unknown key socket.dm.x"),
        ("[[socket]]\ncrypt = { x = 1 }", "unknown key socket.crypt.x"),
    ]);
}

#[test]
fn values_of_another_type_or_unit_are_refused() {
    all_refused(&[
        ("[[socket]]\nstart_sessions = 'all'", "\"all\": expected \"self\", \"once\" or \"admin\""),
        ("key = 1", ":1: key = 1: expected a table"),
        ("socket = 1", "socket = 1: expected [[socket]] tables"),
        ("socket = [1]", "expected [[socket]] tables"),
        ("[key]\nconsume = 'yes'", "expected true or false"),
        ("[key]\nkinds = 'all'", "key.kinds = \"all\": expected a list of kinds"),
        ("[key]\nkinds = [65536]", "[65536]: expected a list of kinds from 0 to 65535"),
        ("[key]\nkinds = [-1]", "expected a list of kinds"),
        ("[key]\nkinds = [1.0]", "[(float)]: expected a list of kinds"),
        ("[key]\nkinds = [1, 7, 1]", "expected each item once, but 1 is there twice"),
        ("[key]\nceiling = '120'", "expected a burst and a refill such as \"120, 2/s\""),
        ("[key]\nceiling = 120", "expected a burst and a refill"),
        ("[key]\necdh_ceiling = 'x'", "key.ecdh_ceiling = \"x\": expected a burst"),
        ("[key]\ncreated_at = '1h'", "expected a window that contains now"),
        ("[limits]\nburst = 0", "limits.burst = 0: expected a whole number from 1 to 1000000"),
        ("[limits]\nper_hour = 1000001", "expected a whole number from 1 to 1000000"),
        ("[limits]\nper_hour = 99999999999999999999", "expected a whole number"),
        ("[limits]\nburst_window = 10", "limits.burst_window = 10: expected a whole number with s, m, h or d"),
        ("[limits]\nburst_window = '2h'", "expected 1s to 1h"),
        ("[state]\ndir = 'var'", "state.dir = \"var\": expected an absolute path"),
        ("[state]\nlog_size = '64MB'", "expected a whole number with B, KiB or MiB, such as \"512KiB\""),
        ("[state]\nlog_size = '1KiB'", "expected 64KiB to 1024MiB"),
        ("[state]\nlog_keep = 0", "expected a whole number from 1 to 1000"),
        ("[[socket]]\npath = 'signer.sock'", "expected an absolute path"),
        ("[[socket]]\npath = '/run/../x'", "expected an absolute path"),
        ("[[socket]]\npath = \"/run/a\\nb\"", "\"/run/a\\nb\": expected an absolute path"),
        (&format!("[[socket]]\npath = '/{}'", "x".repeat(107)), "at most 107 bytes"),
        ("[[socket]]\nmode = 384", "expected octal permissions in a string"),
        ("[[socket]]\nmode = '0800'", "expected octal permissions"),
        ("[[socket]]\nmode = '4600'", "expected octal permissions"),
        ("[[socket]]\nmode = '0444'", "with write permission for someone"),
        ("[[socket]]\npeer_uids = []", "expected a list of one or more numeric user ids"),
        ("[[socket]]\npeer_uids = [4294967295]", "expected a list of one or more numeric user ids"),
        ("[[socket]]\nmax_ttl = '0s'", "socket.max_ttl = \"0s\": expected 1s to 3650d"),
        ("[[socket]]\nmethods = []", "socket.methods = []: expected one or more of"),
        ("[[socket]]\nmethods = ['sign']", "expected one or more of"),
        ("[[socket]]\naccounts = []", "expected a list of account names"),
        ("[[socket]]\naccounts = ['../x']", "expected a list of account names"),
        ("[[socket]]\nbind = 'none'", "expected \"first_use\" or \"starter\""),
        ("[[socket]]\non_limit = 'wait'", "expected \"reject\", or \"wait \""),
        ("[[socket]]\ntokenless_on_limit = 'wait 1h'", "expected \"reject\", or \"wait \" and 1s to 10m"),
        ("[[socket]]\ncreated_at = '+1h..-1h'", "expected a window that contains now"),
        ("[[socket]]\nmax_request = '1MiB'", "expected 1KiB to 512KiB"),
        ("[[socket]]\nlimits = 'any'", "socket.limits = \"any\": expected a table, or \"none\""),
        ("[[socket]]\ntotal = 5", "expected a table, or \"none\""),
        ("[[socket]]\ndm = { wrap_per_minute = 0 }", "expected a whole number from 1"),
        ("[[socket]]\ncrypt = 'all'", "expected a table, or \"none\""),
        ("[key]\nseal_ceiling = 'auto'", "expected a burst and a refill such as \"120, 2/s\" (s, m or h), or \"none\""),
        ("[[socket]]\n[[socket.rule]]\nper_day = 1", ":2: [[socket.rule]] has no kind"),
        ("[[socket]]\n[[socket.rule]]\nkind = 65536", ":3: socket.rule.kind = 65536: expected a kind from 0 to 65535"),
        ("[[socket]]\n[[socket.rule]]\nkind = 1", ":2: socket.rule for kind 1 says nothing"),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\nper_hour = 1",
            "unknown key socket.rule.per_hour: expected one of kind, tag, ",
        ),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\nmax_sats = 1",
            ":4: socket.rule: satoshis are limited for kind 9734 only, this is kind 1",
        ),
        ("[[socket]]\n[[socket.rule]]\nkind = 1\ncanary = true\nper_day = 1", "a canary is never signed"),
        ("[[socket]]\n[[socket.rule]]\nkind = 1\nrequire = ['a']\nforbid = ['a']", "tag \"a\" is needed and forbidden"),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\ntag = { a = ['*'] }\nforbid = ['a']",
            "tag \"a\" is needed and forbidden",
        ),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\ntag = { a = '*' }",
            ":4: socket.rule.tag.a = \"*\": expected a list of 1 to 256 patterns",
        ),
        ("[[socket]]\n[[socket.rule]]\nkind = 1\ntag = {}", ":4: socket.rule.tag = {}: expected tag names"),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\nrequire = []",
            "socket.rule.require = []: expected a list of 1 to 256 tag names",
        ),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\ncreated_at = 'any'",
            "socket.rule.created_at = \"any\": expected a window that contains now",
        ),
        ("[[socket]]\n[[socket.rule]]\nkind = 1\nmax_content = '1MiB'", "expected 1B to 512KiB"),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\nrecipients = ['x']",
            "socket.rule.recipients = [\\\"x\\\"]: expected a list",
        ),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 5\nper_day = 1",
            "socket.rule for kind 5, which the socket does not sign",
        ),
        (
            "[[socket]]\nmethods = ['nip44']\nkinds = []\n[[socket.rule]]\nkind = 1\nper_day = 1",
            "which the socket does not sign",
        ),
        (
            "[[socket]]\n[[socket.rule]]\nkind = 1\nper_day = 1\n[[socket.rule]]\nkind = 1\nper_day = 2",
            ":5: a second socket.rule for kind 1",
        ),
        ("[[socket]]\npeers = []", "socket.peers = []: expected a list of one or more public keys"),
        ("[[socket]]\npeers = 'any'", "expected a list of one or more public keys, each npub1… or 64 hex digits"),
        ("[[socket]]\n\npeers = ['npub1x']", ":3: socket.peers = [\\\"npub1x\\\"]: expected a list"),
        (&format!("[[socket]]\npeers = ['{NPUB}', '{NPUB}0', 7]"), "each npub1… or 64 hex digits; number 2 is none"),
        (&format!("[[socket]]\npeers = ['{NPUB}', '{NPUB_HEX}']"), "expected each item once"),
    ]);
}

#[test]
fn contradictions_within_a_socket_are_refused() {
    all_refused(&[
        ("[[socket]]\nkinds = [1]\ntokenless = [1, 7]", ":3: socket.tokenless has kind 7, socket.kinds has not"),
        ("[[socket]]\nkinds = [1]\ntokenless = 'any'", "socket.tokenless has \"any\""),
        (
            "[[socket]]\nmethods = ['dm']\ntokenless = [1]",
            ":3: socket.tokenless: expected [], since methods lacks sign_event",
        ),
        ("[[socket]]\nkinds = []", ":2: socket.kinds = []: expected kinds"),
        ("[[socket]]\nowner = 'nobody-here'", ":2: socket.owner = \"nobody-here\": no such user"),
        ("[[socket]]\nowner = '4294967295'", "no such user"),
        ("[[socket]]\ngroup = '+5'", "no such group"),
        (
            "[[socket]]\nlimits = { burst = 11 }",
            ":2: socket.limits.burst = 11: can never be reached: expected at most socket.limits.per_minute, 10",
        ),
        ("[limits]\nper_minute = 101", ":2: limits.per_minute = 101: can never be reached"),
        (
            "[[socket]]\ncrypt = { per_minute = 601 }",
            ":2: socket.crypt.per_minute = 601: can never be reached: expected at most socket.crypt.per_hour, 600",
        ),
        ("[[socket]]\ntotal = { burst = 50, per_minute = 40 }", "socket.total.burst = 50: can never be reached"),
        (
            "[[socket]]\npath = '/run/nsecd/admin/x.sock'",
            ":2: the agent socket /run/nsecd/admin/x.sock collides with the admin directory",
        ),
        ("[[socket]]\npath = '/run/nsecd/admin'", "collides with the admin directory"),
        ("[[socket]]\npath = '/run/nsecd'", "collides with the admin directory"),
        ("[admin]\ndir = '/a'\n[[socket]]\npath = '/a/b/s.sock'", ":4: the agent socket /a/b/s.sock collides"),
        (&format!("[admin]\ndir = '/{}'", "a".repeat(94)), ":2: admin directory: for /aaa"),
    ]);
}

#[test]
fn contradictions_between_sockets_are_refused() {
    all_refused(&[
        (
            "[[socket]]\npath = '/run/a'\n[[socket]]\npath = '/run//a'",
            ":4: the socket /run/a collides with the socket /run/a",
        ),
        ("[[socket]]\npath = '/run/a'\n[[socket]]\npath = '/run/a/b'", "collides with the socket"),
        ("[[socket]]\npath = '/run/a'\n[[socket]]", ":3: this [[socket]] has no path"),
        (
            "[[socket]]\npath = '/run/a'\nalert_log = '/l'\n[[socket]]\npath = '/run/b'\nalert_log = '/l'",
            ":6: two sockets write the alert log /l",
        ),
        (&"[[socket]]\n".repeat(65), ":65: expected at most 64 [[socket]] tables"),
    ]);
}

#[test]
fn contradictions_between_accounts_and_sockets_are_refused() {
    let a = "[[account]]\nname = 'a'\nsource = 'fd:3'\n";
    let uses = |accounts: &str| format!("{a}[[socket]]\naccounts = {accounts}\n");
    all_refused(&[
        ("[[account]]\nsource = 'fd:3'", ":1: [[account]] has no name"),
        ("[[account]]\nname = 'default'", ":2: account.name = \"default\": expected another name; [key] is"),
        ("[[account]]\nname = 'a b'", "expected a name of 1 to 64 letters"),
        (
            &format!("{a}{}", uses("['a']")),
            ":5: account.name = \"a\": expected another name; it is used at nsecd.toml:1",
        ),
        (a, ":1: account \"a\" is used by no socket: expected \"a\" in a socket's accounts"),
        (&format!("{}[key]\n", uses("['a']")), ":6: [key] is used by no socket"),
        ("[[socket]]\naccounts = ['b']", ":2: socket.accounts: nobody defines \"b\""),
        (&uses("['a', 'a']"), "expected each item once"),
        (&format!("default_account = 'a'\n{}", uses("['a', 'default']")), "socket.accounts: \"a\" is there twice"),
        (
            &format!("default_account = 'b'\n{}", uses("['a']")),
            ":1: default_account = \"b\": expected the name of an [[account]]",
        ),
        (&format!("default_account = 'a'\n{}[key]\n", uses("['a']")), "are two default accounts"),
        (&format!("{}methods = ['nip44']", uses("['a']")), "socket.methods has nip44, which uses the default account"),
        (
            &format!("[key]\nsource = 'fd:3'\n{}", uses("['a', 'default']")),
            ":5: account \"a\" has the key source of account \"default\"",
        ),
        (
            &format!(
                "[key]\nsource = 'keyring:nsec'\n[[account]]\nname='b'\nsource = 'auto'\n{}",
                "[[socket]]\naccounts=['b', 'default']"
            ),
            "has the key source",
        ),
        (
            "[key]\nkinds = [1]\n[[socket]]\nkinds = [1]\nmethods = ['sign_event', 'dm']",
            ":2: account \"default\": kinds: its sockets offer dm, which signs kind 13: expected it here too",
        ),
        ("[key]\nkinds = [1]", ":2: account \"default\": kinds: its sockets offer kind 7"),
        ("[key]\nkinds = [1]\n[[socket]]\nkinds = 'any'", ":2: account \"default\": kinds: its sockets offer \"any\""),
        (
            "[key]\ncreated_at = '-1m..+1m'",
            ":2: account \"default\": created_at is narrower than its sockets', -1h..+15m",
        ),
        ("[key]\ncreated_at = '-1d..+1d'\n[[socket]]\ncreated_at = 'any'", "narrower than its sockets', any"),
        ("[key]\nsource = 'fd:3'\nconsume = true", ":3: account \"default\": consume unlinks a keyring key"),
    ]);
}

#[test]
fn sources_that_are_keys_or_files_are_refused_with_advice() {
    let hex = "6".repeat(64);
    for source in [&hex, &format!("hex:{hex}"), &format!("nsec1{}", "q".repeat(58))] {
        let text = refused(&format!("[key]\nsource = '{source}'"));
        assert!(text.starts_with("nsecd.toml:2: ") && text.contains("keyctl padd user nsec @u"), "{text}");
        assert!(!text.contains("666") && !text.contains("qqq"), "{text}");
    }
    all_refused(&[
        (
            "[key]\nsource = 'file:/etc/nsec'",
            "expected credential:NAME, keyring:DESCRIPTION, fd:N, ephemeral or auto; a plain file",
        ),
        ("[key]\nsource = 'env:NSEC'", "fd:3 3<FILE"),
        ("[key]\nsource = 3", "expected credential:NAME"),
    ]);
}

#[test]
fn peers_are_bounded_by_what_one_argument_holds() {
    let list = |from: usize, n: usize| (from..from + n).map(|i| format!("'{i:064x}'")).collect::<Vec<_>>().join(", ");
    let socket =
        |name: &str, peers: &str| format!("[[socket]]\npath = '/run/{name}'\nmethods = ['dm']\npeers = [{peers}]\n");
    assert!(refused(&socket("a", &list(0, 1025))).contains("expected at most 1024 public keys"));
    let two = |second| format!("{}{}", socket("a", &list(0, 1000)), socket("b", &list(second, 1000)));
    assert!(refused(&two(1000)).contains("more than 1024 in all"));
    // Control: the same ones twice are one list.
    assert_eq!(of_file(&two(24)).unwrap().ecdh.unwrap().peers.unwrap().len(), 1025, "with the own key");
}
