//! Decisions that are read from the bytes of a fuzzer. When they end, zeros follow.

/// What is left of the bytes.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// A number below `bound`, which is 256 at most.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Once in so many times.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(super) fn pick<'b, T>(&mut self, choices: &'b [T]) -> &'b T {
        &choices[self.below(choices.len())]
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// At most 255 bytes, behind their number.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Small numbers, those at which something ends, and any.
    pub(super) fn integer(&mut self) -> i64 {
        match self.byte() {
            small @ 0..=199 => i64::from(small) - 20,
            near @ 200..=209 => (1 << 53) + i64::from(near) - 205,
            near @ 210..=219 => -(1 << 53) + i64::from(near) - 215,
            near @ 220..=224 => i64::MAX - i64::from(near) + 220,
            near @ 225..=229 => i64::MIN + i64::from(near) - 225,
            _ => i64::from_be_bytes(self.array()),
        }
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}
