//! What programs write to their standard error, line by line, whatever bytes it is and however long its lines are.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// The longest line that is told, in bytes. The rest of a longer one is read and dropped.
const MAX_LINE: usize = 16 * 1024;

/// Tells each line until the other end is closed.
pub(crate) async fn tell(from: impl AsyncRead + Unpin, mut line_is: impl FnMut(&str)) {
    let mut reader = BufReader::new(from);
    let (mut line, mut cut) = (Vec::new(), false);
    while let Ok(piece) = reader.fill_buf().await {
        if piece.is_empty() {
            break;
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let said = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
        let fits = said.get(..MAX_LINE.saturating_sub(line.len()).min(said.len())).unwrap_or_default();
        cut |= fits.len() < said.len();
        line.extend_from_slice(fits);
        let used = said.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            finish(&mut line, &mut cut, &mut line_is);
        }
    }
    if !line.is_empty() {
        finish(&mut line, &mut cut, &mut line_is);
    }
}

fn finish(line: &mut Vec<u8>, cut: &mut bool, line_is: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    if *cut {
        line_is(&format!("{text} [cut: the line is longer]"))
    } else {
        line_is(text)
    }
    line.clear();
    *cut = false;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(bytes: &[u8]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut lines = Vec::new();
        runtime.block_on(tell(bytes, |line| lines.push(line.to_owned())));
        lines
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_told_and_read_to_the_end(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no end", |b| ![b'\n', b'\r'].contains(b)), 1..40), 0..20),
        ) {
            let bytes = lines.join(&b'\n');
            let expected: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            prop_assert_eq!(told(&bytes), expected);
        }
    }

    #[test]
    fn line_without_end_is_cut_and_what_follows_it_is_told() {
        let long = "x".repeat(50 * MAX_LINE) + "\nnext";
        let lines = told(long.as_bytes());
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() < MAX_LINE + 40 && lines[0].ends_with("[cut: the line is longer]"));
        assert_eq!(lines[1], "next");
    }
}
