//! The few things needed of a connection URL: host, port, and that no password stays in it.

/// Port of a `conn_url` that names none.
const DEFAULT_PORT: u16 = 5432;

/// Host and port of `postgres://[user[:password]@]host[:port]/...`; IPv6 addresses come without their brackets.
/// `None` when there is no host or the port is not one.
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let port = if port.is_empty() {
        DEFAULT_PORT
    } else {
        port.parse().ok()?
    };
    (!host.is_empty()).then(|| (host.to_lowercase(), port))
}

/// The URL without user, password and query, so that it can be shown and logged.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return String::new();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    format!("{scheme}://{address}{path}")
}

/// `text` with `%XX` decoded, and `+` as a blank; what is no valid escape stays as it is. Invalid UTF-8 becomes U+FFFD.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = match bytes.get(at..at + 3) {
            Some([b'%', high, low]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                out.push(high * 16 + low);
                at += 3;
            }
            None => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found_in_all_forms() {
        for (url, expected) in [
            ("postgres://10.0.0.1:5433/postgres", Some(("10.0.0.1", 5433))),
            (
                "postgres://user:p@ss@Db.example:5432/x?application_name=y",
                Some(("db.example", 5432)),
            ),
            ("postgres://[fe80::1]:5434/postgres", Some(("fe80::1", 5434))),
            ("postgresql://[::1]", Some(("::1", 5432))),
            ("postgres://host", Some(("host", 5432))),
            ("postgres://host:99999/", None),
            ("postgres://host:x/", None),
            ("postgres://[::1/", None),
            ("postgres:///postgres", None),
            ("postgres", None),
        ] {
            assert_eq!(host_and_port(url), expected.map(|(h, p)| (h.to_owned(), p)), "{url}");
        }
    }

    #[test]
    fn no_password_stays_in_a_url() {
        assert_eq!(
            without_secrets("postgres://u:secret@h:5432/postgres?application_name=x&password=secret"),
            "postgres://h:5432/postgres"
        );
        assert_eq!(without_secrets("postgresecret"), "");
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_kept() {
        assert_eq!(percent_decode("a%20b+c%"), "a b c%");
        assert_eq!(percent_decode("%zz%2"), "%zz%2");
        assert_eq!(percent_decode("%C3%BC%ff"), "ü\u{fffd}");
    }
}
