//! The journal: whatever is in the file, its reader ends, gives no session more than its rows do, forgets no slot that they
//! take, and what is written of the result is read as the same.
//!
//! Input: a byte of choices, then the file; with the first bit set each line gets its checksum, but for those that begin with `!`.

use std::collections::{BTreeMap, HashMap};

use nsecd_broker::clock::Now;
use nsecd_broker::ledger::Ledger;
use nsecd_broker::limits::HOUR;
use nsecd_broker::principal::Principal;
use nsecd_broker::replay::{Found, open, replay};
use nsecd_broker::row::{Open, Row};
use nsecd_broker::session::{Session, Terms, TokenHash};
use nsecd_policy::{
    Account, Bind, CryptLimits, DmLimits, Kinds, Limits, Method, Policy, Record, Socket, StartSessions,
};
use sha2::{Digest, Sha256};

use super::{KEY, hex};
use crate::scratch;
use crate::subject;

const NOW: Now = Now { boot: 10_000_000, wall: 1_800_000_000_000 };

pub fn run(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else { return };
    let file = if choices & 1 == 1 { summed(rest) } else { rest.to_vec() };
    let policy = policy(*choices);
    let (ledger, found) = read(&subject::journal(&file), &policy);
    let rows = Rows::of(&file);
    assert_eq!(found.size, file.len() as u64);
    for hash in ledger.sessions().by_last_use() {
        let session = ledger.sessions().get(&hash).unwrap();
        rows.granted(&hash, session, &policy);
        assert!(session.terms.parent.is_none_or(|parent| ledger.sessions().get(&parent).is_some()), "an orphan");
    }
    rows.remembered(&ledger, &policy);

    // A snapshot of it is the same again, and nothing in it is found wrong.
    let snapshot = snapshot(&ledger, &policy);
    let (again, found) = read(snapshot.concat().as_bytes(), &policy);
    assert_eq!((found.torn, found.damaged, found.ended, found.rebooted), (0, 0, 0, false));
    let (mut before, mut after) = (snapshot, self::snapshot(&again, &policy));
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
}

/// The lines, each with its checksum.
fn summed(lines: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match text.split_first() {
            None => {}
            Some((b'!', damaged)) => file.extend_from_slice(damaged),
            Some(_) => {
                file.extend(format!("{} ", hex(&Sha256::digest(text)[..4])).bytes());
                file.extend_from_slice(text);
            }
        }
        file.extend_from_slice(&line[text.len()..]);
    }
    file
}

fn read(file: &[u8], policy: &Policy) -> (Ledger, Found) {
    let mut ledger = Ledger::new(policy);
    let found = replay(&scratch::appended(file), policy, &mut ledger, NOW).unwrap();
    (ledger, found)
}

/// What a replacement of the journal writes.
fn snapshot(ledger: &Ledger, policy: &Policy) -> Vec<String> {
    let rows = ledger.pieces().into_iter().filter_map(|piece| ledger.row(piece));
    std::iter::once(Row::Open(open(policy, NOW))).chain(rows).map(|row| row.line()).collect()
}

/// The good rows of a file, each with the number of its line and what its numbers mean.
struct Rows<'a> {
    lines: Vec<&'a [u8]>,
    good: Vec<(usize, Row, Open)>,
}

impl Rows<'_> {
    fn of(file: &[u8]) -> Rows<'_> {
        let lines: Vec<&[u8]> = file.split(|b| *b == b'\n').collect();
        let (mut good, mut names) = (Vec::new(), None);
        for (at, row) in lines.iter().enumerate().filter_map(|(at, line)| Some((at, Row::parse(line)?))) {
            match &row {
                Row::Open(open) if open.version == 1 => names = Some(open.clone()),
                Row::Open(_) => continue,
                _ => {}
            }
            good.extend(names.clone().map(|names| (at, row, names)));
        }
        Rows { lines, good }
    }

    /// A session that lives was granted, no less than it has, by the last row that files it; and nothing has ended it.
    fn granted(&self, hash: &TokenHash, session: &Session, policy: &Policy) {
        let files = |row: &Row| match row {
            Row::Start(terms) => Some(terms.clone()),
            Row::Session(of) => Some(of.terms.clone()),
            _ => None,
        };
        let of_it = |row: &Row| files(row).filter(|terms| terms.token == *hash);
        let mut filed = self.good.iter().filter_map(|(at, row, names)| Some((*at, of_it(row)?, names)));
        // A row about a socket that is no more files nothing.
        let known = |names: &Open, terms: &Terms| socket(names, terms.starter.socket, policy).is_some();
        let (line, terms, names) = filed.rfind(|(_, terms, names)| known(names, terms)).expect("a row that files it");
        let (ours, own) = (&session.terms, &policy.sockets[usize::from(session.terms.starter.socket)]);
        assert_eq!(socket(names, terms.starter.socket, policy), Some(ours.starter.socket));
        assert_eq!((terms.starter.uid, terms.starter.cgroup), (ours.starter.uid, ours.starter.cgroup));
        let owner = |terms: &Terms| terms.owner.map(|owner| (owner.uid, owner.cgroup));
        assert!(terms.owner.is_none() || owner(&terms) == owner(ours), "an owner is for good");
        let account = &policy.accounts[ours.account];
        assert_eq!(names.accounts[terms.account], (account.name.clone(), account.public_key.clone()));
        assert!(own.accounts.contains(&account.name));
        assert!(!ours.scope.is_empty());
        assert!(ours.scope.iter().all(|kind| terms.scope.contains(kind) && own.kinds.contains(*kind)));
        assert_eq!((ours.started, ours.parent), (terms.started, terms.parent));
        // By both clocks no longer than it was granted, nor than its socket grants now; one that was narrowed from another, no longer than that.
        let longest = own.max_ttl * 1000;
        let ends = terms.ends.boot.min(ours.started.boot.saturating_add(longest));
        assert!(ours.ends.boot == ends || ours.parent.is_some() && ours.ends.boot < ends);
        assert!(ours.ends.wall <= terms.ends.wall);
        assert!(ours.ends.wall <= ours.started.wall.saturating_add(longest));
        let later = || self.good.iter().filter(|(at, ..)| *at > line);
        assert!(!later().any(|(_, row, _)| *row == Row::End(*hash)), "it had ended");
        let boots = later().map(|(_, _, names)| names).chain([names]);
        assert!({ boots }.all(|names| names.boot == policy.boot_id), "a boot had ended it");
        assert!(!self.is_damaged_after(line), "what ended it may be missing");
    }

    /// Whether a line after this one is no row, other than one that the end of a broker has cut short.
    fn is_damaged_after(&self, line: usize) -> bool {
        let (mut bad, mut whole) = (0, false);
        for (at, text) in self.lines.iter().enumerate().skip(line + 1).filter(|(at, text)| *at > 0 || !text.is_empty())
        {
            match self.good.iter().find(|(good, ..)| *good == at) {
                _ if text.is_empty() => whole = true,
                Some((_, Row::Open(_), _)) if bad == 0 || (bad == 1 && !whole) => bad = 0,
                Some(_) if bad == 0 => {}
                Some(_) => return true,
                None => (bad, whole) = (bad + 1, false),
            }
        }
        bad > 1 || (bad == 1 && whole)
    }

    /// In a file without damage, of one boot, without snapshots and without clocks that go back, the slots that are counted
    /// are those that were taken and not given back.
    fn remembered(&self, ledger: &Ledger, policy: &Policy) {
        let (mut taken, mut last) = (BTreeMap::<Principal, Vec<u64>>::new(), 0);
        if self.good.len() != self.lines.iter().filter(|line| !line.is_empty()).count() {
            return;
        }
        for (_, row, names) in &self.good {
            let at = match row {
                Row::Open(open) if open.boot == policy.boot_id => open.now.boot,
                Row::Start(terms) => terms.started.boot,
                Row::Sign(slot) => slot.at.boot,
                Row::Spend(spent) => spent.at.boot,
                Row::Free(_) | Row::Return(_) | Row::End(_) => last,
                _ => return,
            };
            if at < last {
                return;
            }
            last = at;
            let (Row::Sign(slot) | Row::Free(slot)) = row else { continue };
            let Some(number) = socket(names, slot.who.socket, policy) else { continue };
            let times = taken.entry(Principal { socket: number, ..slot.who }).or_default();
            match row {
                Row::Sign(_) => times.push(slot.at.boot),
                _ => {
                    let at = times.iter().position(|time| *time == slot.at.boot);
                    times.splice(at.map_or(0..0, |at| at..at + 1), []);
                }
            }
        }
        for (who, times) in taken {
            let limited = policy.sockets[usize::from(who.socket)].limits.is_some();
            let counted = times.iter().filter(|time| limited && last - **time < HOUR).count();
            assert_eq!(ledger.meters(who).signatures.used(HOUR, last), counted, "{who:?}");
        }
    }
}

/// This policy's number of the socket that had `number` when a row was written.
fn socket(names: &Open, number: u16, policy: &Policy) -> Option<u16> {
    let numbers: HashMap<&str, u16> = (0..).zip(&policy.sockets).map(|(i, s)| (s.path.as_str(), i)).collect();
    numbers.get(names.sockets.get(usize::from(number))?.as_str()).copied()
}

/// Two sockets and two accounts; `choices` decides what is limited, latched, and which boot it is.
fn policy(choices: u8) -> Policy {
    let bit = |n: u8| choices >> n & 1 == 1;
    let socket = |path: &str, accounts: &[&str]| Socket {
        path: path.into(),
        listener_fd: -1,
        alert_fd: -1,
        alert_size: 0,
        peer_uids: None,
        kinds: Kinds::List(vec![1, 7, 1111]),
        max_ttl: 3600,
        tokenless: Kinds::List(vec![1]),
        methods: vec![Method::SignEvent, Method::Dm, Method::Nip44],
        accounts: accounts.iter().map(|name| (*name).into()).collect(),
        start_sessions: if bit(1) { StartSessions::Once } else { StartSessions::Own },
        bind: Bind::FirstUse,
        on_limit_wait: 0,
        tokenless_on_limit_wait: 0,
        created_at: None,
        max_request: 65536,
        limits: (!bit(2)).then_some(Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 100 }),
        total: (!bit(3)).then_some(Limits { burst: 20, burst_window: 10, per_minute: 40, per_hour: 400 }),
        peers: None,
        rules: Vec::new(),
        dm: (!bit(4)).then_some(DmLimits {
            unwrap_burst: 9,
            unwrap_per_minute: 3,
            failed_per_minute: 3,
            wrap_per_minute: 3,
        }),
        crypt: (!bit(4)).then_some(CryptLimits { per_minute: 3, per_hour: 9 }),
        sessions_per_minute: 6,
        live_sessions: 8,
    };
    let account = |name: &str, public_key: &str| Account {
        name: name.into(),
        public_key: public_key.into(),
        gate_fd: -1,
        ceiling_period_ms: 1000,
        seal_ceiling_period_ms: None,
        kinds: Kinds::Any,
        ceiling: None,
        created_at: None,
        record: Record { name: name.into(), last: None, oldest: 1 },
    };
    Policy {
        accounts: vec![account("business", &"b".repeat(64)), account("default", KEY)],
        sockets: vec![socket("/run/a.sock", &["default"]), socket("/run/b.sock", &["business", "default"])],
        default_account: "default".into(),
        log_size: 1 << 20,
        log_keep: 1,
        decisions_fd: -1,
        decisions_previous_fd: None,
        ecdh_record: None,
        ecdh_fd: None,
        journal_fd: -1,
        admin_fd: -1,
        processes: Vec::new(),
        operator_uid: 0,
        boot_id: if bit(5) { "boot-2".into() } else { "boot-1".into() },
        syslog_fd: None,
        max_connections: 100,
        max_connections_per_principal: 10,
    }
}
