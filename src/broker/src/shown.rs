//! An agent's words in a line of a log: they forge no line, fill no disk and carry no token.

/// Hex digits in a row that are not shown: a token, or so much of one that was cut that the rest could be guessed.
const SECRET: usize = 32;

/// Appends printable ASCII as it is, the rest as `\u{…}` and the like, `<64 hex digits>` for what may be a token that was put where a
/// name belongs, and cuts after `most` characters, with an ellipsis.
pub fn push_shown(out: &mut String, text: &str, most: usize) {
    let end = out.len() + most;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if out.len() >= end {
            out.push_str("...");
            return;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits >= SECRET {
            out.push_str(&format!("<{digits} hex digits>"));
            rest = &rest[digits..];
            continue;
        }
        // A shorter run is shown digit by digit, and must not be counted anew from each of them.
        let (part, after) = rest.split_at(digits.max(c.len_utf8()));
        for c in part.chars().take(end - out.len()) {
            match c {
                ' '..='~' if c != '\\' => out.push(c),
                other => out.extend(other.escape_default()),
            }
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        push_shown(&mut out, text, 200);
        out
    }

    #[test]
    fn what_is_shown_is_printable_ascii_and_short() {
        assert_eq!(shown("a\nb\\\u{1b}é deadbeef!"), r"a\nb\\\u{1b}\u{e9} deadbeef!");
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"x".repeat(201)), "x".repeat(200) + "...");
        let digits = "12345678901234567890123456789 ".repeat(9);
        assert_eq!(shown(&digits), digits[..200].to_owned() + "...");
    }

    /// Checked: with no run taken for a token, and with only those of 64 digits, this fails.
    #[test]
    fn a_token_in_the_place_of_a_name_is_not_shown_nor_so_much_of_it_that_the_rest_could_be_guessed() {
        let token = "0123456789abcdefABCDEF".repeat(3);
        assert_eq!(
            shown(&format!("Unknown account: {}. Loaded: x", &token[..64])),
            "Unknown account: <64 hex digits>. Loaded: x"
        );
        assert_eq!(shown(&format!("{}...", &token[..60])), "<60 hex digits>...");
        assert_eq!(shown(&token[..31]), token[..31]);
    }
}
