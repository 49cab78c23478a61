//! Compares what was done with what is to be done, and says where they part.

/// Returns the lines of both, marked: `-` in the script only, `+` in the code only. Empty if they agree.
pub(crate) fn difference(expected: &[String], found: &[String]) -> String {
    if expected == found {
        return String::new();
    }
    // Lengths of the longest common parts of the tails.
    let mut common = vec![vec![0usize; found.len() + 1]; expected.len() + 1];
    for left in (0..expected.len()).rev() {
        for right in (0..found.len()).rev() {
            common[left][right] = if expected[left] == found[right] {
                common[left + 1][right + 1] + 1
            } else {
                common[left + 1][right].max(common[left][right + 1])
            };
        }
    }
    let (mut left, mut right) = (0, 0);
    let mut text = String::new();
    while left < expected.len() || right < found.len() {
        let both = left < expected.len() && right < found.len();
        let (mark, line) = if both && expected[left] == found[right] {
            left += 1;
            right += 1;
            (' ', &expected[left - 1])
        } else if right == found.len() || both && common[left + 1][right] >= common[left][right + 1]
        {
            left += 1;
            ('-', &expected[left - 1])
        } else {
            right += 1;
            ('+', &found[right - 1])
        };
        text += &format!("  {mark} {line}\n");
    }
    text
}
