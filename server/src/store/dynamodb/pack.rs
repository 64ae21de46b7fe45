//! Numbers and bytes, packed without names: what is written with each push is paid for by its size.

use crate::store::dynamodb::failure::Failure;

/// Packs values one behind the other.
#[derive(Default)]
pub(super) struct Pack(Vec<u8>);

/// Takes values out again, in the same order.
pub(super) struct Unpack<'a>(&'a [u8]);

impl Pack {
    /// What was packed.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A number: seven bits a byte, the lowest first.
    pub(super) fn number(&mut self, mut number: u64) -> &mut Self {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    /// A number that may be negative; small ones are short.
    pub(super) fn signed(&mut self, number: i64) -> &mut Self {
        self.number((number << 1 ^ number >> 63) as u64)
    }

    /// Bytes whose number is known to whoever takes them out.
    pub(super) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes and how many.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    /// Something or nothing.
    pub(super) fn optional<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Self, T) -> &mut Self) -> &mut Self {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            pack(self, value);
        }
        self
    }

    /// Any number of things of one kind.
    pub(super) fn all<T>(
        &mut self,
        values: &[T],
        mut pack: impl for<'p, 't> FnMut(&'p mut Self, &'t T) -> &'p mut Self,
    ) -> &mut Self {
        self.number(values.len() as u64);
        for value in values {
            pack(self, value);
        }
        self
    }
}

impl<'a> Unpack<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was taken out.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self) -> Result<u64, Failure> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Failure::corrupt("a packed number is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Failure> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(ends)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Failure> {
        let length = usize::try_from(self.number()?).map_err(Failure::corrupt)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(ends)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes()?).map_err(Failure::corrupt)
    }

    pub(super) fn optional<T>(
        &mut self,
        unpack: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match self.number()? {
            0 => Ok(None),
            _ => unpack(self).map(Some),
        }
    }

    pub(super) fn all<T>(
        &mut self,
        mut unpack: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let length = self.number()?;
        (0..length).map(|_| unpack(self)).collect()
    }
}

fn ends() -> Failure {
    Failure::corrupt("packed bytes end too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again_and_half_of_it_does_not() {
        let numbers = [0, 1, 127, 128, 300, u64::MAX];
        let signed = [0, -1, 1, -64, i64::MIN, i64::MAX];
        let mut pack = Pack::default();
        pack.all(&numbers, |pack, number| pack.number(*number));
        pack.all(&signed, |pack, number| pack.signed(*number));
        pack.bytes(b"text").fixed(&[7; 3]).optional(Some(5), |pack, five| pack.number(five));
        pack.optional(None::<u64>, |pack, _| pack);
        let bytes = pack.into_bytes();
        let read = |bytes: &[u8]| -> Result<(), Failure> {
            let mut unpack = Unpack::new(bytes);
            assert_eq!(unpack.all(Unpack::number)?, numbers);
            assert_eq!(unpack.all(Unpack::signed)?, signed);
            assert_eq!((unpack.text()?, unpack.array()?), ("text", [7; 3]));
            assert_eq!((unpack.optional(Unpack::number)?, unpack.optional(Unpack::number)?), (Some(5), None));
            assert!(unpack.is_empty());
            Ok(())
        };
        read(&bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Unpack::new(&[0xff; 11]).number().is_err());
    }
}
