//! What the operator asks over the admin socket: a request's text into a typed order.
//!
//! Knows types, never rights: who may ask at all was decided when the connection was accepted. Unlike an agent's, a request
//! with a parameter that its method does not have is refused: what is misspelt would otherwise not hold.

use crate::event::Draft;
use crate::json::{self, Object, Value};
use crate::reply::{Code, Error};

/// Bytes of a request: room for the owner's longest notes and lists of contacts.
pub const MAX_REQUEST: usize = 256 * 1024;
/// Characters of a name that an error repeats.
const SHOWN: usize = 100;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// get_public_key
    GetPublicKey {
        /// Of this account; `None`: the default one.
        account: Option<String>,
    },
    /// list_accounts
    ListAccounts,
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
            Order::SignEvent { .. } => "sign_event",
        }
    }

    /// The account that it names.
    pub fn account(&self) -> Option<&str> {
        match self {
            Order::GetPublicKey { account } | Order::SignEvent { account, .. } => account.as_deref(),
            Order::ListAccounts => None,
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
        "sign_event" => Order::SignEvent { draft: Draft::from_params(params)?, account: optional(params, "account")? },
        other => return Err(format!("Unknown method: {}", cut(other))),
    })
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
