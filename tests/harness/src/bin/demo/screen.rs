//! What the reader sees: 80 columns, colours on a terminal only.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use tarsec_harness::Moment;

/// Columns, margins included.
const WIDTH: usize = 80;
const MARGIN: usize = 2;

pub(crate) struct Screen {
    colours: bool,
}

/// Something that happened, and when.
pub(crate) struct Step {
    pub(crate) at: Moment,
    pub(crate) words: String,
}

/// One line of the table of instances.
pub(crate) struct Row {
    pub(crate) instance: String,
    pub(crate) role: &'static str,
    pub(crate) term: Option<u64>,
    pub(crate) words: String,
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Accent,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: std::io::stdout().is_terminal() && !unwanted,
        }
    }

    pub(crate) fn title(&self, name: &str, subtitle: &str) {
        self.line("");
        self.line(&format!("{}  {subtitle}", self.paint(Style::Bold, name)));
    }

    pub(crate) fn heading(&self, text: &str) {
        self.line("");
        let rule = "-".repeat(WIDTH - 2 * MARGIN - text.len() - 1);
        let text = self.paint(Style::Accent, text);
        self.line(&format!("{text} {}", self.paint(Style::Dim, &rule)));
    }

    /// A paragraph.
    pub(crate) fn say(&self, text: &str) {
        for line in wrap(text, WIDTH - 2 * MARGIN) {
            self.line(&line);
        }
    }

    /// Something that is as it should be.
    pub(crate) fn good(&self, text: &str) {
        self.marked(Style::Good, "ok", text);
    }

    /// Something that is not.
    pub(crate) fn bad(&self, text: &str) {
        self.marked(Style::Bad, "NOT OK", text);
    }

    pub(crate) fn blank(&self) {
        self.line("");
    }

    /// What happened, in order: milliseconds since the first step and since the one before.
    pub(crate) fn timeline(&self, steps: &[Step]) {
        let Some(first) = steps.first().map(|step| step.at) else {
            return;
        };
        self.blank();
        let head = format!("{:>9}  {:>9}  what happened", "at ms", "took ms");
        self.line(&self.paint(Style::Dim, &head));
        let mut before = first;
        for step in steps {
            let total = step.at.ms_since(first);
            let took = match step.at.ms_since(before) {
                _ if step.at == first => String::new(),
                took => format!("+{took:.1}"),
            };
            let mut words = wrap(&step.words, WIDTH - MARGIN - 24).into_iter();
            let line = words.next().unwrap_or_default();
            self.line(&format!(
                "{}  {took:>9}  {line}",
                self.paint(Style::Bold, &format!("{total:>9.1}"))
            ));
            for line in words {
                self.line(&format!("{:22}{line}", ""));
            }
            before = step.at;
        }
    }

    /// What each instance is, at which term, and what its agent says.
    pub(crate) fn table(&self, rows: &[Row]) {
        self.blank();
        let head = format!(
            "{:<9} {:<8} {:>4}  its agent says",
            "instance", "role", "term"
        );
        self.line(&self.paint(Style::Dim, &head));
        for row in rows {
            let term = row.term.map_or("-".to_owned(), |term| term.to_string());
            let role = format!("{:<8}", row.role);
            let role = match row.role {
                "MASTER" => self.paint(Style::Good, &role),
                "dead" | "frozen" => self.paint(Style::Bad, &role),
                _ => role,
            };
            let words = clip(&row.words, WIDTH - MARGIN - 25);
            self.line(&format!("{:<9} {role} {term:>4}  {words}", row.instance));
        }
        self.blank();
    }

    fn marked(&self, style: Style, mark: &str, text: &str) {
        let mut lines = wrap(text, WIDTH - 2 * MARGIN - mark.len() - 1).into_iter();
        let first = lines.next().unwrap_or_default();
        self.line(&format!("{} {first}", self.paint(style, mark)));
        for line in lines {
            self.line(&format!("{:indent$}{line}", "", indent = mark.len() + 1));
        }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let margin = if text.is_empty() { 0 } else { MARGIN };
        // A reader that is gone has seen enough.
        writeln!(out, "{:margin$}{text}", "")
            .and_then(|()| out.flush())
            .ok();
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "1;32",
            Style::Bad => "1;31",
            Style::Accent => "1;36",
        };
        let mut painted = String::new();
        // Writing to a string does not fail.
        write!(painted, "\u{1b}[{code}m{text}\u{1b}[0m").ok();
        painted
    }
}

/// Breaks a text at its spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = lines
            .last()
            .is_some_and(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 3).collect();
    format!("{}...", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_at_spaces_and_clipped_in_tables() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible", 7), ["incomprehensible"]);
        assert_eq!(clip("one two three", 9), "one tw...");
        assert_eq!(clip("one two", 9), "one two");
    }
}
