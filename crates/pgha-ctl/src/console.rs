//! Where the user reads and answers.
//!
//! On a terminal prompts are dialoguer's, with editing; elsewhere they are plain lines, so that
//! `echo y | pgha-ctl ...` works. The texts are those of `patronictl`: `Question [default]: ` and `Question [y/N]: `.

use std::io::{self, BufRead, IsTerminal, Write};

use dialoguer::{Confirm, Input};

use crate::error::CtlError;
use crate::table::without_controls;

/// Bytes of one answer that are read; no name or date is longer.
const MAX_ANSWER_BYTES: u64 = 4096;
/// How often a yes-or-no question is asked again after something else.
const MAX_ATTEMPTS: usize = 10;

/// Output, input and prompts.
pub struct Console {
    input: Box<dyn BufRead + Send>,
    out: Box<dyn Write + Send>,
    terminal: bool,
}

impl Console {
    /// Standard input and output of this process.
    pub fn of_process() -> Console {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        Console {
            input: Box::new(io::BufReader::new(io::stdin())),
            out: Box::new(io::stdout()),
            terminal,
        }
    }

    /// Other ends, without a terminal; for tests.
    pub fn piped(input: impl BufRead + Send + 'static, out: impl Write + Send + 'static) -> Console {
        Console {
            input: Box::new(input),
            out: Box::new(out),
            terminal: false,
        }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn print(&mut self, text: &str) -> Result<(), CtlError> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Writes a line, without what could move the cursor: names in it come from etcd.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn say(&mut self, line: &str) -> Result<(), CtlError> {
        self.print(&format!("{}\n", without_controls(line)))
    }

    /// Writes a line to standard error, where it does not disturb who reads the result.
    pub fn warn(&self, line: &str) {
        eprintln!("Warning: {}", without_controls(line));
    }

    /// Asks for a text; an empty answer means `default`.
    ///
    /// # Errors
    /// [`CtlError::Aborted`] at the end of the input, [`CtlError::Output`].
    pub fn ask(&mut self, question: &str, default: &str) -> Result<String, CtlError> {
        let question = without_controls(question);
        if self.terminal {
            let prompt = Input::<String>::new()
                .with_prompt(question.trim_end())
                .default(default.to_owned())
                .allow_empty(true);
            return Ok(prompt
                .show_default(!default.is_empty())
                .interact_text()
                .map_err(of_dialoguer)?
                .trim()
                .to_owned());
        }
        self.print(&format!("{question} [{default}]: "))?;
        let answer = self.read_line()?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    /// Asks a yes-or-no question; an empty answer is no.
    ///
    /// # Errors
    /// As [`Console::ask`].
    pub fn confirm(&mut self, question: &str) -> Result<bool, CtlError> {
        let question = without_controls(question);
        if self.terminal {
            return Confirm::new()
                .with_prompt(question)
                .default(false)
                .interact()
                .map_err(of_dialoguer);
        }
        for _ in 0..MAX_ATTEMPTS {
            self.print(&format!("{question} [y/N]: "))?;
            match self.read_line()?.to_lowercase().as_str() {
                "y" | "yes" | "true" | "t" | "1" | "on" => return Ok(true),
                "" | "n" | "no" | "false" | "f" | "0" | "off" => return Ok(false),
                _ => self.say("Error: invalid input")?,
            }
        }
        Err(CtlError::Aborted)
    }

    /// The next line of the input without blanks around it.
    fn read_line(&mut self) -> Result<String, CtlError> {
        let mut line = String::new();
        let read = io::Read::take(&mut self.input, MAX_ANSWER_BYTES).read_line(&mut line)?;
        if read == 0 {
            // The prompt stands in an unfinished line.
            self.print("\n")?;
            return Err(CtlError::Aborted);
        }
        Ok(line.trim().to_owned())
    }
}

fn of_dialoguer(error: dialoguer::Error) -> CtlError {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof => CtlError::Aborted,
        _ => CtlError::Output(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Output that the test can look at.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test thread panics with it").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn console(input: &'static str) -> (Console, Seen) {
        let seen = Seen::default();
        (Console::piped(input.as_bytes(), seen.clone()), seen)
    }

    fn text(seen: &Seen) -> String {
        String::from_utf8(seen.0.lock().expect("as above").clone()).expect("texts are UTF-8")
    }

    #[test]
    fn an_empty_answer_is_the_default() {
        let (mut console, seen) = console("\nnode2\n");
        assert_eq!(console.ask("Primary", "node1").expect("a line"), "node1");
        assert_eq!(console.ask("Candidate ['node2']", "").expect("a line"), "node2");
        assert_eq!(text(&seen), "Primary [node1]: Candidate ['node2'] []: ");
    }

    #[test]
    fn the_end_of_the_input_aborts() {
        let (mut console, _) = console("");
        assert!(matches!(console.ask("Primary", "node1"), Err(CtlError::Aborted)));
        assert!(matches!(console.confirm("Sure?"), Err(CtlError::Aborted)));
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        for (input, yes) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("n\n", false),
            ("perhaps\ny\n", true),
        ] {
            let (mut console, seen) = console(input);
            assert_eq!(console.confirm("Sure?").expect("an answer"), yes, "{input:?}");
            assert!(text(&seen).starts_with("Sure? [y/N]: "), "{input:?}");
        }
        let (mut console, _) = console("perhaps\n");
        assert!(matches!(console.confirm("Sure?"), Err(CtlError::Aborted)));
    }
}
