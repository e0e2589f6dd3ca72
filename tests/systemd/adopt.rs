//! `nsecctl adopt` on a host that runs a stand-in for the reference daemon, as NanoClaw has it: a user's service, its key in @u.
//! One machine for all that adopt does, another for the way by hand. What fails in the middle is tried in memory
//! (src/ctl/src/adopt/tests).

use crate::support::machine::no_machine;
use crate::support::{Dir, KEY_HEX, KEY_NSEC, Machine, PUBLIC_KEY, event, missing};
use serde_json::Value;
use std::fs::{self, File};
use std::process::Command;

/// NIP-19's own example, another key.
const OTHER: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
const OTHER_PUBLIC: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

/// A machine with the package and the reference daemon of nora.
struct Host {
    machine: Machine,
    uid: u32,
    dir: Dir,
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
        let host = Host { machine, uid, dir: Dir::new(None) };
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

    /// Runs adopt; its exit code, and what it said. No program that it starts is shown a key, by its words or its environment.
    fn adopt(&self, options: &str) -> (i32, String) {
        let inside = self.machine.enter(&format!("nsecctl adopt --user nora --with-key host {options}"));
        let trace = self.dir.join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-v", "-s", "65536", "-e", "trace=execve", "-o"]).arg(&trace);
        let output = command.arg(inside.get_program()).args(inside.get_args()).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let shown = fs::read_to_string(&trace).unwrap();
        assert!(
            shown.contains("\"adopt\", \"--user\", \"nora\"") || shown.contains("nsecctl adopt --user nora"),
            "{shown}"
        );
        if said.contains("Adopted.") && !said.contains("as it was: encrypt") {
            assert!(shown.contains("--step=give:nsec") && shown.contains("\"systemd-creds\", \"encrypt\""), "{shown}");
        }
        for secret in [KEY_NSEC, KEY_HEX, OTHER] {
            assert!(!said.contains(secret), "a key is printed: {said}");
            assert!(!shown.contains(secret), "a key is an argument, or in an environment: {shown}");
        }
        (output.status.code().unwrap(), said)
    }

    /// Fails if a key lies anywhere in plain, in a file or in the journal.
    fn no_key_is_left(&self) {
        // /run/credentials is systemd's own, in memory: from there nsecd has its key. /usr/local has the stand-in, this test.
        let place = "/etc /home /root /run /tmp /var --exclude-dir=credentials";
        let found = |what: &str| {
            let files = self.machine.run(&format!("grep -rlaF -D skip {what} {place}"));
            let journal = self.machine.run(&format!("journalctl -a -o export | grep -aF {what}"));
            (String::from_utf8(files.stdout).unwrap(), journal.stdout.len())
        };
        let (files, journal) = found(PUBLIC_KEY);
        assert!(files.contains("/etc/nsecd/adopted-nora.json") && journal > 0, "nothing is found: {files}");
        for secret in [KEY_NSEC, KEY_HEX, OTHER] {
            assert_eq!(found(secret), (String::new(), 0), "a key in plain");
        }
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
    if no_machine() || missing("strace", "-V") {
        return;
    }
    let host = Host::new(23_441);
    as_nanoclaw_leaves_it(&host);
    edited_with_two_accounts_and_a_linked_unit(&host);
}

fn as_nanoclaw_leaves_it(host: &Host) {
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
    host.no_key_is_left();
    for path in ["/run/nostr/signer.sock", "/run/nostr/agents.sock"] {
        let tried = format!("doctor: ok       agent socket: {path} answers uid {}", host.uid);
        assert!(said.contains(&tried), "{said}");
    }
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
    assert_eq!(as_before(host.files()), as_before(before), "not as it was");
    assert_eq!(host.adopt("--undo").0, 1, "there is nothing more to undo");
}

/// Without what is nsecd's own, and stays.
fn as_before(lines: Vec<String>) -> Vec<String> {
    let ours = |line: &String| {
        ["/credstore.encrypted", "/run/nostr", "/run/nsecd", "/var/lib/nsecd", "/var/log/nsecd"]
            .iter()
            .any(|path| line.contains(path))
    };
    lines.into_iter().filter(|line| !ours(line)).collect()
}

/// After the above, on the same host.
fn edited_with_two_accounts_and_a_linked_unit(host: &Host) {
    host.key("nostr:business", OTHER);
    let unit = "/home/nora/nanoclaw/nostr-signer.service";
    host.user(&format!(
        "systemctl --user disable --now nostr-signer; mkdir nanoclaw; mv .config/systemd/user/nostr-signer.service {unit}; \
         systemctl --user enable --now {unit}"
    ));
    host.machine.until(&host.as_user("nsecctl pubkey"));
    host.machine.good("rm /etc/credstore.encrypted/nsec; chmod 640 /etc/nsecd/nsecd.toml");
    host.machine.good("echo '# mine' >>/etc/nsecd/nsecd.toml");
    let (all, before) = (host.files(), host.machine.good("cat /etc/nsecd/nsecd.toml"));
    let (code, said) = host.adopt("--apply --shared");
    assert!(code == 1 && said.contains("--replace"), "{said}");
    assert_eq!(host.machine.good("cat /etc/nsecd/nsecd.toml"), before);
    assert!(host.machine.good("cat /etc/nsecd/nsecd.toml.adopted").contains("[[socket]]"));
    assert_eq!(host.reference().as_deref(), Some(PUBLIC_KEY));

    host.machine.good("rm /etc/nsecd/nsecd.toml.adopted");
    host.adopted("--apply --shared --replace --remove-key");
    host.no_key_is_left();
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
    assert_eq!(as_before(host.files()), as_before(all), "not as it was");
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
