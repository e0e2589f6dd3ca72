//! Fixed-size frames between nsecctl and the supervisor, over the control socket: both ends here.
//!
//! A connection carries one request; the answer is one reply for each account that it is about, at least one, and the end of the
//! stream. A reload that is refused is answered by its reason, in as many replies as that takes. All numbers big-endian.

/// Bytes of an account's name, padded with zeros; the longest name fills it.
pub const NAME: usize = 64;
/// Bytes of a request: version(1) ‖ command(1) ‖ zeros(2) ‖ account(64).
pub const REQUEST: usize = 4 + NAME;
/// Bytes of a reply: version(1) ‖ status(1) ‖ frozen(1) ‖ saved(1) ‖ replies that follow(2) ‖ zeros(2) ‖ since(8) ‖ account(64).
pub const REPLY: usize = 16 + NAME;
/// Replies that a reason may take.
const MOST_PARTS: usize = 64;
/// Name of the control socket in the admin directory.
pub const SOCKET: &str = "control.sock";
/// Name of the admin socket there, over which the broker is asked in JSON.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Of these frames. A supervisor answers every other one with [`Status::Malformed`] and its own.
const VERSION: u8 = 1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Freeze; answered once it is in force.
    Freeze,
    /// Thaw.
    Thaw,
    /// Only say what is frozen.
    Status,
    /// Read the configuration again; of no account.
    Reload,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// With which account; empty: with all.
    pub account: String,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it was meant.
    Done,
    /// No account has that name.
    UnknownAccount,
    /// The peer is neither root nor nsecd's own user.
    NotAllowed,
    /// No request of this version.
    Malformed,
    /// The disk did not take it. A freeze is in force all the same, until nsecd ends; a thaw is not.
    NotSaved,
    /// The configuration is not reloaded, and nothing has changed. The account's place has a part of the reason.
    NotReloaded,
}

/// A reply, about one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How the request went.
    pub status: Status,
    /// Since when the account is frozen, in Unix milliseconds, 0 where that is unknown; `None`: it is not.
    pub frozen: Option<u64>,
    /// Whether the next nsecd will find it so.
    pub saved: bool,
    /// Replies that follow.
    pub left: u16,
    /// The account's name; empty where the request named none that there is.
    pub account: String,
}

impl Request {
    /// The frame's bytes; `None` if the name is too long or has a zero byte.
    pub fn encode(&self) -> Option<[u8; REQUEST]> {
        let command = match self.command {
            Command::Freeze => 1,
            Command::Thaw => 2,
            Command::Status => 3,
            Command::Reload => 4,
        };
        let mut frame = [0; REQUEST];
        frame[..2].copy_from_slice(&[VERSION, command]);
        put_name(&mut frame[4..], &self.account)?;
        Some(frame)
    }

    /// `None` unless the bytes are exactly one frame.
    pub fn decode(frame: &[u8; REQUEST]) -> Option<Request> {
        let command = match frame[1] {
            1 => Command::Freeze,
            2 => Command::Thaw,
            3 => Command::Status,
            4 => Command::Reload,
            _ => return None,
        };
        let request = Request { command, account: name(&frame[4..])? };
        let meaningful = request.command != Command::Reload || request.account.is_empty();
        (meaningful && request.encode()? == *frame).then_some(request)
    }
}

impl Reply {
    /// A reply that is about no account.
    pub fn refusal(status: Status) -> Reply {
        Reply { status, frozen: None, saved: true, left: 0, account: String::new() }
    }

    /// A reload has been done.
    pub fn done() -> Reply {
        Reply::refusal(Status::Done)
    }

    /// The frame's bytes; a name that does not fit is left out.
    pub fn encode(&self) -> [u8; REPLY] {
        let status = match self.status {
            Status::Done => 0,
            Status::UnknownAccount => 1,
            Status::NotAllowed => 2,
            Status::Malformed => 3,
            Status::NotSaved => 4,
            Status::NotReloaded => 5,
        };
        let mut frame = [0; REPLY];
        frame[..4].copy_from_slice(&[VERSION, status, u8::from(self.frozen.is_some()), u8::from(self.saved)]);
        frame[4..6].copy_from_slice(&self.left.to_be_bytes());
        frame[8..16].copy_from_slice(&self.frozen.unwrap_or(0).to_be_bytes());
        // Accounts' names are shorter (nsecd refuses a longer one).
        let _ = put_name(&mut frame[16..], &self.account);
        frame
    }

    /// `None` unless the bytes are exactly one frame.
    pub fn decode(frame: &[u8; REPLY]) -> Option<Reply> {
        let status = match frame[1] {
            0 => Status::Done,
            1 => Status::UnknownAccount,
            2 => Status::NotAllowed,
            3 => Status::Malformed,
            4 => Status::NotSaved,
            5 => Status::NotReloaded,
            _ => return None,
        };
        let since = frame[8..16].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let frozen = (frame[2] == 1).then_some(since);
        let left = u16::from_be_bytes([frame[4], frame[5]]);
        let reply = Reply { status, frozen, saved: frame[3] == 1, left, account: name(&frame[16..])? };
        (reply.encode() == *frame).then_some(reply)
    }
}

/// The replies that say why a reload was refused; of a text that is too long its end is cut off.
pub fn refusal(why: &str) -> Vec<Reply> {
    let mut parts = vec![String::new()];
    // Zeros are padding; there are none in texts.
    for c in why.chars().map(|c| if c == '\0' { ' ' } else { c }) {
        let full = parts.last().is_none_or(|part| part.len() + c.len_utf8() > NAME);
        if full && parts.len() == MOST_PARTS {
            break;
        }
        if full {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let count = parts.len();
    let left = |n: usize| u16::try_from(count - 1 - n).unwrap_or(u16::MAX);
    let reply = |(n, account)| Reply { left: left(n), account, ..Reply::refusal(Status::NotReloaded) };
    parts.into_iter().enumerate().map(reply).collect()
}

/// The reason in such replies.
pub fn reason(replies: &[Reply]) -> String {
    replies.iter().filter(|r| r.status == Status::NotReloaded).map(|r| r.account.as_str()).collect()
}

fn put_name(field: &mut [u8], name: &str) -> Option<()> {
    let fits = name.len() <= field.len() && !name.contains('\0');
    fits.then(|| field[..name.len()].copy_from_slice(name.as_bytes()))
}

fn name(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [String; 3] {
        [String::new(), "default".to_owned(), "a".repeat(NAME)]
    }

    /// Every frame that one byte turns into, as the other end reads it.
    fn neighbours<const N: usize>(frame: [u8; N]) -> impl Iterator<Item = [u8; N]> {
        (0..N).flat_map(move |i| {
            (1..=255u8).map(move |change| {
                let mut other = frame;
                other[i] ^= change;
                other
            })
        })
    }

    #[test]
    fn requests_read_back_and_only_exact_frames_are_requests() {
        for account in names() {
            for command in [Command::Freeze, Command::Thaw, Command::Status, Command::Reload] {
                if command == Command::Reload && !account.is_empty() {
                    continue;
                }
                let request = Request { command, account: account.clone() };
                let frame = request.encode().expect("a name that fits");
                assert_eq!(Request::decode(&frame), Some(request));
                for other in neighbours(frame) {
                    assert!(Request::decode(&other).is_none_or(|r| r.encode() == Some(other)));
                }
                for (at, byte) in [(0, 0), (0, 2), (1, 0), (1, 5), (2, 1), (3, 1), (4, 0xff)] {
                    let mut broken = frame;
                    broken[at] = byte;
                    assert_eq!(Request::decode(&broken), None, "byte {at}");
                }
            }
        }
        // Something behind the name's end.
        let mut frame = Request { command: Command::Thaw, account: "x".to_owned() }.encode().expect("fits");
        frame[REQUEST - 1] = b'x';
        assert_eq!(Request::decode(&frame), None);
        for account in ["a".repeat(NAME + 1), "a\0b".to_owned()] {
            assert_eq!(Request { command: Command::Freeze, account }.encode(), None);
        }
    }

    #[test]
    fn replies_read_back_and_only_exact_frames_are_replies() {
        let statuses = [Status::Done, Status::UnknownAccount, Status::NotAllowed, Status::Malformed, Status::NotSaved];
        for account in names() {
            for status in statuses {
                for frozen in [None, Some(0), Some(u64::MAX)] {
                    let reply = Reply { status, frozen, saved: frozen.is_some(), left: 258, account: account.clone() };
                    assert_eq!(Reply::decode(&reply.encode()), Some(reply.clone()));
                    for other in neighbours(reply.encode()) {
                        assert!(Reply::decode(&other).is_none_or(|r| r.encode() == other));
                    }
                }
            }
        }
    }
}
