//! The words of the reports, for the page and `cellbench help words`; the text is `glossary.txt`.

/// Returns each word with its meaning.
pub fn words() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("glossary.txt").lines().filter_map(|line| line.split_once(": "))
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn every_line_is_a_word_with_its_meaning() {
        let lines = include_str!("glossary.txt").lines().count();
        assert_eq!(words().count(), lines);
        assert!(words().all(|(word, meaning)| !word.is_empty() && meaning.len() > 20));
    }
}
