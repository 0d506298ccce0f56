//! CRC-32C, the checksum of the `crc32c` field (RFC 9260 appendix A; polynomial 0x1EDC6F41, reflected).

/// The checksum of the concatenation of `parts`.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        TABLE[usize::from(low)] ^ crc >> 8
    };
    !parts.iter().copied().flatten().fold(!0, step)
}

/// What each byte contributes.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    // `byte` and `at` are the same number; a constant cannot convert one into the other without a cast.
    let (mut byte, mut at): (u32, usize) = (0, 0);
    while at < table.len() {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        byte += 1;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // RFC 3720 appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
        assert_eq!(crc32c(&[]), 0);
    }
}
