//! The value of a record, its canonical MessagePack bytes and its JSON form.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// What an app stores under a key.
///
/// Equal values have equal canonical bytes on every platform: floats are finite, a whole float within ±2^53 *is* an
/// integer (JavaScript cannot tell `1` from `1.0`), and maps are ordered by the bytes of their names.
///
/// In JSON, bytes are `{"$bytes": "base64"}`, integers beyond ±2^53 are `{"$int": "digits"}`, and a map with a single
/// name that begins with `$` gets another `$` in front of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing. Not the same as a removed record.
    Null,
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A finite float that is not a whole number within ±2^53.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Map(BTreeMap<String, Self>),
    /// A kind that only newer versions know: carried unread, so that an old device does not destroy it.
    Unknown {
        /// MessagePack's extension type.
        kind: i8,
        /// The content, as it came.
        bytes: Vec<u8>,
    },
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// Not JSON, or not one of the forms that [`Value`] documents.
    #[error("the value is not valid JSON: {0}")]
    Syntax(String),
    /// NaN or infinite.
    #[error("a number must be finite")]
    NotFinite,
    /// Beyond 64 bits.
    #[error("an integer must fit into 64 bits (signed)")]
    IntegerRange,
    /// Lists and maps deeper than [`Value::DEPTH_MAX`].
    #[error("lists and maps may be nested {max} deep at most", max = Value::DEPTH_MAX)]
    TooDeep,
}

/// Whole floats up to here are integers; integers beyond it cannot be JSON numbers.
const SAFE_INT_MAX: i64 = 1 << 53;

impl Value {
    /// How deep lists and maps may be nested: MariaDB's JSON functions stop at 32 levels.
    pub const DEPTH_MAX: usize = 31;

    /// Makes a number of a float.
    ///
    /// # Errors
    /// [`InvalidValue::NotFinite`] for NaN and infinities.
    pub fn from_f64(float: f64) -> Result<Self, InvalidValue> {
        if !float.is_finite() {
            return Err(InvalidValue::NotFinite);
        }
        if float.fract() == 0.0 && float.abs() <= SAFE_INT_MAX as f64 {
            return Ok(Self::Int(float as i64));
        }
        Ok(Self::Float(float))
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// Says what is wrong with the text; integers beyond 64 bits and nesting beyond [`Value::DEPTH_MAX`] are refused.
    pub fn parse_json(json: &str) -> Result<Self, InvalidValue> {
        json_integers_fit(json)?;
        let value: Self = serde_json::from_str(json).map_err(|error| InvalidValue::Syntax(error.to_string()))?;
        value.check_depth()?;
        Ok(value)
    }

    /// The JSON form, on one line, names in order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a value has no key that is not text, and floats are finite")
    }

    /// The one encoding of this value: MessagePack, shortest forms, names in order. Digests and limits are over it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        self.serialize(&mut rmp_serde::Serializer::new(&mut bytes)).expect("writing to memory does not fail");
        bytes
    }

    /// Reads canonical bytes back.
    ///
    /// # Errors
    /// [`InvalidValue::Syntax`] if the bytes are not one value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidValue> {
        let mut rest = bytes;
        let mut reader = rmp_serde::Deserializer::new(&mut rest);
        reader.set_max_depth(Self::DEPTH_MAX * 2 + 8);
        let value = Self::deserialize(&mut reader).map_err(|error| InvalidValue::Syntax(error.to_string()))?;
        if !rest.is_empty() {
            return Err(InvalidValue::Syntax("there are bytes after the value".into()));
        }
        value.check_depth()?;
        Ok(value)
    }

    /// How many bytes [`Value::to_bytes`] has, without making them.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(int) => int_len(*int),
            Self::Float(_) => 9,
            Self::Text(text) => text.len() + length_len(text.len(), 32),
            Self::Bytes(bytes) => bytes.len() + length_len(bytes.len(), 0),
            Self::List(items) => items.iter().map(Self::encoded_len).sum::<usize>() + count_len(items.len()),
            Self::Map(fields) => {
                let named =
                    |(name, value): (&String, &Self)| name.len() + length_len(name.len(), 32) + value.encoded_len();
                fields.iter().map(named).sum::<usize>() + count_len(fields.len())
            }
            Self::Unknown { bytes, .. } => match bytes.len() {
                1 | 2 | 4 | 8 | 16 => bytes.len() + 2,
                _ => bytes.len() + 1 + length_len(bytes.len(), 0),
            },
        }
    }

    /// Fails if lists and maps are nested deeper than [`Value::DEPTH_MAX`].
    ///
    /// # Errors
    /// [`InvalidValue::TooDeep`].
    pub fn check_depth(&self) -> Result<(), InvalidValue> {
        fn within(value: &Value, left: usize) -> bool {
            match value {
                Value::List(items) => left > 0 && items.iter().all(|item| within(item, left - 1)),
                Value::Map(fields) => left > 0 && fields.values().all(|field| within(field, left - 1)),
                _ => true,
            }
        }
        if within(self, Self::DEPTH_MAX) { Ok(()) } else { Err(InvalidValue::TooDeep) }
    }
}

/// Bytes in front of `len` bytes of text (`fix` = 32) or of raw bytes (`fix` = 0).
fn length_len(len: usize, fix: usize) -> usize {
    match len {
        _ if len < fix => 1,
        0..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}

/// Bytes in front of `count` elements.
fn count_len(count: usize) -> usize {
    match count {
        0..=15 => 1,
        16..=0xffff => 3,
        _ => 5,
    }
}

fn int_len(int: i64) -> usize {
    match int {
        -32..=127 => 1,
        -128..=-33 | 128..=255 => 2,
        -32_768..=-129 | 256..=65_535 => 3,
        -2_147_483_648..=-32_769 | 65_536..=4_294_967_295 => 5,
        _ => 9,
    }
}

/// For fields that may hold a value: left out is nothing, and a null that is there is [`Value::Null`].
///
/// By itself, an `Option` would read a stored null as nothing, and so make a removal of it.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Fails if the JSON text has an integer literal beyond 64 bits: a JSON reader would silently make a float of it.
pub(crate) fn json_integers_fit(json: &str) -> Result<(), InvalidValue> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                let literal = &json[start..at];
                let whole = !literal.contains(['.', 'e', 'E']);
                if whole && literal.len() > 18 && literal.parse::<i64>().is_err() {
                    return Err(InvalidValue::IntegerRange);
                }
            }
            _ => at += 1,
        }
    }
    Ok(())
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let people = serializer.is_human_readable();
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(it) => serializer.serialize_bool(*it),
            Self::Int(it) if people && it.unsigned_abs() > SAFE_INT_MAX as u64 => {
                tagged(serializer, "$int", &it.to_string())
            }
            Self::Int(it) => serializer.serialize_i64(*it),
            Self::Float(it) => serializer.serialize_f64(*it),
            Self::Text(it) => serializer.serialize_str(it),
            Self::Bytes(it) if people => tagged(serializer, "$bytes", &BASE64.encode(it)),
            Self::Bytes(it) => serializer.serialize_bytes(it),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, field) in fields {
                    if people && fields.len() == 1 && name.starts_with('$') {
                        map.serialize_entry(&format!("${name}"), field)?;
                    } else {
                        map.serialize_entry(name, field)?;
                    }
                }
                map.end()
            }
            Self::Unknown { kind, bytes } if people => {
                tagged(serializer, "$unknown", &format!("{kind}:{}", BASE64.encode(bytes)))
            }
            Self::Unknown { kind, bytes } => {
                serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &(*kind, RawBytes(bytes)))
            }
        }
    }
}

fn tagged<S: Serializer>(serializer: S, tag: &str, text: &str) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(tag, text)?;
    map.end()
}

struct RawBytes<'a>(&'a [u8]);

impl Serialize for RawBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let people = deserializer.is_human_readable();
        deserializer.deserialize_any(ValueVisitor { people })
    }
}

struct ValueVisitor {
    people: bool,
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value: null, bool, number, text, bytes, list or map")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E: de::Error>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Int(it))
    }

    fn visit_u64<E: de::Error>(self, it: u64) -> Result<Value, E> {
        i64::try_from(it).map(Value::Int).map_err(|_| E::custom(InvalidValue::IntegerRange))
    }

    fn visit_f32<E: de::Error>(self, it: f32) -> Result<Value, E> {
        self.visit_f64(f64::from(it))
    }

    fn visit_f64<E: de::Error>(self, it: f64) -> Result<Value, E> {
        Value::from_f64(it).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, it: &str) -> Result<Value, E> {
        Ok(Value::Text(it.to_owned()))
    }

    fn visit_string<E: de::Error>(self, it: String) -> Result<Value, E> {
        Ok(Value::Text(it))
    }

    fn visit_bytes<E: de::Error>(self, it: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(it.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, it: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        // A hostile count must not reserve memory: grow as elements really come.
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, field)) = map.next_entry::<String, Value>()? {
            if fields.insert(name, field).is_some() {
                return Err(de::Error::custom("a map has the same name twice"));
            }
        }
        if self.people && fields.len() == 1 { untag(fields).map_err(de::Error::custom) } else { Ok(Value::Map(fields)) }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        struct Extension;
        impl<'de> Visitor<'de> for Extension {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a MessagePack extension")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let kind = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let content = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let Value::Bytes(bytes) = content else {
                    return Err(de::Error::custom("an extension holds bytes"));
                };
                Ok(Value::Unknown { kind, bytes })
            }
        }
        deserializer.deserialize_any(Extension)
    }
}

/// Undoes the `$` forms of JSON for a map with one name.
fn untag(fields: BTreeMap<String, Value>) -> Result<Value, String> {
    let Some((name, field)) = fields.iter().next() else { return Ok(Value::Map(fields)) };
    let Some(tag) = name.strip_prefix('$') else { return Ok(Value::Map(fields)) };
    match (tag, field) {
        ("bytes", Value::Text(text)) => {
            BASE64.decode(text).map(Value::Bytes).map_err(|_| "`$bytes` must be base64".to_owned())
        }
        ("int", Value::Text(text)) => text.parse().map(Value::Int).map_err(|_| InvalidValue::IntegerRange.to_string()),
        ("unknown", Value::Text(text)) => {
            let (kind, content) = text.split_once(':').unwrap_or(("", ""));
            match (kind.parse(), BASE64.decode(content)) {
                (Ok(kind), Ok(bytes)) => Ok(Value::Unknown { kind, bytes }),
                _ => Err("`$unknown` must be a kind, a colon and base64".to_owned()),
            }
        }
        _ if tag.starts_with('$') => Ok(Value::Map(BTreeMap::from([(tag.to_owned(), field.clone())]))),
        _ => Err(format!("a map with the single name `{name}` must be written with `$${tag}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, bytes: &str, json_again: &str) {
        let value = Value::parse_json(json).unwrap();
        let encoded = value.to_bytes();
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, bytes, "canonical bytes of {json}");
        assert_eq!(value.encoded_len(), encoded.len(), "encoded length of {json}");
        assert_eq!(value.to_json(), json_again);
        assert_eq!(Value::from_bytes(&encoded).unwrap(), value);
        assert_eq!(Value::parse_json(&value.to_json()).unwrap(), value);
    }

    #[test]
    fn values_have_one_encoding_and_survive_json() {
        check("null", "c0", "null");
        check("1.0", "01", "1");
        check("-0.0", "00", "0");
        check("1.5", "cb3ff8000000000000", "1.5");
        check("1e300", "cb7e37e43c8800759c", "1e+300");
        check("9007199254740992", "cf0020000000000000", "9007199254740992");
        check("9007199254740993", "cf0020000000000001", r#"{"$int":"9007199254740993"}"#);
        check(r#"{"$int":"-9223372036854775808"}"#, "d38000000000000000", r#"{"$int":"-9223372036854775808"}"#);
        check(r#"{"$bytes":"AP8="}"#, "c40200ff", r#"{"$bytes":"AP8="}"#);
        check(r#"{"$$int":"x"}"#, "81a424696e74a178", r#"{"$$int":"x"}"#);
        check(r#"{"$$$a":1}"#, "81a324246101", r#"{"$$$a":1}"#);
        check(r#"{"$a":1,"b":2}"#, "82a2246101a16202", r#"{"$a":1,"b":2}"#);
        check(r#"{"b":1,"a":[true,"é"]}"#, "82a16192c3a2c3a9a16201", r#"{"a":[true,"é"],"b":1}"#);
        check(r#"{"$unknown":"5:AQID"}"#, "c70305010203", r#"{"$unknown":"5:AQID"}"#);
        check(r#"{"$unknown":"5:AQ=="}"#, "d40501", r#"{"$unknown":"5:AQ=="}"#);
    }

    #[test]
    fn what_cannot_be_a_value_is_refused() {
        for (json, error) in [
            ("9223372036854775808", InvalidValue::IntegerRange),
            ("18446744073709551616", InvalidValue::IntegerRange),
            ("[-9223372036854775809]", InvalidValue::IntegerRange),
        ] {
            assert_eq!(Value::parse_json(json), Err(error), "{json}");
        }
        for json in ["{", "nul", "1 2", r#"{"$bytes":1}"#, r#"{"$int":"1.5"}"#, r#"{"a":1,"a":2}"#, "1e999"] {
            assert!(Value::parse_json(json).is_err(), "{json}");
        }
        let deep = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Value::parse_json(&deep(31)).is_ok());
        assert_eq!(Value::parse_json(&deep(32)), Err(InvalidValue::TooDeep));
        assert!(Value::parse_json(&deep(100_000)).is_err());
        assert!(Value::from_bytes(&[0x91; 5000]).is_err());
        assert!(Value::from_bytes(&[0x01, 0x01]).is_err());
        assert!(Value::from_bytes(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Value::from_bytes(&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
