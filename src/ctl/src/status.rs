//! `status`: what the broker tells, which accounts the supervisor has frozen, and what the kernel says of each process.

use crate::cli::AdminDir;
use crate::{admin, complain, obeyed_by_none, order, show};
use nsecd_policy::time::iso;
use nsecd_policy::units::counted;
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::process::ExitCode;

/// Asks, and prints.
pub(crate) fn run(admin: &AdminDir, as_json: bool) -> ExitCode {
    let mut status = match admin::ask(admin, "status", json!({})) {
        Ok(status) => status,
        Err((what, code)) => return complain(&what, code),
    };
    match order::frozen(admin) {
        Ok(frozen) => {
            for account in status["accounts"].as_array_mut().into_iter().flatten() {
                let found = frozen.iter().find(|(name, _)| account["name"] == json!(name));
                account["frozen"] = found.map_or(Value::Null, |(_, since)| match since {
                    None => json!(false),
                    Some(0) => json!(true),
                    Some(ms) => json!(iso(*ms)),
                });
            }
        }
        Err(what) => {
            let text = format!("which accounts are frozen is not known: {what}");
            status["warnings"].as_array_mut().into_iter().for_each(|warnings| warnings.push(json!(text)));
        }
    }
    for process in status["processes"].as_array_mut().into_iter().flatten() {
        process["kernel"] = kernel(process["pid"].as_u64().unwrap_or_default());
    }
    let text = if as_json { status.to_string() } else { text(&status) };
    show(text.trim_end(), ExitCode::SUCCESS)
}

/// What locks a process, as the kernel says it; null where it does not say.
fn kernel(pid: u64) -> Value {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Value::Null };
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let capabilities = field("CapEff").map(|set| if set.bytes().all(|b| b == b'0') { "none".to_owned() } else { set });
    json!({
        "seccomp_filters": number("Seccomp_filters"),
        "no_new_privs": number("NoNewPrivs").map(|n| n == 1),
        "capabilities": capabilities,
    })
}

/// For people.
fn text(status: &Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // The newlines in front are ours; a field has none.
        let own = text.len() - text.trim_start_matches('\n').len();
        let _ = writeln!(out, "{}{}", &text[..own], obeyed_by_none(&text[own..], false));
    };
    let since = status["since_ms"].as_u64().map(iso).unwrap_or_default();
    line(format!("nsecd {}, its broker serving since {since}", word(&status["version"])));
    line("\naccounts".into());
    for account in list(&status["accounts"]) {
        let frozen = match &account["frozen"] {
            Value::Bool(false) => String::new(),
            Value::String(since) => format!("; FROZEN since {since}"),
            Value::Null => "; frozen or not is not known".into(),
            _ => "; FROZEN".into(),
        };
        line(format!("  {}  {}", word(&account["name"]), word(&account["pubkey"])));
        let rows =
            account["record"]["rows"].as_u64().map_or("no record".into(), |rows| counted(rows, "row") + " on record");
        line(format!("    kinds {}; ceiling {}; {rows}{frozen}", kinds(&account["kinds"]), word(&account["ceiling"])));
    }
    line("\nsockets".into());
    for socket in list(&status["sockets"]) {
        line(format!("  {}  {}", word(&socket["name"]), word(&socket["path"])));
        line(format!(
            "    kinds {}; sessions by {}; {}, {}",
            kinds(&socket["kinds"]),
            word(&socket["start_sessions"]),
            some(&socket["connections"], "connection"),
            some(&socket["sessions"], "session")
        ));
        line(format!("    whole socket: {}", rates(&socket["total"])));
        for who in list(&socket["principals"]) {
            let cgroup = who["cgroup"].as_u64().map(|id| format!(" in cgroup {id}")).unwrap_or_default();
            let held = if who["frozen"] == json!(true) { "; FROZEN for a canary" } else { "" };
            let connections = some(&who["connections"], "connection");
            line(format!("    uid {}{cgroup}: {}; {connections}{held}", who["uid"], rates(&who["rates"])));
        }
        if socket["principals_left_out"].as_u64() > Some(0) {
            line(format!("    and {} others", socket["principals_left_out"]));
        }
        if let Some(refused) = by_code(&socket["refusals"]) {
            line(format!("    refused: {refused}"));
        }
    }
    line("\nprocesses".into());
    for process in list(&status["processes"]) {
        line(format!(
            "  {} (pid {}, uid {}): {}",
            word(&process["name"]),
            process["pid"],
            process["uid"],
            lock(process)
        ));
    }
    line(String::new());
    let sessions = &status["sessions"];
    line(format!("{}, {} of them issued by the operator", some(&sessions["live"], "session"), sessions["issued"]));
    for (key, name) in [("journal", "journal"), ("decision_log", "decision log")] {
        let can = if status[key]["writable"] == json!(true) { "" } else { ", CANNOT BE WRITTEN" };
        line(format!("{name}: {} bytes{can}", status[key]["bytes"]));
    }
    for warning in list(&status["warnings"]) {
        line(format!("warning: {}", word(warning)));
    }
    out
}

fn lock(process: &Value) -> String {
    let kernel = &process["kernel"];
    let mut parts = Vec::new();
    match kernel["seccomp_filters"].as_u64() {
        Some(1) => parts.push("1 seccomp filter".into()),
        Some(n) => parts.push(format!("{n} seccomp filters")),
        None => parts.push("the kernel does not say".into()),
    }
    if kernel["no_new_privs"] == json!(true) {
        parts.push("no new privileges".into());
    }
    parts.extend(kernel["capabilities"].as_str().map(|set| format!("capabilities {set}")));
    let missing: Vec<&str> = list(&process["missing"]).iter().map(word).collect();
    if !missing.is_empty() {
        parts.push(format!("lacks {}", missing.join(", ")));
    }
    parts.join(", ")
}

fn rates(rates: &Value) -> String {
    if rates.is_null() {
        return "not limited".into();
    }
    let of = |window: &str| format!("{}/{}", rates[window]["used"], rates[window]["most"]);
    let seconds = &rates["burst"]["seconds"];
    format!("{} in {seconds} s, {} a minute, {} an hour", of("burst"), of("minute"), of("hour"))
}

/// So many of them, as the reply has it.
fn some(count: &Value, one: &str) -> String {
    count.as_u64().map_or_else(|| format!("{count} {one}s"), |n| counted(n, one))
}

fn by_code(counts: &Value) -> Option<String> {
    let counts = counts.as_object().filter(|counts| !counts.is_empty())?;
    Some(counts.iter().map(|(rule, n)| format!("{rule} {n}")).collect::<Vec<_>>().join(", "))
}

fn kinds(kinds: &Value) -> String {
    match kinds {
        Value::Array(list) => list.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
        other => word(other).to_owned(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
