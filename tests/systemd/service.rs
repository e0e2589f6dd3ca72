//! The service with an encrypted credential: it signs, refuses, and comes back.

use crate::support::machine::no_machine;
use crate::support::{Machine, PUBLIC_KEY, event};

/// The processes of the service: uid, effective capabilities, name.
const PROCESSES: &str = r"for p in $(cat /sys/fs/cgroup/*/system.slice/nsecd.service/cgroup.procs /sys/fs/cgroup/system.slice/nsecd.service/cgroup.procs 2>/dev/null | sort -u); do echo $(awk '/^Uid:/ {print $2} /^CapBnd:/ {print $2}' /proc/$p/status) $(tr '\0' '\n' </proc/$p/cmdline | head -1); done";

#[test]
fn with_an_encrypted_credential_it_signs_refuses_and_comes_back_whatever_dies() {
    if no_machine() {
        return;
    }
    let machine = Machine::boot();
    machine.install();
    machine.configure();
    machine.good("systemctl enable --now nsecd");
    let inode = machine.good("stat -c '%i %u %a' /run/nostr/signer.sock");
    assert!(inode.ends_with(" 1000 600"), "{inode}");
    let mut agent = machine.agent("");
    assert_eq!(agent.run("nsecctl session start --scope 1 --save /tmp/token").0, 0);
    event::signed(&agent.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    let refused = agent.json("nsecctl sign --kind 0 --token-file /tmp/token");
    assert!(refused["error"].as_str().unwrap().contains("kind 0"), "{refused}");
    // root's uid is not the agents', and another user cannot even connect.
    assert!(
        !machine.is("setpriv --reuid=1001 --regid=1001 --clear-groups nsecctl --socket /run/nostr/signer.sock pubkey")
    );

    // Each role has a uid of its own, and of root's rights the service has those of the unit.
    let processes = machine.good(PROCESSES);
    let uids: std::collections::BTreeSet<&str> = processes.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((processes.lines().count(), uids.len()), (4, 4), "{processes}");
    // No confinement is missing but the namespaces that the unit keeps for the service as a whole.
    let said = machine.said();
    let missing: Vec<_> = said.lines().filter(|line| line.contains("confinement missing")).collect();
    let only = |line: &&str| line.ends_with(": network, IPC, UTS and cgroup namespaces");
    assert!(missing.len() == 3 && missing.iter().all(only), "{missing:?}");

    // A reload is over when systemctl is, in force by then, and fails where it is refused; nsecd is the same one all along.
    let pid = machine.show("MainPID");
    machine.good("cp /etc/nsecd/nsecd.toml /tmp/good");
    let tokenless = "nsecctl sign --kind 1 | grep -c sig";
    assert_ne!(agent.run(tokenless).0, 0, "signed without a token");
    machine.good("sed -i 's/^tokenless = .*/tokenless = [1]/' /etc/nsecd/nsecd.toml && systemctl reload nsecd");
    assert_eq!(agent.run(tokenless).0, 0, "reloaded, and not in force");
    machine.good("cp /tmp/good /etc/nsecd/nsecd.toml && systemctl reload nsecd");
    assert_ne!(agent.run(tokenless).0, 0, "reloaded, and the old one still in force");
    machine.good("echo nonsense = 1 >>/etc/nsecd/nsecd.toml");
    assert!(!machine.is("systemctl reload nsecd"), "a refused reload has succeeded");
    let said = machine.said();
    assert!(said.contains("not reloaded, and nothing has changed: /etc/nsecd/nsecd.toml"), "{said}");
    assert_eq!(machine.show("MainPID,ActiveState"), format!("{pid}\nactive"));
    machine.good("cp /tmp/good /etc/nsecd/nsecd.toml");

    // An owner that the socket's unit does not give it is said, at a reload and at a start; one that it gives is not.
    let remarks =
        || machine.said().matches("owner is 1001 in the configuration, but systemd has made it for 1000").count();
    machine.good("sed -i 's/^#owner = .*/owner = \"1001\"/' /etc/nsecd/nsecd.toml && systemctl reload nsecd");
    assert_eq!(remarks(), 1, "{}", machine.said());
    machine.good("systemctl restart nsecd");
    assert_eq!(remarks(), 2, "{}", machine.said());
    machine.good("sed -i 's/^owner = .*/owner = \"agent\"/' /etc/nsecd/nsecd.toml && systemctl restart nsecd");
    assert_eq!(remarks(), 2, "{}", machine.said());
    machine.good("cp /tmp/good /etc/nsecd/nsecd.toml && systemctl restart nsecd");

    // Holder death is the end of that nsecd; systemd starts another, however often, and the socket stays.
    for round in 1..=6 {
        machine.good("pkill -KILL -f ^nsecd-keyholder || kill -9 $(grep -laz ^nsecd-keyholder /proc/[0-9]*/cmdline | cut -d/ -f3)");
        machine.until(&format!("test $(systemctl show --value -p NRestarts nsecd.service) -ge {round} && systemctl is-active --quiet nsecd.service"));
    }
    event::signed(&agent.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    assert_eq!(machine.good("stat -c '%i %u %a' /run/nostr/signer.sock"), inode);

    // A supervisor that has stopped is ended by the watchdog, which is shortened for this.
    assert_eq!(machine.show("WatchdogUSec"), "30s");
    machine.good("mkdir /run/systemd/system/nsecd.service.d && printf '[Service]\\nWatchdogSec=2\\n' >/run/systemd/system/nsecd.service.d/w.conf && systemctl daemon-reload && systemctl restart nsecd");
    machine.good("kill -STOP $(systemctl show --value -p MainPID nsecd.service)");
    machine.until("journalctl -u nsecd -o cat | grep -q 'Watchdog timeout'");
    machine.until("systemctl is-active --quiet nsecd.service");
    event::signed(&agent.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    assert_eq!(machine.good("ls /var/lib/systemd/coredump 2>/dev/null | wc -l"), "0");

    // A configuration that is wrong stops it, and the socket waits for the right one.
    machine.good("echo nonsense = 1 >/etc/nsecd/nsecd.toml");
    assert!(!machine.is("systemctl restart nsecd"));
    assert_eq!(machine.show("ExecMainStatus"), "2");
    machine.good("cp /tmp/good /etc/nsecd/nsecd.toml && systemctl restart nsecd");
    event::signed(&agent.json("nsecctl sign --kind 1 --token-file /tmp/token"), PUBLIC_KEY);
    assert_eq!(machine.good("stat -c '%i %u %a' /run/nostr/signer.sock"), inode);
}
