//! Finds in the text of a Rust file what it imports: `crate::a`, `super::a`, `sync_core::a`, `std::a`, and the names of
//! driver crates. Comments, strings and `#[cfg(test)]` items don't count. Rough, but it has a test of its own.

/// Parts of std that a module may only name if its rule lists them.
pub(super) const IO: &[&str] = &["std::fs", "std::env", "std::net", "std::process", "std::thread"];

/// Crates that only the modules may name whose rule lists them. A name covers all crates that begin with it.
pub(super) const DRIVERS: &[&str] =
    &["axum", "tower", "hyper", "reqwest", "jsonwebtoken", "rusqlite", "sqlx", "redis", "aws", "clap", "indicatif"];

/// How many names of a path the rules can tell apart.
const DEPTH: usize = 3;

pub(super) struct Import {
    /// `crate`, `sync_core` or `driver`.
    pub(super) from: &'static str,
    /// The path below it, at most three names long, or the driver as the rules name it.
    pub(super) name: String,
    pub(super) line: usize,
}

/// What the code of `module` imports, in the order of the text.
pub(super) fn imports(tokens: &[Token<'_>], module: &[&str]) -> Vec<Import> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    // The inline modules that are open, each with the depth of braces outside it.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().map(|token| token.text).take(7).eq(["#", "[", "cfg", "(", "test", ")", "]"]) {
            at = end_of_item(tokens, at + 7);
            continue;
        }
        let mut add = |from, name: &str| found.push(Import { from, name: name.to_owned(), line: tokens[at].line });
        let begins_path = !matches!(at.checked_sub(1).map(text), Some("::" | "."));
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if text(at + 2) == "{" => inline.push(depth),
            "crate" if text(at + 1) == "::" => paths(tokens, at + 2, DEPTH).iter().for_each(|name| add("crate", name)),
            "sync_core" if begins_path && text(at + 1) == "::" => {
                paths(tokens, at + 2, DEPTH).iter().for_each(|name| add("sync_core", name));
            }
            "std" if begins_path && text(at + 1) == "::" => {
                for name in paths(tokens, at + 2, 1) {
                    if let Some(io) = IO.iter().find(|io| io.strip_prefix("std::") == Some(&name)) {
                        add("driver", io);
                    }
                }
            }
            "super" if begins_path => {
                let mut levels = 1;
                while text(at + 2 * levels - 1) == "::" && text(at + 2 * levels) == "super" {
                    levels += 1;
                }
                let own_depth = module.len() + inline.len();
                if levels < own_depth {
                    add("crate", module[0]);
                } else if text(at + 2 * levels - 1) == "::" {
                    paths(tokens, at + 2 * levels, DEPTH).iter().for_each(|name| add("crate", name));
                }
                at += 2 * (levels - 1);
            }
            name if begins_path && (text(at + 1) == "::" || at.checked_sub(1).map(text) == Some("use")) => {
                if let Some(driver) = DRIVERS.iter().find(|driver| name.starts_with(**driver)) {
                    add("driver", driver);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The paths that begin at `at`, one for each branch of a `{…}`, each cut off after `depth` names.
fn paths(tokens: &[Token<'_>], at: usize, depth: usize) -> Vec<String> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at) != "{" {
        let name = text(at);
        if depth == 1 || text(at + 1) != "::" {
            return vec![name.to_owned()];
        }
        return paths(tokens, at + 2, depth - 1).iter().map(|rest| format!("{name}::{rest}")).collect();
    }
    let mut found = Vec::new();
    let mut open = 0;
    for at in at..tokens.len() {
        match text(at) {
            "{" => open += 1,
            "}" => open -= 1,
            _ => {}
        }
        if open == 0 {
            break;
        }
        if open == 1 && matches!(text(at), "{" | ",") && text(at + 1) != "}" {
            found.extend(paths(tokens, at + 1, depth));
        }
    }
    found
}

/// The index behind the item at `at`: behind its block, or behind its semicolon.
fn end_of_item(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth <= 0 {
                    return index + usize::from(depth == 0); // Below zero it is the end of what the item is in.
                }
            }
            ";" if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

pub(super) struct Token<'a> {
    /// A name or number, `::`, or one other character.
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// Splits Rust code roughly: without comments, texts, characters and lifetimes.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, counts) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment_length(rest), false)
        } else if let Some(length) = text_length(rest) {
            (length, false)
        } else if rest.starts_with("::") {
            (2, true)
        } else if first.is_alphanumeric() || first == '_' {
            (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true)
        } else {
            (first.len_utf8(), !first.is_whitespace() && first != '\'')
        };
        let (text, behind) = rest.split_at(length);
        if counts {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

fn block_comment_length(source: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < source.len() {
        match source.get(at..at + 2) {
            Some("/*") => (depth, at) = (depth + 1, at + 2),
            Some("*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the text or character that `source` begins with.
fn text_length(source: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let behind = source.strip_prefix(prefix).unwrap_or_default();
        let behind = if prefix.ends_with('r') { behind.trim_start_matches('#') } else { behind };
        behind.starts_with('"') || (matches!(*prefix, "b" | "") && behind.starts_with('\''))
    })?;
    let opened = &source[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = opened.find('"')?;
        let end = format!("\"{}", &opened[..hashes]);
        let content = prefix.len() + hashes + 1;
        return Some(content + source[content..].find(&end)? + end.len());
    }
    let quote = opened.chars().next()?;
    let mut characters = opened.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if quote == '\'' && at > 1 && character != '\'' && !opened[1..].starts_with('\\') {
            return None; // A lifetime.
        }
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(prefix.len() + at + 1);
        }
    }
    None
}

/// The rules are worth nothing if the scanner finds nothing.
#[test]
fn the_scanner_finds_every_way_to_import() {
    let source = r##"
        //! crate::comment
        use crate::plain::Thing;
        use crate::{listed::{self, inner::{a::A::One, b}}, second};
        pub(crate) fn quote<'a>(c: char) -> bool { c == '"' || "crate::text" == r#"crate::raw"# }
        use super::super::sibling::Other;
        mod nested { use super::own::Fine; use super::super::super::outer; }
        fn call() { crate::called::now(); let x = axum::Router::new(); std::env::var("x"); other::axum::y(); }
        use rusqlite as sql;
        use sync_core::{model::Value, merge};
        #[cfg(test)]
        mod tests { use crate::test_only; }
        #[cfg(test)] use crate::test_import::{a, b};
        use self::own;
    "##;
    let found = imports(&tokens(source), &["client", "session"]);
    let found: Vec<String> = found.iter().map(|import| format!("{}::{}", import.from, import.name)).collect();
    let wanted = [
        "crate::plain::Thing",
        "crate::listed::self",
        "crate::listed::inner::a",
        "crate::listed::inner::b",
        "crate::second",
        "crate::sibling::Other",
        "crate::client",
        "crate::outer",
        "crate::called::now",
        "driver::axum",
        "driver::std::env",
        "driver::rusqlite",
        "sync_core::model::Value",
        "sync_core::merge",
    ];
    assert_eq!(found, wanted);
}
