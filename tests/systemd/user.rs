//! The user's units, for an nora without root.

use crate::support::machine::no_machine;
use crate::support::{KEY_NSEC, Machine, PUBLIC_KEY, event};

/// Keyrings are the kernel's: a uid that no other test uses.
const USER: u32 = 23_437;

#[test]
fn a_user_without_root_has_units_of_its_own() {
    if no_machine() {
        return;
    }
    let machine = Machine::boot();
    machine.install();
    machine.good(&format!("useradd --uid {USER} --create-home nora && systemctl start user@{USER}.service"));
    let user = |script: &str| {
        format!(
            "setpriv --reuid={USER} --regid={USER} --clear-groups env HOME=/home/nora XDG_RUNTIME_DIR=/run/user/{USER} sh -c \"{script}\""
        )
    };
    // No key yet, nor one that a run of before has left in the kernel.
    machine.good(&user("keyctl clear @u"));
    assert!(!machine.is(&user("systemctl --user enable --now nsecd")));
    assert_eq!(machine.good(&user("systemctl --user show --value -p ExecMainStatus,NRestarts nsecd.service")), "0\n6");
    machine.good(&user(&format!("echo {KEY_NSEC} | keyctl padd user nsec @u")));
    machine.good(&user("systemctl --user start nsecd"));
    let socket = format!("stat -c '%i %u %a' /run/user/{USER}/nostr-signer.sock");
    let before = machine.good(&socket);
    assert!(before.ends_with(&format!(" {USER} 600")), "{before}");
    let signed = machine.good(&user("nsecctl sign --kind 1"));
    event::signed(&serde_json::from_str(&signed).unwrap(), PUBLIC_KEY);
    // Started with a profile it has no file to read again, and a reload that reaches it says so.
    assert!(!machine.is(&user("systemctl --user reload nsecd")));
    machine
        .until("journalctl -o cat _SYSTEMD_USER_UNIT=nsecd.service | grep -q 'not reloaded.*started without --config'");
    machine.good(&user("systemctl --user restart nsecd && nsecctl pubkey"));
    assert_eq!(machine.good(&socket), before);
    machine.good(&user("keyctl clear @u"));
}
