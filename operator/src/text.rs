//! Texts that others limit in length.

/// What stands for what was left out.
const ELLIPSIS: &str = "…";

/// The text, or as much of its beginning as fits into so many bytes with a mark that some is missing.
#[must_use]
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len()));
    let mut kept = text.get(..end).unwrap_or_default().to_owned();
    if ELLIPSIS.len() <= most {
        kept.push_str(ELLIPSIS);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_cut_between_characters_and_says_so(text in "[aé€😀]{0,40}", most in 0usize..60) {
            let cut = cut(&text, most);
            prop_assert!(cut.len() <= most);
            match cut.strip_suffix(ELLIPSIS) {
                Some(kept) => {
                    prop_assert!(text.len() > most && text.starts_with(kept));
                    prop_assert!(most - cut.len() < 4, "no whole character more would fit");
                }
                None => prop_assert!(cut == text || most < ELLIPSIS.len()),
            }
        }
    }
}
