//! The two lines that every signature writes, from borrowed parts: what [`entry`](crate::entry) would write, byte for byte,
//! without a copy of each part.

use serde::Serialize;

/// [`entry::Intent`](crate::entry::Intent), with its number and times.
#[derive(Serialize)]
#[allow(missing_docs, reason = "as there")]
pub struct Intent<'a> {
    pub n: u64,
    pub ms: u64,
    pub boot_ms: u64,
    pub is: &'static str,
    pub method: &'a str,
    pub socket: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'a str>,
    pub account: &'a str,
    pub record: &'a str,
    pub kind: u32,
    pub created_at: u64,
    pub id: &'a str,
}

/// [`entry::Outcome`](crate::entry::Outcome), likewise.
#[derive(Serialize)]
#[allow(missing_docs, reason = "as there")]
pub struct Outcome<'a> {
    pub n: u64,
    pub ms: u64,
    pub boot_ms: u64,
    pub is: &'static str,
    pub intent: u64,
    pub record: &'a str,
    pub status: Option<u8>,
    pub verdict: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{self, Asked, Entry, Said};
    use crate::line::Head;

    #[test]
    fn both_forms_write_the_same_bytes() {
        let (mut hot, mut whole, mut written) = (Head::origin(), Head::origin(), Vec::new());
        let mut expected = String::new();
        for (uid, cgroup, session) in
            [(None, None, None), (Some(7), Some(9), Some("0123456789ab")), (Some(0), None, Some("\"\\"))]
        {
            let id = "ab".repeat(32);
            let n = hot.n + 1;
            let (method, socket, account, record) = ("sign_event", "/run/ü \".sock", "default", "default.ecdh");
            let (is, kind, created_at) = ("intent", 65_535, 4_294_967_295);
            let intent = Intent {
                n,
                ms: 5,
                boot_ms: 3,
                is,
                method,
                socket,
                uid,
                cgroup,
                session,
                account,
                record,
                kind,
                created_at,
                id: &id,
            };
            hot.write(&mut written, &intent);
            let asked =
                Asked { method: method.into(), socket: socket.into(), uid, cgroup, session: session.map(Into::into) };
            let (account, record) = (account.into(), record.into());
            let intent = entry::Intent { asked, account, record, kind, created_at, id };
            expected += &whole.next(5, 3, Entry::Intent(intent));
        }
        for status in [None, Some(0), Some(4), Some(7), Some(200), Some(255)] {
            let (n, Said { verdict, rule, .. }) = (hot.n + 1, Said::of(status));
            let (is, intent, record) = ("outcome", 1, "default");
            let outcome = Outcome { n, ms: 6, boot_ms: 4, is, intent, record, status, verdict, rule };
            hot.write(&mut written, &outcome);
            expected += &whole.next(6, 4, Entry::Outcome(entry::Outcome::new(1, "default", status)));
        }
        assert_eq!(String::from_utf8(written).as_deref(), Ok(expected.as_str()));
        assert_eq!(hot, whole);
    }
}
