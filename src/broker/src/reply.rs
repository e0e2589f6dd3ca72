//! What clients read: one JSON line per request.
//!
//! Texts and field order are wire.md's, word for word; `code` is the word that programs go by. No reply carries a token
//! other than the one it grants, another session, or a path.

use std::fmt::Write;

use nsecd_policy::{Kinds, Limits};
use nsecd_trail::push_hex;

use crate::json::write_string;

/// Stable words for programs, in every error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is not what the method takes.
    BadRequest,
    /// The token names no session of this principal on this socket, or one is needed.
    NoSession,
    /// The session has ended; said once.
    Expired,
    /// A kind, time, TTL or scope outside what session or socket allow.
    OutOfScope,
    /// A window is full; `retry_after_ms` says when it is not.
    RateLimited,
    /// A rule on the whole event; `rule` names it.
    Rule,
    /// Method, account or peer that this socket does not serve.
    Forbidden,
    /// The operator has frozen the account.
    Frozen,
    /// More bytes than the socket takes.
    TooLarge,
    /// Not now, or not in this version.
    Unavailable,
}

impl Code {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::NoSession => "no_session",
            Code::Expired => "expired",
            Code::OutOfScope => "out_of_scope",
            Code::RateLimited => "rate_limited",
            Code::Rule => "rule",
            Code::Forbidden => "forbidden",
            Code::Frozen => "frozen",
            Code::TooLarge => "too_large",
            Code::Unavailable => "unavailable",
        }
    }
}

/// An error before it is a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// For programs.
    pub code: Code,
    /// For people.
    pub text: String,
    /// Rate errors: milliseconds until the same request can pass.
    pub retry_after_ms: Option<u64>,
    /// The rule on whole events that refuses, by its name.
    pub rule: Option<&'static str>,
    /// nip44's shape, with `"result":null` first.
    pub null_result: bool,
}

impl Error {
    /// An error in the usual shape.
    pub fn new(code: Code, text: impl Into<String>) -> Error {
        Error { code, text: text.into(), retry_after_ms: None, rule: None, null_result: false }
    }

    /// The line, without its newline.
    pub fn line(&self) -> String {
        let mut out = String::from(if self.null_result { "{\"result\":null,\"error\":" } else { "{\"error\":" });
        write_string(&mut out, &self.text);
        let _ = write!(out, ",\"code\":\"{}\"", self.code.word()); // writing to a String cannot fail
        if let Some(rule) = self.rule {
            let _ = write!(out, ",\"rule\":\"{rule}\"");
        }
        if let Some(ms) = self.retry_after_ms {
            let _ = write!(out, ",\"retry_after_ms\":{ms}");
        }
        out.push('}');
        out
    }
}

/// `[1,7]`, as error texts and replies list kinds.
pub fn kinds(list: &[u16]) -> String {
    let digits: Vec<String> = list.iter().map(u16::to_string).collect();
    format!("[{}]", digits.join(","))
}

/// `[1,7]` or `any kind`.
pub fn ceiling(kinds_: &Kinds) -> String {
    match kinds_ {
        Kinds::Any => "any kind".to_owned(),
        Kinds::List(list) => kinds(list),
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    nsecd_trail::hex(bytes)
}

/// get_public_key.
pub fn public_key(key: &str) -> String {
    format!("{{\"pubkey\":\"{key}\"}}")
}

/// list_accounts: name, public key, whether it is the default one.
pub fn accounts<'a>(list: impl Iterator<Item = (&'a str, &'a str, bool)>) -> String {
    let mut out = String::from("{\"accounts\":[");
    for (i, (name, key, default)) in list.enumerate() {
        out.push_str(if i == 0 { "{\"name\":" } else { ",{\"name\":" });
        write_string(&mut out, name);
        let _ = write!(out, ",\"pubkey\":\"{key}\",\"default\":{default}}}"); // writing to a String cannot fail
    }
    out.push_str("]}");
    out
}

/// session_start.
pub fn session(token: &str, expires_at: u64, allowed: &[u16]) -> String {
    format!("{{\"session\":{{\"token\":\"{token}\",\"expiresAt\":{expires_at},\"allowedKinds\":{}}}}}", kinds(allowed))
}

/// session_info of a token that names no session the asker may see.
pub const NO_SESSION_INFO: &str = "{\"session\":null,\"rateStats\":null}";

/// What session_info says of a session. Times in Unix milliseconds.
pub struct SessionInfo<'a> {
    /// Its scope.
    pub allowed: &'a [u16],
    /// When it was started.
    pub created_at: u64,
    /// When it ends.
    pub expires_at: u64,
    /// Signatures made.
    pub sign_count: u64,
    /// Whether it has ended.
    pub expired: bool,
}

/// How much of a session's windows is used.
pub struct RateStats<'a> {
    /// Slots used in the last 60 s.
    pub last_minute: usize,
    /// Slots used in the last 3600 s.
    pub last_hour: usize,
    /// The windows.
    pub limits: &'a Limits,
}

/// session_info; `stats` is `None` where nothing is limited.
pub fn session_info(session: &SessionInfo, stats: Option<RateStats>) -> String {
    let SessionInfo { allowed, created_at, expires_at, sign_count, expired } = *session;
    let stats = stats.map_or("null".to_owned(), |RateStats { last_minute, last_hour, limits }| {
        let Limits { burst, burst_window, per_minute, per_hour } = *limits;
        let burst_window = burst_window.saturating_mul(1000);
        format!(
            "{{\"lastMinute\":{last_minute},\"lastHour\":{last_hour},\"limits\":{{\"perMinute\":{per_minute},\"perHour\":{per_hour},\
             \"burstWindow\":{burst_window},\"burstMax\":{burst}}}}}"
        )
    });
    format!(
        "{{\"session\":{{\"allowedKinds\":{},\"createdAt\":{created_at},\"expiresAt\":{expires_at},\
         \"signCount\":{sign_count},\"expired\":{expired}}},\"rateStats\":{stats}}}",
        kinds(allowed)
    )
}

/// session_revoke.
pub fn revoked(yes: bool) -> String {
    format!("{{\"revoked\":{yes}}}")
}

/// sign_event: `unsigned` as [`Texts`](crate::event::Texts) has it.
pub fn signed(unsigned: &str, id: &[u8; 32], signature: &[u8; 64]) -> String {
    // With room for the newline.
    let mut out = String::with_capacity(unsigned.len() + 224);
    out.extend(["{\"event\":", unsigned, ",\"id\":\""]);
    push_hex(&mut out, id);
    out.push_str("\",\"sig\":\"");
    push_hex(&mut out, signature);
    out.push_str("\"}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_code_and_shape() {
        let mut error = Error::new(Code::RateLimited, "Rate limit: \"x\"");
        error.retry_after_ms = Some(5);
        assert_eq!(error.line(), r#"{"error":"Rate limit: \"x\"","code":"rate_limited","retry_after_ms":5}"#);
        let mut error = Error::new(Code::Unavailable, "nip44_encrypt failed: x");
        error.null_result = true;
        assert_eq!(error.line(), r#"{"result":null,"error":"nip44_encrypt failed: x","code":"unavailable"}"#);
    }

    #[test]
    fn accounts_say_which_is_the_default() {
        let list = [("default", "aa", true), ("b\"", "bb", false)];
        assert_eq!(
            accounts(list.into_iter()),
            r#"{"accounts":[{"name":"default","pubkey":"aa","default":true},{"name":"b\"","pubkey":"bb","default":false}]}"#
        );
    }
}
