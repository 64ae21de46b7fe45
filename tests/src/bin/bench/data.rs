//! What is measured with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// How many records the generated set has.
pub(crate) const RECORDS: usize = 10_000;

/// Records of six fields, always the same, of which 601 KB cannot be compressed away: an id of 16 random bytes, 49
/// characters out of 64, a number below a million, a moment of a year, a flag and one of eight words.
pub(crate) fn generated() -> Vec<(String, Value)> {
    const CHARACTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const TAGS: [&str; 8] = ["work", "home", "garden", "travel", "health", "money", "music", "family"];
    let mut random = Xorshift(88_172_645_463_325_252);
    let record = |number: usize| {
        let id = format!("{:016x}{:016x}", random.next(), random.next());
        let text: String = (0..49).map(|_| char::from(CHARACTERS[random.below(64)])).collect();
        let value = json!({
            "id": id,
            "text": text,
            "n": random.below(1_000_000),
            "at": 1_750_000_000_000_u64 + random.below(31_536_000_000) as u64,
            "done": random.below(2) == 0,
            "tag": TAGS[random.below(8)],
        });
        (format!("item/{number:05}"), value)
    };
    (0..RECORDS).map(record).collect()
}

/// A thousand of the records, in order, with another number in `n`.
pub(crate) fn edits(records: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut random = Xorshift(7);
    let mut edits = BTreeMap::new();
    while edits.len() < 1_000 {
        let (key, mut value) = records[random.below(records.len())].clone();
        value["n"] = random.below(1_000_000).into();
        edits.insert(key, value);
    }
    edits.into_iter().collect()
}

/// Records as the lines that `apply` reads.
pub(crate) fn put_lines<'a>(records: impl IntoIterator<Item = &'a (String, Value)>) -> String {
    records.into_iter().fold(String::new(), |mut lines, (key, value)| {
        let line = json!({"op": "put", "key": key, "value": value});
        writeln!(lines, "{line}").expect("writing to a text does not fail");
        lines
    })
}

/// The same numbers in every run and on every machine.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 11) % bound as u64) as usize
    }
}
