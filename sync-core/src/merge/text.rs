//! A three-way merge of lines.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// One side's change: lines `from..to` of the base become these lines.
struct Hunk<'a> {
    from: usize,
    to: usize,
    lines: &'a [&'a str],
}

/// Merges two texts that were made from one base, by lines. Changes of both sides are kept; where they overlap, the
/// remote's lines come first and then those of the local side that the remote does not have.
pub fn merge_lines(base: &str, local: &str, remote: &str) -> String {
    if local == remote {
        return local.to_owned();
    }
    let split = |text: &'_ str| -> Vec<String> {
        if text.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() }
    };
    let (base, local, remote) = (split(base), split(local), split(remote));
    let base: Vec<&str> = base.iter().map(String::as_str).collect();
    let local: Vec<&str> = local.iter().map(String::as_str).collect();
    let remote: Vec<&str> = remote.iter().map(String::as_str).collect();
    let mut left = hunks(&base, &local).into_iter().peekable();
    let mut right = hunks(&base, &remote).into_iter().peekable();
    let mut merged: Vec<&str> = Vec::new();
    let mut at = 0;
    while let Some(start) = [left.peek(), right.peek()].into_iter().flatten().map(|hunk| hunk.from).min() {
        merged.extend(&base[at..start]);
        let mut end = start;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        loop {
            let reaches = |hunk: &Hunk<'_>| hunk.from < end || hunk.from == start;
            if let Some(hunk) = left.next_if(reaches) {
                end = end.max(hunk.to);
                ours.push(hunk);
            } else if let Some(hunk) = right.next_if(reaches) {
                end = end.max(hunk.to);
                theirs.push(hunk);
            } else {
                break;
            }
        }
        let (ours_text, theirs_text) = (side(&base, start, end, &ours), side(&base, start, end, &theirs));
        if theirs.is_empty() {
            merged.extend(ours_text);
        } else if ours.is_empty() || ours_text == theirs_text {
            merged.extend(theirs_text);
        } else {
            merged.extend(&theirs_text);
            merged.extend(ours_text.iter().filter(|line| !theirs_text.contains(line)));
        }
        at = end;
    }
    merged.extend(&base[at..]);
    merged.join("\n")
}

fn hunks<'a>(base: &[&'a str], side: &'a [&'a str]) -> Vec<Hunk<'a>> {
    let hunk = |op| match op {
        DiffOp::Equal { .. } => None,
        DiffOp::Delete { old_index, old_len, .. } => {
            Some(Hunk { from: old_index, to: old_index + old_len, lines: &[] })
        }
        DiffOp::Insert { old_index, new_index, new_len } => {
            Some(Hunk { from: old_index, to: old_index, lines: &side[new_index..new_index + new_len] })
        }
        DiffOp::Replace { old_index, old_len, new_index, new_len } => {
            Some(Hunk { from: old_index, to: old_index + old_len, lines: &side[new_index..new_index + new_len] })
        }
    };
    capture_diff_slices(Algorithm::Myers, base, side).into_iter().filter_map(hunk).collect()
}

/// How one side has lines `start..end` of the base.
fn side<'a>(base: &[&'a str], start: usize, end: usize, hunks: &[Hunk<'a>]) -> Vec<&'a str> {
    let mut lines = Vec::new();
    let mut at = start;
    for hunk in hunks {
        lines.extend(&base[at..hunk.from]);
        lines.extend(hunk.lines);
        at = hunk.to;
    }
    lines.extend(&base[at..end]);
    lines
}

#[cfg(test)]
mod tests {
    use super::merge_lines;

    #[track_caller]
    fn check(base: &str, local: &str, remote: &str, merged: &str) {
        let lines = |text: &str| text.replace(' ', "\n");
        assert_eq!(merge_lines(&lines(base), &lines(local), &lines(remote)), lines(merged));
    }

    #[test]
    fn lines_of_both_sides_are_kept() {
        check("a b c", "a x b c", "a b c y", "a x b c y");
        check("a b c", "a x c", "a y c", "a y x c");
        check("a b c", "a c", "a b c d", "a c d");
        check("a b c", "a x c", "a x c", "a x c");
        check("a b c", "a x1 x2 b c", "a x1 n x2 b c", "a x1 n x2 b c");
        check("", "a", "b", "b a");
        check("a", "", "a b", "b");
    }
}
