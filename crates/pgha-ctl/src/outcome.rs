//! What a command has come to, and the exit code that says so to a script.

/// The end of a command. The worst one of several members is the outcome of the whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It was asked for, and nobody said how it ended: it may still be running.
    Unknown,
    /// It did not happen.
    Failed,
}

impl Outcome {
    /// 0, 3 or 1; 2 is left to wrong usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Unknown => 3,
        }
    }

    /// Both ended: what a script must know of the two together.
    pub fn and(self, other: Outcome) -> Outcome {
        self.max(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_an_unknown_end_and_that_a_success() {
        assert_eq!(Outcome::Done.and(Outcome::Unknown), Outcome::Unknown);
        assert_eq!(Outcome::Failed.and(Outcome::Unknown), Outcome::Failed);
        assert_eq!(Outcome::Done.and(Outcome::Done).exit_code(), 0);
    }
}
