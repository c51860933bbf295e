//! A request target taken apart as Python does: path, and the query parameters that have a value.

use crate::limits::MAX_QUERY_PARAMETERS;
use crate::url::percent_decode;

/// Path and query of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// The path as sent, not decoded.
    pub path: &'a str,
    /// Decoded parameters in their order; those without a value are not there.
    parameters: Vec<(String, String)>,
}

impl<'a> Target<'a> {
    /// Takes a request target apart; parameters beyond [`MAX_QUERY_PARAMETERS`] are not looked at.
    pub fn parse(path_and_query: &'a str) -> Target<'a> {
        let target = path_and_query.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(_, value)| !value.is_empty());
        let decoded = pairs
            .take(MAX_QUERY_PARAMETERS)
            .map(|(k, v)| (percent_decode(k), percent_decode(v)));
        Target {
            path,
            parameters: decoded.collect(),
        }
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Names that begin with `prefix`, without it, with their values; of a repeated one the first.
    pub fn with_prefix<'b>(&'b self, prefix: &'b str) -> impl Iterator<Item = (&'b str, &'b str)> {
        let first = |at: usize, name: &str| self.parameters[..at].iter().all(|(n, _)| n != name);
        let all = self.parameters.iter().enumerate();
        all.filter(move |(at, (name, _))| first(*at, name))
            .filter_map(move |(_, (name, value))| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    /// The part of the path that chooses a handler: what is between the leading slashes and the next one.
    pub fn first_segment(&self) -> &'a str {
        self.path.trim_start_matches('/').split('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_of_a_name_counts() {
        let target = Target::parse("/replica?lag=1%30MB&lag=5&tag_a+b=x%26y&empty=&alone&tag_a+b=z#end");
        assert_eq!((target.path, target.first_segment()), ("/replica", "replica"));
        assert_eq!(target.get("lag"), Some("10MB"));
        assert_eq!(target.get("empty"), None);
        assert_eq!(target.with_prefix("tag_").collect::<Vec<_>>(), [("a b", "x&y")]);
    }

    #[test]
    fn odd_targets_are_no_trouble() {
        for (text, path, segment) in [
            ("", "", ""),
            ("/", "/", ""),
            ("//config/x?y", "//config/x", "config"),
            ("?a=b", "", ""),
            ("*", "*", "*"),
        ] {
            let target = Target::parse(text);
            assert_eq!((target.path, target.first_segment()), (path, segment), "{text}");
        }
    }
}
