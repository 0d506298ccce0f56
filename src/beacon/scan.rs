//! Looking through a text several bytes at a step, and reading its numbers.
//!
//! Whoever receives a flood pays for these first. Optimized for size a compiler does here what is written, so it is
//! written as words: a byte at a time, each costs several times as much. Nothing here knows what a field is.

/// Whether none of the bytes is NUL. Sixteen at a step: a datagram hardly ever has one, and to find that out a byte at
/// a time takes longer than to read its fields.
pub(super) fn is_without_nul(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((sixteen, more)) = rest.split_first_chunk() {
        if has(sixteen, 0) {
            return false;
        }
        rest = more;
    }
    // The last step looks at some bytes a second time rather than at a few one by one.
    match split_last_16(bytes) {
        Some((_, sixteen)) => !has(sixteen, 0),
        None => !bytes.contains(&0),
    }
}

/// The last sixteen bytes and what stands before them.
#[inline(always)]
pub(super) fn split_last_16(bytes: &[u8]) -> Option<(&[u8], &[u8; 16])> {
    let at = bytes.len().checked_sub(16)?;
    Some((bytes.get(..at)?, bytes.get(at..)?.first_chunk()?))
}

/// Whether one of the sixteen is `byte`.
#[inline(always)]
pub(super) fn has(sixteen: &[u8; 16], byte: u8) -> bool {
    const ONES: u128 = u128::MAX / 255;
    let x = u128::from_le_bytes(*sixteen) ^ (ONES * u128::from(byte));
    // That byte becomes zero, and the lowest zero byte borrows.
    x.wrapping_sub(ONES) & !x & (ONES * 0x80) != 0
}

/// Where the first space stands, or else the end. Eight bytes at a step: this is most of the cost of reading a text.
#[inline(always)]
pub(super) fn find_space(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (mut at, mut rest) = (0, bytes);
    while let Some((word, more)) = rest.split_first_chunk() {
        // A byte that is a space becomes zero, and the lowest zero byte is the lowest to borrow.
        let x = u64::from_le_bytes(*word) ^ (ONES * 0x20);
        let found = x.wrapping_sub(ONES) & !x & (ONES * 0x80);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        (at, rest) = (at + 8, more);
    }
    for byte in rest {
        if *byte == b' ' {
            break;
        }
        at += 1;
    }
    at
}

/// A number as the reference reads it, with C's `strtoll`: white space, a sign, then digits up to the first byte that
/// is none. No digits read as 0; what does not fit saturates. It may reach past its token, as `ts= 5` does.
pub(super) fn read_number(bytes: &[u8]) -> i64 {
    let mut bytes = bytes;
    while let [b' ' | b'\t'..=b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, bytes),
    };
    let (mut value, mut digits) = (0, digits);
    // Sixteen digits always fit: so many has a time in microseconds since the epoch.
    for _ in 0..2 {
        let Some((eight, more)) = read_eight(digits) else { break };
        (value, digits) = (value * 100_000_000 + i64::from(eight), more);
    }
    if negative {
        value = -value;
    }
    for byte in digits {
        let Some(digit) = digit(*byte) else { break };
        // Counted downwards for a minus sign, so that the lowest number is reached as well.
        let digit = if negative { -i64::from(digit) } else { i64::from(digit) };
        value = value.saturating_mul(10).saturating_add(digit);
    }
    value
}

/// The number in the next eight bytes, if all of them are digits, and what follows. All at once: one after the other,
/// each digit would wait for the product of those before.
#[inline(always)]
fn read_eight(bytes: &[u8]) -> Option<(u32, &[u8])> {
    const ONES: u64 = u64::MAX / 255;
    let (eight, more) = bytes.split_first_chunk()?;
    // Of a digit's byte only the lower half remains, and has no carry when six is added.
    let x = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'0'));
    if (x | x.wrapping_add(ONES * 6)) & (ONES * 0xf0) != 0 {
        return None;
    }
    // The first digit is the lowest byte. Neighbours become numbers below a hundred, those below 10,000, and so on.
    let x = x.wrapping_mul((10 << 8) + 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let x = x.wrapping_mul((100 << 16) + 1) >> 16 & 0x0000_ffff_0000_ffff;
    let x = x.wrapping_mul((10_000 << 32) + 1) >> 32;
    Some((u32::try_from(x).ok()?, more))
}

#[inline(always)]
fn digit(byte: u8) -> Option<u8> {
    byte.is_ascii_digit().then(|| byte - b'0')
}

/// One or more decimal digits and nothing else.
pub(super) fn read_digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for byte in bytes {
        value = value.checked_mul(10)?.checked_add(digit(*byte)?.into())?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_strtoll_reads_them() {
        for (text, value) in [
            ("123", 123),
            ("\t \n\r\x0b\x0c-5x", -5),
            ("+7", 7),
            ("+-7", 0),
            ("", 0),
            ("  ", 0),
            ("0x1f", 0),
            ("9223372036854775807", i64::MAX),
            ("9223372036854775808", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-9223372036854775809", i64::MIN),
            ("99999999999999999999999999999999", i64::MAX),
        ] {
            assert_eq!(read_number(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn spaces_are_found_wherever_they_stand() {
        for len in 0..40 {
            for at in 0..=len {
                // Neighbours of the space in value, and bytes whose high bit is set.
                let mut text: Vec<u8> =
                    [0x1f, 0x21, 0xa0, 0x00, 0xff].into_iter().cycle().take(len).collect();
                for later in (at..len).step_by(3) {
                    text[later] = b' ';
                }
                assert_eq!(find_space(&text), at);
            }
        }
    }

    #[test]
    fn a_nul_is_found_wherever_it_stands() {
        for len in 0..50 {
            let mut text: Vec<u8> = [0x01, 0x80, 0x81, b'a', 0xff].into_iter().cycle().take(len).collect();
            assert!(is_without_nul(&text));
            for at in 0..len {
                let byte = std::mem::replace(&mut text[at], 0);
                assert!(!is_without_nul(&text), "{at} of {len}");
                text[at] = byte;
            }
        }
    }
}
