//! nsecd-gate: see the crate nsecd-gate (src/gate).

fn main() {
    nsecd_gate::main()
}
