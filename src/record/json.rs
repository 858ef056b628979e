//! Reads the JSON that topics have, fast: one pass over the bytes, keys looked up where they are, numbers straight into the caller's row.
//!
//! Whatever is not of that shape (escapes, keys that come twice, a wrong type, anything that is no JSON) is not decided here: the caller
//! reads it again with the whole grammar. So nothing is refused here, and what is read is read as there; a differential test says so.

use super::ends::Ends;
use super::number::{DIGITS_MAX, EXACT_MAX, POWERS, TENS, first_digits, short};
use super::scalar::Scalar;
use super::trie::{Roles, Trie, Want};
use super::walk::Found;

/// Values inside values that nobody needs, at most: fewer than the whole grammar takes.
const DEPTH_MAX: usize = 64;

/// The values of a record go into `values`. None: the record is of another shape, and `trie` alone is still of use. `text` is UTF-8, and
/// `ends` are its.
pub(super) fn read<'de>(
    text: &'de [u8],
    ends: &Ends,
    trie: &mut Trie,
    seen: &mut [bool],
    values: &mut [f64],
) -> Option<Found<'de>> {
    if !trie.is_plain() {
        return None;
    }
    let mut reader = Reader { text, ends, at: 0, trie, seen, values, found: Found::default() };
    reader.blanks();
    reader.take(b'{')?;
    reader.object(0)?;
    reader.blanks();
    (reader.at == text.len()).then_some(reader.found)
}

struct Reader<'a, 'de> {
    text: &'de [u8],
    ends: &'a Ends,
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
        self.text.get(self.at).copied().unwrap_or(0)
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

    #[inline(always)]
    fn blanks(&mut self) {
        if self.peek() <= b' ' {
            self.some_blanks();
        }
    }

    fn some_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// What lies between `from` and here. Both are beside ASCII characters.
    fn since(&self, from: usize) -> Option<&'de str> {
        self.text.get(from..self.at).and_then(|text| str::from_utf8(text).ok())
    }

    /// The object of `node`, after its brace.
    fn object(&mut self, node: usize) -> Option<()> {
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(());
        }
        let mut last = None;
        loop {
            match self.features(node, last) {
                Some(edge) => last = Some(edge),
                None => self.member(node, &mut last)?,
            }
            self.blanks();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.blanks();
        }
    }

    /// Members from here on whose values are short numbers, as most are. The edge of the last one, after whose value this stops; None: there
    /// is no such member.
    fn features(&mut self, node: usize, last: Option<usize>) -> Option<usize> {
        let (text, mut at, mut done) = (self.text, self.at, None);
        let blank = |at| usize::from(text.get(at) == Some(&b' '));
        // After a comma and after a colon: as the first time, or where to read on would wait for what is read there. Where it is otherwise,
        // what was taken for a blank is none.
        let (mut comma, mut colon) = (None, None);
        let mut guess = self.trie.guess(node, last);
        loop {
            let (edge, after) = match self.trie.edges().get(guess).and_then(|edge| edge.token.ends(text, at)) {
                Some(after) => (guess, after),
                None => match self.other(node, done.or(last), at) {
                    Some(other) => other,
                    None => return done,
                },
            };
            let Want::Feature(index) = self.trie.edge(edge).want else { return done };
            let gap = *colon.get_or_insert_with(|| blank(after));
            if blank(after) < gap {
                return done;
            }
            let begin = after + gap;
            let Some((end, value)) = self.ends.after(begin).and_then(|end| Some((end, short(text, begin, end)?)))
            else {
                return done;
            };
            if std::mem::replace(&mut self.seen[edge], true) {
                return done;
            }
            self.values[index] = value;
            (self.at, done) = (end, Some(edge));
            if text[end] != b',' {
                return done;
            }
            let gap = *comma.get_or_insert_with(|| blank(end + 1));
            if blank(end + 1) < gap {
                return done;
            }
            at = end + 1 + gap;
            guess = self.trie.edge(edge).next;
        }
    }

    /// Which needed key is at `at`, and where what follows its colon is. None too where a blank is before that.
    #[inline(never)]
    fn other(&mut self, node: usize, last: Option<usize>, at: usize) -> Option<(usize, usize)> {
        let key = self.text.get(at..)?.strip_prefix(b"\"")?;
        let (edge, after) = self.trie.look_up(node, &key[..plain(key)?], self.text, at)?;
        self.trie.learn(node, last, edge);
        Some((edge, after))
    }

    /// Any member.
    fn member(&mut self, node: usize, last: &mut Option<usize>) -> Option<()> {
        self.take(b'"')?;
        let edge = self.key(node, *last)?;
        self.blanks();
        self.take(b':')?;
        self.blanks();
        match edge {
            None => self.skip(0),
            Some(edge) => {
                *last = Some(edge);
                self.value(edge)
            }
        }
    }

    /// The edge of the key that begins here, if it is needed; behind its quote afterwards.
    #[inline]
    fn key(&mut self, node: usize, last: Option<usize>) -> Option<Option<usize>> {
        let rest = &self.text[self.at..];
        let length = plain(rest)?;
        let edge = self.trie.find(node, self.trie.guess(node, last), &rest[..length]);
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
            Want::Feature(index) => {
                let short = self.ends.after(self.at).and_then(|end| Some((end, short(self.text, self.at, end)?)));
                self.values[index] = match short {
                    Some((end, value)) => {
                        self.at = end;
                        value
                    }
                    None => self.feature()?,
                };
            }
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

    #[inline(never)]
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
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found.then_some(())
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.at += plain(&self.text[self.at..])? + 1;
        Some(())
    }

    /// The value of the digits here, added to `number`; wrong beyond [`DIGITS_MAX`] digits. At least one.
    #[inline]
    fn digits(&mut self, mut number: u64) -> Option<u64> {
        let from = self.at;
        while let Some(next) = self.text.get(self.at..).and_then(<[u8]>::first_chunk) {
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
    fn number(&mut self) -> Option<f64> {
        let from = self.at;
        // No jump: nobody foresees a sign.
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut number = self.digits(0)?;
        let mut count = self.at - first;
        if count > 1 && self.text[first] == b'0' {
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
        if self.at - first > 1 && self.text[first] == b'0' {
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

/// The length of what lies before the next quote, if nothing in it is more than it seems.
#[inline]
fn plain(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let text = u64::from_le_bytes(*eight);
        // In the highest bit of each byte: whether it is less than that. The lowest one is true; above one there may be more.
        let less = |text: u64, than: u8| text.wrapping_sub(u64::from(than) * EACH) & !text & (0x80 * EACH);
        let is = |byte: u8| less(text ^ (u64::from(byte) * EACH), 1);
        let ends = is(b'"') | is(b'\\') | less(text, 0x20);
        if ends != 0 {
            at += ends.trailing_zeros() as usize / 8;
            return (bytes[at] == b'"').then_some(at);
        }
        at += 8;
    }
    let length = at + bytes[at..].iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    (bytes[length] == b'"').then_some(length)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn what_is_plain_ends_at_its_quote() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..100_000 {
            let special = b"\"\\\n\x1f \x7f\x80";
            let byte = |_| match rng.random_range(0..30) {
                0 => special[rng.random_range(0..special.len())],
                _ => rng.random_range(b' '..=0xff),
            };
            let bytes: Vec<u8> = (0..40).map(byte).collect();
            let end = bytes.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            assert_eq!(plain(&bytes), end.filter(|&end| bytes[end] == b'"'), "{bytes:?}");
        }
    }
}
