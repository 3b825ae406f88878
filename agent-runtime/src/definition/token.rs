//! The words of a Python expression.

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name or a keyword.
    Name(&'a str),
    /// A string with its quotes.
    Text(&'a str),
    /// A number.
    Number(&'a str),
    /// An operator or a bracket.
    Sign(&'a str),
}

/// Signs of two characters; all others have one.
const PAIRS: &[&str] = &["==", "!=", "<=", ">=", "<<", ">>", "**", "//", "+=", "-=", "*=", "/=", ":="];

/// Splits an expression into its words. An error says what cannot be read.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            'a'..='z' | 'A'..='Z' | '_' => run(rest, |c| c.is_ascii_alphanumeric() || c == '_'),
            '0'..='9' => run(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            '\'' | '"' => quoted(rest, first).ok_or("a string is not closed")?,
            _ if PAIRS.iter().any(|pair| rest.starts_with(pair)) => 2,
            _ if "()[]{}.,:+-*/%<>=|&^~".contains(first) => 1,
            other => return Err(format!("{other:?} cannot stand in a condition")),
        };
        let (word, after) = rest.split_at_checked(length).ok_or("it ends inside a character")?;
        found.push(match first {
            'a'..='z' | 'A'..='Z' | '_' => Token::Name(word),
            '0'..='9' => Token::Number(word),
            '\'' | '"' => Token::Text(word),
            _ => Token::Sign(word),
        });
        rest = after.trim_start();
    }
    Ok(found)
}

fn run(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

/// The length of a string with its quotes. It ends on its own line.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}
