//! What a line of the decision log says.
//!
//! Names of members and of variants are the format: see docs/records.md before one is changed.

use serde::{Deserialize, Serialize};

/// The format that a file's first line names.
pub const FORMAT: u32 = 1;

/// One line, but for its number, its times and its link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Entry {
    /// The first line of each file.
    File(File),
    /// A broker begins: what is open above it was cut off.
    Start(Start),
    /// The configuration was changed while the broker served.
    Reloaded(Reloaded),
    /// A key is about to be used: written before the gate or the ECDH holder is asked.
    Intent(Intent),
    /// What came of an intent.
    Outcome(Outcome),
    /// A decision for which nobody was asked.
    Decided(Decided),
    /// A session begins.
    SessionStarted(SessionStarted),
    /// A session has ended before its time, or its end was noticed.
    SessionEnded {
        /// The first 12 digits of its token's hash.
        session: String,
    },
    /// Decisions that have no line of their own, since there were too many.
    More(More),
    /// Lines that the disk did not take, while nothing was signed.
    Lost {
        /// How many.
        lines: u64,
    },
}

impl Entry {
    /// The numbers in it that others count on from.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let (own, records): (u64, &[Rows]) = match self {
            Entry::File(file) => (file.file, &file.records),
            Entry::Start(start) => (0, &start.records),
            Entry::Outcome(outcome) => (outcome.intent, &[]),
            _ => (0, &[]),
        };
        records.iter().flat_map(|rows| [rows.last.unwrap_or_default(), rows.oldest]).chain([own])
    }
}

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// [`FORMAT`].
    pub format: u32,
    /// Number of this file since the log began: 1, 2, …
    pub file: u64,
    /// Old files that are kept from here on (`log_keep`, at least 1).
    pub keep: u32,
    /// `chain` of the line before this one, in the file before: 64 zeros in the first file.
    pub prev: String,
    /// Rows that the records have according to the outcomes so far.
    pub records: Vec<Rows>,
}

/// A record, as far as it is known when a line is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Its file's name without `.record`.
    pub record: String,
    /// Sequence number of its last row; 0 before the first, `null` if no record is kept (`record = false`).
    pub last: Option<u64>,
    /// Sequence number of the oldest row that is still kept.
    pub oldest: u64,
    /// Whether a broker's end leaves nothing of it undone: a gate's. The ECDH holder goes on.
    pub settled: bool,
}

/// A broker's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// nsecd's version.
    pub version: String,
    /// The boot's random id (proc_sys_kernel(5)).
    pub boot_id: String,
    /// Accounts: name and public key.
    pub accounts: Vec<(String, String)>,
    /// The records now: no row after these was written for the brokers before, but the ECDH holder's.
    pub records: Vec<Rows>,
    /// Bytes of a line that was cut short, which this one follows; it is no line of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<u64>,
    /// Lines above that this broker could not read: it went on from the last one that it could.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

fn is_none_of(n: &u32) -> bool {
    *n == 0
}

/// A configuration that has come into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The uid that asked for it; none where a signal did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// SHA-256 of the configuration file, 64 digits.
    pub digest: String,
    /// Accounts from here on: name and public key.
    pub accounts: Vec<(String, String)>,
    /// The records now. Of one that is named for the first time the counting begins here.
    pub records: Vec<Rows>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Who asked for what. Names the principal: socket, uid, cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The method; `request` where none was understood, `connect` where nothing was read.
    pub method: String,
    /// Path of the socket.
    pub socket: String,
    /// Of the connecting process; `None` where only the socket is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Where the kernel tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// The first 12 digits of the hash of the token that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// A use of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Who wants it.
    #[serde(flatten)]
    pub asked: Asked,
    /// Of which account.
    pub account: String,
    /// In which record its row is to stand.
    pub record: String,
    /// The event's kind; of a key agreement the operation (1 NIP-44, 2 NIP-04, 3 a gift wrap's outer layer).
    pub kind: u32,
    /// The event's; 0 for a key agreement.
    pub created_at: u64,
    /// The event's id; of a key agreement the other's public key. 64 digits.
    pub id: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The intent's line number.
    pub intent: u64,
    /// Its record.
    pub record: String,
    /// The status that the gate or ECDH holder answered; `null`: it was not asked.
    pub status: Option<u8>,
    /// `done` or `refused`.
    pub verdict: String,
    /// Which rule refused: the status in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Whether a row stands behind an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOf {
    /// One does.
    One,
    /// None does.
    None,
    /// A status that this version does not know.
    Unknown,
}

impl Outcome {
    /// No status of a gate's or the ECDH holder's: it does not answer, and is not waited for any longer. It may do the work later.
    pub const NO_ANSWER: u8 = 255;

    /// For this status; `None`: nobody was asked, since the intent's line could not be written.
    pub fn new(intent: u64, record: &str, status: Option<u8>) -> Outcome {
        let Said { verdict, rule, .. } = Said::of(status);
        let (record, verdict, rule) = (record.to_owned(), verdict.to_owned(), rule.map(str::to_owned));
        Outcome { intent, record, status, verdict, rule }
    }

    /// Whether a row stands behind it.
    pub fn row(&self) -> RowOf {
        Said::of(self.status).row()
    }
}

/// What a status means, in the words of an outcome.
pub struct Said {
    status: Option<u8>,
    /// `done` or `refused`.
    pub verdict: &'static str,
    /// Which rule refused.
    pub rule: Option<&'static str>,
}

impl Said {
    /// Of this status; `None`: nobody was asked.
    pub fn of(status: Option<u8>) -> Said {
        let rule = match status {
            Some(0) => None,
            Some(1) => Some("ceiling"),
            Some(2) => Some("not_recorded"),
            Some(3) => Some("not_allowed"),
            Some(4) => Some("frozen"),
            Some(5) => Some("malformed"),
            Some(6) => Some("created_at"),
            Some(7) => Some("fault"),
            Some(Outcome::NO_ANSWER) => Some("no_answer"),
            Some(_) => Some("unknown"),
            None => Some("not_logged"),
        };
        Said { status, verdict: if status == Some(0) { "done" } else { "refused" }, rule }
    }

    /// The row comes last before the key: 0 and 7 (a signature that failed its verification) have one.
    pub fn row(&self) -> RowOf {
        match self.status {
            Some(0 | 7) => RowOf::One,
            Some(1..=6) | None => RowOf::None,
            Some(_) => RowOf::Unknown,
        }
    }
}

/// A decision of the broker's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Who asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// The account that was named, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The event's kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<u16>,
    /// `refused` or `done`.
    pub verdict: String,
    /// The rule, in the error codes of docs/wire.md; `foreign_session` and `forged` besides.
    pub rule: String,
    /// The reason in words, escaped and cut.
    pub why: String,
}

/// A session as it was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// By whom; its `session` is the one that this one narrows.
    #[serde(flatten)]
    pub asked: Asked,
    /// Path of the socket that the operator issued it for; none: the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Rules that the operator gave it.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub rules: u32,
    /// The first 12 digits of the new token's hash.
    pub started: String,
    /// Its account.
    pub account: String,
    /// Its kinds.
    pub scope: Vec<u16>,
    /// When it ends, ms since 1970.
    pub ends_ms: u64,
}

/// Decisions on one socket that were counted instead of written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// Path of the socket.
    pub socket: String,
    /// Since when, ms since 1970.
    pub since_ms: u64,
    /// By principal, method and rule; what is beyond a few dozen of them has no principal and the method `other`.
    pub counts: Vec<Count>,
}

/// So many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Of the connecting process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// The method.
    pub method: String,
    /// The rule.
    pub rule: String,
    /// How many.
    pub count: u64,
}
