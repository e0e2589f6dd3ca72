//! An upgrade under clients, removal, purge.

use crate::support::machine::no_machine;
use crate::support::{Machine, PUBLIC_KEY, event};

#[test]
fn an_upgrade_keeps_sessions_and_sockets_and_loses_no_client_and_a_purge_leaves_nothing() {
    if no_machine() {
        return;
    }
    let machine = Machine::boot();
    machine.install();
    machine.configure();
    machine.good("systemctl enable --now nsecd");
    let identity = "stat -c %i /run/nostr/signer.sock; systemctl show --value -p InvocationID nsecd.socket";
    let (socket, service) = (machine.good(identity), machine.show("InvocationID"));
    // One as on the host, one that has the socket as a file alone, as a container has it.
    let mut agent = machine.agent("");
    let mut mounted = machine
        .agent("touch /mnt/s.sock; mount --bind /run/nostr/signer.sock /mnt/s.sock; mount -t tmpfs none /run/nostr;");
    agent.run("nsecctl session start --scope 1 --save /tmp/token");
    mounted.run("export NOSTR_SIGNER_SOCKET=/mnt/s.sock");
    event::signed(&mounted.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    // One that is connected all along, and one that connects all the time.
    let mut connected = machine.agent("");
    connected.run("mkfifo /tmp/in; nc -U /run/nostr/signer.sock </tmp/in >/tmp/out & exec 3>/tmp/in; echo '{\"method\":\"get_public_key\"}' >&3; until test -s /tmp/out; do :; done");
    let mut restless = machine.agent("");
    restless.run("(while ! test -e /tmp/stop; do nsecctl pubkey >/dev/null && echo served || echo failed; done >/tmp/asked) & until test -s /tmp/asked; do :; done");

    let upgraded = machine.good("dpkg -i /packages/2.deb 2>&1");
    assert!(upgraded.contains("over (0.1.1)"), "{upgraded}");
    machine.good("touch /tmp/stop");
    assert_eq!(machine.good("dpkg-query -W -f '${Version}' nsecd"), "0.1.2");
    assert!(machine.show("InvocationID") != service, "the service was not restarted");
    assert_eq!(machine.good(identity), socket);
    machine.until("! pgrep -x nsecctl 2>/dev/null || ! ls /proc/*/exe 2>/dev/null | grep -q nsecctl");
    let asked = machine.good("cat /tmp/asked");
    assert!(asked.lines().count() > 3 && asked.lines().all(|line| line == "served"), "{asked}");
    // The connection of before has ended in order, the token of before is good, on both ways in.
    connected.run("wait");
    assert!(machine.good("cat /tmp/out").contains(PUBLIC_KEY));
    for agent in [&mut agent, &mut mounted] {
        event::signed(&agent.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    }

    // Removed: nobody listens, what was recorded stays. Purged: only the users and the sealed key stay.
    machine.good("dpkg -r nsecd 2>&1");
    assert!(
        !machine.is("test -e /run/nostr/signer.sock") && !machine.is("systemctl is-active nsecd.service nsecd.socket")
    );
    machine.good("test -s /var/lib/nsecd/default.record && test -e /etc/nsecd/nsecd.toml");
    machine.good("dpkg -P nsecd 2>&1");
    assert_eq!(
        machine.good("find /var/lib/nsecd /var/log/nsecd /etc/nsecd /usr/libexec/nsecd /run/nsecd 2>/dev/null | wc -l"),
        "0"
    );
    assert!(!machine.is("find /etc/systemd -name 'nsecd*' -type l | grep ."));
    machine.good("getent passwd nsecd-gate && test -s /etc/credstore.encrypted/nsec");
    // And back: nothing of before is in the way.
    machine.install();
    machine.good("systemctl enable --now nsecd");
    assert_eq!(agent.run("nsecctl pubkey").0, 0);
}
