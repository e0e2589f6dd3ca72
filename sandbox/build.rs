//! Compiles the commented JSON policies beside this file to BPF and embeds them as constants: a role
//! carries its finished filter and no parser.

use std::{env, fs::File, path::Path, process::exit};

const ROLES: [&str; 5] = ["keyholder", "gate", "ecdh", "broker", "supervisor"];

fn main() {
    let mut code = String::new();
    for role in ROLES {
        let path = format!("{role}.json");
        println!("cargo:rerun-if-changed={path}");
        match compile(role, &path) {
            Ok(program) => code += &program,
            Err(e) => {
                eprintln!("sandbox/{path}: {e}");
                exit(1)
            }
        }
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("filters.rs"), code).expect("OUT_DIR is writable");
}

/// One constant: each BPF instruction as the eight bytes of `struct sock_filter` in a u64.
fn compile(role: &str, path: &str) -> Result<String, String> {
    let arch = "x86_64".try_into().map_err(|e| format!("{e:?}"))?;
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut programs = seccompiler::compile_from_json(file, arch).map_err(|e| e.to_string())?;
    let program = programs.remove(role).ok_or(format!("no policy named {role}"))?;
    let words: Vec<String> = program
        .iter()
        .map(|i| u64::from(i.code) | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | u64::from(i.k) << 32)
        .map(|word| format!("{word:#x}"))
        .collect();
    Ok(format!(
        "/// The filter of sandbox/{path}, as `struct sock_filter` words.\npub static {}: &[u64] = &[{}];\n",
        role.to_uppercase(),
        words.join(",")
    ))
}
