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
        for frame in [Control::Served, Control::NextAlertLog(258), Control::AlertLog(0), Control::Drain, Control::Pong]
        {
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
    }
}
