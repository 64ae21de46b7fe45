//! Pages of documentation whose examples are run as they stand.

/// A fenced block of a page.
pub(crate) struct Block {
    /// What stands behind the fence: `sh`, `text`, or `php` and a file.
    pub(crate) language: String,
    /// What stands in it.
    pub(crate) content: String,
}

/// The blocks of a page, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language: language.to_owned(), content: content.join("\n") });
        }
    }
    blocks
}
