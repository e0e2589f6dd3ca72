//! Files that somebody names, opened without waiting for anybody: a FIFO would hold us up until somebody writes to it, a device for
//! as long as it likes.
//!
//! What was given open is taken whatever it is: standard input, /dev/fd/N, a shell's `<(command)`.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{Error, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest text; the largest event has half a megabyte.
const MOST: u64 = 16 << 20;

/// A regular file, or what was given open, for reading.
///
/// # Errors
/// open(2)'s; it is anything else.
pub(crate) fn open(path: &Path) -> Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    if !is_given(path) {
        return Err(Error::other(
            "not a regular file; what a program writes is taken from standard input or a descriptor: /dev/stdin, /dev/fd/N, <(command)",
        ));
    }
    // Its writer may take its time.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

/// The text of one.
///
/// # Errors
/// As [`open`]; it is no UTF-8, or has more than anybody writes.
pub(crate) fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    match open(path)?.take(MOST + 1).read_to_string(&mut text)? as u64 {
        0..=MOST => Ok(text),
        _ => Err(Error::other(format!("longer than {MOST} bytes"))),
    }
}

/// Whether the path is a name for a descriptor of this process's.
fn is_given(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"].iter().any(|dir| path.parent() == Some(Path::new(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::fd::AsRawFd;

    /// Checked: with an open that waits, this never ends; with any kind of file taken, it fails.
    #[test]
    fn nobody_is_waited_for_at_a_fifo_or_a_device_and_what_was_given_open_is_read() {
        let dir = nix::unistd::mkdtemp("/tmp/nsecd-ctl-XXXXXX").expect("a directory");
        let (file, fifo) = (dir.join("file"), dir.join("fifo"));
        std::fs::write(&file, "text").expect("written");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).expect("made");
        assert_eq!(text(&file).expect("read"), "text");
        for path in [&fifo, &dir, Path::new("/dev/zero")] {
            assert!(open(path).expect_err("refused").to_string().contains("not a regular file"), "{}", path.display());
        }
        std::fs::remove_dir_all(dir).expect("removed");
        let (pipe, end) = nix::unistd::pipe().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // Not there yet when it is opened, most times.
            std::thread::yield_now();
            nix::unistd::write(end, b"later").expect("written")
        });
        for dir in ["/dev/fd", "/proc/self/fd"] {
            open(&Path::new(dir).join(pipe.as_raw_fd().to_string())).expect("opened");
        }
        let given = format!("/dev/fd/{}", pipe.as_raw_fd());
        assert_eq!(text(Path::new(&given)).expect("read"), "later");
        writer.join().expect("it ends");
    }
}
