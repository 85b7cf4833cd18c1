//! The promised figures: read from SPECIFICATION.md, so that the page and the tests cannot differ.
//!
//! A promise is a row of a table there: `` | `key` | what | at most | ... `` with a limit such as `8 MB`, `900 bytes`, `1.2 MB`, `60 times` or `30 s`
//! (1 MB = 1,000,000 bytes).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The page.
#[must_use]
pub fn specification() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPECIFICATION.md")).unwrap_or_default()
}

/// The limit, in bytes, times or seconds, that the page promises for `key`.
///
/// # Errors
/// When there is no such row, or its limit cannot be read.
pub fn limit(page: &str, key: &str) -> Result<u64> {
    let row = page.lines().find(|l| l.contains(&format!("| `{key}` |"))).with_context(|| format!("SPECIFICATION.md has no `{key}`"))?;
    let cell = row.split('|').nth(3).with_context(|| format!("no limit in {row}"))?.trim();
    bytes(cell).with_context(|| format!("the limit of `{key}` is \"{cell}\""))
}

/// Prints a measured figure beside its promise, and fails when it is higher.
///
/// # Errors
/// When the promise is broken, or not in SPECIFICATION.md.
pub fn hold(key: &str, measured: u64) -> Result<()> {
    let limit = limit(&specification(), key)?;
    println!("| `{key}` | at most {limit} | measured {measured} |");
    ensure!(measured <= limit, "`{key}` is {measured}; SPECIFICATION.md promises at most {limit}");
    Ok(())
}

fn bytes(text: &str) -> Result<u64> {
    let (number, unit) = text.split_once(' ').context("no unit")?;
    let scale: u64 = match unit {
        "bytes" | "times" | "s" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        other => anyhow::bail!("unknown unit {other}"),
    };
    let number = number.replace(',', "");
    let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
    let tenths = u32::try_from(part.len())?;
    Ok(format!("{whole}{part}").parse::<u64>()? * scale / 10_u64.pow(tenths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_page() {
        let page = "| key | what | at most |\n|---|---|---|\n| `a` | size | 8 MB |\n| `b` | poll | 900 bytes |\n| `c` | x | 1.25 KB |\n| `d` | x | much |";
        let got = ["a", "b", "c"].map(|k| limit(page, k).unwrap());
        assert_eq!(got, [8_000_000, 900, 1_250]);
        assert!(limit(page, "d").is_err());
        assert!(limit(page, "e").is_err());
    }

    #[test]
    fn every_promise_of_the_tests_is_on_the_page() {
        let page = specification();
        let agent = ["agent-binary", "agent-idle", "agent-ten", "agent-wakeups", "reconstruct-peak", "idle-writes"];
        let polls = ["idle-poll", "new-poll", "idle-day-minute", "idle-day-quarter", "idle-day-hour"];
        for key in agent.into_iter().chain(polls).chain(["server-memory", "server-processor", "bundle-s2", "bundle-s3"]) {
            limit(&page, key).unwrap();
        }
    }
}
