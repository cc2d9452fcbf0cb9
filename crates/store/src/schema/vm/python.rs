//! Python's notation of bytes. Never fails: what is not written so is left as it is.

/// The bytes that `b'…'` or `b"…"` stands for; `None` if this is no such text.
pub(super) fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let [b'b', quote @ (b'\'' | b'"'), inner @ .., end] = text.trim_ascii() else { return None };
    if quote != end {
        return None;
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == *quote {
            return None;
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            itself @ (b'\\' | b'\'' | b'"') => itself,
            _ => return None,
        });
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn what_python_writes_of_bytes_is_read() {
        for (text, meant) in [
            (r"b'<domain>\n\t<x/>\r\n</domain>'", Some("<domain>\n\t<x/>\r\n</domain>")),
            (r#" b'<a b="c"/>' "#, Some(r#"<a b="c"/>"#)),
            (r#"b"it's""#, Some("it's")),
            (r"b'it\'s \\ \xc3\xa4'", Some("it's \\ ä")),
            ("b''", Some("")),
            ("<domain/>", None),
            (r"b'\q'", None),
            (r"b'\x4'", None),
            (r"b'a'b'", None),
            ("b'", None),
            ("b'a\"", None),
            ("", None),
        ] {
            assert_eq!(bytes(text.as_bytes()), meant.map(|m| m.as_bytes().to_vec()), "{text}");
        }
    }
}
