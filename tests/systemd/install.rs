//! What an operator sees before there is a key.

use crate::support::Machine;
use crate::support::machine::no_machine;

#[test]
fn a_clean_install_starts_nothing_and_without_a_key_a_start_says_so_once() {
    if no_machine() {
        return;
    }
    let machine = Machine::boot();
    machine.install();
    // Installed, and nothing runs, failed, or listens.
    for user in ["keyholder", "gate", "ecdh", "broker"] {
        machine.good(&format!("getent passwd nsecd-{user} | grep -q :/usr/sbin/nologin"));
    }
    assert_eq!(machine.run("systemctl is-enabled nsecd.socket nsecd.service").stdout, b"disabled\ndisabled\n");
    assert!(
        !machine.is("systemctl is-active nsecd.socket") && machine.is("test $(systemctl --failed --quiet | wc -l) = 0")
    );
    machine.good("nsecd --check /etc/nsecd/nsecd.toml && nsecctl --version");
    for file in [
        "man/man8/nsecd.8.gz",
        "man/man1/nsecctl.1.gz",
        "bash-completion/completions/nsecctl",
        "doc/nsecd/README.Debian",
        "doc/nsecd/installing.md",
        "doc/nsecd/migrating-from-nostr-signer.md",
    ] {
        machine.good(&format!("test -s /usr/share/{file}"));
    }
    assert_eq!(machine.good("stat -c '%a %U' /var/lib/nsecd"), "700 root");

    // Without a key: a clear message, and no second try.
    assert!(!machine.is("systemctl enable --now nsecd"));
    machine.until("systemctl is-failed --quiet nsecd.service");
    let said = machine.said();
    assert!(said.contains("there is no credential nsec (LoadCredentialEncrypted=nsec)"), "{said}");
    assert_eq!(machine.show("NRestarts,ExecMainStatus,SubState"), "0\n6\nfailed");
    let inode = machine.good("stat -c %i /run/nostr/signer.sock");

    // Whoever connects is told that there is nobody, and is not asked for again.
    let (before, socket) = (said.matches("there is no credential").count(), "/run/nostr/signer.sock");
    let many = format!("for i in 1 2 3 4 5 6 7 8; do nc -U {socket} </dev/null & done; wait");
    for _ in 0..2 {
        machine.good(&many);
    }
    machine.until("systemctl is-failed --quiet nsecd.service");
    let tries = machine.said().matches("there is no credential").count() - before;
    assert!((1..=16).contains(&tries), "{tries} starts for 16 clients");
    assert_eq!(machine.good("systemctl is-active nsecd.socket"), "active");
    assert_eq!(machine.good(&format!("stat -c %i {socket}")), inode);

    // With one, the next client is served, without anybody's help.
    machine.configure();
    assert!(machine.good(&format!("nsecctl --socket {socket} pubkey")).contains(crate::support::PUBLIC_KEY));
    assert_eq!(machine.good(&format!("stat -c %i {socket}")), inode);

    // An owner that is said when the socket listens already has it after a restart, as docs/installing.md tells.
    assert!(
        machine.good(&format!("stat -c %u {socket}")) == "0"
            && machine.good("nsecctl doctor; true").contains("ok       binaries")
    );
    machine.good("systemctl restart nsecd.socket");
    assert_eq!(machine.good(&format!("stat -c %u {socket}")), "1000");
    assert_eq!(machine.agent("").run("nsecctl pubkey").0, 0);
}
