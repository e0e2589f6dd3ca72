//! Keys in the user keyring (keyrings(7)): found and removed by their serial number. Must never read one.
//!
//! The user keyring gives a key only to a process that holds it: it is linked into this process's own keyring, which no child
//! inherits, for as long as one of these takes.

use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier, KeySerialId};

use crate::fault::{Fault, OrFault};

/// The serial number of the first of `names` that is there.
///
/// # Errors
/// None is; the keyrings cannot be used.
pub fn find(names: &[&str]) -> Result<i32, Fault> {
    let found = holding(|user| Ok(names.iter().find_map(|name| user.search(name).ok())))
        .or_fault(|| "looking into the user keyring".into())?;
    found.map(|key| key.get_id().as_raw_id()).ok_or_else(|| {
        let first = names.first().unwrap_or(&"nsec");
        Fault::new(format!(
            "no key named {} in the user keyring; add one with: keyctl padd user {first} @u",
            names.join(", ")
        ))
    })
}

/// Removes a key: revoked, it is unreadable to whoever has linked it elsewhere; unlinked, it is gone from the user keyring.
///
/// # Errors
/// It could not be done.
pub fn consume(serial: i32) -> Result<(), Fault> {
    let key = Key::from_id(KeySerialId::new(serial));
    holding(|user| key.revoke().and_then(|()| user.unlink_key(key)))
        .or_fault(|| "consume = true, but the key cannot be removed from the user keyring".into())
}

fn holding<T>(action: impl FnOnce(&KeyRing) -> Result<T, KeyError>) -> Result<T, KeyError> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true)?;
    let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
    own.link_keyring(user)?;
    let done = action(&user);
    own.unlink_keyring(user)?;
    done
}
