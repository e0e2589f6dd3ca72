//! How deep a signature goes into the vault's stack.

use super::*;
use nsecd_vault::{STACK, Vault};

#[path = "../../../vault/src/vault/tests/depth.rs"]
mod depth;

/// Signs on the vault's stack, and notes how deep that went.
extern "C" fn measured(data: &mut Data<Buffers>) -> bool {
    let done = sign(data);
    depth::note(data, STACK);
    done
}

/// Checked: with a stack of one page this fails.
#[test]
fn a_signature_reaches_two_thirds_of_the_stack_at_most() {
    let mut vault = Vault::open(&["0", "ephemeral"].map(String::from), Buffers::EMPTY, &mut depth::nothing());
    assert!(vault.run(measured));
    depth::check(STACK);
}
