//! The floor: what the machine itself takes for the steps of a signature, with nothing in between.
//!
//! A signature needs one signing and one verification; its request goes over a Unix socket, and from broker to gate and from
//! gate to key-holder there and back. Anything above that is nsecd's.

use crate::client::{self, Client, SIGN};
use crate::options::Options;
use crate::peers::Peer;
use crate::raw::Signer;
use crate::stats::{Micros, Times, median, table};
use crate::support::Dir;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Deeds of a block: floor and daemon take turns after so many, since the machine's speed changes within a second.
pub const BLOCK: usize = 100;
/// Blocks of a run.
pub const BLOCKS: usize = 10;

/// One run, or the median of several.
#[derive(Clone, Copy, Default)]
pub struct Floor {
    /// libsecp256k1's signing, called as the key-holder calls it.
    pub sign: Micros,
    /// Its verification.
    pub verify: Micros,
    /// 32 bytes to another process and 97 back, over a pair of sequenced-packet sockets.
    pub ping: Micros,
    /// To connect, send a request's line, read a line, close.
    pub connect: Micros,
    /// A request's line and a line back over an open connection.
    pub echo: Micros,
}

impl Floor {
    /// What a signature with a connection of its own cannot do without.
    pub fn sign_once(&self) -> Micros {
        self.connect + self.use_of_key()
    }

    /// What a signature over an open connection cannot do without.
    pub fn sign_open(&self) -> Micros {
        self.echo + self.use_of_key()
    }

    fn use_of_key(&self) -> Micros {
        2.0 * self.ping + self.sign + self.verify
    }
}

/// The processes that it takes.
pub struct Bench {
    signer: Signer,
    pair: OwnedFd,
    socket: PathBuf,
    open: Client,
    _peers: [Peer; 3],
    _dir: Dir,
}

impl Bench {
    /// Starts them.
    pub fn start() -> Bench {
        let dir = Dir::new(None);
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let sockets = [dir.join("echo"), dir.join("open-echo")];
        let echo = |what, at: usize| Peer::start(what, &[sockets[at].to_str().unwrap()], None);
        let peers = [Peer::start("pong", &[], Some(theirs)), echo("echo", 0), echo("open-echo", 1)];
        sockets.iter().for_each(|socket| listening(socket));
        let open = Client::connect(&sockets[1]);
        let [socket, _] = sockets;
        Bench { signer: Signer::new(), pair: ours, socket, open, _peers: peers, _dir: dir }
    }

    /// A block of each step.
    pub fn block(&mut self, steps: &mut Steps) {
        let id = [9; 32];
        let (signer, pair, socket, open) = (&mut self.signer, &self.pair, &self.socket, &mut self.open);
        let [sign, verify, ping, connect, echo] = &mut steps.0;
        block(sign, || signer.sign());
        block(verify, || signer.verify());
        block(ping, || {
            send(pair.as_raw_fd(), &id, MsgFlags::empty()).unwrap();
            assert_eq!(recv(pair.as_raw_fd(), &mut [0; 98], MsgFlags::empty()), Ok(97));
        });
        block(connect, || client::once(socket, SIGN));
        block(echo, || open.ask(SIGN));
    }

    /// Signs and verifies for a block; how long that took.
    pub fn use_of_key(&mut self) -> Duration {
        let begun = Instant::now();
        for _ in 0..BLOCK {
            self.signer.sign();
            self.signer.verify();
        }
        begun.elapsed()
    }
}

/// Times a block of deeds, after some that are not timed.
pub fn block(times: &mut Vec<Duration>, mut deed: impl FnMut()) {
    (0..BLOCK / 10).for_each(|_| deed());
    times.extend(Times::each(BLOCK, deed));
}

/// Times of each step, of the blocks so far.
#[derive(Default)]
pub struct Steps([Vec<Duration>; 5]);

impl Steps {
    /// Each step's median.
    pub fn floor(self) -> Floor {
        let [sign, verify, ping, connect, echo] = self.0.map(|times| Times::from(times).percentile(50));
        Floor { sign, verify, ping, connect, echo }
    }
}

/// Waits until somebody listens.
fn listening(socket: &Path) {
    crate::support::until("a peer listens", || socket.exists());
}

/// Each figure's median.
pub fn medians(runs: &[Floor]) -> Floor {
    let of = |figure: fn(&Floor) -> Micros| median(runs.iter().map(figure));
    Floor {
        sign: of(|f| f.sign),
        verify: of(|f| f.verify),
        ping: of(|f| f.ping),
        connect: of(|f| f.connect),
        echo: of(|f| f.echo),
    }
}

/// The table of a floor that has been measured.
pub fn show(floor: &Floor, runs: usize) {
    let row = |name: &str, us: Micros| vec![name.to_owned(), format!("{us:.1}")];
    let rows = [
        row("signing (libsecp256k1, as the key-holder calls it)", floor.sign),
        row("verification of it", floor.verify),
        row("ping-pong of two processes, 32 and 97 bytes (SOCK_SEQPACKET)", floor.ping),
        row("connect, a line there, a line back, close", floor.connect),
        row("a line there and back, connection open", floor.echo),
    ];
    table(&format!("Floor (median of {runs} runs of {})", BLOCK * BLOCKS), &["step", "µs"], &rows);
}

/// This part alone.
pub fn print(options: &Options) {
    let mut bench = Bench::start();
    let mut run = || {
        let mut steps = Steps::default();
        (0..BLOCKS).for_each(|_| bench.block(&mut steps));
        steps.floor()
    };
    let runs: Vec<Floor> = (0..options.runs).map(|_| run()).collect();
    show(&medians(&runs), options.runs);
}
