//! Reads the parts of a block, and no more than it said there was.

use std::borrow::Cow;

use crate::model::RecordKey;
use crate::protocol::columns::packed::{self, to_hex, to_numbered, to_uuid};
use crate::protocol::columns::writer::{
    DICTIONARY, DIGITS_MAX, EXACT_MAX, HEX, NUMBERS, PLAIN, UUID_BYTES, UUIDS, from_decimal,
};
use crate::protocol::columns::{Cost, InvalidBlock, VERSION};

/// What is left of a block, and of what it said that it unfolds to.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    left: Cost,
}

impl<'a> Reader<'a> {
    /// Reads the head of a block.
    pub(super) fn open(block: &'a [u8]) -> Result<Self, InvalidBlock> {
        let mut reader = Reader { rest: block, left: Cost::default() };
        let version = reader.number()?;
        if version != VERSION {
            return Err(InvalidBlock::Version(version));
        }
        let huge = |_| InvalidBlock::Wrong("more in it than memory holds");
        let values = usize::try_from(reader.number()?).map_err(huge)?;
        let bytes = usize::try_from(reader.number()?).map_err(huge)?;
        reader.left = Cost { values, bytes };
        Ok(reader)
    }

    /// What the block may still unfold to.
    pub(super) const fn left(&self) -> Cost {
        self.left
    }

    /// Nothing may be left over.
    pub(super) fn finish(self) -> Result<(), InvalidBlock> {
        if self.rest.is_empty() && self.left == Cost::default() {
            Ok(())
        } else {
            Err(InvalidBlock::Wrong("something left over"))
        }
    }

    /// Takes values from what may be made.
    pub(super) fn take_values(&mut self, values: usize) -> Result<(), InvalidBlock> {
        let too_many = InvalidBlock::Wrong("more values than it says");
        self.left.values = self.left.values.checked_sub(values).ok_or(too_many)?;
        Ok(())
    }

    /// Takes bytes from what may be made.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), InvalidBlock> {
        let too_many = InvalidBlock::Wrong("more bytes than it says");
        self.left.bytes = self.left.bytes.checked_sub(bytes).ok_or(too_many)?;
        Ok(())
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8], InvalidBlock> {
        let (raw, rest) = self.rest.split_at_checked(length).ok_or(InvalidBlock::Short)?;
        self.rest = rest;
        Ok(raw)
    }

    pub(super) fn number(&mut self) -> Result<u64, InvalidBlock> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(InvalidBlock::Short)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(InvalidBlock::Wrong("a number that is not written as it must be"));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(InvalidBlock::Wrong("a number beyond 64 bits"))
    }

    pub(super) fn length(&mut self) -> Result<usize, InvalidBlock> {
        usize::try_from(self.number()?).map_err(|_| InvalidBlock::Wrong("a length beyond memory"))
    }

    /// A number of things of which each takes a byte at least: so many can be set aside for.
    pub(super) fn count(&mut self) -> Result<usize, InvalidBlock> {
        let count = self.length()?;
        if count > self.rest.len() { Err(InvalidBlock::Short) } else { Ok(count) }
    }

    /// So many kinds, in runs. Whoever asks has taken as many values.
    pub(super) fn kinds(&mut self, count: usize, known: u8) -> Result<Vec<u8>, InvalidBlock> {
        let mut kinds: Vec<u8> = Vec::with_capacity(count);
        while kinds.len() < count {
            let run = self.number()?;
            let (kind, length) = ((run & 0x0f) as u8, usize::try_from(run >> 4).unwrap_or(usize::MAX));
            if kind >= known || length == 0 || length > count - kinds.len() || kinds.last() == Some(&kind) {
                return Err(InvalidBlock::Wrong("a run of kinds that cannot be"));
            }
            kinds.resize(kinds.len() + length, kind);
        }
        Ok(kinds)
    }

    pub(super) fn integers(&mut self, count: usize) -> Result<Vec<i64>, InvalidBlock> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let differences = self.way()?;
        if count > self.rest.len() {
            return Err(InvalidBlock::Short);
        }
        let mut before = 0_i64;
        let mut integers = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.number()?;
            let integer = (number >> 1) as i64 ^ -((number & 1) as i64);
            before = if differences { before.wrapping_add(integer) } else { integer };
            integers.push(before);
        }
        Ok(integers)
    }

    /// Integers that are not negative.
    pub(super) fn lengths(&mut self, count: usize) -> Result<Vec<usize>, InvalidBlock> {
        let length = |integer| usize::try_from(integer).map_err(|_| InvalidBlock::Wrong("a negative length"));
        self.integers(count)?.into_iter().map(length).collect()
    }

    pub(super) fn floats(&mut self, count: usize) -> Result<Vec<f64>, InvalidBlock> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let digits = self.number()?;
        if digits > 0 {
            let digits = u32::try_from(digits).ok().filter(|digits| *digits <= DIGITS_MAX);
            let digits = digits.ok_or(InvalidBlock::Wrong("decimals of too many digits"))?;
            let integers = self.integers(count)?;
            if integers.iter().any(|integer| integer.unsigned_abs() > EXACT_MAX as u64) {
                return Err(InvalidBlock::Wrong("a decimal that is no float"));
            }
            return Ok(integers.into_iter().map(|integer| from_decimal(integer, digits)).collect());
        }
        let raw = self.raw(count.checked_mul(8).ok_or(InvalidBlock::Short)?)?;
        let float = |raw: &[u8; 8]| f64::from_le_bytes(*raw);
        Ok(raw.as_chunks().0.iter().map(float).collect())
    }

    /// Texts or byte strings.
    pub(super) fn texts(&mut self, count: usize) -> Result<Vec<Cow<'a, [u8]>>, InvalidBlock> {
        if count == 0 {
            return Ok(Vec::new());
        }
        match self.length()? {
            PLAIN => {
                let texts = self.bytes(count)?;
                self.take_bytes(total(&texts)?)?;
                Ok(texts.into_iter().map(Cow::Borrowed).collect())
            }
            DICTIONARY => self.dictionary(count),
            HEX => {
                let packed = self.bytes(count)?;
                self.take_bytes(total(&packed)?.checked_mul(2).ok_or(InvalidBlock::Short)?)?;
                Ok(packed.into_iter().map(|bytes| Cow::Owned(to_hex(bytes))).collect())
            }
            UUIDS => Ok(self.uuids(count)?.into_iter().map(Cow::Owned).collect()),
            _ => Err(unknown_way()),
        }
    }

    fn dictionary(&mut self, count: usize) -> Result<Vec<Cow<'a, [u8]>>, InvalidBlock> {
        let distinct = self.count()?;
        let distinct = self.bytes(distinct)?;
        let mut used = 0;
        let mut texts = Vec::new();
        for _ in 0..count {
            let place = self.length()?;
            if place > used {
                return Err(InvalidBlock::Wrong("a dictionary that is not in order of use"));
            }
            used = used.max(place + 1);
            let text = *distinct.get(place).ok_or(InvalidBlock::Wrong("a text that its dictionary lacks"))?;
            self.take_bytes(text.len())?;
            texts.push(Cow::Borrowed(text));
        }
        if used != distinct.len() {
            return Err(InvalidBlock::Wrong("a dictionary of more than is used"));
        }
        Ok(texts)
    }

    fn numbered(&mut self, count: usize) -> Result<Vec<RecordKey>, InvalidBlock> {
        let prefix = self.length()?;
        let prefix = self.raw(prefix)?;
        let digits = Some(self.length()?).filter(|digits| (1..=packed::DIGITS_MAX).contains(digits));
        let digits = digits.ok_or(InvalidBlock::Wrong("keys of too many digits"))?;
        let numbers = self.integers(count)?;
        let bytes = (prefix.len() + digits).checked_mul(count).ok_or(InvalidBlock::Short)?;
        self.take_bytes(bytes)?;
        let one = |number| to_numbered(prefix, digits, number).ok_or(InvalidBlock::Wrong("a key with another number"));
        numbers.into_iter().map(|number| key(&one(number)?)).collect()
    }

    fn uuids(&mut self, count: usize) -> Result<Vec<Vec<u8>>, InvalidBlock> {
        let raw = self.raw(count.checked_mul(UUID_BYTES).ok_or(InvalidBlock::Short)?)?;
        let uuids: Vec<_> = raw.chunks_exact(UUID_BYTES).map(to_uuid).collect();
        self.take_bytes(uuids.iter().map(Vec::len).sum())?;
        Ok(uuids)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<&'a [u8]>, InvalidBlock> {
        if count > self.rest.len() {
            return Err(InvalidBlock::Short);
        }
        let lengths: Vec<_> = (0..count).map(|_| self.length()).collect::<Result<_, _>>()?;
        lengths.into_iter().map(|length| self.raw(length)).collect()
    }

    pub(super) fn keys(&mut self, count: usize) -> Result<Vec<RecordKey>, InvalidBlock> {
        if count == 0 {
            return Ok(Vec::new());
        }
        match self.length()? {
            PLAIN => {}
            UUIDS => return self.uuids(count)?.iter().map(|uuid| key(uuid)).collect(),
            NUMBERS => return self.numbered(count),
            _ => return Err(unknown_way()),
        }
        if count > self.rest.len() {
            return Err(InvalidBlock::Short);
        }
        let shared: Vec<_> = (0..count).map(|_| self.length()).collect::<Result<_, _>>()?;
        let rests = self.bytes(count)?;
        let mut whole: Vec<u8> = Vec::new();
        let mut keys = Vec::with_capacity(count);
        for (shared, rest) in shared.into_iter().zip(rests) {
            if shared > whole.len() {
                return Err(InvalidBlock::Wrong("a key that shares more than there is"));
            }
            whole.truncate(shared);
            whole.extend_from_slice(rest);
            self.take_bytes(whole.len())?;
            keys.push(key(&whole)?);
        }
        Ok(keys)
    }

    /// Which of two ways something is written.
    pub(super) fn way(&mut self) -> Result<bool, InvalidBlock> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(unknown_way()),
        }
    }
}

const fn unknown_way() -> InvalidBlock {
    InvalidBlock::Wrong("a way of writing that is not known")
}

fn total(texts: &[&[u8]]) -> Result<usize, InvalidBlock> {
    texts.iter().try_fold(0_usize, |sum, text| sum.checked_add(text.len())).ok_or(InvalidBlock::Short)
}

fn key(bytes: &[u8]) -> Result<RecordKey, InvalidBlock> {
    RecordKey::parse(text(Cow::Borrowed(bytes))?).map_err(|_| InvalidBlock::Wrong("a key that is empty or too long"))
}

/// Bytes as text.
pub(super) fn text(bytes: Cow<'_, [u8]>) -> Result<String, InvalidBlock> {
    String::from_utf8(bytes.into_owned()).map_err(|_| InvalidBlock::Wrong("a text that is not UTF-8"))
}
