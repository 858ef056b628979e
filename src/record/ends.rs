//! Where the numbers of a JSON text end, found for all of it before anything is read: then where to read on does not wait for a number, and
//! several are read at once. The idea is that of Langdale & Lemire ("Parsing Gigabytes of JSON per Second", 2019, section 3.1).

use fearless_simd::{Simd, dispatch, prelude::*, u8x64};

use super::vector;

/// Bytes of a word.
const BYTES: usize = 64;

/// One bit for each byte of a text: whether it is a blank or another control character, a comma, or a closing bracket.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    words: Vec<u64>,
}

impl Ends {
    /// Looks at another text. Whether all of it is ASCII.
    pub fn find(&mut self, text: &[u8]) -> bool {
        self.words.clear();
        dispatch!(vector::level(), simd => find(simd, text, &mut self.words))
    }

    /// The first end at `at` or after it.
    #[inline]
    pub fn after(&self, at: usize) -> Option<usize> {
        let mut word = at / BYTES;
        let mut ends = self.words.get(word)? & (u64::MAX << (at % BYTES));
        while ends == 0 {
            word += 1;
            ends = *self.words.get(word)?;
        }
        Some(word * BYTES + ends.trailing_zeros() as usize)
    }
}

#[inline(always)]
fn find<S: Simd>(simd: S, text: &[u8], words: &mut Vec<u64>) -> bool {
    let mut any = u8x64::splat(simd, 0);
    let (whole, rest) = text.as_chunks::<BYTES>();
    for bytes in whole {
        let bytes = u8x64::load_array_ref(simd, bytes);
        any |= bytes;
        words.push(ends(simd, bytes));
    }
    if !rest.is_empty() {
        let mut bytes = [0x7f; BYTES];
        bytes[..rest.len()].copy_from_slice(rest);
        let bytes = u8x64::load_array(simd, bytes);
        any |= bytes;
        words.push(ends(simd, bytes));
    }
    any.simd_lt(u8x64::splat(simd, 0x80)).all_true()
}

#[inline(always)]
fn ends<S: Simd>(simd: S, bytes: u8x64<S>) -> u64 {
    let is = |byte| bytes.simd_eq(u8x64::splat(simd, byte));
    let blanks = bytes.simd_le(u8x64::splat(simd, b' '));
    (blanks | is(b',') | is(b'}') | is(b']')).to_bitmask()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn ends_are_where_they_are() {
        vector::on_each(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut found = Ends::default();
            for _ in 0..20_000 {
                let (length, highest) = (rng.random_range(0..300), if rng.random() { 0x7f } else { 0xff });
                let byte = |_| match rng.random_range(0..40) {
                    0 => b" \n,}]\x1f"[rng.random_range(0..6)],
                    _ => rng.random_range(b'!'..=highest),
                };
                let text: Vec<u8> = (0..length).map(byte).collect();
                assert_eq!(found.find(&text), text.is_ascii(), "{text:?}");
                let is_end = |byte: &u8| *byte <= b' ' || b",}]".contains(byte);
                for at in 0..length + 100 {
                    let expect = text.iter().enumerate().skip(at).find(|(_, byte)| is_end(byte)).map(|(at, _)| at);
                    assert_eq!(found.after(at), expect, "{at} in {text:?}");
                }
            }
        });
    }
}
