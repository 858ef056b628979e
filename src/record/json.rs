//! Reads the JSON that topics have, fast: one pass over the bytes, keys looked up where they are, numbers straight into the caller's row.
//!
//! Whatever is not of that shape (escapes, keys that come twice, a wrong type, anything that is no JSON) is not decided here: the caller
//! reads it again with the whole grammar. So nothing is refused here, and what is read is read as there; a differential test says so.

use super::scalar::Scalar;
use super::trie::{Roles, Trie, Want};
use super::walk::Found;

/// Values inside values that nobody needs, at most: fewer than the whole grammar takes.
const DEPTH_MAX: usize = 64;
/// Powers of ten that a 64-bit float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// Up to here a 64-bit float holds every integer.
const EXACT_MAX: u64 = 1 << 53;
/// So many decimal digits fit into 64 bits.
const DIGITS_MAX: usize = 19;

/// The values of a record go into `values`. None: the record is of another shape, and `trie` alone is still of use.
pub(super) fn read<'de>(text: &'de str, trie: &mut Trie, seen: &mut [bool], values: &mut [f64]) -> Option<Found<'de>> {
    if !trie.is_plain() {
        return None;
    }
    let mut reader = Reader { text, at: 0, trie, seen, values, found: Found::default() };
    reader.blanks();
    reader.take(b'{')?;
    reader.object(0)?;
    reader.blanks();
    (reader.at == text.len()).then_some(reader.found)
}

struct Reader<'a, 'de> {
    text: &'de str,
    /// The next byte.
    at: usize,
    trie: &'a mut Trie,
    seen: &'a mut [bool],
    values: &'a mut [f64],
    found: Found<'de>,
}

impl<'de> Reader<'_, 'de> {
    /// The next byte; 0, which is nowhere of use, at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        // A jump, which is foreseen: where to go on must not wait for what is read here.
        if self.peek() != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// What lies between `from` and here. Both are beside ASCII characters.
    fn since(&self, from: usize) -> Option<&'de str> {
        self.text.get(from..self.at)
    }

    /// The object of `node`, after its brace.
    fn object(&mut self, node: usize) -> Option<()> {
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(());
        }
        let mut last = None;
        loop {
            self.take(b'"')?;
            let edge = self.key(node, last)?;
            self.blanks();
            self.take(b':')?;
            self.blanks();
            match edge {
                None => self.skip(0)?,
                Some(edge) => {
                    last = Some(edge);
                    self.value(edge)?;
                }
            }
            self.blanks();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.blanks();
        }
    }

    /// The edge of the key that begins here, if it is needed; behind its quote afterwards.
    #[inline]
    fn key(&mut self, node: usize, last: Option<usize>) -> Option<Option<usize>> {
        let guess = self.trie.guess(node, last);
        let rest = &self.text.as_bytes()[self.at..];
        if let Some(length) = self.trie.starts(guess, rest) {
            self.at += length + 1;
            return Some(Some(guess));
        }
        let length = plain(rest)?;
        let edge = self.trie.look_up(node, &rest[..length]);
        self.at += length + 1;
        if let Some(edge) = edge {
            self.trie.learn(node, last, edge);
        }
        Some(edge)
    }

    #[inline]
    fn value(&mut self, edge: usize) -> Option<()> {
        if std::mem::replace(&mut self.seen[edge], true) {
            return None;
        }
        match self.trie.edge(edge).want {
            Want::Feature(index) => self.values[index] = self.feature()?,
            Want::Object(node) => match self.peek() {
                b'{' => {
                    self.at += 1;
                    self.object(node)?;
                }
                _ => self.literal("null")?,
            },
            Want::Text(roles) => self.text(roles)?,
        }
        Some(())
    }

    #[inline]
    fn feature(&mut self) -> Option<f64> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true").map(|()| 1.0),
            b'f' => self.literal("false").map(|()| 0.0),
            _ => self.literal("null").map(|()| f64::NAN),
        }
    }

    /// A value that is kept as its text.
    fn text(&mut self, Roles { feature, series, time }: Roles) -> Option<()> {
        let from = self.at;
        match (self.peek(), feature) {
            (b'"', None) => self.string()?,
            (_, Some(index)) => self.values[index] = self.feature()?,
            (_, None) => drop(self.feature()?),
        }
        let json = self.since(from)?;
        if series {
            self.found.series = Some(Scalar::Json(json));
        }
        if time {
            self.found.time = Some(Scalar::Json(json));
        }
        Some(())
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found.then_some(())
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.at += plain(&self.text.as_bytes()[self.at..])? + 1;
        Some(())
    }

    /// The value of the digits here, added to `number`; wrong beyond [`DIGITS_MAX`] digits. At least one.
    #[inline]
    fn digits(&mut self, mut number: u64) -> Option<u64> {
        let from = self.at;
        while let Some(next) = self.text.as_bytes().get(self.at..).and_then(<[u8]>::first_chunk) {
            let (value, count) = first_digits(u64::from_le_bytes(*next));
            number = number.wrapping_mul(TENS[count]).wrapping_add(value);
            self.at += count;
            if count < 8 {
                return (self.at > from).then_some(number);
            }
        }
        while let digit @ 0..=9 = self.peek().wrapping_sub(b'0') {
            number = number.wrapping_mul(10).wrapping_add(digit.into());
            self.at += 1;
        }
        (self.at > from).then_some(number)
    }

    /// Rounded as Rust rounds. None also beyond the range.
    #[inline]
    fn number(&mut self) -> Option<f64> {
        let from = self.at;
        // No jump: nobody foresees a sign.
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut number = self.digits(0)?;
        let mut count = self.at - first;
        if count > 1 && self.text.as_bytes()[first] == b'0' {
            return None;
        }
        let mut fraction = 0;
        if self.take(b'.').is_some() {
            let from = self.at;
            number = self.digits(number)?;
            fraction = self.at - from;
            count += fraction;
        }
        let mut simple = count <= DIGITS_MAX && number <= EXACT_MAX && fraction < POWERS.len();
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits(0)?;
            simple = false;
        }
        if simple {
            // Two floats that are exact: their quotient is the nearest to the true one (Clinger 1990).
            let value = number as f64 / POWERS[fraction];
            return Some(if negative { -value } else { value });
        }
        self.since(from)?.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// A value that nobody needs, at `depth` of such.
    fn skip(&mut self, depth: usize) -> Option<()> {
        let (open, close) = match self.peek() {
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => return self.skip_number(),
            b'{' => (b'{', b'}'),
            b'[' => (b'[', b']'),
            b't' => return self.literal("true"),
            b'f' => return self.literal("false"),
            _ => return self.literal("null"),
        };
        if depth >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        self.blanks();
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            if open == b'{' {
                self.string()?;
                self.blanks();
                self.take(b':')?;
                self.blanks();
            }
            self.skip(depth + 1)?;
            self.blanks();
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.blanks();
        }
    }

    /// Beyond the range too.
    fn skip_number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        let first = self.at;
        self.digits(0)?;
        if self.at - first > 1 && self.text.as_bytes()[first] == b'0' {
            return None;
        }
        if self.take(b'.').is_some() {
            self.digits(0)?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits(0)?;
        }
        Some(())
    }
}

/// The value of the decimal digits that eight bytes of text begin with, and how many they are. All at once, as by Lemire ("Number Parsing at
/// a Gigabyte per Second", 2021, section 6), with the digits moved to the end first.
#[inline]
fn first_digits(text: u64) -> (u64, usize) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let digits = text ^ (b'0' as u64 * EACH);
    // In the highest bit of each byte: whether it is more than 9.
    let others = (digits.wrapping_add((0x7f - 9) * EACH) | digits) & (0x80 * EACH);
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    let digits = digits << (64 - 8 * count);
    let pairs = (digits & (0x0f * EACH)).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    let value = (fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32;
    (value, count)
}

/// The length of what lies before the next quote, if nothing in it is more than it seems.
#[inline]
fn plain(bytes: &[u8]) -> Option<usize> {
    let length = bytes.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    (bytes[length] == b'"').then_some(length)
}
