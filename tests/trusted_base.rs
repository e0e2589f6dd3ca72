//! How much code has to be trusted with the key and with what becomes a signature, and whose it is.
//!
//! Counted: every line with code, as rustfmt sets it, of the crates of this workspace that key-holder, gate and ECDH holder link
//! (cargo's own dependency graph says which), and of their mains. Not counted: blank lines, comments, code for tests, the
//! build script and the policies that it compiles (sandbox/*.json: data, proved by tests/proofs.rs), and the supervisor, which
//! prepares what these processes start with. `cargo test --test trusted_base -- --nocapture` prints the table.
//!
//! Checked: with a dependency added to the vault, with the line limit one below the count, with a second file of unsafe code in
//! the sandbox, and with `#[cfg(test)]` put before code that is linked, these tests fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Roles of the trusted base, by the names of their crates and binaries.
const ROLES: [&str; 3] = ["nsecd-keyholder", "nsecd-gate", "nsecd-ecdh"];
/// Lines of code that they may have together.
const CEILING: usize = 999;

/// A package in a role's closure.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    /// Its library's first file.
    root: PathBuf,
    /// Whether it is of this workspace.
    ours: bool,
}

/// What `cargo metadata` says of this workspace.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a crate links (`kind` null) or is built with (`kind` build), itself included, through any number of steps.
fn closure(metadata: &Value, name: &str, kinds: &[Option<&str>]) -> BTreeSet<Package> {
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array().unwrap().iter().map(|p| (p["id"].as_str().unwrap(), p)).collect();
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|n| (n["id"].as_str().unwrap(), n)).collect();
    let start = packages.values().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no package {name}"));
    let mut next = vec![start["id"].as_str().unwrap()];
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let of_kind = |k: &Value| kinds.contains(&k["kind"].as_str());
            if dependency["dep_kinds"].as_array().unwrap().iter().any(of_kind) {
                next.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    let members: Vec<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    let package = |id: &str| {
        let is_library = |t: &&Value| t["kind"].as_array().unwrap().iter().any(|k| k == "lib" || k == "proc-macro");
        let target = packages[id]["targets"].as_array().unwrap().iter().find(is_library).unwrap();
        Package {
            name: packages[id]["name"].as_str().unwrap().into(),
            root: target["src_path"].as_str().unwrap().into(),
            ours: members.contains(&id),
        }
    };
    seen.into_iter().map(package).collect()
}

/// A source file's lines of code, and the modules that it names. Test code must be a module, inline to a `}` at the
/// line's start or in a file of its own: anything else is an error and not a guess.
fn read(path: &Path) -> (Vec<String>, Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(!text.contains("/*"), "{}: block comments are not told from code here", path.display());
    let (mut code, mut modules) = (Vec::new(), Vec::new());
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            let item = lines.next().unwrap();
            assert!(line == "#[cfg(test)]" && item.starts_with("mod "), "{}: {item}", path.display());
            if item.ends_with('{') {
                assert!(lines.any(|line| line == "}"), "{}: {item}", path.display());
            }
            continue;
        }
        let declared = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ");
        modules.extend(declared.and_then(|rest| rest.strip_suffix(';')).map(String::from));
        code.push(line.into());
    }
    (code, modules)
}

/// Every file of a crate that is compiled when it is no test, with its lines of code.
fn files(root: &Path, found: &mut BTreeMap<PathBuf, Vec<String>>) {
    let (code, modules) = read(root);
    let name = root.file_stem().unwrap();
    let dir = if name == "lib" { root.parent().unwrap().into() } else { root.with_extension("") };
    for module in modules {
        files(&dir.join(module + ".rs"), found);
    }
    found.insert(root.into(), code);
}

/// Crates of this workspace that the roles link, with their files.
fn base() -> BTreeMap<String, BTreeMap<PathBuf, Vec<String>>> {
    let metadata = metadata();
    let ours = ROLES.iter().flat_map(|role| closure(&metadata, role, &[None])).filter(|package| package.ours);
    let mut crates = BTreeMap::new();
    for package in ours {
        let mut found = BTreeMap::new();
        files(&package.root, &mut found);
        crates.insert(package.name, found);
    }
    let main = |role| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/bin/{role}.rs"));
    let mains = ROLES.map(|role| (main(role), read(&main(role)).0));
    crates.insert("mains".into(), mains.into());
    crates
}

#[test]
fn key_holder_gate_and_ecdh_holder_are_few_lines_together() {
    let mut all = 0;
    for (name, files) in base() {
        println!("{:5} {name}", files.values().map(Vec::len).sum::<usize>());
        for (path, code) in files {
            let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path);
            println!("      {:5} {}", code.len(), shown.display());
            all += code.len();
        }
    }
    println!("{all:5} lines of code");
    assert!(all <= CEILING, "{all} lines of code, {CEILING} are the most");
    assert!(all > 500, "{all} lines: the files were not found");
}

#[test]
fn each_crate_of_the_trusted_base_has_its_unsafe_code_in_one_file() {
    let mut with_unsafe = 0;
    for (name, files) in base() {
        let is_unsafe = |line: &String| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
        let of: Vec<_> = files.iter().filter(|(_, code)| code.iter().any(is_unsafe)).map(|(path, _)| path).collect();
        assert!(of.len() <= 1, "{name}: {of:?}");
        with_unsafe += of.len();
    }
    assert!(with_unsafe > 1, "control: unsafe code was not found");
}

#[test]
fn outside_code_in_the_key_holder_is_libc_and_libsecp256k1() {
    let metadata = metadata();
    let outside = |role: &str, kinds: &[Option<&str>]| -> Vec<String> {
        closure(&metadata, role, kinds)
            .into_iter()
            .filter(|package| !package.ours)
            .map(|package| package.name)
            .collect()
    };
    assert_eq!(outside("nsecd-keyholder", &[None]), ["libc", "secp256k1-sys"]);
    // The others hash, and the ECDH holder makes message keys; what is optional there is in use elsewhere in this workspace.
    let of_sha2 =
        ["block-buffer", "cfg-if", "cmov", "cpufeatures", "crypto-common", "ctutils", "digest", "hybrid-array"];
    let more = |names: &[&str]| {
        let all = of_sha2.iter().chain(&["libc", "sha2", "typenum", "zeroize"]).chain(names);
        all.map(|name| name.to_string()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(outside("nsecd-gate", &[None]), more(&[]));
    assert_eq!(outside("nsecd-ecdh", &[None]), more(&["hmac", "secp256k1-sys"]));
    for role in ROLES {
        let linked = outside(role, &[None]);
        let tools: Vec<_> =
            outside(role, &[None, Some("build")]).into_iter().filter(|name| !linked.contains(name)).collect();
        println!("{role} is built with {}", tools.join(", "));
    }
}
