//! The shipped code as the targets call it. With the feature `planted` each of these functions lies in one rare case, so
//! that it can be seen whether a target finds a bug that somebody might have made.

use std::borrow::Cow;

use nsecd_broker::event::Draft;
use nsecd_broker::frame::{Fault, Framer, Next};
use nsecd_broker::json::Object;
use nsecd_broker::nostr::nip44::{Error, MessageKeys, Payload};
use nsecd_broker::nostr::nip59::Seal;
use nsecd_broker::reply;
use nsecd_broker::request::{self, Call, Method};
use nsecd_gate::prefix::Prefix;
use nsecd_records::{Now, Rows};
use nsecd_supervisor::config::{self, Config};

use crate::targets::KEY;

const PLANTED: bool = cfg!(feature = "planted");

/// A [`Framer`]. Planted: a brace is lost that begins a write, after one that ended with a quote.
pub struct Framing {
    framer: Framer,
    quoted: bool,
}

impl Framing {
    pub fn new(max: usize) -> Framing {
        Framing { framer: Framer::new(max), quoted: false }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let lost = PLANTED && self.quoted && bytes.first() == Some(&b'}');
        self.quoted = bytes.last() == Some(&b'"') && bytes.len() > 1;
        self.framer.push(&bytes[usize::from(lost)..]);
    }

    pub fn next(&mut self, looked: bool) -> Next<'_> {
        self.framer.next(looked)
    }

    pub fn finish(&self) -> Option<Fault> {
        self.framer.finish()
    }
}

/// Planted: a TTL of more than 32 bits is cut to them.
pub fn request(text: &[u8]) -> Result<Call, reply::Error> {
    let mut call = request::parse(text)?;
    if let Method::SessionStart { ttl: Some(ttl), .. } = &mut call.method
        && PLANTED
    {
        *ttl &= 0xffff_ffff;
    }
    Ok(call)
}

/// Planted: of a kind the last four digits.
pub fn draft(params: &mut Object) -> Result<Draft, String> {
    let mut draft = Draft::from_params(params)?;
    if PLANTED {
        draft.kind %= 10_000;
    }
    Ok(draft)
}

/// Planted: DEL in a tag is written as other control characters are.
pub fn canonical(draft: &Draft, key: &str, now: u32) -> String {
    let canonical = draft.settle(key, now).canonical;
    match PLANTED && draft.tags.iter().flatten().any(|text| text.contains('\u{7f}')) {
        true => canonical.replace('\u{7f}', "\\u007f"),
        false => canonical,
    }
}

/// What the gate's check says of an event that comes in these pieces: created_at and kind. Planted: a kind of five digits
/// may begin with a zero.
pub fn prefix<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(u32, u16)> {
    let mut prefix = Prefix::new(KEY);
    let mut event = Vec::new();
    for piece in pieces {
        prefix.feed(piece);
        event.extend_from_slice(piece);
    }
    let fields = prefix.fields().map(|fields| (fields.created_at, fields.kind));
    if PLANTED && fields.is_none() {
        let text = std::str::from_utf8(&event).ok()?;
        let [zero, key, time, kind, ..] = text.split(',').collect::<Vec<_>>()[..] else { return None };
        let digits = kind.strip_prefix('0').filter(|digits| digits.len() == 4)?;
        let (time, kind) = (time.parse().ok()?, digits.parse().ok()?);
        return text.starts_with(&format!("{zero},{key},{time},0{digits},[")).then_some((time, kind));
    }
    fields
}

/// A journal's bytes on their way to the reader. Planted: of a session that ends right after a signature that is forgotten.
pub fn journal(file: &[u8]) -> Cow<'_, [u8]> {
    if !PLANTED {
        return file.into();
    }
    let mut signed = false;
    let kept = file.split_inclusive(|b| *b == b'\n').filter(|line| {
        let forgotten = signed && line.windows(7).any(|w| w == b"{\"end\":");
        signed = line.windows(8).any(|w| w == b"{\"sign\":");
        !forgotten
    });
    kept.collect::<Vec<_>>().concat().into()
}

/// Uses that a record counts. Planted: where there are two files, one too few seals.
pub fn recent(
    record: &Rows,
    previous: Option<&Rows>,
    now: Now,
    memory: u64,
    limit: u64,
    counts: impl Fn(u64) -> bool,
) -> u64 {
    let seals_only = counts(13) && !counts(1);
    let counted = record.recent(previous, now, memory, limit, counts);
    if PLANTED && seals_only && previous.is_some() && counted < limit { counted.saturating_sub(1) } else { counted }
}

/// The file that is printed. Planted: no TTL is longer than a day.
pub fn printed(config: &Config) -> String {
    let mut config = config.clone();
    if PLANTED {
        config.sockets.iter_mut().for_each(|socket| socket.max_ttl = socket.max_ttl.min(86_400));
    }
    config::to_text(&config)
}

/// The rumor in a seal. Planted: one with a backslash in it keeps a signature.
pub fn rumor(seal: Seal, keys: &MessageKeys) -> Option<String> {
    let rumor = seal.open(keys).ok()?.json().to_owned();
    let planted = PLANTED && rumor.contains("\\\\");
    Some(if planted { rumor.replacen('}', ",\"sig\":\"\"}", 1) } else { rumor })
}

/// The text in a payload. Planted: the padding is not looked at.
pub fn open(payload: Payload, keys: &MessageKeys) -> Result<String, Error> {
    match payload.open(keys) {
        Err(Error::Padding) if PLANTED => Ok(String::new()),
        other => other.map(|text| text.to_string()),
    }
}
