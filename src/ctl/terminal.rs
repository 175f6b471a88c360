//! What a command says to the operator, and what the operator says to a question.

use std::io::{BufRead, ErrorKind, Write};

use super::outcome::{Ended, Outcome};
use super::paper::Paper;
use super::words::{clean, wrapped};

/// Where a command speaks and listens.
pub struct Terminal<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
    /// Standard input, where it is a terminal.
    pub answers: Option<&'a mut dyn BufRead>,
    /// How wide a screen may be, and whether it may have colours.
    pub paper: Paper,
    /// Standard output is a terminal, so a screen may be drawn over the last one.
    pub draws: bool,
    /// The reader of standard output has gone.
    pub unread: bool,
}

impl Terminal<'_> {
    /// A reader that has gone has read what it wanted (`| head`, `| true`): what was asked for is done all the same.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Ended> {
        let written = self.out.write_all(text.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            Err(error) => {
                let why = format!("could not print: {error}");
                Err(Ended::new(Outcome::Failed, why))
            }
        }
    }

    /// One sentence about what is being done.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Ended> {
        self.print(&format!("{}\n", clean(text)))
    }

    /// What is of no use to a program that reads the output.
    pub(super) fn progress(&mut self, text: &str) {
        let _ = writeln!(self.errors, "{}", clean(text));
    }

    pub(super) fn complain(self, ended: &Ended) -> Outcome {
        let _ = writeln!(self.errors, "tarsec: {}", clean(&ended.why));
        ended.outcome
    }

    /// Goes on only at the operator's word.
    pub(super) fn ask(&mut self, question: &str, yes: bool) -> Result<(), Ended> {
        if yes {
            return Ok(());
        }
        let Some(answers) = &mut self.answers else {
            let why = "there is no terminal to ask at, say --yes if this is meant";
            return Err(Ended::new(Outcome::Usage, why));
        };
        let question = wrapped("", 0, question, self.paper.width());
        let asked =
            write!(self.errors, "{question}Go on? [y/N] ").and_then(|()| self.errors.flush());
        let mut answer = String::new();
        let heard = asked.and_then(|()| answers.read_line(&mut answer));
        match (heard, answer.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            (Ok(_) | Err(_), _) => Err(Ended::new(
                Outcome::Declined,
                "nothing was done, as the answer was not yes",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
