use std::io::Cursor;

use super::*;

/// What came of a question, and what was written to standard error.
fn asked(answer: Option<&str>, yes: bool) -> (Result<(), Ended>, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let mut answers = Cursor::new(answer.unwrap_or_default().to_owned());
    let mut terminal = Terminal {
        out: &mut out,
        errors: &mut errors,
        answers: answer.is_some().then_some(&mut answers as &mut dyn BufRead),
        draws: false,
        paper: Paper::PLAIN,
        unread: false,
    };
    let result = terminal.ask("The master moves.", yes);
    assert_eq!(out, b"", "questions are not output");
    (result, String::from_utf8(errors).unwrap())
}

#[test]
fn only_yes_is_yes() {
    for answer in ["y\n", "yes\n", "YES \n"] {
        let (result, question) = asked(Some(answer), false);
        assert_eq!(result, Ok(()), "{answer:?}");
        assert_eq!(question, "The master moves.\nGo on? [y/N] ");
    }
    for answer in ["", "\n", "n\n", "yesterday\n"] {
        let (result, _) = asked(Some(answer), false);
        let outcome = result.expect_err(answer).outcome;
        assert_eq!(outcome, Outcome::Declined, "{answer:?}");
    }
}

#[test]
fn nobody_is_asked_who_said_yes_and_nobody_can_be_without_a_terminal() {
    assert_eq!(asked(None, true), (Ok(()), String::new()));
    assert_eq!(asked(Some("n\n"), true), (Ok(()), String::new()));
    let (result, question) = asked(None, false);
    assert_eq!(result.expect_err("no terminal").outcome, Outcome::Usage);
    assert_eq!(question, "");
}

/// Standard output whose reader has gone (`tarsec status | true`).
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error_and_is_written_for_no_more() {
    let mut errors = Vec::new();
    let mut terminal = Terminal {
        out: &mut Gone,
        errors: &mut errors,
        answers: None,
        paper: Paper::PLAIN,
        draws: false,
        unread: false,
    };
    assert_eq!(terminal.print("a screen"), Ok(()));
    assert!(terminal.unread);
    assert_eq!(errors, b"");
}
