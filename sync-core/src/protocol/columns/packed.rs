//! Texts that are numbers in disguise: hexadecimal digits, UUIDs, and keys that end with so many decimal digits.

/// The places of the dashes in a UUID.
const DASHES: [usize; 4] = [8, 13, 18, 23];
const UUID_LEN: usize = 36;

/// Texts shorter than this are not worth another way of writing.
const HEX_LEN_MIN: usize = 8;

/// The bytes that lower-case hexadecimal digits stand for.
pub(super) fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks() else { return None };
    if text.len() < HEX_LEN_MIN {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The digits that bytes are written with.
pub(super) fn to_hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| DIGITS[usize::from(four)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}

/// The bytes of a UUID in lower case.
pub(super) fn from_uuid(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() != UUID_LEN || DASHES.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    from_hex(&text.iter().copied().filter(|byte| *byte != b'-').collect::<Vec<_>>()).filter(|bytes| bytes.len() == 16)
}

/// The UUID of 16 bytes.
pub(super) fn to_uuid(bytes: &[u8]) -> Vec<u8> {
    let mut text = to_hex(bytes);
    DASHES.iter().for_each(|at| text.insert(*at, b'-'));
    text
}

/// The most digits of a number in a key: all that a 64-bit integer can be sure to hold.
pub(super) const DIGITS_MAX: usize = 18;

/// What keys begin with, how many decimal digits all of them end with, and the numbers that these are; nothing if they
/// are not all alike.
pub(super) fn numbered<'a>(mut keys: impl Iterator<Item = &'a str> + Clone) -> Option<(&'a [u8], usize, Vec<i64>)> {
    let first = keys.clone().next()?.as_bytes();
    let digits = first.iter().rev().take_while(|byte| byte.is_ascii_digit()).count().min(DIGITS_MAX);
    let (prefix, _) = first.split_at(first.len() - digits);
    let numbers = keys.try_fold(Vec::new(), |mut numbers, key| {
        let rest = key.as_bytes().strip_prefix(prefix)?;
        let is_number = rest.len() == digits && rest.iter().all(u8::is_ascii_digit);
        numbers.push(is_number.then(|| rest.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))?);
        Some(numbers)
    });
    numbers.filter(|_| digits > 0).map(|numbers| (prefix, digits, numbers))
}

/// The key with a number at its end; nothing if the number has more digits.
pub(super) fn to_numbered(prefix: &[u8], digits: usize, number: i64) -> Option<Vec<u8>> {
    let text = format!("{number:0digits$}");
    (number >= 0 && text.len() == digits).then(|| [prefix, text.as_bytes()].concat())
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_nothing_else_is_packed() {
        let uuid = b"27f9c741-a704-8336-9b18-d7944eb9ff45";
        assert_eq!(to_uuid(&from_uuid(uuid).unwrap()), uuid);
        assert_eq!(to_hex(&from_hex(b"00ff12ab").unwrap()), b"00ff12ab");
        for text in ["", "00ff12", "00ff12ab0", "00FF12AB", "00ff12ag", "27f9c741-a704-8336-9b18-d7944eb9ff45"] {
            assert_eq!(from_hex(text.as_bytes()), None, "{text}");
        }
        for text in ["27F9C741-a704-8336-9b18-d7944eb9ff45", "27f9c741a-704-8336-9b18-d7944eb9ff45", "27f9c741"] {
            assert_eq!(from_uuid(text.as_bytes()), None, "{text}");
        }
        assert_eq!(from_uuid(b"27f9c741-a704-8336-9b18-d7944eb9f-45"), None);
        let keys = ["item/0017", "item/0004"];
        assert_eq!(numbered(keys.into_iter()), Some((&b"item/"[..], 4, vec![17, 4])));
        assert_eq!(to_numbered(b"item/", 4, 17).unwrap(), b"item/0017");
        assert_eq!([to_numbered(b"", 1, 10), to_numbered(b"", 2, -1)], [None, None]);
        for keys in [["a1", "b2"], ["a1", "a22"], ["a", "b"], ["a1", "a"], ["a1", "ax"]] {
            assert_eq!(numbered(keys.into_iter()), None, "{keys:?}");
        }
    }
}
