//! `nsecctl adopt` on a host that runs a stand-in for the reference daemon, as NanoClaw has it: a user's service, its key in @u.

use crate::support::machine::no_machine;
use crate::support::{KEY_HEX, KEY_NSEC, Machine, PUBLIC_KEY, event};
use serde_json::Value;
use std::fs::File;

/// NIP-19's own example, another key.
const OTHER: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
const OTHER_PUBLIC: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

/// A machine with the package and the reference daemon of nora.
struct Host {
    machine: Machine,
    uid: u32,
}

impl Host {
    /// Keyrings are the kernel's: `uid` is one that no other test uses.
    fn new(uid: u32) -> Host {
        let machine = Machine::boot();
        machine.install();
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        let put = "cat >/usr/local/bin/nostr-signer && chmod 755 /usr/local/bin/nostr-signer";
        assert!(machine.enter(put).stdin(program).status().unwrap().success());
        machine.good(&format!("useradd --uid {uid} --create-home nora && systemctl start user@{uid}.service"));
        let host = Host { machine, uid };
        host.key("nsec", KEY_NSEC);
        host.user("mkdir -p .config/systemd/user && echo '[]' >sessions.json && echo old >alerts.log");
        host.user(
            "printf '%s\\n' '[Service]' 'ExecStart=/usr/local/bin/nostr-signer standin::serves --exact --ignored' \
             'Environment=SIGNER_ALERT_LOG=%h/alerts.log SIGNER_SESSION_FILE=%h/sessions.json' \
             '[Install]' 'WantedBy=default.target' >.config/systemd/user/nostr-signer.service",
        );
        host.user("systemctl --user daemon-reload && systemctl --user enable --now nostr-signer");
        host.machine.until(&host.as_user("nsecctl pubkey"));
        host
    }

    fn as_user(&self, script: &str) -> String {
        let uid = self.uid;
        format!(
            "cd /home/nora && setpriv --reuid={uid} --regid={uid} --clear-groups env HOME=/home/nora XDG_RUNTIME_DIR=/run/user/{uid} \
             sh -c \"{script}\""
        )
    }

    fn user(&self, script: &str) -> String {
        self.machine.good(&self.as_user(script))
    }

    fn key(&self, description: &str, nsec: &str) {
        self.user(&format!("printf %s {nsec} | keyctl padd user {description} @u"));
    }

    /// Runs adopt; its exit code, and what it said.
    fn adopt(&self, options: &str) -> (i32, String) {
        let output = self.machine.run(&format!("nsecctl adopt --user nora --with-key host {options}"));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for secret in [KEY_NSEC, KEY_HEX, OTHER] {
            assert!(!said.contains(secret), "a key is printed: {said}");
        }
        (output.status.code().unwrap(), said)
    }

    fn adopted(&self, options: &str) -> String {
        let (code, said) = self.adopt(options);
        assert_eq!(code, 0, "{options}: {said}\n{}", self.machine.said());
        said
    }

    /// Every file that an adoption might touch: type, mode, owner, target, content.
    fn files(&self) -> Vec<String> {
        let (uid, places) = (self.uid, "/etc /home /usr/local /var/lib/nsecd /var/log/nsecd /run/nostr /run/nsecd");
        let listed = self.machine.good(&format!(
            "find {places} -printf '%p %y %m %U %l\\n' 2>/dev/null | sort; find /run/user/{uid} -maxdepth 1 -printf '%p %y %m %U %l\\n' | sort; \
             find {places} -type f 2>/dev/null | sort | xargs sha256sum; keyctl show @u >/dev/null"
        ));
        listed.lines().map(str::to_owned).collect()
    }

    /// Whether the reference daemon runs and answers, and with which key.
    fn reference(&self) -> Option<String> {
        let runs = self.machine.is(&self.as_user("systemctl --user is-active --quiet nostr-signer"));
        runs.then(|| self.pubkey(&format!("/run/user/{}/nostr-signer.sock", self.uid)))
    }

    fn pubkey(&self, socket: &str) -> String {
        self.reply(socket, r#"{"method":"get_public_key","params":{}}"#)["pubkey"].as_str().unwrap_or_default().into()
    }

    /// What nora is answered on a socket.
    fn reply(&self, socket: &str, request: &str) -> Value {
        let request = request.replace('"', "\\\"");
        let said = self.user(&format!("echo '{request}' | nc -N -U {socket}"));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{socket}: {e}: {said}"))
    }

    fn sign(&self, socket: &str, kind: u32) -> Value {
        let request = format!(r#"{{"method":"sign_event","params":{{"kind":{kind},"content":"x"}}}}"#);
        self.reply(socket, &request)
    }
}

impl Drop for Host {
    /// The keyring would outlive the machine.
    fn drop(&mut self) {
        self.machine.run(&self.as_user("keyctl clear @u"));
    }
}

#[test]
fn a_host_is_adopted_and_given_back() {
    if no_machine() {
        return;
    }
    let host = Host::new(23_441);
    let runtime = format!("/run/user/{}/nostr-signer.sock", host.uid);
    let before = host.files();
    let plan = host.adopted("");
    assert!(plan.contains(PUBLIC_KEY) && plan.contains("stop and disable nostr-signer.service"), "{plan}");
    assert!(
        plan.contains("untouched: /home/nora/alerts.log") && plan.contains("untouched: /home/nora/sessions.json"),
        "{plan}"
    );
    assert_eq!(host.files(), before, "the plan has changed something");
    // Another key in the keyring than the one that is served: noticed, with --apply too.
    host.key("nsec", OTHER);
    for options in ["", "--apply"] {
        let (code, said) = host.adopt(options);
        assert!(code == 1 && said.contains(OTHER_PUBLIC) && said.contains(PUBLIC_KEY), "{said}");
        assert_eq!(host.files(), before, "a refused adoption has changed something");
        assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));
    }
    host.key("nsec", KEY_NSEC);

    let said = host.adopted("--apply");
    assert!(said.contains("Adopted."), "{said}");
    assert_eq!(host.reference(), None, "two daemons");
    assert!(!host.machine.is(&host.as_user("systemctl --user is-enabled --quiet nostr-signer")));
    assert!(host.machine.is("systemctl is-enabled --quiet nsecd.service nsecd.socket nsecd@agents.socket"));
    // Where containers have it mounted from, and where the host's tools look.
    for socket in [runtime.as_str(), "/run/nostr/signer.sock", "/run/nostr/agents.sock"] {
        assert_eq!(host.pubkey(socket), PUBLIC_KEY, "{socket}");
    }
    event::signed(&host.sign(&runtime, 1), PUBLIC_KEY);
    assert_eq!(host.sign(&runtime, 0)["code"], "no_session");
    let wrap = format!(r#"{{"method":"wrap_dm","params":{{"recipientPubkey":"{OTHER_PUBLIC}","message":"x"}}}}"#);
    assert_eq!(host.reply(&runtime, &wrap)["code"], "forbidden", "an agent has written a direct message");
    let wrapped = host.reply("/run/nostr/signer.sock", &wrap);
    assert_eq!(wrapped["events"].as_array().map(Vec::len), Some(2), "{wrapped}");
    // Once more is nothing more.
    let again = host.adopted("--apply");
    assert!(!again.contains("done:"), "{again}");
    // The runtime directory goes with the last session, and comes back with the link.
    host.machine.good(&format!("systemctl stop user@{0}.service user-runtime-dir@{0}.service", host.uid));
    host.machine.good(&format!("systemctl start user@{}.service", host.uid));
    assert_eq!(host.pubkey(&runtime), PUBLIC_KEY);

    let said = host.adopted("--undo");
    assert!(said.contains(PUBLIC_KEY), "{said}");
    assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));
    assert!(host.machine.is(&host.as_user("systemctl --user is-enabled --quiet nostr-signer")));
    assert!(!host.machine.is("systemctl is-active --quiet nsecd.service nsecd.socket"));
    // The reference daemon signs anything.
    event::signed(&host.sign(&runtime, 0), PUBLIC_KEY);
    let ours = |line: &String| {
        !["/credstore.encrypted", "/run/nostr", "/run/nsecd", "/var/lib/nsecd", "/var/log/nsecd"]
            .iter()
            .any(|p| line.contains(p))
    };
    let rest = |lines: Vec<String>| lines.into_iter().filter(ours).collect::<Vec<_>>();
    assert_eq!(rest(host.files()), rest(before), "not as it was");
    assert_eq!(host.adopt("--undo").0, 1, "there is nothing more to undo");
}

#[test]
fn an_edited_configuration_is_kept_and_a_removed_key_comes_back() {
    if no_machine() {
        return;
    }
    let host = Host::new(23_442);
    host.key("nostr:business", OTHER);
    host.user("systemctl --user restart nostr-signer");
    host.machine.until(&host.as_user("nsecctl pubkey"));
    host.machine.good("echo '# mine' >>/etc/nsecd/nsecd.toml");
    let before = host.machine.good("cat /etc/nsecd/nsecd.toml");
    let (code, said) = host.adopt("--apply --shared");
    assert!(code == 1 && said.contains("--replace"), "{said}");
    assert_eq!(host.machine.good("cat /etc/nsecd/nsecd.toml"), before);
    assert!(host.machine.good("cat /etc/nsecd/nsecd.toml.adopted").contains("[[socket]]"));
    assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));

    host.adopted("--apply --shared --replace --remove-key");
    let profile = host.machine.good("nsecd --profile nanoclaw --print-config");
    for key in ["kinds", "tokenless", "methods", "tokenless_on_limit"] {
        let socket = profile.split("[[socket]]").nth(1).unwrap();
        let line = socket.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        let there = host.machine.is(&format!("grep -qxF '{line}' /etc/nsecd/nsecd.toml"));
        assert!(there, "the shared socket is not the profile's: {line}");
    }
    let runtime = format!("/run/user/{}/nostr-signer.sock", host.uid);
    for socket in [runtime.as_str(), "/run/nostr/signer.sock"] {
        assert_eq!(host.pubkey(socket), PUBLIC_KEY);
        let business = host.reply(socket, r#"{"method":"get_public_key","params":{"account":"business"}}"#);
        assert_eq!(business["pubkey"], OTHER_PUBLIC);
    }
    let keys = host.user("keyctl list @u || true");
    assert!(!keys.contains("nsec") && !keys.contains("nostr:"), "{keys}");

    host.adopted("--undo");
    assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));
    let keys = host.user("keyctl list @u");
    assert!(keys.contains("user: nsec") && keys.contains("user: nostr:business"), "{keys}");
    assert_eq!(host.machine.good("cat /etc/nsecd/nsecd.toml"), before);
}

/// The blocks of this language in docs/migrating-from-nostr-signer.md.
fn written(language: &str) -> Vec<String> {
    let document = include_str!("../../docs/migrating-from-nostr-signer.md");
    let begin = format!("\n```{language}\n");
    document.split(&begin).skip(1).map(|part| part.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_way_by_hand_leads_to_the_same_and_back() {
    if no_machine() {
        return;
    }
    let host = Host::new(23_443);
    let blocks = written("sh");
    let [user, key, sockets, start, back] = blocks.as_slice() else { panic!("{blocks:?}") };
    let user = user.replace("U=nanoclaw", "U=nora");
    let by_hand =
        |block: &str| host.machine.good(&format!("exec 2>&1; set -e; {user}\n{}", block.replace("=auto", "=host")));
    by_hand(key);
    by_hand(sockets);
    let config = written("toml").remove(0);
    host.machine.good(&format!("cat >/etc/nsecd/nsecd.toml <<'END'\n{config}\nEND"));
    by_hand(start);
    assert_eq!(host.reference(), None);
    let runtime = format!("/run/user/{}/nostr-signer.sock", host.uid);
    event::signed(&host.sign(&runtime, 1), PUBLIC_KEY);
    let wrap = format!(r#"{{"method":"wrap_dm","params":{{"recipientPubkey":"{OTHER_PUBLIC}","message":"x"}}}}"#);
    assert_eq!(host.reply(&runtime, &wrap)["code"], "forbidden");
    assert!(host.reply("/run/nostr/signer.sock", &wrap)["events"].is_array());
    by_hand(back);
    host.machine.until(&host.as_user("nsecctl pubkey"));
    assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));
}
