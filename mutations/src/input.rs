//! Damaged inputs for readers: files that were whole with bytes changed, cut, doubled and exchanged,
//! figures replaced by extreme ones, and words of the format where none belongs.
//!
//! [`hold`] gives a reader some hundred of them, the same in each run; `CELLBENCH_INPUTS=10000` asks for
//! more. Inputs that ever made a reader fail are kept in a folder and come first. Where few damaged files
//! pass the parser, [`hold_made`] takes inputs that the caller makes, by fields of the format.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::{fs, thread};

/// The environment variable with the number of inputs for each reader.
pub const VARIABLE: &str = "CELLBENCH_INPUTS";
/// Inputs where the environment does not say how many.
const INPUTS: u64 = 300;
/// A reader that has not come back by then hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Texts that stand in the place of a figure, the empty one among them.
const FIGURES: &str = "0 -0 -1 1 00 1e308 1e999 -1e308 1e-320 NaN nan inf -inf 1_000 0x10 4294967295 \
                       4294967296 9007199254740993 9223372036854775808 18446744073709551615 \
                       18446744073709551616 1.5  null true \"\" [] {}";

/// Pieces that are put in anywhere.
const PIECES: &str =
    "\0 \r\n \n\n \" ' \\ { } [ ] = , - # \u{feff} \u{202e} \u{b5} \x1b[31m \\u0000 \\ud800";

/// Draws: SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the draws for the input of a number, the same each time.
    #[must_use]
    pub fn of_input(number: u64) -> Self {
        Self(number.wrapping_mul(0x5851_f42d_4c95_7f2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// Returns a number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// Returns one of some.
    ///
    /// # Panics
    /// If there is none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Returns one of the words of a text.
    fn word<'a>(&mut self, of: &'a str) -> &'a str {
        let count = of.split(' ').count();
        of.split(' ').nth(self.below(count)).unwrap_or_default()
    }
}

/// Returns the places of the runs of digits.
fn figures(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length > 0 {
            found.push((at, at + length));
        }
        at += length.max(1);
    }
    found
}

/// Changes a text once.
fn damage(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &str) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below(1 + (bytes.len() - at).min(40));
    match random.below(11) {
        0 if at < bytes.len() => bytes[at] = random.next() as u8,
        1 => drop(bytes.drain(at..end)),
        2 => {
            let again = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, again);
        }
        3 => bytes.truncate(at),
        4 | 5 => {
            let all = figures(bytes);
            if !all.is_empty() {
                let (from, to) = all[random.below(all.len())];
                bytes.splice(from..to, random.word(FIGURES).bytes());
            }
        }
        6 if !words.is_empty() => drop(bytes.splice(at..end, random.word(words).bytes())),
        7 => drop(bytes.splice(at..at, random.word(PIECES).bytes())),
        8 => {
            // A line of another one in the place of a line.
            let other = &seeds[random.below(seeds.len())];
            let lines: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
            let line = lines[random.below(lines.len())].to_vec();
            let mut own: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            let place = random.below(own.len());
            own[place] = line;
            *bytes = own.join(&b'\n');
        }
        9 => {
            let mut lines: Vec<Vec<u8>> =
                bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            let (one, other) = (random.below(lines.len()), random.below(lines.len()));
            lines.swap(one, other);
            *bytes = lines.join(&b'\n');
        }
        _ if random.below(8) == 0 => {
            let many = random.word(PIECES).repeat(1 << random.below(12));
            bytes.splice(at..at, many.bytes());
        }
        _ => {}
    }
}

/// Returns the input of a number: always the same for the same seeds and words, which blanks separate.
#[must_use]
pub fn input(number: u64, seeds: &[Vec<u8>], words: &str) -> Vec<u8> {
    let mut random = Random::of_input(number);
    if random.below(16) == 0 {
        return (0..random.below(200)).map(|_| random.next() as u8).collect();
    }
    if !words.is_empty() && random.below(12) == 0 {
        let count = random.below(12);
        let chosen: Vec<&str> = (0..count).map(|_| random.word(words)).collect();
        return chosen.join([" ", "\n", ",", "="][random.below(4)]).into_bytes();
    }
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        damage(&mut random, &mut bytes, seeds, words);
    }
    bytes
}

/// Gives a reader the inputs that are kept in `corpus`, and then damaged ones. `read` returns whether the
/// reader took the input, and panics where what it made of it is wrong. An input that fails is kept.
///
/// # Panics
/// If `read` does. A reader that hangs ends the process.
pub fn hold(corpus: &Path, seeds: &[Vec<u8>], words: &str, read: impl Fn(&[u8]) -> bool + Sync) {
    hold_made(corpus, |number| input(number, seeds, words), read);
}

/// Gives a reader the inputs that are kept in `corpus`, and then those that `make` makes of numbers, as
/// [`hold`] does; returns how many there were, and how many of them the reader took.
///
/// # Panics
/// If `read` does. A reader that hangs ends the process.
pub fn hold_made(
    corpus: &Path,
    make: impl Fn(u64) -> Vec<u8>,
    read: impl Fn(&[u8]) -> bool + Sync,
) -> (u64, u64) {
    let wanted = std::env::var(VARIABLE).ok();
    let count = wanted.map_or(INPUTS, |text| {
        text.parse().unwrap_or_else(|_| panic!("{VARIABLE}={text}: give a number"))
    });
    let mut kept: Vec<_> = fs::read_dir(corpus)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    kept.sort();
    let kept = kept.into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.display().to_string(), bytes)
    });
    let made = (0..count).map(|number| {
        let path = corpus.join(format!("input-{number}")).display().to_string();
        (path, make(number))
    });
    let (begin, begun) = channel::<(String, Vec<u8>)>();
    let (end, ended) = channel::<std::thread::Result<bool>>();
    let (mut given, mut taken) = (0_u64, 0_u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            for (_, bytes) in begun {
                let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
                if end.send(outcome).is_err() {
                    return;
                }
            }
        });
        let begin = begin;
        for (path, bytes) in kept.chain(made) {
            begin.send((path.clone(), bytes.clone())).expect("the reader listens");
            let keep = || {
                fs::create_dir_all(corpus).and_then(|()| fs::write(&path, &bytes)).ok();
            };
            match ended.recv_timeout(LIMIT) {
                Ok(Ok(took)) => (given, taken) = (given + 1, taken + u64::from(took)),
                Ok(Err(_)) => {
                    keep();
                    panic!("the reader fails on {path}");
                }
                Err(_) => {
                    keep();
                    eprintln!("the reader hangs on {path}");
                    std::process::exit(101);
                }
            }
        }
    });
    println!("{}: {given} inputs, {taken} taken, none fails", corpus.display());
    (given, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_the_same_each_time_and_differ_from_each_other() {
        let seeds = [b"a = 1\nb = \"x\"\n".to_vec(), b"[c]\nd = 2.5\n".to_vec()];
        let make = || (0..400).map(|number| input(number, &seeds, "e")).collect::<Vec<_>>();
        let inputs = make();
        assert_eq!(inputs, make());
        let distinct: std::collections::BTreeSet<_> = inputs.iter().collect();
        assert!(distinct.len() > 250, "{}", distinct.len());
    }

    #[test]
    fn a_reader_that_fails_is_found_and_its_input_kept() {
        let folder = std::env::temp_dir().join(format!("cellbench-input-{}", std::process::id()));
        let seeds = [b"count = 5\n".to_vec()];
        let found = catch_unwind(|| {
            hold(&folder, &seeds, "", |bytes| {
                assert!(!bytes.windows(4).any(|part| part == b"1e99"));
                true
            });
        });
        let kept = fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        let _ = fs::remove_dir_all(&folder);
        assert!(found.is_err());
        assert_eq!(kept, 1);
    }
}
