//! Gives back the memory of program text that an agent needs only to start: most of it is not run again while the node is idle.
//!
//! The kernel reads file pages in groups around each one that is needed, and maps of these what is in its cache, so a start leaves nearly the
//! whole program mapped. What is needed again is read again, page by page.

use std::path::Path;
use std::time::Duration;

/// An agent has started, and has spoken with engine and server, after this long.
const STARTED: Duration = Duration::from_secs(15);
/// What fetches and reconstructs leave behind goes after this long at most.
const AGAIN: Duration = Duration::from_secs(3600);

/// Gives back once the agent has started, then every hour, for ever.
pub(crate) async fn stay_lean() {
    let mut wait = STARTED;
    loop {
        tokio::time::sleep(wait).await;
        wait = AGAIN;
        if let Err(error) = give_back() {
            tracing::debug!("program text stays in memory: {error}");
        }
    }
}

fn give_back() -> std::io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, len) in text_of(&maps, &program) {
        page_out(start, len)?;
    }
    Ok(())
}

/// Where the program's own pages are that are never written: address and length.
fn text_of(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let own = |line: &str| {
        // `7f0000000000-7f0000200000 r-xp 00000000 fe:00 1234   /path`
        let mut words = line.split_ascii_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        let path = words.nth(3)?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (matches!(rights, "r-xp" | "r--p") && Path::new(path) == program).then_some((start, end.checked_sub(start)?))
    };
    maps.lines().filter_map(own).collect()
}

#[allow(unsafe_code, reason = "the call takes addresses; it changes no byte that the program sees")]
fn page_out(start: usize, len: usize) -> std::io::Result<()> {
    use rustix::mm::{Advice, madvise};
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: neither changes anything that the program can see: unwritten pages of a file are read from it again when touched, and how many
    // of their neighbours are read with them is the kernel's matter.
    unsafe {
        madvise(start, len, Advice::Random)?;
        madvise(start, len, Advice::LinuxPageOut)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_unwritten_pages() {
        let maps = "1000-3000 r--p 00000000 fe:00 1 /usr/bin/skerry-agent\n3000-9000 r-xp 00002000 fe:00 1 /usr/bin/skerry-agent\n\
                    9000-a000 rw-p 00008000 fe:00 1 /usr/bin/skerry-agent\na000-b000 rw-p 00000000 00:00 0 [heap]\n\
                    b000-c000 r-xp 00000000 fe:00 2 /usr/lib/other\n";
        assert_eq!(text_of(maps, Path::new("/usr/bin/skerry-agent")), [(0x1000, 0x2000), (0x3000, 0x6000)]);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        give_back().unwrap();
        assert_eq!(text_of("", Path::new("/x")), []);
        assert_eq!((1..=10).map(|n| n.to_string()).collect::<String>(), "12345678910");
    }
}
