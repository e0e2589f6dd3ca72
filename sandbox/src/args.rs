//! The arguments every role is started with: version, supervisor's process id, uid and gid to become.
//!
//! They come from the supervisor alone and hold nothing secret.

use crate::{hello::VERSION, sys};
use core::fmt::Display;

/// Exit code: wrong arguments or a supervisor of another version.
pub const USAGE: i32 = 64;
/// Exit code: the key is not a valid one.
pub const BAD_KEY: i32 = 65;
/// Exit code: no key could be read from its source.
pub const NO_KEY: i32 = 66;
/// Exit code: the record cannot be continued.
pub const BAD_RECORD: i32 = 67;
/// Exit code: a mandatory step of the lock failed.
pub const NOT_LOCKED: i32 = 70;

/// What all roles share.
pub struct Common {
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// Uid and gid to become; `None` when nsecd runs as an ordinary user.
    pub ids: Option<(u32, u32)>,
    /// The role's own arguments.
    pub rest: Vec<String>,
}

/// Reads the process's arguments; ends the process where they are not from this version's supervisor.
pub fn common(role: &str) -> Common {
    match parse(std::env::args().skip(1)) {
        Ok(common) => common,
        Err(why) => fail(role, USAGE, why),
    }
}

/// Ends a role before its lock is complete, with one line for the operator.
pub fn fail(role: &str, code: i32, why: impl Display) -> ! {
    let _ = sys::write(2, format!("{role}: {why}\n").as_bytes());
    sys::exit(code)
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Common, String> {
    const ALONE: &str = "this program is started by nsecd; run nsecd instead";
    let version = args.next().ok_or(ALONE)?;
    if version != VERSION {
        return Err(format!(
            "started by nsecd {version}, but this is {VERSION}: install both from one build, then restart nsecd"
        ));
    }
    let mut number = |what: &str| match args.next().as_deref() {
        Some("-") => Ok(None),
        Some(text) => text.parse::<u32>().map(Some).map_err(|_| format!("{what} '{text}' is not a number: {ALONE}")),
        None => Err(ALONE.to_owned()),
    };
    let supervisor = number("supervisor's pid")?.and_then(|pid| i32::try_from(pid).ok()).ok_or(ALONE)?;
    let ids = number("uid")?.zip(number("gid")?);
    Ok(Common { supervisor, ids, rest: args.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Common, String> {
        parse(args.iter().map(|a| a.to_string()))
    }

    #[test]
    fn a_supervisor_of_another_version_is_refused() {
        assert!(parsed(&["0.0.0", "1", "-", "-"]).is_err_and(|e| e.contains("install both from one build")));
    }

    #[test]
    fn arguments_are_version_pid_uid_gid_then_the_roles_own() {
        let common = parsed(&[VERSION, "42", "1000", "1001", "x", "y"]).expect("well formed");
        assert_eq!((common.supervisor, common.ids), (42, Some((1000, 1001))));
        assert_eq!(common.rest, ["x", "y"]);
        assert!(parsed(&[VERSION, "42", "-", "-"]).expect("well formed").ids.is_none());
        for bad in [&[][..], &[VERSION], &[VERSION, "-", "-", "-"], &[VERSION, "1", "x", "-"], &[VERSION, "1", "2"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
