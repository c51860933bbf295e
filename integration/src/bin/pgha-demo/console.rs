//! Output: moving on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgha_integration::boottime;

/// How often a spinner moves.
const SPIN: Duration = Duration::from_millis(120);

/// Where the demo writes.
pub struct Console {
    start: Duration,
    bars: Option<MultiProgress>,
}

impl Console {
    /// Looks whether standard output is a terminal.
    pub fn new() -> Self {
        let bars = std::io::stdout().is_terminal().then(|| {
            let bars = MultiProgress::new();
            bars.set_draw_target(indicatif::ProgressDrawTarget::stdout());
            bars
        });
        Self {
            start: boottime::now(),
            bars,
        }
    }

    /// A line that stays. Elsewhere than on a terminal it begins with the time since the start.
    pub fn line(&self, text: &str) {
        match &self.bars {
            // A terminal that went away is no reason to stop before everything is taken down.
            Some(bars) => bars.println(text).unwrap_or_default(),
            None => println!("[{:7.1} s] {text}", boottime::since(self.start).as_secs_f64()),
        }
    }

    /// Several lines that stay, as they are.
    pub fn block(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.println(text).unwrap_or_default(),
            None => println!("{text}"),
        }
    }

    /// A place whose text changes, with a spinner while it works.
    pub fn step(&self, prefix: &str) -> Step<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:<8} {wide_msg}") {
                bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏✓"));
            }
            bar.set_prefix(prefix.to_owned());
            bar.enable_steady_tick(SPIN);
            bar
        });
        Step {
            console: self,
            prefix: prefix.to_owned(),
            bar,
            last: Mutex::new(String::new()),
        }
    }

    /// A block of text that is drawn over on a terminal. Nothing elsewhere.
    pub fn panel(&self) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Some(bar)
    }
}

/// A place whose text changes.
pub struct Step<'a> {
    console: &'a Console,
    prefix: String,
    bar: Option<ProgressBar>,
    last: Mutex<String>,
}

impl Step<'_> {
    /// Shows what goes on now. Elsewhere than on a terminal only a change is printed.
    pub fn show(&self, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == text {
            return;
        }
        text.clone_into(&mut last);
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.console.line(&format!("{:<8} {text}", self.prefix)),
        }
    }

    /// The last text; the spinner stops.
    pub fn done(&self, text: &str) {
        self.show(text);
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
