//! Text as it leaves the agent, for a terminal, a log, a dump or the catalog: without logins, and without characters
//! that move a cursor, turn text around or cannot be seen. Whatever an instance, Consul, another agent or the
//! environment said, it goes through here once, at the door through which it leaves.

use std::borrow::Cow;
use std::fmt::Write;

/// What stands for a login or a secret.
pub const REDACTED: &str = "(redacted)";

/// On one line: every character that is not plain is escaped, `\n` and `\u{202e}`.
#[must_use]
pub fn line(text: &str) -> String {
    escaped(&without_logins(text, |c| c == '"'), |out, c| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // Writing to a string cannot fail.
        c => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    })
}

/// Several lines: the same, but what ends a line ends it.
#[must_use]
pub fn lines(text: &str) -> String {
    let parts: Vec<String> = text.split('\n').map(line).collect();
    parts.join("\n")
}

/// A JSON document, or several, one a line: the same document for every reader of JSON, as `\u202e` and, beyond the
/// 65,536 characters that have four digits, as two surrogates.
#[must_use]
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    let mut rest = document;
    while let Some(start) = rest.find('"') {
        let (outside, string) = rest.split_at(start + 1);
        out.push_str(&json_escaped(outside));
        let (inside, behind) = string.split_at(string_end(string));
        // A word within a string begins behind its quote or a blank, so never in the middle of an escape.
        out.push_str(&json_escaped(&without_logins(inside, |_| false)));
        match behind.strip_prefix('"') {
            Some(behind) => {
                out.push('"');
                rest = behind;
            }
            None => rest = behind,
        }
    }
    out.push_str(&json_escaped(rest));
    out
}

/// Where the string ends that begins here: at a quote without a backslash of its own before it.
fn string_end(string: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in string.char_indices() {
        match c {
            '"' if !is_escaped => return at,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    string.len()
}

fn json_escaped(text: &str) -> String {
    escaped(text, |out, c| {
        // Outside of strings JSON knows these alone, and within them it allows no control character.
        if matches!(c, '\n' | '\r' | '\t') {
            return out.push(c);
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// A single value, such as that of a setting, without the `user:password@` of an address in it. All that stands before
/// the last `@` goes, as a password may hold anything; a scheme before it stays.
#[must_use]
pub fn value(text: &str) -> Cow<'_, str> {
    let Some((login, address)) = text.rsplit_once('@') else {
        return Cow::Borrowed(text);
    };
    let scheme = login.find("://").map_or("", |at| &login[..at + 3]);
    Cow::Owned(format!("{scheme}{REDACTED}@{address}"))
}

/// Whether a reader could not see that it is there, or would see other characters in another order for it: controls
/// (C0 and C1), marks that turn the direction of text, and what takes no room and shows nothing. In another place than
/// these it is what people write.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

/// A text of many words. A word with a `:` before its last `@` is an address with its login in front, unless an `@` comes
/// first, as in the id of a service (`tarantool@10.0.0.1:3301`). A word ends at a blank, at what cannot be seen, and where
/// `ends` says so.
fn without_logins(text: &str, ends: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| ends(c) || c.is_whitespace() || is_hidden(c)) {
        if has_login(part) {
            out.push_str(&value(part));
        } else {
            out.push_str(part);
        }
    }
    Cow::Owned(out)
}

fn has_login(word: &str) -> bool {
    let behind_scheme = word.split_once("://").map_or(word, |(_, rest)| rest);
    match (behind_scheme.find(':'), behind_scheme.find('@')) {
        (Some(colon), Some(at)) => colon < at,
        (Some(_) | None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every character that must not leave as it is, and what people write beside them.
    pub(crate) fn any_text() -> impl Strategy<Value = String> {
        let hidden = prop_oneof![
            prop::char::range('\0', '\u{a0}'),
            prop::char::range('\u{180c}', '\u{180f}'),
            prop::char::range('\u{2000}', '\u{2070}'),
            prop::char::range('\u{e0000}', '\u{e0200}'),
            prop::sample::select(vec![
                '\u{ad}', '\u{61c}', '\u{feff}', '\u{fffa}', '"', '\\', '@', ':'
            ]),
            any::<char>(),
        ];
        proptest::collection::vec(hidden, 0..40).prop_map(|chars| chars.into_iter().collect())
    }

    /// The same without an `@`: nothing in it is taken for a login.
    fn no_login() -> impl Strategy<Value = String> {
        any_text().prop_map(|text| text.replace('@', ""))
    }

    proptest! {
        #[test]
        fn nothing_hidden_leaves(text in any_text()) {
            prop_assert!(!line(&text).chars().any(is_hidden));
            prop_assert!(!lines(&text).chars().any(|c| c != '\n' && is_hidden(c)));
        }

        #[test]
        fn text_can_be_told_from_its_escapes(text in "[a-z \u{61c}\u{202e}\u{1b}]{0,12}") {
            let back = line(&text)
                .replace("\\u{61c}", "\u{61c}")
                .replace("\\u{202e}", "\u{202e}")
                .replace("\\u{1b}", "\u{1b}");
            prop_assert_eq!(back, text);
        }

        #[test]
        fn a_json_document_says_the_same_in_plain_characters(texts in proptest::collection::vec(no_login(), 1..4)) {
            let document = serde_json::json!({ "texts": texts, "n": 1 });
            let plain = json(&document.to_string());
            prop_assert!(!plain.chars().any(is_hidden), "{:?}", plain);
            let back: serde_json::Value = serde_json::from_str(&plain).unwrap();
            prop_assert_eq!(back, document);
        }

        #[test]
        fn a_json_document_stays_one_whatever_is_in_it(texts in proptest::collection::vec(any_text(), 1..4)) {
            let plain = json(&serde_json::json!({ "texts": texts }).to_string());
            prop_assert!(!plain.chars().any(is_hidden), "{:?}", plain);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&plain).is_ok(), "{}", plain);
        }

        #[test]
        fn a_password_in_an_address_never_leaves(
            scheme in prop::sample::select(vec!["", "http://", "unix/:", "x=", "("]),
            password in "SECRET[a-zA-Z0-9:@/?#%!$&'()*+,;=._~-]{0,12}",
            before in "[a-z ]{0,9}",
        ) {
            let address = format!("{scheme}admin:{password}@db-1:3301");
            for text in [line(&format!("{before} {address}, more")), value(&address).into_owned()] {
                prop_assert!(!text.contains("SECRET"), "{}", text);
                prop_assert!(text.contains("db-1:3301"), "{}", text);
            }
            let document = serde_json::json!({ "uri": address, "n": [address] });
            prop_assert!(!json(&document.to_string()).contains("SECRET"));
            let quoted = serde_json::json!({ "uri": format!("admin:\"{password}@db-1") });
            prop_assert!(!json(&quoted.to_string()).contains("SECRET"));
        }
    }

    #[test]
    fn every_character_of_the_issue_is_hidden() {
        let spans = [
            ('\0', '\u{1f}'),
            ('\u{7f}', '\u{9f}'),
            ('\u{61c}', '\u{61c}'),
            ('\u{180e}', '\u{180e}'),
            ('\u{200b}', '\u{200f}'),
            ('\u{202a}', '\u{202e}'),
            ('\u{2060}', '\u{2064}'),
            ('\u{2066}', '\u{206f}'),
            ('\u{feff}', '\u{feff}'),
            ('\u{e0000}', '\u{e007f}'),
        ];
        for (first, last) in spans {
            for c in first..=last {
                assert!(is_hidden(c), "{c:?}");
            }
        }
        for c in "aZ09 äöüßЖ中 – „“ \\ / é ❤️ 🦀".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }

    #[test]
    fn escapes_are_those_of_the_language_that_is_written() {
        assert_eq!(
            line("a\u{1b}[2J\n\u{202e}b\u{e0041}"),
            "a\\u{1b}[2J\\n\\u{202e}b\\u{e0041}"
        );
        assert_eq!(lines("a\n\u{85}b\n"), "a\n\\u{85}b\n");
        assert_eq!(json("\"\u{9b}\u{e0041}\"\n"), "\"\\u009b\\udb40\\udc41\"\n");
    }

    #[test]
    fn what_only_looks_like_a_login_stays() {
        for text in [
            "tarantool-master@127.0.0.1:3301@5f6a3c1e",
            "service=tarantool@[::1]:3301",
            "tarsec@db-1:3301",
            "by bob@db-1: it burns",
            "http://db-1:8500/v1/kv",
            "12:30 mail me @ noon",
        ] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn a_login_is_taken_out_and_the_address_stays() {
        for (text, plain) in [
            ("http://user:word@db-1:8500", "http://(redacted)@db-1:8500"),
            ("admin:p@ss@db-1:3301", "(redacted)@db-1:3301"),
            ("admin:a/b?c#d@db-1:3301", "(redacted)@db-1:3301"),
            ("d1:3301,admin:x@d2:3301", "(redacted)@d2:3301"),
        ] {
            assert_eq!(value(text), plain);
            assert_eq!(line(text), plain);
            assert_eq!(line(plain), plain, "twice is as good as once");
        }
        // A value as a whole may hold a blank.
        assert_eq!(value("admin:my secret@db-1:3301"), "(redacted)@db-1:3301");
        assert_eq!(value("token@db-1"), "(redacted)@db-1");
    }
}
