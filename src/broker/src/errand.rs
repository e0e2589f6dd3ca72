//! The methods that need a key agreement, each a chain of steps: what is asked of the ECDH holder, what of the gate, and
//! what comes of their answers.
//!
//! ```text
//! nip44, nip04   text ──agreement──► reply
//! unwrap         wrap, verified ──agreement──► seal, verified ──agreement──► rumor, checked ──► reply
//! wrap           rumor ──agreement, gate, one-time wrap──► self copy ──the same──► recipient's copy ──► reply
//! ```
//! Pure: knows no socket, no limit and no clock but what it is given. Plaintext and keys are wiped when it is dropped.

use secp256k1::XOnlyPublicKey;
use zeroize::{Zeroize, Zeroizing};

use crate::agreement::{KEY, Op, Request};
use crate::event::Texts;
use crate::json::{Object, Value, write_string};
use crate::nostr::nip44::{MessageKeys, Payload};
use crate::nostr::nip59::{self, GiftWrap, Random as WrapRandom, Rumor, Seal, fuzzed};
use crate::nostr::{nip04, nip17, nip44, unhex};
use crate::reply::{Code, Error};
use crate::request::Crypto;

/// What an errand may know of its account, its socket and its time.
pub struct World<'a> {
    /// The account's public key, 64 hex digits.
    pub own: &'a str,
    /// Whom the socket may write to and read from.
    pub peers: Option<&'a [String]>,
    /// Seconds since 1970.
    pub now: u32,
    /// 32 random bytes at each call.
    pub random: &'a mut dyn FnMut() -> [u8; 32],
}

impl World<'_> {
    /// Whether this one may be written to and read from. Oneself always: the copy of what one has sent is one's own.
    fn allows(&self, key: &str) -> bool {
        key == self.own || self.peers.is_none_or(|peers| peers.iter().any(|peer| peer == key))
    }
}

/// What is needed next.
pub enum Step {
    /// A key.
    Agree(Request),
    /// A signature of an event of kind 13.
    Sign(Texts),
    /// Nothing: this is the reply.
    Done(Zeroizing<String>),
}

/// Why it ends without a result.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the client reads.
    pub error: Error,
    /// Whether somebody speaks in another's name (threat A7).
    pub forged: bool,
}

/// An errand under way.
pub struct Errand {
    method: Crypto,
    state: State,
}

enum State {
    Encrypt44 { text: Zeroizing<String>, nonce: [u8; 32] },
    Decrypt44(Payload),
    Encrypt04 { text: Zeroizing<String>, iv: [u8; 16] },
    Decrypt04(nip04::Message),
    Unwrap(GiftWrap),
    Unseal(Seal),
    Seal(Box<Dm>, [u8; 32]),
    Signed(Box<Dm>, Texts),
}

/// A message on its way into two gift wraps.
struct Dm {
    rumor: Rumor,
    recipient: [u8; 32],
    /// The self copy, once it is done.
    own_copy: Option<String>,
}

impl Errand {
    /// Reads the fields of a request and takes the first step.
    ///
    /// # Errors
    /// A field of another type or form, a peer that is not allowed, or a gift wrap that does not verify.
    pub fn begin(method: Crypto, fields: &Object, world: &mut World) -> Result<(Errand, Step), Failure> {
        let mut fields = Fields { method, object: fields };
        let (state, request) = match method {
            Crypto::Nip44Encrypt => {
                let peer = fields.peer(&["peer_pubkey"], world)?;
                let (text, nonce) = (fields.text(&["plaintext"])?, (world.random)());
                if text.is_empty() || text.len() > nip44::MAX_PLAINTEXT {
                    return Err(fields.failure(&nip44::Error::PlaintextLength.to_string()));
                }
                (State::Encrypt44 { text, nonce }, Request { op: Op::Nip44, peer, nonce })
            }
            Crypto::Nip44Decrypt => {
                let peer = fields.peer(&["peer_pubkey"], world)?;
                let payload = Payload::parse(&fields.text(&["ciphertext"])?);
                let payload = payload.map_err(|e| fields.failure(&e.to_string()))?;
                let nonce = *payload.nonce();
                (State::Decrypt44(payload), Request { op: Op::Nip44, peer, nonce })
            }
            Crypto::Nip04Encrypt => {
                let peer = fields.peer(&["recipientPubkey", "peer_pubkey"], world)?;
                let text = fields.text(&["plaintext", "message"])?;
                let mut iv = [0; 16];
                iv.copy_from_slice(&(world.random)()[..16]);
                (State::Encrypt04 { text, iv }, Request { op: Op::Nip04, peer, nonce: [0; 32] })
            }
            Crypto::Nip04Decrypt => {
                let peer = fields.peer(&["senderPubkey", "peer_pubkey"], world)?;
                let message = nip04::Message::parse(&fields.text(&["ciphertext", "content"])?);
                let message = message.map_err(|e| fields.failure(&e.to_string()))?;
                (State::Decrypt04(message), Request { op: Op::Nip04, peer, nonce: [0; 32] })
            }
            Crypto::UnwrapGiftWrap => {
                let Some(Value::Object(event)) = fields.object.get("event") else {
                    return Err(fields.failure("event must be an object"));
                };
                let wrap = GiftWrap::verify(event.clone()).map_err(unwrapping)?;
                let request = Request { op: Op::GiftWrap, peer: *wrap.author(), nonce: *wrap.nonce() };
                (State::Unwrap(wrap), request)
            }
            Crypto::WrapDm => {
                let dm = Dm::new(&mut fields, world)?;
                let own = unhex(world.own).ok_or_else(|| fields.failure("the account has no public key"))?;
                let nonce = (world.random)();
                (State::Seal(Box::new(dm), nonce), Request { op: Op::Nip44, peer: own, nonce })
            }
        };
        Ok((Errand { method, state }, Step::Agree(request)))
    }

    /// The method.
    pub fn method(&self) -> Crypto {
        self.method
    }

    /// Goes on with the key that was asked for; `None` if nothing comes after the step.
    ///
    /// # Errors
    /// What was encrypted is not for this key, altered, or not from whom it says.
    pub fn agreed(self, key: Box<Zeroizing<[u8; KEY]>>, world: &mut World) -> Result<(Option<Errand>, Step), Failure> {
        let method = self.method;
        let failure = |why: String| Failure { error: method.failure(Code::BadRequest, &why), forged: false };
        let done = |parts: [&str; 3]| Ok((None, Step::Done(line(parts))));
        match self.state {
            State::Encrypt44 { text, nonce } => {
                let result =
                    nip44::encrypt(&text, &nonce, &MessageKeys::new(key)).map_err(|e| failure(e.to_string()))?;
                done(["{\"result\":", &result, ",\"error\":null}"])
            }
            State::Decrypt44(payload) => {
                let text = payload.open(&MessageKeys::new(key)).map_err(|e| failure(e.to_string()))?;
                done(["{\"result\":", &text, ",\"error\":null}"])
            }
            State::Encrypt04 { text, iv } => {
                let result = nip04::encrypt(&text, &iv, &shared(&key));
                done(["{\"ciphertext\":", &result, ",\"error\":null}"])
            }
            State::Decrypt04(message) => {
                let text = message.open(&shared(&key)).map_err(|e| failure(e.to_string()))?;
                done(["{\"plaintext\":", &text, ",\"error\":null}"])
            }
            State::Unwrap(wrap) => {
                let seal = wrap.open(&MessageKeys::new(key)).map_err(unwrapping)?;
                let author = crate::reply::hex(seal.author());
                if !world.allows(&author) {
                    let error = method.failure(Code::Forbidden, "this socket may not read from the sender");
                    return Err(Failure { error, forged: false });
                }
                let request = Request { op: Op::Nip44, peer: *seal.author(), nonce: *seal.nonce() };
                Ok((Some(Errand { method, state: State::Unseal(seal) }), Step::Agree(request)))
            }
            State::Unseal(seal) => {
                let rumor = seal.open(&MessageKeys::new(key)).map_err(unwrapping)?;
                let mut reply = Zeroizing::new(String::with_capacity(rumor.json().len() + 16));
                reply.extend(["{\"rumor\":", rumor.json(), "}"]);
                Ok((None, Step::Done(reply)))
            }
            State::Seal(dm, nonce) => {
                let created_at = fuzzed(world.now, number(&(world.random)()));
                let texts = nip59::seal(&dm.rumor, world.own, &nonce, &MessageKeys::new(key), created_at)
                    .map_err(|e| failure(e.to_string()))?;
                let asked = Texts { canonical: texts.canonical, unsigned: String::new(), ..texts };
                let kept = Texts { canonical: String::new(), ..texts };
                Ok((Some(Errand { method, state: State::Signed(dm, kept) }), Step::Sign(asked)))
            }
            State::Signed(..) => Err(failure("a key was not asked for".into())),
        }
    }

    /// Goes on with the seal's signature; `None` if nothing comes after the step.
    ///
    /// # Errors
    /// The message does not fit into a gift wrap.
    pub fn signed(
        self,
        id: &[u8; 32],
        signature: &[u8; 64],
        world: &mut World,
    ) -> Result<(Option<Errand>, Step), Failure> {
        let method = self.method;
        let failure = |why: String| Failure { error: method.failure(Code::BadRequest, &why), forged: false };
        let State::Signed(mut dm, texts) = self.state else { return Err(failure("no signature was asked for".into())) };
        let seal = nip59::signed(&texts.unsigned, id, signature);
        let random = WrapRandom {
            key: Zeroizing::new((world.random)()),
            nonce: (world.random)(),
            aux: Zeroizing::new((world.random)()),
        };
        let own = unhex(world.own).unwrap_or(dm.recipient);
        let to = if dm.own_copy.is_none() { own } else { dm.recipient };
        let created_at = fuzzed(world.now, number(&(world.random)()));
        let wrap = nip59::wrap(&seal, &to, &random, created_at).map_err(|e| failure(e.to_string()))?;
        match dm.own_copy.take() {
            None => {
                dm.own_copy = Some(wrap);
                let nonce = (world.random)();
                let request = Request { op: Op::Nip44, peer: dm.recipient, nonce };
                Ok((Some(Errand { method, state: State::Seal(dm, nonce) }), Step::Agree(request)))
            }
            Some(own_copy) => {
                let reply = format!("{{\"events\":[{own_copy},{wrap}]}}");
                Ok((None, Step::Done(Zeroizing::new(reply))))
            }
        }
    }
}

impl Dm {
    fn new(fields: &mut Fields, world: &World) -> Result<Dm, Failure> {
        let recipient = fields.peer(&["recipientPubkey"], world)?;
        let text = fields.text(&["message"])?;
        let title = fields.optional(fields.object, "conversationTitle")?;
        let reply = match fields.object.get("replyTo") {
            None | Some(Value::Null) => None,
            Some(Value::Object(reply)) => {
                let id = fields.optional(reply, "eventId")?.unwrap_or_default();
                Some((id, fields.optional(reply, "relayUrl")?.unwrap_or_default()))
            }
            Some(_) => return Err(fields.failure("replyTo must be an object")),
        };
        let hex = crate::reply::hex(&recipient);
        let message = nip17::Message {
            recipient: &hex,
            text: &text,
            title,
            reply_to: reply.map(|(event_id, relay)| nip17::ReplyTo { event_id, relay }),
        };
        let mut draft = message.draft().map_err(|e| fields.failure(&e.to_string()))?;
        let rumor = Rumor::new(&draft, world.own, world.now);
        draft.content.zeroize();
        if !rumor.fits() {
            return Err(fields.failure(&nip59::Error::TooLong.to_string()));
        }
        Ok(Dm { rumor, recipient, own_copy: None })
    }
}

/// The fields of a request, of which none may be of another type than it says.
struct Fields<'a> {
    method: Crypto,
    object: &'a Object,
}

impl<'a> Fields<'a> {
    fn failure(&self, why: &str) -> Failure {
        Failure { error: self.method.failure(Code::BadRequest, why), forged: false }
    }

    /// The first of these names that is there and not null. Another one with another value is no request that could be
    /// granted: one of the two was not meant.
    fn given(&self, names: &[&'static str]) -> Result<(&'static str, Option<&'a Value>), Failure> {
        let given = |name: &&&'static str| !matches!(self.object.get(name), None | Some(Value::Null));
        let mut there = names.iter().filter(given).copied();
        let name = there.next().or(names.first().copied()).unwrap_or_default();
        let value = self.object.get(name);
        match there.find(|other| self.object.get(other) != value) {
            Some(other) => Err(self.failure(&format!("{name} and {other} contradict each other: give one of them"))),
            None => Ok((name, value)),
        }
    }

    fn text(&self, names: &[&'static str]) -> Result<Zeroizing<String>, Failure> {
        match self.given(names)? {
            (_, Some(Value::String(text))) => Ok(Zeroizing::new(text.clone())),
            (name, _) => Err(self.failure(&format!("{name} must be a string"))),
        }
    }

    fn optional(&self, object: &'a Object, name: &str) -> Result<Option<&'a str>, Failure> {
        match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.failure(&format!("{name} must be a string"))),
        }
    }

    /// A point of the curve that the socket may write to and read from.
    fn peer(&self, names: &[&'static str], world: &World) -> Result<[u8; 32], Failure> {
        let (name, value) = self.given(names)?;
        let digits = match value {
            Some(Value::String(text)) => text.to_ascii_lowercase(),
            _ => String::new(),
        };
        let key = unhex(&digits).filter(|key| XOnlyPublicKey::from_byte_array(*key).is_ok());
        let key = key.ok_or_else(|| {
            self.failure(&format!("{name} must be a public key: 64 hex digits that are on the curve"))
        })?;
        if !world.allows(&digits) {
            let error = self.method.failure(Code::Forbidden, &format!("this socket does not allow {name}"));
            return Err(Failure { error, forged: false });
        }
        Ok(key)
    }
}

/// What is wrong with a gift wrap, for the client and for the alert log.
fn unwrapping(why: nip59::Error) -> Failure {
    let forged = matches!(why, nip59::Error::RumorAuthor | nip59::Error::SealSignature | nip59::Error::SealId);
    Failure { error: Crypto::UnwrapGiftWrap.failure(Code::BadRequest, &why.to_string()), forged }
}

/// NIP-04's part of a key.
fn shared(key: &[u8; KEY]) -> Box<Zeroizing<[u8; 32]>> {
    let mut shared = Box::new(Zeroizing::new([0; 32]));
    shared.copy_from_slice(&key[..32]);
    shared
}

/// A reply with one string in it, which may be somebody's text. Twice its size: a string that grows leaves copies behind.
fn line([before, text, after]: [&str; 3]) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(6 * text.len() + before.len() + after.len() + 2));
    line.push_str(before);
    write_string(&mut line, text);
    line.push_str(after);
    line
}

/// Eight random bytes as a number.
fn number(random: &[u8; 32]) -> u64 {
    random[..8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}
