//! libpq's `keyword=value` connection strings: parse and render. Pure.
//!
//! Invariant: rendering and parsing again gives the same pairs. Absent on purpose: `postgresql://` addresses, which
//! never occur in what this crate reads.

use crate::error::Error;

/// Parameters that are secrets; [`ConnInfo::redacted`] leaves them out.
const SECRET_KEYS: [&str; 2] = ["password", "sslpassword"];

/// An ordered list of libpq connection parameters.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnInfo(Vec<(String, String)>);

impl std::fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted().render())
    }
}

impl ConnInfo {
    /// No parameters.
    pub fn new() -> ConnInfo {
        ConnInfo::default()
    }

    /// Sets a parameter, keeping its place when it is there already.
    pub fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value.to_string(),
            None => self.0.push((key.to_string(), value.to_string())),
        }
    }

    /// As [`ConnInfo::set`], for chaining.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> ConnInfo {
        self.set(key, value);
        self
    }

    /// The value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All pairs in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The same without passwords.
    pub fn redacted(&self) -> ConnInfo {
        ConnInfo(
            self.0
                .iter()
                .filter(|(k, _)| !SECRET_KEYS.contains(&k.as_str()))
                .cloned()
                .collect(),
        )
    }

    /// `key=value` pairs separated by spaces; quotes, backslashes and spaces in values are escaped with a backslash.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (key, value) in &self.0 {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(key);
            out.push('=');
            if value.is_empty() {
                out.push_str("''");
            }
            for c in value.chars() {
                if matches!(c, '\'' | '\\') || c.is_whitespace() {
                    out.push('\\');
                }
                out.push(c);
            }
        }
        out
    }

    /// Parses what libpq accepts as `keyword = value` pairs.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the character position.
    pub fn parse(text: &str) -> Result<ConnInfo, Error> {
        let bad = |at: usize, reason: &str| Error::Malformed {
            place: format!("connection string, character {at}"),
            reason: reason.to_string(),
        };
        let mut info = ConnInfo::new();
        let mut chars = text.chars().enumerate().peekable();
        loop {
            while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            let Some(&(start, _)) = chars.peek() else {
                return Ok(info);
            };
            let mut key = String::new();
            while let Some((_, c)) = chars.next_if(|(_, c)| *c != '=' && !c.is_whitespace()) {
                key.push(c);
            }
            while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            if key.is_empty() || chars.next_if(|(_, c)| *c == '=').is_none() {
                return Err(bad(start, "expected keyword=value"));
            }
            while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            let quoted = chars.next_if(|(_, c)| *c == '\'').is_some();
            let mut value = String::new();
            loop {
                match chars.next_if(|(_, c)| quoted || !c.is_whitespace()) {
                    Some((at, '\\')) => match chars.next() {
                        Some((_, c)) => value.push(c),
                        None => return Err(bad(at, "a backslash at the end")),
                    },
                    Some((_, '\'')) if quoted => break,
                    Some((_, c)) => value.push(c),
                    None if quoted => return Err(bad(start, "the closing quote is missing")),
                    None => break,
                }
            }
            info.set(&key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_parsed_back() {
        let info = ConnInfo::new()
            .with("user", "o'hara \\ x")
            .with("host", "")
            .with("port", "5432");
        let text = info.render();
        assert_eq!(text, r"user=o\'hara\ \\\ x host='' port=5432");
        assert_eq!(ConnInfo::parse(&text).expect("own text"), info);
    }

    #[test]
    fn quoted_values_and_spaces_around_the_sign_are_understood() {
        let info = ConnInfo::parse(" host = '/tmp/a b'  password='it''s' ");
        assert!(
            info.is_err(),
            "a doubled quote ends the value, libpq refuses what follows"
        );
        let info = ConnInfo::parse(r" host = '/tmp/a b' password='it\'s' ").expect("valid");
        assert_eq!(info.get("password"), Some("it's"));
        assert_eq!(info.redacted().render(), r"host=/tmp/a\ b");
        assert!(!format!("{info:?}").contains("it's"));
    }

    #[test]
    fn broken_strings_are_refused_with_the_place() {
        for text in ["host", "=x", "a='b", "a=b\\"] {
            assert!(ConnInfo::parse(text).is_err(), "{text}");
        }
    }
}
