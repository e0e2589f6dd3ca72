//! Asking at the terminal without showing what is typed.

use super::Fault;
use super::memory::Locked;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::Write;

/// Bytes of a line that can be typed.
const LINE: usize = 1024;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// The terminal, as it was when this is dropped.
struct Silent<'a>(&'a File, Termios);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, SetArg::TCSAFLUSH, &self.1);
        let _ = writeln!(self.0);
    }
}

/// What is typed at the terminal, without the newline.
///
/// # Errors
/// There is no terminal; it was broken off.
pub(super) fn ask(what: &str) -> Result<Locked, Fault> {
    let no = |e: std::io::Error| Fault::usage(format!("no terminal to ask for {what} at: {e}"));
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no)?;
    let before = tcgetattr(&terminal).map_err(|e| no(e.into()))?;
    let mut silent = before.clone();
    // Signals too: a Ctrl-C that ends the process would leave the terminal without echo.
    silent.local_flags &= !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(|e| no(e.into()))?;
    let _restored = Silent(&terminal, before);
    write!(&terminal, "{what}: ").map_err(no)?;
    let mut line = Locked::new(LINE);
    let mut byte = [0];
    loop {
        let count = nix::unistd::read(&terminal, &mut byte).map_err(|e| no(e.into()))?;
        match byte[0] {
            _ if count == 0 => return Err(Fault::usage("broken off: nothing is done")),
            CTRL_C => return Err(Fault::usage("broken off: nothing is done")),
            b'\n' | b'\r' | CTRL_D => return Ok(line),
            BACKSPACE | DELETE => line.pop(),
            CTRL_U => line = Locked::new(LINE),
            typed if !line.push(typed) => return Err(Fault::usage(format!("more than {LINE} characters"))),
            _ => {}
        }
        byte[0] = 0;
    }
}
