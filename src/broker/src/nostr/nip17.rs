//! NIP-17: the direct message inside seal and gift wrap.

use core::fmt;

use super::unhex;
use crate::event::Draft;

/// The kind of a direct message.
pub const DIRECT_MESSAGE: u16 = 14;

/// The message that one answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo<'a> {
    /// Its id: 64 lower-case hex digits.
    pub event_id: &'a str,
    /// A relay that has it, or "".
    pub relay: &'a str,
}

/// A direct message as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// To whom: 64 lower-case hex digits. Both copies, the recipient's and one's own, carry the same rumor, so this one too.
    pub recipient: &'a str,
    /// The text.
    pub text: &'a str,
    /// The conversation's title from here on; "" is none.
    pub title: Option<&'a str>,
    /// What it answers.
    pub reply_to: Option<ReplyTo<'a>>,
}

/// What is wrong with a message, in fixed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The recipient is not 64 hex digits.
    Recipient,
    /// The answered message's id is not 64 hex digits.
    ReplyTo,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Recipient => "recipientPubkey must be 64 lower-case hex digits",
            Error::ReplyTo => "replyTo.eventId must be 64 lower-case hex digits",
        })
    }
}

impl std::error::Error for Error {}

impl Message<'_> {
    /// The rumor's draft: `p`, then `e` and `subject` where there are any. The marker `reply` is what the reference daemon's library
    /// writes and NIP-17's earlier text asked for; its present text leaves it out, and readers of both take it.
    pub fn draft(&self) -> Result<Draft, Error> {
        let tag = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<String>>();
        unhex::<32>(self.recipient).ok_or(Error::Recipient)?;
        let mut tags = vec![tag(&["p", self.recipient])];
        if let Some(ReplyTo { event_id, relay }) = self.reply_to {
            unhex::<32>(event_id).ok_or(Error::ReplyTo)?;
            tags.push(tag(&["e", event_id, relay, "reply"]));
        }
        if let Some(title) = self.title.filter(|title| !title.is_empty()) {
            tags.push(tag(&["subject", title]));
        }
        Ok(Draft { kind: DIRECT_MESSAGE, content: self.text.to_owned(), tags, created_at: None, pubkey: None })
    }
}
