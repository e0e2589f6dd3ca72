//! Every target holds for its whole committed corpus: with `cargo test` alone, without a fuzzer.

use std::path::Path;

use nsecd_fuzz::TARGETS;

/// Inputs of a target, at least ten: an empty corpus would show nothing.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let inputs: Vec<Vec<u8>> =
        files.map(|file| std::fs::read(file.expect("an entry").path()).expect("a file")).collect();
    assert!(inputs.len() >= 10, "{name}: {} inputs", inputs.len());
    inputs
}

#[test]
fn every_target_holds_for_its_corpus_and_for_each_input_cut_short() {
    for target in TARGETS {
        for input in corpus(target.name) {
            (target.run)(&input);
            (target.run)(&input[..input.len() / 2]);
        }
    }
}
