//! The operator's end of the admin socket.

use super::{Client, Nsecd};
use std::path::PathBuf;

/// Where it listens.
pub fn socket(nsecd: &Nsecd) -> PathBuf {
    nsecd.dir.join("admin/admin.sock")
}

/// A connection.
pub fn connect(nsecd: &Nsecd) -> Client {
    Client::connect(&socket(nsecd))
}
