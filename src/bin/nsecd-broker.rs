//! nsecd-broker: see the crate nsecd-broker (src/broker).

fn main() {
    nsecd_broker::main()
}
