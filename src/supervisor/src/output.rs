//! Writing to a descriptor that may be closed, full or stopped, without ever waiting for it.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// PIPE_BUF: where poll says that a pipe can be written, this many bytes go in without blocking (pipe(7)).
const CHUNK: usize = 4096;

/// Writes what the reader takes at once; the rest is lost. Whether it took all. SIGPIPE must be ignored (Rust's runtime does).
pub fn offer(fd: impl AsFd, text: &[u8]) -> bool {
    for chunk in text.chunks(CHUNK) {
        let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut wait, PollTimeout::ZERO).is_ok_and(|n| n > 0);
        if !ready || !wait[0].revents().is_some_and(|r| r.contains(PollFlags::POLLOUT)) {
            return false;
        }
        if write(fd.as_fd(), chunk) != Ok(chunk.len()) {
            return false;
        }
    }
    true
}
