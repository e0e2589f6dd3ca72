//! What a package installs beside the binaries: man pages that say what help says, completions that complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with everything written into it, removed at the end.
struct Pages(PathBuf);

impl Pages {
    fn write(name: &str) -> Pages {
        let dir = std::env::temp_dir().join(format!("nsecd-manual-{name}-{}", std::process::id()));
        let status = Command::new(env!("CARGO_BIN_EXE_nsecd-manual")).arg(&dir).status().expect("it runs");
        let pages = Pages(dir);
        assert!(status.success());
        pages
    }

    fn read(&self, path: &str) -> String {
        let path = self.0.join(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The page's words, without what tells roff how to set them.
    fn words(&self, path: &str) -> String {
        let is_text = |line: &&str| !line.starts_with('.');
        let text = self.read(path).lines().filter(is_text).collect::<Vec<_>>().join(" ");
        let plain = text.replace("\\fB", "").replace("\\fR", "").replace("\\fI", "").replace("\\*(Aq", "'");
        plain.replace("\\&", "").replace('\\', "").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn nsecds_page_says_all_that_its_help_says() {
    let pages = Pages::write("nsecd");
    let page = pages.words("man8/nsecd.8");
    let help = include_str!("../../supervisor/src/help.txt");
    let mut from = 0;
    for line in help.lines() {
        let line = line.trim_start_matches("Exit status: ").split_whitespace().collect::<Vec<_>>().join(" ");
        let is_title = line.ends_with(':') && line.len() < 20 && !line.starts_with('-');
        if is_title {
            continue;
        }
        let at = page[from..].find(&line).unwrap_or_else(|| panic!("not in the page, or not in its place: {line}"));
        from += at + line.len();
    }
    for title in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH ENVIRONMENT", ".SH \"EXIT STATUS\""] {
        assert!(pages.read("man8/nsecd.8").contains(title), "{title}");
    }
}

#[test]
fn every_command_of_nsecctl_has_a_page_with_every_option() {
    let pages = Pages::write("nsecctl");
    let mut command = nsecd_ctl::command();
    command.build();
    let mut count = 0;
    visit(&command, "nsecctl", &mut |command, name| {
        let page = pages.words(&format!("man1/{name}.1"));
        for option in command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("--{option}")), "{name} --{option}");
        }
        let about = command.get_about().unwrap_or_else(|| panic!("{name} says nothing of itself")).to_string();
        assert!(page.contains(&about), "{name}: {about}");
        count += 1;
    });
    assert!(count > 10, "the commands were not found");
    assert!(pages.words("man1/nsecctl.1").contains("3 no answer"), "exit codes");
}

fn visit(command: &clap::Command, name: &str, action: &mut impl FnMut(&clap::Command, &str)) {
    action(command, name);
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        visit(inner, &format!("{name}-{}", inner.get_name()), action);
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let pages = Pages::write("completions");
    let script = pages.0.join("completions/nsecctl.bash");
    for (line, expected) in [
        (&["nsecctl", "aud"][..], &["audit"][..]),
        (&["nsecctl", "audit", ""], &["verify", "tail"]),
        (&["nsecctl", "session", "start", "--tok"], &["--token-file"]),
    ] {
        let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let program = format!(
            ". '{}'; COMP_WORDS=({}); COMP_CWORD={}; _nsecctl nsecctl '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            line.len() - 1,
            line[line.len() - 1],
            line[line.len() - 2],
        );
        let output = Command::new("bash").args(["--norc", "-c", &program]).output().expect("bash");
        let offered = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in expected {
            assert!(
                offered.lines().any(|o| o == *word),
                "{line:?}: {offered}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    for (shell, path) in [("zsh", "completions/_nsecctl"), ("fish", "completions/nsecctl.fish")] {
        let text = pages.read(path);
        for command in nsecd_ctl::command().get_subcommands() {
            assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
        assert!(Path::new(&pages.0.join(path)).exists() && text.contains("token-file"), "{shell}");
    }
}
