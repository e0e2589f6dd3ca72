//! `nsecd-fuzz TARGET FILE…` runs a target once on each file: how a finding is looked at. With the feature `libfuzzer` this
//! is libFuzzer instead, for the target that NSECD_FUZZ_TARGET names: see fuzz/run.

#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: std::sync::LazyLock<nsecd_fuzz::Target> = std::sync::LazyLock::new(|| {
        let name = std::env::var("NSECD_FUZZ_TARGET").unwrap_or_default();
        *nsecd_fuzz::target(&name).expect("NSECD_FUZZ_TARGET names a target")
    });
    (TARGET.run)(data);
});

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let Some(target) = nsecd_fuzz::target(&name) else {
        let names: Vec<&str> = nsecd_fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("nsecd-fuzz TARGET FILE…\ntargets: {}", names.join(" "));
        return std::process::ExitCode::from(2);
    };
    for path in args {
        match std::fs::read(&path) {
            Ok(bytes) => (target.run)(&bytes),
            Err(e) => {
                eprintln!("{path}: {e}");
                return std::process::ExitCode::FAILURE;
            }
        }
        println!("{path}: holds");
    }
    std::process::ExitCode::SUCCESS
}
