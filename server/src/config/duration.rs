//! Durations as people write them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A length of time, written as a whole number with a unit: `500ms`, `30s`, `5m`, `1h`, `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

/// A text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number with a unit, such as 500ms, 30s, 5m, 1h or 90d")]
pub struct InvalidDuration;

/// The longest duration: a hundred years.
const MS_MAX: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

impl Duration {
    /// As the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// In milliseconds.
    pub fn ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Duration {
    /// In the largest unit that it is a whole number of.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let units = [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000)];
        let whole = units.into_iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms));
        let (unit, unit_ms) = whole.unwrap_or(("ms", 1));
        write!(formatter, "{}{unit}", ms / unit_ms)
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let unit_at = text.find(|character: char| !character.is_ascii_digit()).ok_or(InvalidDuration)?;
        let (number, unit) = text.split_at(unit_at);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(InvalidDuration),
        };
        let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= MS_MAX).ok_or(InvalidDuration)?;
        Ok(Self(std::time::Duration::from_millis(ms)))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        let ms = |text: &str| text.parse::<Duration>().map(Duration::ms);
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("5m"), Ok(300_000));
        assert_eq!(ms("1h"), Ok(3_600_000));
        assert_eq!(ms("90d"), Ok(7_776_000_000));
        for written in ["500ms", "1500ms", "30s", "90s", "5m", "1h", "36h", "90d", "0ms"] {
            assert_eq!(written.parse::<Duration>().unwrap().to_string(), written);
        }
        for wrong in ["", "5", "s", "-5s", "1.5h", "5 s", "5S", "1w", "99999999999999999999s", "99999999d"] {
            assert_eq!(ms(wrong), Err(InvalidDuration), "{wrong}");
        }
    }
}
