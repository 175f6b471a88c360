//! What a URI of Tarantool can carry in front of its `@`.
//!
//! Its grammar (`src/lib/uri/uri_parser.rl`: `unreserved | pct_encoded | sub_delims`) is the same from 2.6 to 3.8, and no
//! release decodes what it has read: `%40` stays three characters. So there is nothing to encode with. A login that does
//! not fit is refused by the database, or worse: `user:a/b@host:3301` is read as the host `user`.

use std::fmt;

/// A character of a user's name or a password that a URI cannot carry. A letter or a digit of a password is never
/// shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Punctuation or a blank.
    Character(char),
    /// A `%` that is not followed by two hexadecimal digits.
    Percent,
    /// Anything that is not visible ASCII.
    Other,
}

impl Unfit {
    /// What may stand there instead.
    pub(crate) const ALLOWED: &'static str = "letters and digits of ASCII, - . _ ~ ! $ & ' ( ) * + , ; = and % before two hexadecimal digits";

    /// The first character in this user's name or password that does not fit, if there is one.
    pub(crate) fn first_in(text: &str) -> Option<Self> {
        let mut rest = text.chars();
        while let Some(it) = rest.next() {
            match it {
                '%' => {
                    let mut pair = rest.clone();
                    let is_pair =
                        (0..2).all(|_| pair.next().is_some_and(|it| it.is_ascii_hexdigit()));
                    if !is_pair {
                        return Some(Self::Percent);
                    }
                }
                it if it.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(it) => {}
                it if it.is_ascii_graphic() || it == ' ' => return Some(Self::Character(it)),
                _ => return Some(Self::Other),
            }
        }
        None
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(' ') => f.write_str("a blank"),
            Self::Character(it) => write!(f, "the character {it}"),
            Self::Percent => f.write_str("a % without two hexadecimal digits behind it"),
            Self::Other => f.write_str("a character that is not visible ASCII"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on 2.6.0 and 2.11.9 with `uri.parse('u:a' .. c .. 'b@h:1')` for every byte.
    #[test]
    fn what_a_uri_carries_is_what_the_databases_parser_takes() {
        let fits = "!$&'()*+,-.0123456789;=ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
        for it in (0..=255).map(char::from) {
            let expected = fits.contains(it);
            assert_eq!(
                Unfit::first_in(&format!("a{it}")).is_none(),
                expected,
                "{it:?}"
            );
        }
    }

    #[test]
    fn a_percent_needs_two_digits() {
        for fits in [
            "%40",
            "a%2Fb",
            "100%25",
            "%%".replace('%', "%41").as_str(),
            "",
        ] {
            assert_eq!(Unfit::first_in(fits), None, "{fits}");
        }
        for unfit in ["%", "%4", "a%zz", "100%", "%4%40"] {
            assert_eq!(Unfit::first_in(unfit), Some(Unfit::Percent), "{unfit}");
        }
    }

    #[test]
    fn what_is_found_is_said_without_showing_a_letter() {
        assert_eq!(
            Unfit::first_in("p@ss").map(|it| it.to_string()).as_deref(),
            Some("the character @")
        );
        assert_eq!(
            Unfit::first_in("p ss").map(|it| it.to_string()).as_deref(),
            Some("a blank")
        );
        let other = Unfit::first_in("pä").map(|it| it.to_string());
        assert_eq!(
            other.as_deref(),
            Some("a character that is not visible ASCII")
        );
    }
}
