//! Parses options of pcapng blocks, in the byte order of their section.

use super::byte_order::ByteOrder;
use crate::constants::OPTION_END;

/// Returns the number of padding bytes up to the next multiple of four.
pub(super) fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// Decodes a string option of at most `bytes_max` bytes. Some writers terminate the string with a zero byte.
pub(super) fn text(value: &[u8], bytes_max: usize) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    let mut text = String::from_utf8_lossy(&value[..end]).into_owned();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// Iterates over options (draft-ietf-opsawg-pcapng, "Options": code, length, value, padding) until the end option or
/// the end of the block.
pub(super) struct Options<'a> {
    pub(super) order: ByteOrder,
    pub(super) rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some((header, values)) = rest.split_first_chunk::<4>() else {
            return Some(Err(format!("has {} bytes after its last option", rest.len())));
        };
        let (code, length) = (self.order.u16(header, 0), usize::from(self.order.u16(header, 2)));
        if code == OPTION_END {
            return None;
        }
        let Some((value, after)) = values.split_at_checked(length) else {
            return Some(Err(format!("has option {code} of {length} bytes where {} are left", values.len())));
        };
        self.rest = after.get(padding(length)..).unwrap_or_default();
        Some(Ok((code, value)))
    }
}
