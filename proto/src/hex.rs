//! Hexadecimal digits.

use std::fmt::Write as _;

/// Bytes as digits in lower case.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Digits of either case as bytes; `None`: the text is something else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    fill(&mut bytes, text)?;
    Some(bytes)
}

/// Fills `bytes` from twice as many digits, of either case; `None`: the text is something else.
pub fn fill(bytes: &mut [u8], text: &str) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = text.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes() {
        assert_eq!(encode(&[0, 0xfa]), "00fa");
        assert_eq!(decode("00Fa"), Some(vec![0, 0xfa]));
        for wrong in ["0", "0g", "+f", "é"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
