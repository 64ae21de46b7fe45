//! Durations as people write them: `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

/// Reads a whole number with its unit.
///
/// # Errors
/// Says how a duration is written.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is a whole number with a unit, such as 500ms, 30s, 5m or 1h".to_owned();
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "30", "1.5s", "-1s", "1 s", "1d", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
