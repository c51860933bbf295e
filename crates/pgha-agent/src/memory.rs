//! Gives back what only the start needed: code pages that ran once, and heap that was freed.
//!
//! The daemon sits beside a database on machines where memory is bought for the database. Most of the program's text is
//! touched once (configuration, TLS set-up, first connections) and would stay resident for years.

use std::path::Path;

use rustix::mm::{Advice, madvise};

/// Drops the resident pages of the program's own text. What is needed again is read again, from the page cache.
#[allow(unsafe_code)]
pub fn give_back_start_up_pages() {
    let (Ok(exe), Ok(maps)) = (std::env::current_exe(), std::fs::read_to_string("/proc/self/maps")) else {
        return;
    };
    for (start, len) in maps.lines().filter_map(|line| text_of(line, &exe)) {
        // SAFETY: the range is a private, file-backed mapping of the running program that is executable and not
        // writable, as the kernel has just said. Such pages are never changed (relocated data lies in other mappings),
        // so dropping them loses nothing: the next access reads the same bytes from the file.
        let done = unsafe { madvise(start as *mut std::ffi::c_void, len, Advice::LinuxDontNeed) };
        if let Err(error) = done {
            tracing::debug!(%error, "start-up pages stay resident");
        }
    }
}

/// Address and length of a line of `/proc/self/maps`, if it is executable text of `exe`.
fn text_of(line: &str, exe: &Path) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if permissions != "r-xp" || Path::new(path) != exe {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::{give_back_start_up_pages, text_of};
    use std::path::Path;

    #[test]
    fn only_the_text_of_the_program_itself_is_taken() {
        let exe = Path::new("/opt/pgha");
        let line =
            |permissions: &str, path: &str| format!("55d0c0000000-55d0c0a00000 {permissions} 00001000 fe:00 12 {path}");
        assert_eq!(
            text_of(&line("r-xp", "/opt/pgha"), exe),
            Some((0x55d0_c000_0000, 0xa0_0000))
        );
        for (permissions, path) in [
            ("r--p", "/opt/pgha"),
            ("rw-p", "/opt/pgha"),
            ("r-xp", "/lib/libc.so.6"),
            ("r-xp", ""),
        ] {
            assert_eq!(text_of(&line(permissions, path), exe), None);
        }
    }

    #[test]
    fn the_program_runs_on_after_its_pages_were_given_back() {
        give_back_start_up_pages();
        assert_eq!(std::hint::black_box(vec![1, 2, 3]).iter().sum::<i32>(), 6);
    }
}
