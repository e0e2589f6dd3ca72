//! Fixed-size frames between the supervisor and the broker, over a sequenced-packet pair: both ends here.

/// Bytes of a control frame: op(1) ‖ status(1) ‖ index(2, big-endian) ‖ zeros(4).
pub const LEN: usize = 8;

/// One frame. The supervisor takes any other bytes for a broken broker and replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Broker → supervisor, once after its start: a request has been served, so a crash is not a crash loop.
    Served,
    /// Broker → supervisor: rotate the alert log of the socket with this index and send the new file.
    NextAlertLog(u16),
    /// Supervisor → broker, with one descriptor (SCM_RIGHTS): the new alert log of that socket.
    AlertLog(u16),
    /// Supervisor → broker: that alert log could not be rotated; go on with the old file.
    NoAlertLog(u16),
    /// Supervisor → broker: stop accepting, finish what is in flight, exit 0.
    Drain,
    /// Supervisor → broker: are you serving?
    Ping,
    /// Broker → supervisor: the answer, one for each.
    Pong,
    /// Broker → supervisor: the journal is full; a new, empty file is needed.
    NextJournal,
    /// Supervisor → broker, with one descriptor (SCM_RIGHTS): that file, without the journal's name yet.
    JournalFile,
    /// Broker → supervisor: that file is complete and is to have the journal's name. `true`: the old one is damaged, and
    /// to be kept aside.
    JournalWritten(bool),
    /// Supervisor → broker: it has the name.
    JournalNamed,
    /// Supervisor → broker: no new file, or it could not be named; go on with the old one.
    NoJournal,
    /// Supervisor → broker: the operator thaws everything, principals that tried a canary kind included.
    Thawed,
    /// Broker → supervisor: put the decision log aside and send the new file.
    NextDecisionLog,
    /// Supervisor → broker, with one descriptor (SCM_RIGHTS): the new decision log. Also unasked, where the old one has lost
    /// its name.
    DecisionLog,
    /// Supervisor → broker: it could not be put aside; go on with the old file.
    NoDecisionLog,
    /// Supervisor → broker: ask gates and ECDH holder for nothing more, and hold what clients ask: a new configuration may come.
    Rest,
    /// Broker → supervisor: nothing is in flight. From here on gates may end.
    Quiet,
    /// Supervisor → broker, with one descriptor: the listening socket with this number of the configuration that is to come.
    NewListener(u16),
    /// Supervisor → broker, with one descriptor: the alert log of that socket, likewise.
    NewAlerts(u16),
    /// Supervisor → broker, with one descriptor: the pair to the gate of the account with this number, likewise.
    NewGate(u16),
    /// Broker → supervisor: the configuration that came over the policy pipe is in force, and requests have their turn again.
    Reloaded,
    /// Broker → supervisor: it is not, and nothing has changed. The broker rests on.
    NotReloaded,
    /// Supervisor → broker: there is no new configuration; go on, with the gates that came, if any did.
    Resume,
}

impl Control {
    /// The frame's bytes.
    pub fn encode(self) -> [u8; LEN] {
        let (op, index) = match self {
            Control::Served => (1, 0),
            Control::NextAlertLog(i) => (2, i),
            Control::AlertLog(i) => (3, i),
            Control::NoAlertLog(i) => (4, i),
            Control::Drain => (5, 0),
            Control::Ping => (6, 0),
            Control::Pong => (7, 0),
            Control::NextJournal => (8, 0),
            Control::JournalFile => (9, 0),
            Control::JournalWritten(damaged) => (10, u16::from(damaged)),
            Control::JournalNamed => (11, 0),
            Control::NoJournal => (12, 0),
            Control::NextDecisionLog => (13, 0),
            Control::DecisionLog => (14, 0),
            Control::NoDecisionLog => (15, 0),
            Control::Thawed => (16, 0),
            Control::Rest => (32, 0),
            Control::Quiet => (33, 0),
            Control::NewListener(i) => (34, i),
            Control::NewAlerts(i) => (35, i),
            Control::NewGate(i) => (36, i),
            Control::Reloaded => (37, 0),
            Control::NotReloaded => (38, 0),
            Control::Resume => (39, 0),
        };
        let [hi, lo] = index.to_be_bytes();
        [op, 0, hi, lo, 0, 0, 0, 0]
    }

    /// `None` unless the bytes are exactly one frame.
    pub fn decode(f: &[u8]) -> Option<Control> {
        let &[op, _, hi, lo, ..] = f else { return None };
        let index = u16::from_be_bytes([hi, lo]);
        let frame = match op {
            1 => Control::Served,
            2 => Control::NextAlertLog(index),
            3 => Control::AlertLog(index),
            4 => Control::NoAlertLog(index),
            5 => Control::Drain,
            6 => Control::Ping,
            7 => Control::Pong,
            8 => Control::NextJournal,
            9 => Control::JournalFile,
            10 => Control::JournalWritten(index == 1),
            11 => Control::JournalNamed,
            12 => Control::NoJournal,
            13 => Control::NextDecisionLog,
            14 => Control::DecisionLog,
            15 => Control::NoDecisionLog,
            16 => Control::Thawed,
            32 => Control::Rest,
            33 => Control::Quiet,
            34 => Control::NewListener(index),
            35 => Control::NewAlerts(index),
            36 => Control::NewGate(index),
            37 => Control::Reloaded,
            38 => Control::NotReloaded,
            39 => Control::Resume,
            _ => return None,
        };
        (frame.encode() == f).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_frames_decode() {
        use Control::*;
        let journal = [NextJournal, JournalFile, JournalWritten(false), JournalWritten(true), JournalNamed, NoJournal];
        let others = [
            NextDecisionLog,
            DecisionLog,
            NoDecisionLog,
            Thawed,
            Served,
            NextAlertLog(258),
            AlertLog(0),
            NoAlertLog(7),
            Drain,
            Ping,
            Pong,
        ];
        let reload = [Rest, Quiet, NewListener(0), NewAlerts(1), NewGate(258), Reloaded, NotReloaded, Resume];
        for frame in journal.into_iter().chain(others).chain(reload) {
            let bytes = frame.encode();
            assert_eq!(Control::decode(&bytes), Some(frame));
            assert_eq!(Control::decode(&bytes[..7]), None);
            let mut long = bytes.to_vec();
            long.push(0);
            assert_eq!(Control::decode(&long), None);
            let mut dirty = bytes;
            dirty[7] = 1;
            assert_eq!(Control::decode(&dirty), None);
        }
        assert_eq!(Control::decode(&[9; 8]), None);
        assert_eq!(Control::decode(&[10, 0, 0, 2, 0, 0, 0, 0]), None);
    }
}
