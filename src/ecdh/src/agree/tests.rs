//! How deep a key agreement goes into the vault's stack.

use super::*;
use nsecd_vault::{STACK, Vault};

#[path = "../../../vault/src/vault/tests/depth.rs"]
mod depth;

/// Does `parse` and `agree` on the vault's stack, and notes how deep that went.
extern "C" fn measured(data: &mut Data<Buffers>) -> bool {
    let done = parse(data) && agree(data);
    depth::note(data, STACK);
    done
}

/// Checked: with a stack of one page this fails.
#[test]
fn an_agreement_reaches_two_thirds_of_the_stack_at_most() {
    let mut vault = Vault::open(&["0", "ephemeral"].map(String::from), Buffers::EMPTY, &mut depth::nothing());
    let own = vault.data.public_key;
    vault.data.role.request[1..33].copy_from_slice(&own);
    assert!(vault.run(measured));
    depth::check(STACK);
}
