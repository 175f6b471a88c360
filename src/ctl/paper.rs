//! What a screen is written on: how wide it is, and whether it may have colours.

/// The narrowest screen: what stands in files and pipes, too.
pub(super) const WIDTH_MIN: usize = 80;
/// Longer lines are hard to read.
pub(super) const WIDTH_MAX: usize = 160;
/// The longest name of a member that is shown as it is.
const NAME_MAX: usize = 21;

/// What a screen is written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper {
    /// No line is longer.
    width: usize,
    /// Whether states may have colours.
    colour: bool,
}

/// How much somebody has to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Odd,
    Bad,
}

impl Paper {
    /// For files, pipes and programs.
    pub const PLAIN: Self = Self {
        width: WIDTH_MIN,
        colour: false,
    };

    /// A terminal of so many columns.
    #[must_use]
    pub fn terminal(columns: usize, colour: bool) -> Self {
        let width = columns.clamp(WIDTH_MIN, WIDTH_MAX);
        Self { width, colour }
    }

    /// In columns.
    pub(super) fn width(self) -> usize {
        self.width
    }

    /// The text in its tone's colour; it takes as much room as before.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let colour = match tone {
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "1;31",
        };
        if self.colour {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// The longest name that is shown as it is: the columns beside it take the same room on any paper.
    pub(super) fn name_max(self) -> usize {
        NAME_MAX + (self.width - WIDTH_MIN)
    }
}
