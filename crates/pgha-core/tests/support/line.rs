//! One line of a scenario: words, flags and `key=value` pairs. Whatever a directive does not take is an error, so that
//! a misspelt fact cannot silently be left out of a scenario.

use std::str::FromStr;
use std::time::Duration;

use pgha_core::units::Lsn;

/// The words of one line that were not used yet.
pub struct Line {
    words: Vec<String>,
}

impl Line {
    /// Splits at blanks; double quotes hold a text together.
    pub fn parse(text: &str) -> Result<Line, String> {
        let mut words = Vec::new();
        let (mut word, mut quoted, mut begun) = (String::new(), false, false);
        for c in text.chars() {
            match c {
                '"' => {
                    quoted = !quoted;
                    begun = true;
                }
                c if c.is_whitespace() && !quoted => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                c => {
                    word.push(c);
                    begun = true;
                }
            }
        }
        if quoted {
            return Err("a quote is not closed".into());
        }
        if begun {
            words.push(word);
        }
        Ok(Line { words })
    }

    /// The next word that is no `key=value` pair.
    pub fn word(&mut self) -> Option<String> {
        let at = self.words.iter().position(|w| !is_pair(w))?;
        Some(self.words.remove(at))
    }

    /// The next word, which must be there.
    pub fn needs(&mut self, what: &str) -> Result<String, String> {
        self.word().ok_or_else(|| format!("{what} is missing"))
    }

    /// Was this word given?
    pub fn flag(&mut self, name: &str) -> bool {
        match self.words.iter().position(|w| w == name) {
            Some(at) => {
                self.words.remove(at);
                true
            }
            None => false,
        }
    }

    /// The value of `key=value`.
    pub fn value(&mut self, key: &str) -> Option<String> {
        let at = self
            .words
            .iter()
            .position(|w| w.split_once('=').is_some_and(|(k, _)| k == key))?;
        self.words.remove(at).split_once('=').map(|(_, v)| v.to_string())
    }

    /// A number.
    pub fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("{key}={text} is not a number in range")),
        }
    }

    /// `3s`, `250ms`.
    pub fn duration(&mut self, key: &str) -> Result<Option<Duration>, String> {
        self.value(key).map(|text| duration(&text)).transpose()
    }

    /// `0/500`.
    pub fn lsn(&mut self, key: &str) -> Result<Option<Lsn>, String> {
        self.value(key).map(|text| lsn(&text)).transpose()
    }

    /// `yes` or `no`.
    pub fn yes_no(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.value(key).as_deref() {
            None => Ok(None),
            Some("yes") => Ok(Some(true)),
            Some("no") => Ok(Some(false)),
            Some(other) => Err(format!("{key}={other}: yes or no was expected")),
        }
    }

    /// Everything must have been used.
    pub fn done(self) -> Result<(), String> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(format!("`{word}` is not understood here")),
        }
    }
}

/// Quoted texts may hold `=` too, but then they hold blanks before it.
fn is_pair(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(k, _)| !k.is_empty() && !k.contains(char::is_whitespace))
}

/// `3s`, `250ms`, or a bare `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration such as 3s or 250ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().map(Duration::from_millis).map_err(|_| wrong());
    }
    let seconds = text.strip_suffix('s').ok_or_else(wrong)?;
    seconds.parse().map(Duration::from_secs).map_err(|_| wrong())
}

/// `0/500`.
pub fn lsn(text: &str) -> Result<Lsn, String> {
    Lsn::parse(text).ok_or_else(|| format!("`{text}` is no WAL position such as 0/500"))
}
