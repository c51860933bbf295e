//! JSON as Python's `json.dumps` writes it: ASCII only, compact for etcd, with blanks for REST.
//!
//! Patroni compares values of etcd as text in places, and people compare REST answers; so the bytes are the same.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;

/// Writes `value` with the separators `,` and `:`, as it stands in etcd.
pub fn render_compact(value: &Value) -> String {
    render(value, Python { item: b",", key: b":" })
}

/// Writes `value` with the separators `, ` and `: `, as the REST API answers.
pub fn render_spaced(value: &Value) -> String {
    render(
        value,
        Python {
            item: b", ",
            key: b": ",
        },
    )
}

fn render(value: &Value, formatter: Python) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing into memory does not fail, and a `Value` has string keys only; were it otherwise, `null` is still JSON.
    match value.serialize(&mut serializer).map(|()| String::from_utf8(out)) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) | Err(_) => "null".to_owned(),
    }
}

#[derive(Clone, Copy)]
struct Python {
    item: &'static [u8],
    key: &'static [u8],
}

impl Python {
    fn separate<W: ?Sized + io::Write>(self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.item) }
    }
}

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices() {
            if (' '..='~').contains(&c) {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn separators_and_escapes_are_those_of_python() {
        let value = json!({"a": [1, true, null, "x\u{7f}\n\"\\/"], "ü": {"😀": 1.5}, "e": {}, "l": []});
        assert_eq!(
            render_compact(&value),
            r#"{"a":[1,true,null,"x\u007f\n\"\\/"],"\u00fc":{"\ud83d\ude00":1.5},"e":{},"l":[]}"#
        );
        assert_eq!(
            render_spaced(&value),
            r#"{"a": [1, true, null, "x\u007f\n\"\\/"], "\u00fc": {"\ud83d\ude00": 1.5}, "e": {}, "l": []}"#
        );
    }
}
