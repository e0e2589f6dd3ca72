//! What the operator asks over the admin socket: a request's text into a typed order.
//!
//! Knows types, never rights: who may ask at all was decided when the connection was accepted. Unlike an agent's, a request
//! with a parameter that its method does not have is refused: what is misspelt would otherwise not hold.

pub mod rules;

use nsecd_policy::rules::Rule;

use crate::event::Draft;
use crate::json::{self, Object, Value};
use crate::reply::{Code, Error};
use crate::request;

/// Bytes of a request: room for the owner's longest notes and lists of contacts.
pub const MAX_REQUEST: usize = 256 * 1024;
/// Characters of a name that an error repeats.
const SHOWN: usize = 100;

/// One request. Sockets and sessions are named as [`Engine`](crate::policy::Engine) reads names.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// get_public_key
    GetPublicKey {
        /// Of this account; `None`: the default one.
        account: Option<String>,
    },
    /// list_accounts
    ListAccounts,
    /// status
    Status,
    /// session_start
    SessionStart {
        /// For this socket.
        socket: String,
        /// Kinds; `None`: the default ones.
        scope: Option<Vec<u16>>,
        /// Seconds; `None`: the default.
        ttl: Option<u64>,
        /// The account's name; `None`: the default one.
        account: Option<String>,
        /// What its events must keep to beside the socket's rules.
        rules: Vec<Rule>,
    },
    /// session_list
    SessionList {
        /// Of this socket; `None`: of all.
        socket: Option<String>,
    },
    /// session_info
    SessionInfo {
        /// Its name.
        session: String,
    },
    /// session_revoke
    SessionRevoke {
        /// Its name.
        session: String,
    },
    /// sign_event
    SignEvent {
        /// The event.
        draft: Draft,
        /// With this account's key; `None`: the default one's.
        account: Option<String>,
    },
}

impl Order {
    /// The method's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Order::GetPublicKey { .. } => "get_public_key",
            Order::ListAccounts => "list_accounts",
            Order::Status => "status",
            Order::SessionStart { .. } => "session_start",
            Order::SessionList { .. } => "session_list",
            Order::SessionInfo { .. } => "session_info",
            Order::SessionRevoke { .. } => "session_revoke",
            Order::SignEvent { .. } => "sign_event",
        }
    }

    /// The account that it names.
    pub fn account(&self) -> Option<&str> {
        match self {
            Order::GetPublicKey { account }
            | Order::SessionStart { account, .. }
            | Order::SignEvent { account, .. } => account.as_deref(),
            _ => None,
        }
    }
}

/// Parses one request. The error is a `bad_request` whose text names what is wrong.
pub fn parse(text: &[u8]) -> Result<Order, Error> {
    let bad = |text: String| Error::new(Code::BadRequest, text);
    let mut request = json::parse(text).map_err(|e| bad(format!("Parse error: {e}")))?;
    let name = match request.take("method") {
        Some(Value::String(name)) => name,
        _ => return Err(bad("Missing required field: method".to_owned())),
    };
    let mut params = match request.take("params") {
        None | Some(Value::Null) => Object::default(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(bad("Invalid params: must be an object".to_owned())),
    };
    let order = order(&name, &mut params).map_err(bad)?;
    match params.first().or(request.first()) {
        None => Ok(order),
        Some(other) => Err(bad(format!("Unknown parameter of {name}: {}", cut(other)))),
    }
}

fn order(name: &str, params: &mut Object) -> Result<Order, String> {
    Ok(match name {
        "get_public_key" => Order::GetPublicKey { account: optional(params, "account")? },
        "list_accounts" => Order::ListAccounts,
        "status" => Order::Status,
        "session_start" => Order::SessionStart {
            socket: required(params, "socket")?,
            scope: request::scope(params.take("scope"))?,
            ttl: request::ttl(params.take("ttl"))?,
            account: optional(params, "account")?,
            rules: match params.take("rules") {
                None | Some(Value::Null) => Vec::new(),
                Some(value) => rules::read(value)?,
            },
        },
        "session_list" => Order::SessionList { socket: optional(params, "socket")? },
        "session_info" => Order::SessionInfo { session: required(params, "session")? },
        "session_revoke" => Order::SessionRevoke { session: required(params, "session")? },
        "sign_event" => Order::SignEvent { draft: Draft::from_params(params)?, account: optional(params, "account")? },
        other => return Err(format!("Unknown method: {}", cut(other))),
    })
}

/// A string that must be there.
fn required(params: &mut Object, field: &str) -> Result<String, String> {
    optional(params, field)?.ok_or_else(|| format!("Missing required field: {field}"))
}

/// A string that may be absent, null or "".
fn optional(params: &mut Object, field: &str) -> Result<Option<String>, String> {
    match params.take(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("Invalid {field}: must be a string")),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
