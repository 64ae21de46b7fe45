//! Writes the parts of a block.

use std::collections::BTreeMap;

use crate::protocol::columns::packed::{from_hex, from_uuid, numbered};
use crate::protocol::columns::{Cost, VERSION};

/// The body of a block, and what it unfolds to.
#[derive(Default)]
pub(crate) struct Writer {
    body: Vec<u8>,
    cost: Cost,
}

impl Writer {
    /// The block.
    pub(super) fn into_block(self) -> Vec<u8> {
        let mut head = Self::default();
        head.number(VERSION);
        head.length(self.cost.values);
        head.length(self.cost.bytes);
        let mut block = head.body;
        block.extend(self.body);
        block
    }

    /// Counts values that a reader will make.
    pub(super) const fn count_values(&mut self, values: usize) {
        self.cost.values += values;
    }

    /// Counts bytes that a reader will make.
    pub(super) const fn count_bytes(&mut self, bytes: usize) {
        self.cost.bytes += bytes;
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.body.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.body.push(number as u8);
    }

    pub(super) fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// Kinds below 16, in runs.
    pub(super) fn kinds(&mut self, kinds: impl IntoIterator<Item = u8>) {
        let mut run: Option<(u8, u64)> = None;
        for kind in kinds {
            run = match run {
                Some((same, length)) if same == kind => Some((kind, length + 1)),
                ended => {
                    self.run(ended);
                    Some((kind, 1))
                }
            };
        }
        self.run(run);
    }

    fn run(&mut self, run: Option<(u8, u64)>) {
        if let Some((kind, length)) = run {
            self.number(length << 4 | u64::from(kind));
        }
    }

    /// Integers, plain or as differences.
    pub(super) fn integers(&mut self, integers: &[i64]) {
        if integers.is_empty() {
            return;
        }
        let plain: usize = integers.iter().map(|integer| number_len(zigzag(*integer))).sum();
        let differences: usize = differences(integers).map(|integer| number_len(zigzag(integer))).sum();
        if differences < plain {
            self.number(1);
            self::differences(integers).for_each(|integer| self.number(zigzag(integer)));
        } else {
            self.number(0);
            integers.iter().for_each(|integer| self.number(zigzag(*integer)));
        }
    }

    /// Finite floats, as decimals of so many digits if they all are that.
    pub(super) fn floats(&mut self, floats: &[f64]) {
        if floats.is_empty() {
            return;
        }
        let decimals = (1..=DIGITS_MAX).find_map(|digits| {
            let integers: Option<Vec<_>> = floats.iter().map(|float| to_decimal(*float, digits)).collect();
            integers.map(|integers| (digits, integers))
        });
        match decimals {
            Some((digits, integers)) => {
                self.number(u64::from(digits));
                self.integers(&integers);
            }
            None => {
                self.number(0);
                floats.iter().for_each(|float| self.raw(&float.to_le_bytes()));
            }
        }
    }

    /// Texts or byte strings, in the shortest of four ways.
    pub(super) fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone) {
        if texts.len() == 0 {
            return;
        }
        self.count_bytes(texts.clone().map(<[u8]>::len).sum());
        let plain = size(texts.clone());
        let dictionary = Dictionary::of(texts.clone());
        let repeated = dictionary.size();
        if repeated.min(plain) > texts.len() * UUID_BYTES
            && let Some(uuids) = packed(texts.clone(), from_uuid)
        {
            self.length(UUIDS);
            uuids.iter().for_each(|uuid| self.raw(uuid));
        } else if repeated.min(plain) > plain / 2
            && let Some(hex) = packed(texts.clone(), from_hex)
        {
            self.length(HEX);
            self.bytes(hex.iter().map(Vec::as_slice));
        } else if repeated < plain {
            self.length(DICTIONARY);
            self.length(dictionary.distinct.len());
            self.bytes(dictionary.distinct.into_iter());
            dictionary.chosen.into_iter().for_each(|place| self.length(place));
        } else {
            self.length(PLAIN);
            self.bytes(texts);
        }
    }

    fn bytes<'a>(&mut self, texts: impl Iterator<Item = &'a [u8]> + Clone) {
        texts.clone().for_each(|text| self.length(text.len()));
        texts.for_each(|text| self.raw(text));
    }

    /// Keys, each after what it shares with the one before.
    pub(super) fn keys<'a>(&mut self, keys: impl Iterator<Item = &'a str> + Clone) {
        if keys.clone().next().is_none() {
            return;
        }
        if let Some(uuids) = packed(keys.clone().map(str::as_bytes), from_uuid) {
            self.length(UUIDS);
            self.count_bytes(keys.map(str::len).sum());
            uuids.iter().for_each(|uuid| self.raw(uuid));
            return;
        }
        if let Some((prefix, width, numbers)) = numbered(keys.clone()) {
            self.length(NUMBERS);
            self.count_bytes(keys.map(str::len).sum());
            self.length(prefix.len());
            self.raw(prefix);
            self.length(width);
            self.integers(&numbers);
            return;
        }
        self.length(PLAIN);
        let mut rests = Vec::new();
        let mut before: &[u8] = &[];
        for key in keys {
            let key = key.as_bytes();
            let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
            self.length(shared);
            self.count_bytes(key.len());
            rests.push(&key[shared..]);
            before = key;
        }
        self.bytes(rests.into_iter());
    }
}

/// The distinct texts of a column, in order of first use, and which of them each is.
struct Dictionary<'a> {
    distinct: Vec<&'a [u8]>,
    chosen: Vec<usize>,
}

impl<'a> Dictionary<'a> {
    fn of(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
        let mut distinct = Vec::new();
        let place = |text| {
            *places.entry(text).or_insert_with(|| {
                distinct.push(text);
                distinct.len() - 1
            })
        };
        let chosen = texts.map(place).collect();
        Self { distinct, chosen }
    }

    fn size(&self) -> usize {
        size(self.distinct.iter().copied()) + self.chosen.iter().map(|place| number_len(*place as u64)).sum::<usize>()
    }
}

/// What texts take with their lengths.
fn size<'a>(texts: impl Iterator<Item = &'a [u8]>) -> usize {
    texts.map(|text| text.len() + number_len(text.len() as u64)).sum()
}

/// All texts packed, if all can be.
fn packed<'a>(texts: impl Iterator<Item = &'a [u8]>, pack: fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    texts.map(pack).collect()
}

/// How texts are written.
pub(super) const PLAIN: usize = 0;
pub(super) const DICTIONARY: usize = 1;
pub(super) const HEX: usize = 2;
pub(super) const UUIDS: usize = 3;
pub(super) const NUMBERS: usize = 4;

pub(super) const UUID_BYTES: usize = 16;

/// The most decimal digits that floats are tried with.
pub(super) const DIGITS_MAX: u32 = 9;

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Integers up to here are exact as floats.
pub(super) const EXACT_MAX: i64 = 1 << 53;

/// The integer that a float is with so many decimal digits, if it comes back from that.
fn to_decimal(float: f64, digits: u32) -> Option<i64> {
    let scaled = (float * POWERS[digits as usize]).round();
    let integer = (scaled.abs() <= EXACT_MAX as f64).then_some(scaled as i64)?;
    (from_decimal(integer, digits).to_bits() == float.to_bits()).then_some(integer)
}

/// Both are exact, and division rounds alike everywhere.
pub(super) fn from_decimal(integer: i64, digits: u32) -> f64 {
    integer as f64 / POWERS[digits as usize]
}

fn differences(integers: &[i64]) -> impl Iterator<Item = i64> {
    let before = std::iter::once(&0).chain(integers);
    integers.iter().zip(before).map(|(integer, before)| integer.wrapping_sub(*before))
}

/// Small numbers of either sign become small numbers.
pub(super) const fn zigzag(integer: i64) -> u64 {
    (integer << 1 ^ integer >> 63) as u64
}

const fn number_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}
