//! How the files are laid out: one case a line, so that a changed outcome is one changed line.

use serde::Serialize;

/// Containers that are deeper than this stay on one line.
const DEPTH_BROKEN: usize = 2;

/// The text of a file.
pub(super) fn layout<T: Serialize>(file: &T) -> String {
    let compact = serde_json::to_string(file).expect("vectors have no unencodable parts");
    let mut text = String::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let mut chars = compact.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                text.push('"');
                while let Some(char) = chars.next() {
                    text.push(char);
                    match char {
                        '"' => break,
                        '\\' => text.extend(chars.next()),
                        _ => {}
                    }
                }
            }
            '[' | '{' => {
                text.push(char);
                depth += 1;
                if let Some(end) = chars.next_if(|next| matches!(next, ']' | '}')) {
                    text.push(end);
                    depth -= 1;
                } else if depth <= DEPTH_BROKEN {
                    new_line(&mut text, depth);
                }
            }
            ']' | '}' => {
                depth -= 1;
                if depth < DEPTH_BROKEN {
                    new_line(&mut text, depth);
                }
                text.push(char);
            }
            ',' if depth <= DEPTH_BROKEN => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ',' | ':' => text.extend([char, ' ']),
            // Only where JSON was carried over as it was written.
            char if char.is_ascii_whitespace() => {}
            char => text.push(char),
        }
    }
    text.push('\n');
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}
