//! Gives back what only the start needed: code pages that ran once, and heap that was freed.
//!
//! The daemon sits beside a database on machines where memory is bought for the database. Most of the program's text is
//! touched once (configuration, TLS set-up, first connections) and would stay resident for years.

use rustix::mm::{Advice, madvise};

/// Drops the resident pages of the text of the program and its libraries. What is needed again is mapped again, from the
/// page cache, in blocks of what the kernel maps around a fault (64 kB).
#[allow(unsafe_code)]
pub fn give_back_start_up_pages() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, len) in maps.lines().filter_map(text_of) {
        // SAFETY: the range is a private, file-backed mapping of this process that is executable and not writable, as
        // the kernel has just said. Such pages are never changed (relocated data lies in other mappings), so dropping
        // them loses nothing: the next access reads the same bytes from the file.
        let done = unsafe { madvise(start as *mut std::ffi::c_void, len, Advice::LinuxDontNeed) };
        if let Err(error) = done {
            tracing::debug!(%error, "start-up pages stay resident");
        }
    }
}

/// Address and length of a line of `/proc/self/maps`, if it is the executable text of a file.
fn text_of(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if permissions != "r-xp" || !path.starts_with('/') {
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

    #[test]
    fn only_executable_text_of_files_is_taken() {
        let line =
            |permissions: &str, path: &str| format!("55d0c0000000-55d0c0a00000 {permissions} 00001000 fe:00 12 {path}");
        for path in ["/opt/pgha", "/lib/libc.so.6"] {
            assert_eq!(text_of(&line("r-xp", path)), Some((0x55d0_c000_0000, 0xa0_0000)));
        }
        for (permissions, path) in [
            ("r--p", "/opt/pgha"),
            ("rw-p", "/opt/pgha"),
            ("rwxp", "/opt/pgha"),
            ("r-xp", "[vdso]"),
            ("r-xp", ""),
        ] {
            assert_eq!(text_of(&line(permissions, path)), None);
        }
    }

    #[test]
    fn the_program_runs_on_after_its_pages_were_given_back() {
        give_back_start_up_pages();
        assert_eq!(std::hint::black_box(vec![1, 2, 3]).iter().sum::<i32>(), 6);
    }
}
