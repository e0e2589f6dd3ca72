//! A request's text into a typed call: which method, with which parameters.
//!
//! Knows types, never rights: whether a call is allowed is [`policy`](crate::policy)'s question. Parameters that are no
//! object hold no fields; for optional ones null counts as absent, for `account`, `scope` and `ttl` "" as well.

use crate::event::Draft;
use crate::json::{self, Object, Value};
use crate::reply::{Code, Error};

/// Characters of an unknown method's name that the error repeats.
const METHOD_SHOWN: usize = 100;
/// Kinds that a scope may list.
const MAX_SCOPE: usize = 1024;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The method, with its parameters.
    pub method: Method,
    /// `session_token`.
    pub token: Token,
    /// `account`; `None`: absent, null or "".
    pub account: Option<String>,
}

/// The method, with its own parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// get_public_key
    GetPublicKey,
    /// list_accounts
    ListAccounts,
    /// session_start
    SessionStart {
        /// Kinds in the order given, each once; `None`: the default.
        scope: Option<Vec<u16>>,
        /// Seconds, at least 1; `None`: the default.
        ttl: Option<u64>,
    },
    /// session_info of this token
    SessionInfo(String),
    /// session_revoke of this token
    SessionRevoke(String),
    /// sign_event
    SignEvent(Draft),
    /// One that needs a key agreement, its required fields present; the rest of them is [`errand`](crate::errand)'s.
    Crypto {
        /// Which.
        method: Crypto,
        /// Its fields.
        fields: Object,
        /// Bytes of the whole request.
        size: usize,
    },
}

/// The methods that need a key agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// nip44_encrypt
    Nip44Encrypt,
    /// nip44_decrypt
    Nip44Decrypt,
    /// nip04_encrypt
    Nip04Encrypt,
    /// nip04_decrypt
    Nip04Decrypt,
    /// wrap_dm
    WrapDm,
    /// unwrap_gift_wrap
    UnwrapGiftWrap,
}

/// A `session_token` parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Absent or null.
    None,
    /// A string that may be a token.
    Given(String),
    /// Anything else, "" included: never read as "no token".
    Malformed,
}

impl Call {
    /// Bytes of memory that it holds, roughly.
    pub fn weight(&self) -> usize {
        match &self.method {
            Method::SignEvent(draft) => draft.weight(),
            Method::Crypto { size, .. } => 2 * size,
            _ => size_of::<Call>(),
        }
    }
}

impl Method {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Method::GetPublicKey => "get_public_key",
            Method::ListAccounts => "list_accounts",
            Method::SessionStart { .. } => "session_start",
            Method::SessionInfo(_) => "session_info",
            Method::SessionRevoke(_) => "session_revoke",
            Method::SignEvent(_) => "sign_event",
            Method::Crypto { method, .. } => method.name(),
        }
    }
}

impl Crypto {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Crypto::Nip44Encrypt => "nip44_encrypt",
            Crypto::Nip44Decrypt => "nip44_decrypt",
            Crypto::Nip04Encrypt => "nip04_encrypt",
            Crypto::Nip04Decrypt => "nip04_decrypt",
            Crypto::WrapDm => "wrap_dm",
            Crypto::UnwrapGiftWrap => "unwrap_gift_wrap",
        }
    }

    /// A failure in the shape and with the prefix that this method's clients know.
    pub fn failure(self, code: Code, why: &str) -> Error {
        let prefix = match self {
            Crypto::WrapDm => "Wrap",
            Crypto::UnwrapGiftWrap => "Unwrap",
            other => other.name(),
        };
        let mut error = Error::new(code, format!("{prefix} failed: {why}"));
        error.null_result = matches!(self, Crypto::Nip44Encrypt | Crypto::Nip44Decrypt);
        error
    }

    /// The required fields, in the order they are asked for; each under any of its names.
    fn required(self) -> &'static [&'static [&'static str]] {
        match self {
            Crypto::Nip44Encrypt => &[&["plaintext"], &["peer_pubkey"]],
            Crypto::Nip44Decrypt => &[&["ciphertext"], &["peer_pubkey"]],
            Crypto::Nip04Encrypt => &[&["plaintext", "message"], &["recipientPubkey", "peer_pubkey"]],
            Crypto::Nip04Decrypt => &[&["ciphertext", "content"], &["senderPubkey", "peer_pubkey"]],
            Crypto::WrapDm => &[&["recipientPubkey"]],
            Crypto::UnwrapGiftWrap => &[&["event"]],
        }
    }
}

/// Parses one request. The error is a `bad_request` whose text names the field and what it must be.
pub fn parse(text: &[u8]) -> Result<Call, Error> {
    let bad = |text: String| Error::new(Code::BadRequest, text);
    let mut request = json::parse(text).map_err(|e| bad(format!("Parse error: {e}")))?;
    let name = match request.take("method") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(bad(unknown(&serde_json::to_string(&other).unwrap_or_default()))),
        None => return Err(bad(unknown("undefined"))),
    };
    let mut params = match request.take("params") {
        Some(Value::Object(params)) => params,
        _ => Object::default(),
    };
    let method = method(&name, &mut params, text.len()).map_err(bad)?;
    let token = match params.take("session_token") {
        None | Some(Value::Null) => Token::None,
        Some(Value::String(token)) if !token.is_empty() => Token::Given(token),
        Some(_) => Token::Malformed,
    };
    let account = match params.take("account") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name).filter(|name| !name.is_empty()),
        Some(_) => return Err(bad("Invalid account: must be a string".to_owned())),
    };
    Ok(Call { method, token, account })
}

fn method(name: &str, params: &mut Object, size: usize) -> Result<Method, String> {
    Ok(match name {
        "get_public_key" => Method::GetPublicKey,
        "list_accounts" => Method::ListAccounts,
        "session_start" => Method::SessionStart { scope: scope(params.take("scope"))?, ttl: ttl(params.take("ttl"))? },
        "session_info" => Method::SessionInfo(token(params.take("token"))?),
        "session_revoke" => Method::SessionRevoke(token(params.take("token"))?),
        "sign_event" => Method::SignEvent(Draft::from_params(params)?),
        "nip44_encrypt" => crypto(Crypto::Nip44Encrypt, params, size)?,
        "nip44_decrypt" => crypto(Crypto::Nip44Decrypt, params, size)?,
        "nip04_encrypt" => crypto(Crypto::Nip04Encrypt, params, size)?,
        "nip04_decrypt" => crypto(Crypto::Nip04Decrypt, params, size)?,
        "wrap_dm" => crypto(Crypto::WrapDm, params, size)?,
        "unwrap_gift_wrap" => crypto(Crypto::UnwrapGiftWrap, params, size)?,
        other => return Err(unknown(other)),
    })
}

fn unknown(name: &str) -> String {
    let mut shown: String = name.chars().take(METHOD_SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    format!("Unknown method: {shown}")
}

fn crypto(method: Crypto, params: &mut Object, size: usize) -> Result<Method, String> {
    let given = |field: &&str| match params.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    match method.required().iter().find(|names| !names.iter().any(given)) {
        Some(names) => Err(format!("Missing required field: {}", names[0])),
        // An empty message is a message.
        None if method == Crypto::WrapDm && params.get("message").is_none() => {
            Err("Missing required field: message".to_owned())
        }
        None => Ok(Method::Crypto { method, fields: fields(params), size }),
    }
}

/// All but what every method may have, which is taken later.
fn fields(params: &mut Object) -> Object {
    let common = ["session_token", "account"].map(|name| (name, params.take(name)));
    let fields = std::mem::take(params);
    for (name, value) in common {
        params.put(name, value);
    }
    fields
}

fn token(value: Option<Value>) -> Result<String, String> {
    match value {
        Some(Value::String(token)) if !token.is_empty() => Ok(token),
        None | Some(Value::Null | Value::String(_)) => Err("Missing required field: token".to_owned()),
        Some(_) => Err("Invalid token: must be a string".to_owned()),
    }
}

/// Kinds in the order given, each once; `None`: the default.
pub(crate) fn scope(value: Option<Value>) -> Result<Option<Vec<u16>>, String> {
    let what = || "Invalid scope: must be a string of event kinds from 0 to 65535 like \"1,1111\"".to_owned();
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(what()),
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut kinds = Vec::new();
    for item in text.split(',') {
        let kind = digits(item.trim_matches([' ', '\t', '\r', '\n'])).and_then(|kind| u16::try_from(kind).ok());
        let kind = kind.ok_or_else(what)?;
        if seen.insert(kind) {
            kinds.push(kind);
        }
        if kinds.len() > MAX_SCOPE {
            return Err(format!("Invalid scope: more than {MAX_SCOPE} kinds"));
        }
    }
    Ok(Some(kinds))
}

/// Seconds, at least 1; `None`: the default.
pub(crate) fn ttl(value: Option<Value>) -> Result<Option<u64>, String> {
    match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => digits(&text),
        Some(Value::Unsigned(seconds)) => Some(seconds),
        Some(_) => None,
    }
    .filter(|&seconds| seconds > 0)
    .map(Some)
    .ok_or_else(|| "Invalid ttl: must be a whole number of seconds, at least 1".to_owned())
}

/// A plain decimal number, no sign, no blank, no leading zero; one too large for any ceiling stays too large.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).expect_err("this must be refused").text
    }

    fn start(params: &str) -> Result<Method, String> {
        parse(format!("{{\"method\":\"session_start\",\"params\":{params}}}").as_bytes())
            .map(|c| c.method)
            .map_err(|e| e.text)
    }

    #[test]
    fn unknown_methods_are_named_and_cut() {
        assert_eq!(error("{}"), "Unknown method: undefined");
        assert_eq!(error(r#"{"method":5}"#), "Unknown method: 5");
        assert_eq!(error(r#"{"method":true}"#), "Unknown method: true");
        assert_eq!(error(r#"{"method":{"toString":1}}"#), "Unknown method: {\"toString\":1}");
        assert_eq!(error(r#"{"method":""}"#), "Unknown method: ");
        assert_eq!(error(r#"{"__proto__":{"method":"get_public_key"}}"#), "Unknown method: undefined");
        assert_eq!(
            error(&format!(r#"{{"method":"{}"}}"#, "é".repeat(101))),
            format!("Unknown method: {}…", "é".repeat(100))
        );
        assert_eq!(
            error(&format!(r#"{{"method":"{}"}}"#, "m".repeat(100))),
            format!("Unknown method: {}", "m".repeat(100))
        );
    }

    #[test]
    fn parameters_that_are_no_object_hold_no_fields() {
        for params in ["null", "\"x\"", "[1]", "true", "5"] {
            let text = format!(r#"{{"method":"sign_event","params":{params}}}"#);
            assert_eq!(error(&text), "Missing required field: kind");
        }
        assert!(parse(br#"{"jsonrpc":"2.0","id":7,"\u006dethod":"get_public_key","params":"zzz"}"#).is_ok());
    }

    #[test]
    fn a_token_is_never_read_as_absent() {
        let token = |value: &str| {
            parse(format!(r#"{{"method":"get_public_key","params":{{"session_token":{value}}}}}"#).as_bytes())
                .expect("a call")
                .token
        };
        assert_eq!(token("null"), Token::None);
        assert_eq!(token("\"ab\""), Token::Given("ab".into()));
        for value in ["\"\"", "0", "false", "5", "{}", "[]"] {
            assert_eq!(token(value), Token::Malformed, "{value}");
        }
    }

    #[test]
    fn a_scope_is_what_it_says_or_refused() {
        let scope = |text: &str| match start(&format!("{{\"scope\":{text}}}")) {
            Ok(Method::SessionStart { scope, .. }) => Ok(scope),
            Ok(_) => unreachable!(),
            Err(e) => Err(e),
        };
        assert_eq!(scope("\"1,7\""), Ok(Some(vec![1, 7])));
        assert_eq!(scope("\" 1 ,\\t7\\n\""), Ok(Some(vec![1, 7])));
        assert_eq!(scope("\"7,1,7,0,65535\""), Ok(Some(vec![7, 1, 0, 65535])));
        assert_eq!(scope("null"), Ok(None));
        assert_eq!(scope("\"\""), Ok(None));
        let refused = [
            "\"1,\"",
            "\",\"",
            "\"1,,2\"",
            "\" \"",
            "\"1,abc\"",
            "\"0x1\"",
            "\"1e3\"",
            "\"1.5\"",
            "\"-1\"",
            "\"+1\"",
            "\"Infinity\"",
            "\"1_000\"",
            "\"*\"",
            "\"all\"",
            "\"1;7\"",
            "\"65536\"",
            "\"9007199254740993\"",
            "\"01\"",
            "\"1 7\"",
            "\"１\"",
            "0",
            "1",
            "[1,7]",
            "[]",
            "{}",
            "true",
        ];
        for text in refused {
            assert!(scope(text).is_err_and(|e| e.starts_with("Invalid scope")), "{text}");
        }
        let many: Vec<String> = (0..1025).map(|k| k.to_string()).collect();
        assert!(scope(&format!("\"{}\"", many.join(","))).is_err());
    }

    #[test]
    fn a_ttl_is_what_it_says_or_refused() {
        let ttl = |text: &str| match start(&format!("{{\"ttl\":{text}}}")) {
            Ok(Method::SessionStart { ttl, .. }) => Ok(ttl),
            Ok(_) => unreachable!(),
            Err(e) => Err(e),
        };
        assert_eq!(ttl("\"60\""), Ok(Some(60)));
        assert_eq!(ttl("60"), Ok(Some(60)));
        assert_eq!(ttl("null"), Ok(None));
        assert_eq!(ttl("\"\""), Ok(None));
        assert_eq!(ttl("\"99999999999999999999\""), Ok(Some(u64::MAX)));
        for text in [
            "0",
            "\"0\"",
            "\" 10\"",
            "\"1e9\"",
            "\"9e15\"",
            "\"abc\"",
            "\"Infinity\"",
            "-1",
            "1.5",
            "60.0",
            "true",
            "[]",
        ] {
            assert!(ttl(text).is_err_and(|e| e.starts_with("Invalid ttl")), "{text}");
        }
    }

    #[test]
    fn later_methods_ask_for_their_fields_now() {
        for (text, field) in [
            (r#"{"method":"unwrap_gift_wrap","params":{"event":""}}"#, "event"),
            (r#"{"method":"wrap_dm","params":{"message":"x"}}"#, "recipientPubkey"),
            (r#"{"method":"wrap_dm","params":{"recipientPubkey":"x"}}"#, "message"),
            (r#"{"method":"nip44_encrypt","params":{"plaintext":""}}"#, "plaintext"),
            (r#"{"method":"nip44_encrypt","params":{"plaintext":"x","peer_pubkey":""}}"#, "peer_pubkey"),
            (r#"{"method":"nip44_decrypt","params":{"peer_pubkey":"x"}}"#, "ciphertext"),
            (r#"{"method":"nip04_encrypt","params":{"message":"x"}}"#, "recipientPubkey"),
            (r#"{"method":"nip04_decrypt","params":{"senderPubkey":"x"}}"#, "ciphertext"),
            (r#"{"method":"session_info","params":{"token":""}}"#, "token"),
            (r#"{"method":"session_revoke"}"#, "token"),
        ] {
            assert_eq!(error(text), format!("Missing required field: {field}"));
        }
        let ok = br#"{"method":"wrap_dm","params":{"recipientPubkey":"x","message":""}}"#;
        let method = parse(ok).expect("a call").method;
        assert!(matches!(method, Method::Crypto { method: Crypto::WrapDm, size, .. } if size == ok.len()));
        let failure = Crypto::Nip44Encrypt.failure(Code::Unavailable, "x").line();
        assert_eq!(failure, r#"{"result":null,"error":"nip44_encrypt failed: x","code":"unavailable"}"#);
    }
}
