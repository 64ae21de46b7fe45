//! Statements about many rows, of few lengths, so that only few of them have to be prepared.

use sqlx::{MySql, QueryBuilder};

/// Rows of one statement at most: a power of two.
const ROWS_MAX: usize = 256;

/// Cuts values into parts of 1, 2, 4, … each, so that only few statements have to be prepared.
pub(super) fn in_powers_of_two<T>(values: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = values;
    std::iter::from_fn(move || {
        let length = rest.len().min(ROWS_MAX);
        let (part, behind) = rest.split_at_checked(length.checked_ilog2().map(|power| 1 << power)?)?;
        rest = behind;
        Some(part)
    })
}

/// The same in as few parts as there can be: the last one is filled up with its last value, as asking twice for a row
/// makes no difference.
pub(super) fn filled_up<T>(values: &[T]) -> impl Iterator<Item = Vec<&T>> {
    values.chunks(ROWS_MAX).map(|part| {
        let filling = part.last().into_iter().cycle();
        part.iter().chain(filling).take(part.len().next_power_of_two()).collect()
    })
}

/// Adds `(…) OR (…)`, one for each value.
pub(super) fn any_of<T>(
    query: &mut QueryBuilder<MySql>,
    values: &[&T],
    mut one: impl FnMut(&mut QueryBuilder<MySql>, &T),
) {
    for (at, value) in values.iter().enumerate() {
        query.push(if at == 0 { "((" } else { ") OR (" });
        one(query, value);
    }
    query.push("))");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_into_powers_of_two_in_order() {
        for (length, expected) in [(0, &[][..]), (1, &[1]), (7, &[4, 2, 1]), (600, &[256, 256, 64, 16, 8])] {
            let values: Vec<_> = (0..length).collect();
            let parts: Vec<_> = in_powers_of_two(&values).collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), expected);
            assert_eq!(parts.concat(), values);
        }
    }

    #[test]
    fn the_last_part_is_filled_up_with_its_last_value() {
        let filled =
            |length: usize| filled_up(&(0..length).collect::<Vec<_>>()).map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!([0, 1, 5, 8, 258].map(filled), [vec![], vec![1], vec![8], vec![8], vec![256, 2]]);
        let three = filled_up(&[7, 8, 9]).next().expect("there are some");
        assert_eq!(three, [&7, &8, &9, &9]);
    }
}
