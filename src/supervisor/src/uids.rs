//! A uid of its own for each role, when nsecd starts as root.
//!
//! The package's system users if they exist; else, for a first try, free uids of the range that systemd keeps
//! for dynamic users. Must never pick a uid that a user, a service or a process has.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::fault::{Fault, OrFault};
use crate::names::Names;
use crate::services::Services;

/// systemd's dynamic users (systemd.exec(5), "DynamicUser="; UIDS-GIDS.md).
pub const DYNAMIC: std::ops::RangeInclusive<u32> = 61184..=65519;

/// The system users of the roles: key-holder, gate, ECDH holder, broker.
const USERS: [&str; 4] = ["nsecd-keyholder", "nsecd-gate", "nsecd-ecdh", "nsecd-broker"];

/// The uids of the system users of gate and ECDH holder, as they were found at the start: later the supervisor's filter would not let a
/// name service do what it may do.
static WRITERS: OnceLock<Vec<u32>> = OnceLock::new();

/// Whether a gate or an ECDH holder, of this run or an earlier one, may have that uid.
pub fn may_write_records(uid: u32) -> bool {
    DYNAMIC.contains(&uid) || WRITERS.get().is_some_and(|writers| writers.contains(&uid))
}

/// What a role changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Uid, all four of them.
    pub uid: u32,
    /// Gid, all four of them, and no supplementary groups.
    pub gid: u32,
}

/// The ids of every role; `None` throughout: as the user who started nsecd.
#[derive(Debug, Default)]
pub struct Roles {
    /// One for each account's key-holder.
    pub holders: Vec<Option<Ids>>,
    /// One for each account's gate.
    pub gates: Vec<Option<Ids>>,
    /// The ECDH holder's, where there is one.
    pub ecdh: Option<Ids>,
    /// The broker's.
    pub broker: Option<Ids>,
    /// Held while the uids are in use, so that a second nsecd takes others.
    _reserved: Vec<OwnedFd>,
}

impl Roles {
    /// Finds a uid for each role of `accounts` accounts, and for an ECDH holder if one is wanted, and says so in the log.
    ///
    /// # Errors
    /// No free uid is left, or /proc cannot be read.
    pub fn assign(accounts: usize, ecdh: bool, root: bool) -> Result<Roles, Fault> {
        let nobody = vec![None; accounts];
        let mut roles =
            Roles { holders: nobody.clone(), gates: nobody, ecdh: None, broker: None, _reserved: Vec::new() };
        if !root {
            return Ok(roles);
        }
        let mut services = Services::new();
        // Unless it is root by mistake.
        let mut system = |name| {
            let ids = services.user(name)?.filter(|(uid, gid)| *uid != 0 && *gid != 0);
            Ok::<_, Fault>(ids.map(|(uid, gid)| Ids { uid, gid }))
        };
        let [holder, gate, broker] = [system(USERS[0])?, system(USERS[1])?, system(USERS[3])?];
        let agreement = if ecdh { system(USERS[2])? } else { None };
        let _ = WRITERS.set([gate, agreement].into_iter().flatten().map(|ids| ids.uid).collect());
        let mut free = Free::new(|id| services.is_taken(id));
        for (role, user, slots) in [(USERS[0], holder, &mut roles.holders), (USERS[1], gate, &mut roles.gates)] {
            for slot in slots.iter_mut() {
                *slot = Some(user.map_or_else(|| free.take(role), Ok)?);
            }
        }
        if ecdh {
            roles.ecdh = Some(agreement.map_or_else(|| free.take(USERS[2]), Ok)?);
        }
        roles.broker = Some(broker.map_or_else(|| free.take(USERS[3]), Ok)?);
        if let Some(ids) = free.list() {
            log::info!(
                "no system users for the roles: using uids {ids}, free for now; to create them: for u in keyholder gate ecdh broker; do useradd --system --no-create-home --shell /usr/sbin/nologin nsecd-$u; done"
            );
        }
        roles._reserved = free.reserved;
        Ok(roles)
    }

    /// Ids for key-holder and gate of one more account, as the others have theirs. Names are looked up in files alone.
    ///
    /// # Errors
    /// No free uid is left, or other users' processes cannot be seen.
    pub fn another(&mut self) -> Result<[Option<Ids>; 2], Fault> {
        let like = [self.holders.first(), self.gates.first()].map(|ids| ids.copied().flatten());
        let dynamic = |ids: &Option<Ids>| ids.is_some_and(|ids| DYNAMIC.contains(&ids.uid));
        if !like.iter().any(dynamic) {
            return Ok(like);
        }
        // With hidepid (proc(5)) it took a capability at the start to see who uses which uid.
        if std::fs::metadata("/proc/1/status").is_err() {
            return Err(Fault::new(
                "a new account needs a uid of its own, and which are free can be seen at a start only: restart nsecd, or create the system users nsecd-keyholder and nsecd-gate",
            ));
        }
        let mut free = Free::new(|id| Ok(Names::Files.is_taken(id)));
        let mut ids = like;
        for (slot, role) in ids.iter_mut().zip(["nsecd-keyholder", "nsecd-gate"]).filter(|(ids, _)| dynamic(ids)) {
            *slot = Some(free.take(role)?);
        }
        // Until nsecd ends, even if the account does not: a uid is not given to another role.
        self._reserved.append(&mut free.reserved);
        Ok(ids)
    }
}

/// Uids for those who have none.
struct Free<N> {
    /// Whether somebody has that uid by name: asked last, since it may take the name services.
    is_named: N,
    left: std::ops::RangeInclusive<u32>,
    /// Those of running processes, once somebody needs one.
    used: Option<HashSet<u32>>,
    taken: Vec<u32>,
    reserved: Vec<OwnedFd>,
}

impl<N: FnMut(u32) -> Result<bool, Fault>> Free<N> {
    fn new(is_named: N) -> Free<N> {
        Free { is_named, left: DYNAMIC, used: None, taken: Vec::new(), reserved: Vec::new() }
    }

    /// The uids taken, for the log.
    fn list(&self) -> Option<String> {
        let taken: Vec<String> = self.taken.iter().map(u32::to_string).collect();
        (!taken.is_empty()).then(|| taken.join(", "))
    }

    fn take(&mut self, role: &str) -> Result<Ids, Fault> {
        let used = match self.used.take() {
            Some(used) => used,
            None => running()?,
        };
        let used = self.used.insert(used);
        for id in self.left.by_ref() {
            // A dynamic user of systemd's may have no process now.
            if used.contains(&id) || Path::new(&format!("/run/systemd/dynamic-uid/{id}")).exists() {
                continue;
            }
            if let Some(socket) = reserve(id)?
                && !(self.is_named)(id)?
            {
                self.reserved.push(socket);
                self.taken.push(id);
                return Ok(Ids { uid: id, gid: id });
            }
        }
        Err(Fault::new(format!(
            "no free uid in {}..{} for {role}: create the system users nsecd-keyholder, nsecd-gate, nsecd-ecdh and nsecd-broker",
            DYNAMIC.start(),
            DYNAMIC.end()
        )))
    }
}

/// Holds `id` against other nsecds of this network namespace; `None` if one has it.
fn reserve(id: u32) -> Result<Option<OwnedFd>, Fault> {
    let what = || format!("reserving uid {id}");
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).or_fault(what)?;
    let address = UnixAddr::new_abstract(format!("nsecd-uid-{id}").as_bytes()).or_fault(what)?;
    match bind(fd.as_raw_fd(), &address) {
        Ok(()) => Ok(Some(fd)),
        Err(nix::errno::Errno::EADDRINUSE) => Ok(None),
        Err(e) => Err(e).or_fault(what),
    }
}

/// Every uid and gid that a running process has in any of its four.
fn running() -> Result<HashSet<u32>, Fault> {
    let mut used = HashSet::new();
    // Both lines are among the first of status (proc_pid_status(5)); one read is all that a process costs, of which there may be many.
    let mut text = [0; 1024];
    for entry in std::fs::read_dir("/proc").or_fault(|| "reading /proc".into())?.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes()[0].is_ascii_digit() {
            continue;
        }
        // Processes come and go while we look.
        let status = File::open(entry.path().join("status"));
        let Ok(length) = status.and_then(|mut status| status.read(&mut text)) else { continue };
        let lines = text[..length].split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        for line in lines.filter(|l| l.starts_with("Uid:") || l.starts_with("Gid:")) {
            used.extend(line.split_whitespace().skip(1).filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn an_ordinary_user_keeps_its_uid() {
        let roles = Roles::assign(2, true, false).unwrap();
        let none = (vec![None; 2], vec![None; 2], None, None);
        assert_eq!((roles.holders, roles.gates, roles.ecdh, roles.broker), none);
    }

    #[test]
    fn roles_of_root_never_share_a_uid_nor_take_one_in_use() {
        let first = Roles::assign(2, true, true).unwrap();
        let second = Roles::assign(1, false, true).unwrap();
        assert!(second.ecdh.is_none(), "a uid for nobody");
        let mut all: Vec<Ids> = [&first, &second]
            .iter()
            .flat_map(|r| r.holders.iter().chain(&r.gates).chain([&r.ecdh, &r.broker]).flatten().copied())
            .filter(|ids| DYNAMIC.contains(&ids.uid))
            .collect();
        let count = all.len();
        all.sort_by_key(|i| i.uid);
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|i| i.uid == i.gid));
        let again = running().unwrap();
        assert!(all.iter().all(|i| !again.contains(&i.uid)));
    }

    /// Checked: without a question for names the first half fails, with one for every number of the range the second.
    #[test]
    fn a_number_that_somebody_has_by_name_is_passed_over_and_only_numbers_in_question_are_asked_for() {
        let mut asked = Vec::new();
        let mut free = Free::new(|id| {
            asked.push(id);
            Ok(asked.len() != 2)
        });
        let id = free.take("nsecd-gate").unwrap().uid;
        assert_eq!((free.reserved.len(), free.taken.clone()), (1, vec![id]));
        assert_eq!((asked.len(), asked.last()), (2, Some(&id)));
    }

    /// Checked: with the first of each line's four numbers alone this fails.
    #[test]
    fn neither_uid_nor_gid_of_a_process_is_free_real_or_effective() {
        if !crate::tests::root("a process of other users") {
            return;
        }
        let mut other = Command::new("setpriv");
        other.args(["--clear-groups", "--rgid=65001", "--egid=65002", "--ruid=65003", "--euid=65004", "cat"]);
        let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // What comes back has passed through the program, which runs as that user.
        other.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let used = running();
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
        let used = used.unwrap();
        assert!([65001, 65002, 65003, 65004].iter().all(|id| used.contains(id)));
    }

    #[test]
    fn an_exhausted_range_is_an_error() {
        let mut free = Free { used: Some(DYNAMIC.collect()), ..Free::new(|_| Ok(false)) };
        assert!(free.take("nsecd-gate").unwrap_err().to_string().contains("no free uid"));
    }
}
