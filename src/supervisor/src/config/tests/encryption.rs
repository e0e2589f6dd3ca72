//! What follows from a socket that offers encryption: an ECDH holder with the least that serves, and kind 13 for its seals.

use super::*;
use crate::config::{Account, Ceiling, Ecdh};
use nsecd_policy::{CryptLimits, DmLimits, Kinds};

const A: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
const B: &str = "0000000000000000000000000000000000000000000000000000000000000001";

fn config(sockets: &[&str]) -> Config {
    let socket = |(i, rest): (usize, &&str)| format!("[[socket]]\npath = '/run/{i}'\n{rest}\n");
    of_file(&sockets.iter().enumerate().map(socket).collect::<String>()).unwrap()
}

fn default_account(sockets: &[&str]) -> Account {
    config(sockets).accounts.remove(0)
}

#[test]
fn the_holder_gets_the_operations_that_the_methods_need_and_no_other() {
    for (methods, ops) in [
        ("'sign_event'", &[][..]),
        ("'nip44'", &[1]),
        ("'nip04', 'sign_event'", &[2]),
        ("'dm'", &[1, 3]),
        ("'nip44', 'nip04'", &[1, 2]),
        ("'dm', 'nip04'", &[1, 2, 3]),
    ] {
        let c = config(&["", &format!("methods = [{methods}]\ntokenless = []")]);
        assert_eq!(c.ecdh.map(|e| e.ops).unwrap_or_default(), ops, "{methods}");
    }
    let nanoclaw = Start { args: &["--profile", "nanoclaw"], ..Start::default() }.config().unwrap();
    assert_eq!(nanoclaw.ecdh, Some(Ecdh { ops: vec![1, 3], peers: None }));
    assert_eq!(nanoclaw.notes, Vec::<String>::new());
    assert_eq!(Start::default().config().unwrap().ecdh, None);
}

#[test]
fn peers_bind_the_holder_where_every_socket_that_offers_encryption_has_them() {
    let of = |sockets: &[&str]| config(sockets).ecdh.unwrap().peers.map(|p| p.join(" "));
    let (a, b) =
        (format!("methods = ['nip44']\npeers = ['{A}']"), format!("methods = ['nip44']\npeers = ['{B}', '{A}']"));
    assert_eq!(of(&[&a]), Some(A.into()));
    assert_eq!(of(&[&a, &b, ""]), Some(format!("{B} {A}")));
    assert_eq!(of(&[&a, "methods = ['nip44']"]), None);
    // dm has a copy for the author.
    assert_eq!(of(&[&a, &b.replace("nip44", "dm")]), Some(format!("{B} {A} self")));
    let unused = config(&[&format!("peers = ['{A}']"), &a]);
    assert_eq!(unused.ecdh.unwrap().peers, Some(vec![A.to_string()]));
    assert!(unused.notes[0].contains("peers has no effect"), "{:?}", unused.notes);
}

#[test]
fn kind_13_joins_the_default_accounts_ceiling_with_dm_and_has_its_own_window() {
    const SEALS: Option<(i64, i64)> = Some((-176_400, 900));
    let without = default_account(&["kinds = [1]\nmethods = ['sign_event', 'nip44', 'nip04']"]);
    assert_eq!((without.kinds, without.seals), (Kinds::List(vec![1]), Some((-3_600, 900))));
    let with = "kinds = [1]\nmethods = ['sign_event', 'dm']\n";
    let dm = default_account(&[with]);
    assert_eq!((dm.kinds, dm.created_at, dm.seals), (Kinds::List(vec![1, 13]), Some((-3_600, 900)), SEALS));
    // However wide the sockets' windows are; but a socket that signs kind 13 itself is not narrowed.
    assert_eq!(default_account(&[&format!("{with}created_at = 'any'")]).seals, SEALS);
    let own = |window: &str| default_account(&[with, &format!("kinds = [13]\ncreated_at = '{window}'")]).seals;
    assert_eq!((own("any"), own("-1m..+1h"), own("-3d..+1s")), (None, Some((-176_400, 3_600)), Some((-259_200, 900))));
    // What the sockets' kinds are is not touched: sign_event does not sign it.
    assert_eq!(config(&[with]).sockets[0].kinds, Kinds::List(vec![1]));
    // Another account on the same socket signs no seals.
    let text = format!("[[account]]\nname = 'a'\necdh_ceiling = 'none'\n[[socket]]\n{with}accounts = ['default', 'a']");
    let c = of_file(&text).unwrap();
    assert_eq!((&c.accounts[1].name[..], &c.accounts[1].kinds), ("a", &Kinds::List(vec![1])));
    assert!(c.notes[0].contains("account a: ecdh_ceiling has no effect"), "{:?}", c.notes);
}

#[test]
fn limits_on_encryption_are_those_of_the_design_unless_written() {
    let c = config(&["", "dm = { wrap_per_minute = 1 }\ncrypt = { per_hour = 5 }", "dm = 'none'\ncrypt = 'none'"]);
    let dm = DmLimits { unwrap_burst: 200, unwrap_per_minute: 60, failed_per_minute: 600, wrap_per_minute: 30 };
    let crypt = CryptLimits { per_minute: 60, per_hour: 600 };
    assert_eq!((c.sockets[0].dm, c.sockets[0].crypt), (Some(dm), Some(crypt)));
    let crypt = CryptLimits { per_minute: 5, per_hour: 5 };
    assert_eq!((c.sockets[1].dm, c.sockets[1].crypt), (Some(DmLimits { wrap_per_minute: 1, ..dm }), Some(crypt)));
    assert_eq!((c.sockets[2].dm, c.sockets[2].crypt), (None, None));
    let ceiling = |text: &str| of_file(text).unwrap().accounts[0].ecdh_ceiling;
    assert_eq!(ceiling(""), Some(Ceiling { burst: 600, tokens: 10, seconds: 1 }));
    assert_eq!(ceiling("[key]\necdh_ceiling = 'auto'"), ceiling(""));
    assert_eq!(ceiling("[key]\necdh_ceiling = '5, 1/m'"), Some(Ceiling { burst: 5, tokens: 1, seconds: 60 }));
    assert_eq!(ceiling("[key]\necdh_ceiling = 'none'"), None);
}

/// Two agreements a message, one for each piece of junk, and for every socket that has a client.
#[test]
fn the_automatic_ceiling_of_keys_is_what_clients_may_need_and_less_is_noted() {
    let default = |files: &[&str]| config(files).accounts[0].ecdh_ceiling.unwrap();
    let of = |burst, tokens| Ceiling { burst, tokens, seconds: 1 };
    let dm = "methods = ['sign_event', 'dm']\n";
    assert_eq!(default(&["methods = ['nip44']"]), of(600, 10));
    assert_eq!(default(&[dm]), of(2 * 200 + 600 + 2 * 30, 13));
    assert_eq!(default(&[dm, "methods = ['nip44', 'dm']"]), of(2 * 1060 + 60, 27));
    assert_eq!(default(&[&format!("{dm}dm = 'none'")]), of(600, 10), "what has no limits asks for none");
    let notes = |key: &str| of_file(&format!("[key]\n{key}\n[[socket]]\n{dm}")).unwrap().notes;
    assert!(notes("").is_empty(), "{:?}", notes(""));
    assert!(notes("ecdh_ceiling = '1060, 13/s'").is_empty());
    let less = &notes("ecdh_ceiling = '1060, 12/s'")[0];
    assert!(less.contains("ecdh_ceiling 1060, 12/s is less than") && less.contains("1060, 13/s"), "{less}");
    let less = &notes("ceiling = '300, 300/h'")[0];
    assert!(less.contains("ceiling 300, 300/h is less than the 400 signatures an hour"), "{less}");
}
