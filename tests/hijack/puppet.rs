//! A broker that is taken over: in the real one's place, with its uid, descriptors and sandbox, and every system call of it the
//! test's to choose. Both ends are here: [`Hand`] is the test's, the rest runs in the broker's place.
//!
//! The program is this test binary itself, under the broker's name: before `main` it looks at what it was started as. An
//! agent's connection is the string it hangs on, since that is what a hijacked broker has: the listening sockets.
//! With sys.rs, filters.rs and probe.rs the only unsafe code of the tests.

use crate::support::{Nsecd, sys::PATIENCE};
use nsecd_policy::control::Control;
use nsecd_sandbox::lock::{Confinement, close_from, descriptor};
use nsecd_sandbox::{filter, hello::Hello};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::net::UnixStream;

/// Bytes of either half of the memory that a call may use: the first is written before it, the second read after it.
pub const HALF: usize = 2 << 20;
/// In place of a call's number: wait until descriptor args[0] is ready for the epoll events args[1].
const WAIT: u64 = u64::MAX;
/// Places that the broker keeps for the operator.
const ADMIN_CONNECTIONS: u64 = 16;
/// A file of this name beside the program leaves it without a sandbox: the control.
const UNLOCKED: &str = "unlocked";
/// A file of this name beside the program ends it at once.
pub const STILLBORN: &str = "stillborn";
/// number(8) ‖ arguments(48) ‖ times(8) ‖ bytes in(8) ‖ bytes out(8); native byte order, both ends are one program.
const ORDER: usize = 80;

// ---- In the broker's place. A panic here would end in SIGSYS, as would anything else that the filter does not allow.

/// glibc runs it before `main`, and so before the test harness.
#[used]
#[unsafe(link_section = ".init_array")]
static ENTER: extern "C" fn() = enter;

extern "C" fn enter() {
    if std::env::args().next().is_some_and(|name| name == "nsecd-broker") {
        puppet();
    }
}

/// Starts as `nsecd_broker::main` does.
fn puppet() -> ! {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, _, supervisor, uid, gid] = &arguments[..] else { panic!("{arguments:?}") };
    let exe = std::fs::read_link("/proc/self/exe").unwrap();
    if exe.with_file_name(STILLBORN).exists() {
        std::process::exit(1);
    }
    let unlocked = exe.with_file_name(UNLOCKED).exists();
    let mut confinement = Confinement {
        supervisor: supervisor.parse().unwrap(),
        ids: (uid != "-").then(|| (uid.parse().unwrap(), gid.parse().unwrap())),
        highest_fd: i32::MAX as u32,
        connections: None,
        writes_files: true,
        filter: filter::BROKER,
        missing: 0,
    };
    if !unlocked {
        confinement.begin().unwrap();
    }
    let (mut control, mut pipe) = (ManuallyDrop::new(descriptor(3)), ManuallyDrop::new(descriptor(4)));
    let mut length = [0; 4];
    pipe.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    pipe.read_exact(&mut text).unwrap();
    let policy: Value = serde_json::from_slice(&text).unwrap();
    let highest = descriptors(&policy).into_iter().fold(4, i32::max);
    confinement.connections =
        Some(policy["max_connections"].as_u64().unwrap() + ADMIN_CONNECTIONS + highest as u64 + 48);
    assert!(close_from(highest as u32 + 1));
    // SAFETY: takes a number.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut scratch = vec![0; 2 * HALF];
    if !unlocked {
        confinement.lock().unwrap();
    }
    let hello = Hello { role: b'B', missing: confinement.missing, public_key: [0; 32] };
    control.write_all(&hello.encode()).unwrap();
    let listener = policy["sockets"][0]["listener_fd"].as_i64().unwrap() as i32;
    let mut greeting = (scratch.as_ptr() as u64).to_ne_bytes().to_vec();
    greeting.extend((text.len() as u64).to_ne_bytes());
    greeting.extend(&text);
    loop {
        wait(epoll, listener, libc::EPOLLIN as u32);
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let hand = call(libc::SYS_accept4 as u64, [listener as u64, 0, 0, flags as u64, 0, 0]) as i32;
        if hand >= 0 {
            obey(epoll, hand, &greeting, &mut scratch);
            call(libc::SYS_close as u64, [hand as u64, 0, 0, 0, 0, 0]);
        }
    }
}

/// Makes the calls that this hand asks for, until it lets go.
fn obey(epoll: i32, hand: i32, greeting: &[u8], scratch: &mut [u8]) {
    let mut order = [0; ORDER];
    if !give(epoll, hand, greeting) {
        return;
    }
    while fill(epoll, hand, &mut order) {
        let [number, a, b, c, d, e, f, times, input, output] =
            std::array::from_fn(|i| u64::from_ne_bytes(order[8 * i..8 * i + 8].try_into().unwrap()));
        if !fill(epoll, hand, &mut scratch[..input as usize]) {
            return;
        }
        let (mut result, mut done) = (0, 0u64);
        while done < times && result >= 0 {
            result = match number {
                WAIT => wait(epoll, a as i32, b as u32),
                _ => call(number, [a, b, c, d, e, f]),
            };
            done += u64::from(result >= 0);
        }
        let reply = [&result.to_ne_bytes()[..], &done.to_ne_bytes(), &scratch[HALF..HALF + output as usize]].concat();
        if !give(epoll, hand, &reply) {
            return;
        }
    }
}

/// The call's result, or its error as a negative number.
fn call(number: u64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: whatever the test wants to try: this process is there to be misused. What it uses itself it passes whole.
    let result = unsafe { libc::syscall(number as i64, a, b, c, d, e, f) };
    if result < 0 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
}

/// Waits until the descriptor has one of these events.
fn wait(epoll: i32, fd: i32, events: u32) -> i64 {
    let mut event = libc::epoll_event { events, u64: 0 };
    let place = &raw mut event as u64;
    let control = |what: i32| call(libc::SYS_epoll_ctl as u64, [epoll as u64, what as u64, fd as u64, place, 0, 0]);
    let added = control(libc::EPOLL_CTL_ADD);
    if added < 0 {
        return added;
    }
    let patience = PATIENCE.as_millis() as u64;
    let ready = call(libc::SYS_epoll_wait as u64, [epoll as u64, place, 1, patience, 0, 0]);
    control(libc::EPOLL_CTL_DEL);
    ready
}

/// Fills the buffer from the hand; false at the end of the stream.
fn fill(epoll: i32, hand: i32, mut buffer: &mut [u8]) -> bool {
    while !buffer.is_empty() {
        let (at, room) = (buffer.as_mut_ptr() as u64, buffer.len() as u64);
        match call(libc::SYS_recvfrom as u64, [hand as u64, at, room, libc::MSG_DONTWAIT as u64, 0, 0]) {
            n @ 1.. => buffer = &mut buffer[n as usize..],
            n if n == -i64::from(libc::EAGAIN) => drop(wait(epoll, hand, libc::EPOLLIN as u32)),
            _ => return false,
        }
    }
    true
}

/// Gives the hand all of it; false if it has let go.
fn give(epoll: i32, hand: i32, mut bytes: &[u8]) -> bool {
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
    while !bytes.is_empty() {
        match call(libc::SYS_sendto as u64, [hand as u64, bytes.as_ptr() as u64, bytes.len() as u64, flags, 0, 0]) {
            n @ 1.. => bytes = &bytes[n as usize..],
            n if n == -i64::from(libc::EAGAIN) => drop(wait(epoll, hand, libc::EPOLLOUT as u32)),
            _ => return false,
        }
    }
    true
}

/// Every descriptor that a policy names.
fn descriptors(policy: &Value) -> Vec<i32> {
    match policy {
        Value::Object(members) => {
            let own = members.iter().filter(|(name, _)| name.ends_with("_fd")).filter_map(|(_, v)| v.as_i64());
            own.map(|fd| fd as i32).chain(members.values().flat_map(descriptors)).collect()
        }
        Value::Array(items) => items.iter().flat_map(descriptors).collect(),
        _ => Vec::new(),
    }
}

// ---- In the test.

/// One life of the broker, in the test's hand.
pub struct Hand {
    stream: UnixStream,
    /// Where its memory lies.
    base: u64,
    /// What the supervisor gave it.
    pub policy: Value,
}

impl Hand {
    /// Takes hold of the broker that now runs, or of the next one.
    pub fn on(nsecd: &Nsecd) -> Hand {
        loop {
            if let Some(hand) = Hand::try_on(nsecd) {
                return hand;
            }
        }
    }

    /// `None` if the broker that accepted died at once.
    fn try_on(nsecd: &Nsecd) -> Option<Hand> {
        let mut stream = UnixStream::connect(&nsecd.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (mut base, mut length) = ([0; 8], [0; 8]);
        read(&mut stream, &mut base)?;
        read(&mut stream, &mut length)?;
        let mut text = vec![0; u64::from_ne_bytes(length) as usize];
        read(&mut stream, &mut text)?;
        let policy = serde_json::from_slice(&text).unwrap();
        Some(Hand { stream, base: u64::from_ne_bytes(base), policy })
    }

    /// The address of what a call is given.
    pub fn input(&self) -> u64 {
        self.base
    }

    /// The address of what is read after it.
    pub fn output(&self) -> u64 {
        self.base + HALF as u64
    }

    /// The descriptor at this place of the policy, as `/accounts/0/gate_fd`.
    pub fn fd(&self, place: &str) -> u64 {
        self.policy.pointer(place).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {place}"))
    }

    /// Makes a call up to so many times while it succeeds, with `input` in place; its last result, how often it succeeded, and the
    /// first `output` bytes at [`output`](Hand::output). `None` if the broker did not survive it.
    pub fn repeat(
        &mut self,
        times: u64,
        number: i64,
        args: [u64; 6],
        input: &[u8],
        output: usize,
    ) -> Option<(i64, u64, Vec<u8>)> {
        let [a, b, c, d, e, f] = args;
        let words = [number as u64, a, b, c, d, e, f, times, input.len() as u64, output as u64];
        let mut order: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        order.extend_from_slice(input);
        // One that dies while it is written to is seen dead when it is read from.
        let _ = self.stream.write_all(&order);
        let (mut result, mut done, mut bytes) = ([0; 8], [0; 8], vec![0; output]);
        read(&mut self.stream, &mut result)?;
        read(&mut self.stream, &mut done)?;
        read(&mut self.stream, &mut bytes)?;
        Some((i64::from_ne_bytes(result), u64::from_ne_bytes(done), bytes))
    }

    /// Makes one call.
    pub fn call(&mut self, number: i64, args: [u64; 6], input: &[u8]) -> Option<i64> {
        self.repeat(1, number, args, input, 0).map(|(result, ..)| result)
    }

    /// Waits until a descriptor has one of these epoll events.
    pub fn wait(&mut self, fd: u64, events: i32) -> Option<i64> {
        self.call(WAIT as i64, [fd, events as u64, 0, 0, 0, 0], b"")
    }

    /// Sends bytes on a socket, one packet or all of a stream; the result of the last call.
    pub fn send(&mut self, fd: u64, mut bytes: &[u8]) -> Option<i64> {
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
        loop {
            let args = [fd, self.input(), bytes.len() as u64, flags, 0, 0];
            match self.call(libc::SYS_sendto, args, bytes)? {
                n if n == -i64::from(libc::EAGAIN) => drop(self.wait(fd, libc::EPOLLOUT)?),
                n if n >= 0 && (n as usize) < bytes.len() => bytes = &bytes[n as usize..],
                n => return Some(n),
            }
        }
    }

    /// What the next recvfrom(2) of at most `room` bytes brings; empty at an end or an error.
    pub fn receive(&mut self, fd: u64, room: usize) -> Option<Vec<u8>> {
        let args = [fd, self.output(), room as u64, libc::MSG_DONTWAIT as u64, 0, 0];
        loop {
            let (n, _, mut bytes) = self.repeat(1, libc::SYS_recvfrom, args, b"", room)?;
            if n == -i64::from(libc::EAGAIN) {
                self.wait(fd, libc::EPOLLIN)?;
                continue;
            }
            bytes.truncate(n.max(0) as usize);
            return Some(bytes);
        }
    }

    /// The next control frame, and the descriptor that came with it, as the real broker takes them; it answers pings. `None` if the
    /// broker died.
    pub fn told(&mut self) -> Option<(Control, u64)> {
        loop {
            match self.frame()? {
                Some((Control::Ping, _)) => drop(self.control(&Control::Pong.encode())?),
                Some(told) => return Some(told),
                None => drop(self.wait(3, libc::EPOLLIN)?),
            }
        }
    }

    /// The same of what is there; the inner `None` if nothing is.
    fn frame(&mut self) -> Option<Option<(Control, u64)>> {
        let (input, output) = (self.input(), self.output());
        // struct msghdr and struct iovec; behind the frame there is room for struct cmsghdr with one descriptor.
        let header = [0, 0, input + 56, 1, output + 16, 24, 0, output, 16].map(u64::to_ne_bytes).concat();
        let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as u64;
        let (n, _, bytes) = self.repeat(1, libc::SYS_recvmsg, [3, input, flags, 0, 0, 0], &header, 40)?;
        if n == -i64::from(libc::EAGAIN) {
            return Some(None);
        }
        let frame = bytes.get(..n.max(0) as usize).and_then(Control::decode).expect("a frame of the supervisor's");
        Some(Some((frame, u64::from(u32::from_ne_bytes(bytes[32..36].try_into().unwrap())))))
    }

    /// Reads a configuration that is handed over; it, and the frames that came before it.
    pub fn handed(&mut self) -> Option<(Value, Vec<(Control, u64)>)> {
        let mut bytes = Vec::new();
        let length = |bytes: &[u8]| bytes.first_chunk().map(|n| u32::from_be_bytes(*n) as usize + 4);
        while length(&bytes).is_none_or(|length| bytes.len() < length) {
            self.wait(4, libc::EPOLLIN)?;
            let (n, _, part) = self.repeat(1, libc::SYS_read, [4, self.output(), 65_536, 0, 0, 0], b"", 65_536)?;
            assert!(n != 0, "the supervisor is gone");
            bytes.extend(&part[..n.max(0) as usize]);
        }
        let mut frames = Vec::new();
        while let Some(frame) = self.frame()? {
            frames.push(frame);
        }
        Some((serde_json::from_slice(&bytes[4..]).unwrap(), frames))
    }

    /// Writes to a file of its own.
    pub fn write(&mut self, fd: u64, bytes: &[u8]) -> Option<i64> {
        let args = [fd, self.input(), bytes.len() as u64, 0, 0, 0];
        self.call(libc::SYS_write, args, bytes)
    }

    /// A control frame to the supervisor, or what is none.
    pub fn control(&mut self, frame: &[u8]) -> Option<i64> {
        self.send(3, frame)
    }

    /// Tells the supervisor that a request was served: the next death is then no crash loop, and nobody pauses.
    pub fn served(&mut self) {
        assert_eq!(self.control(&[1, 0, 0, 0, 0, 0, 0, 0]), Some(8));
    }

    /// Waits for the broker's death.
    pub fn ended(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("the broker lives on: {e}"),
        }
    }
}

/// `None` where the other end is gone.
fn read(stream: &mut UnixStream, buffer: &mut [u8]) -> Option<()> {
    match stream.read_exact(buffer) {
        Ok(()) => Some(()),
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
        Err(e) => panic!("the hijacked broker does not answer: {e}"),
    }
}
