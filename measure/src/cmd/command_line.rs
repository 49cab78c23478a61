//! The command as it was typed, as records keep it: pasted into a shell it does the same again.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

/// Returns what the user typed behind the program's name, whatever its encoding.
pub fn given() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// Returns the command as it was given, with the seed that was taken if none was.
pub fn command_line((command, args): (&str, &[OsString]), seed: Option<u64>) -> String {
    let mut words = vec![command.to_owned()];
    words.extend(args.iter().map(|arg| quoted(arg)));
    words.extend(seed.map(|seed| format!("--seed {seed}")));
    words.join(" ")
}

/// Returns a word that a shell reads as `arg`: as it is where nothing in it means anything to a
/// shell, else in
/// quotes, and in `$'...'` where it holds anything but printable ASCII: a mail keeps no more.
fn quoted(arg: &OsStr) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:=,+@%-".contains(byte);
    let bytes = arg.as_bytes();
    match arg.to_str() {
        Some(text) if !bytes.is_empty() && bytes.iter().all(is_plain) => text.to_owned(),
        Some(text) if text.chars().all(|letter| matches!(letter, ' '..='~')) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            let mut word = String::from("$'");
            for byte in bytes {
                match byte {
                    b'\'' | b'\\' => {
                        word.push('\\');
                        word.push(char::from(*byte));
                    }
                    b' '..=b'~' => word.push(char::from(*byte)),
                    _ => {
                        let _ = write!(word, "\\x{byte:02x}");
                    }
                }
            }
            word.push('\'');
            word
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_line_repeats_the_run() {
        let args = ["run", "--out", "a b"].map(OsString::from);
        let line = command_line(("cellbench", &args), Some(7));
        assert_eq!(line, "cellbench run --out 'a b' --seed 7");
    }

    /// Bash is asked what it makes of the words; hosts without it have `sh` alone, which knows no
    /// `$'...'`.
    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        let words: [&[u8]; 9] = [
            b"plain-1.2/x",
            b"",
            b"a b",
            b"it's",
            b"$HOME",
            b"*;&|<>",
            b"two\nlines",
            b"\xff\xfe",
            "\u{b5}s".as_bytes(),
        ];
        if Command::new("bash").arg("-c").arg("true").status().is_err() {
            return;
        }
        for word in words {
            let arg = OsString::from_vec(word.to_vec());
            assert!(quoted(&arg).is_ascii());
            let script = format!("printf %s {}", quoted(&arg));
            let output = Command::new("bash").arg("-c").arg(&script).output().unwrap();
            assert_eq!(output.stdout, word, "{script}");
        }
    }
}
