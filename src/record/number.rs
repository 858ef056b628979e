//! Decimal numbers of a JSON text, many digits at once.

/// Powers of ten that a 64-bit float holds exactly.
pub(super) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
pub(super) const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// Up to here a 64-bit float holds every integer.
pub(super) const EXACT_MAX: u64 = 1 << 53;
/// So many decimal digits fit into 64 bits.
pub(super) const DIGITS_MAX: usize = 19;

/// The value of the decimal digits that eight bytes of text begin with, and how many they are.
#[inline]
pub(super) fn first_digits(text: u64) -> (u64, usize) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let digits = text ^ (b'0' as u64 * EACH);
    // In the highest bit of each byte: whether it is more than 9.
    let others = (digits.wrapping_add((0x7f - 9) * EACH) | digits) & (0x80 * EACH);
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    (eight_digits((digits << (64 - 8 * count)) & (0x0f * EACH)), count)
}

/// The value of eight digits, the first in the lowest byte. All at once, as by Lemire ("Number Parsing at a Gigabyte per Second", 2021,
/// section 6).
#[inline]
fn eight_digits(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    (fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32
}

/// The number that is all of `text` from `begin` to `end`, of eight characters at most besides its sign, and without an exponent. None: it is
/// none, or another.
#[inline(always)]
pub(super) fn short(text: &[u8], begin: usize, end: usize) -> Option<f64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let eight = u64::from_le_bytes(*text.get(end.checked_sub(8)?..end)?.first_chunk()?);
    let negative = *text.get(begin)? == b'-';
    let length = end.wrapping_sub(begin + usize::from(negative));
    if !(1..=8).contains(&length) {
        return None;
    }
    // The characters at the upper end, zeros before them.
    let before = 64 - 8 * length as u32;
    let zeroed = (eight ^ (u64::from(b'0') * EACH)) & (u64::MAX << before);
    // The lowest byte that is a point: a bit above a lower byte only is never set.
    let point = zeroed ^ (u64::from(b'.' ^ b'0') * EACH);
    let points = point.wrapping_sub(EACH) & !point & (0x80 * EACH);
    // What is before the point moves to where that is; without one, to where it is.
    let (digits, fraction) = if points == 0 {
        (zeroed, 0)
    } else {
        let at = points.trailing_zeros() - 7;
        if at <= before || at == 56 {
            return None;
        }
        let upper = u64::MAX << at << 8;
        ((zeroed & upper) | ((zeroed << 8) & !upper), 7 - at / 8)
    };
    let whole = length as u32 - fraction - u32::from(points != 0);
    let others = (digits.wrapping_add((0x7f - 9) * EACH) | digits) & (0x80 * EACH);
    if others != 0 || (whole > 1 && (zeroed >> before) as u8 == 0) {
        return None;
    }
    // Two floats that are exact: their quotient is the nearest to the true one (Clinger 1990).
    let value = eight_digits(digits) as f64 / POWERS[fraction as usize];
    // No jump: nobody foresees a sign.
    Some(f64::from_bits(value.to_bits() ^ (u64::from(negative) << 63)))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn short_numbers_are_what_rust_reads_and_nothing_else_is_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |characters: &[u8], most: usize| -> String {
            let length = rng.random_range(0..=most);
            (0..length).map(|_| char::from(characters[rng.random_range(0..characters.len())])).collect()
        };
        let mut numbers = 0;
        for _ in 0..400_000 {
            let before = random(b"0123456789.-\":", 20);
            // Digits, and now and then what makes a number another or none.
            let (sign, rest) = (random(b"-", 1), random(b"0123456789", 6));
            let text = match random(b"abcd", 1).as_str() {
                "a" => random(b"0123456789.-+eE \":", 17),
                "b" => random(b"00123456789..-", 17),
                _ => format!("{sign}{rest}.{}", random(b"0123456789", 6)),
            };
            let all = format!("{before}{text},");
            let found = short(all.as_bytes(), before.len(), before.len() + text.len());
            let expect = serde_json::from_str::<f64>(&text).ok().filter(|_| !text.contains(' '));
            match (found, expect) {
                (Some(found), expect) => {
                    assert_eq!(Some(found.to_bits()), expect.map(f64::to_bits), "{all}");
                    numbers += 1;
                }
                (None, Some(number)) => {
                    let long = text.trim_start_matches('-').len() > 8 || text.contains(['e', 'E']);
                    // Where a text begins eight characters cannot be read at once.
                    assert!(long || before.len() + text.len() < 8, "{all}: {number}");
                }
                (None, None) => {}
            }
        }
        assert!(numbers > 100_000, "{numbers}");
    }
}
