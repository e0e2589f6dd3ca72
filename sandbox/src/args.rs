//! The arguments every role is started with: version, supervisor's process id, uid and gid to become, then the role's own.
//!
//! They come from the supervisor alone and hold nothing secret.

use crate::{hello::VERSION, lock, lock::Confinement};
use core::fmt::Display;
use std::io::Write;

/// Exit code: wrong arguments or a supervisor of another version.
pub const USAGE: i32 = 64;
/// Exit code: the key is not a valid one.
pub const BAD_KEY: i32 = 65;
/// Exit code: no key could be read from its source.
pub const NO_KEY: i32 = 66;
/// Exit code: a mandatory step of the lock failed.
pub const NOT_LOCKED: i32 = 70;

/// Reads the process's arguments and begins its confinement: only descriptors up to `highest_fd` stay open. Returns the
/// role's own arguments too; ends the process where they are not from this version's supervisor.
pub fn begin(highest_fd: u32, filter: &'static [u64]) -> (Confinement, Vec<String>) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (supervisor, ids, own) = parse(&arguments).unwrap_or_else(|why| fail(USAGE, why));
    let mut confinement =
        Confinement { supervisor, ids, highest_fd, connections: None, writes_files: true, filter, missing: 0 };
    confinement.begin().unwrap_or_else(|why| fail(NOT_LOCKED, why));
    (confinement, own.to_vec())
}

/// Ends a role before its lock is complete, with one line for the operator.
pub fn fail(code: i32, why: impl Display) -> ! {
    let role = std::env::args().next().unwrap_or_default();
    let _ = std::io::stderr().write_all(format!("{role}: {why}\n").as_bytes());
    lock::exit(code)
}

type Parsed<'a> = (u32, Option<(u32, u32)>, &'a [String]);

fn parse(arguments: &[String]) -> Result<Parsed<'_>, String> {
    const ALONE: &str = "this program is started by nsecd; run nsecd instead";
    let [version, supervisor, uid, gid, own @ ..] = arguments else { return Err(ALONE.into()) };
    if version != VERSION {
        return Err(format!(
            "started by nsecd {version}, but this is {VERSION}: install both from one build, then restart nsecd"
        ));
    }
    let number = |text: &String| text.parse::<u32>().map_err(|_| format!("'{text}' is not a number: {ALONE}"));
    let ids = if uid == "-" && gid == "-" { None } else { Some((number(uid)?, number(gid)?)) };
    Ok((number(supervisor)?, ids, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(args: &[&str]) -> Vec<String> {
        args.iter().map(|a| a.to_string()).collect()
    }

    #[test]
    fn a_supervisor_of_another_version_is_refused() {
        assert!(parse(&owned(&["0.0.0", "1", "-", "-"])).is_err_and(|e| e.contains("install both from one build")));
    }

    #[test]
    fn arguments_are_version_pid_uid_gid_then_the_roles_own() {
        let own = owned(&["x", "y"]);
        let arguments = owned(&[VERSION, "42", "1000", "1001", "x", "y"]);
        assert_eq!(parse(&arguments), Ok((42, Some((1000, 1001)), &own[..])));
        assert_eq!(parse(&owned(&[VERSION, "42", "-", "-"])), Ok((42, None, &[][..])));
        for bad in [
            &[][..],
            &["--help"],
            &[VERSION],
            &[VERSION, "-", "-", "-"],
            &[VERSION, "1", "x", "-"],
            &[VERSION, "1", "-", "2"],
            &[VERSION, "1", "2"],
        ] {
            assert!(parse(&owned(bad)).is_err(), "{bad:?}");
        }
    }
}
