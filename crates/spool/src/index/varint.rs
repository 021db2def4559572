//! LEB128: seven bits a byte, the lowest first; the high bit says that more follow.

/// Appends a number.
#[allow(clippy::cast_possible_truncation, reason = "seven bits are meant")]
pub(super) fn put(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads numbers from the start of a slice. `None` at its end, and for a number over 128 bits.
pub(super) struct VarintReader<'a>(pub(super) &'a [u8]);

impl VarintReader<'_> {
    #[inline]
    pub(super) fn next(&mut self) -> Option<u128> {
        let (&first, rest) = self.0.split_first()?;
        if first < 0x80 {
            self.0 = rest;
            return Some(first.into());
        }
        self.long()
    }

    fn long(&mut self) -> Option<u128> {
        let mut value = 0;
        for shift in (0..128).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn next_u64(&mut self) -> Option<u64> {
        u64::try_from(self.next()?).ok()
    }
}
