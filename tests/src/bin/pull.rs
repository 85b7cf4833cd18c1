//! `make bench-pull`: the same images by `docker pull` and by Skerry, over links with faults; writes docs/bench/pull.md.
//!
//! `SKERRY_PULL_SLOW_MB` and `SKERRY_PULL_MB` are the sizes of the images on the slow and on the other links, `SKERRY_PULL_CUT_S` is how
//! long a fault lasts. `SKERRY_PULL_PAGE` is the page to write; without it the table is only printed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::need;
use skerry_tests::course::{number, seconds};
use skerry_tests::pull::{Case, Fault, Row, images};

/// A transfer is given up after this time and what the link needs for the image three times over.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    for name in ["skerry-server", "skerry-agent", "skerry"] {
        need::binary(name)?;
    }
    ensure!(need::bed()?, "this cannot run here; `make setup` as root installs what is needed");
    let (slow, fast) = (number("SKERRY_PULL_SLOW_MB", 30), number("SKERRY_PULL_MB", 100));
    let span = seconds("SKERRY_PULL_CUT_S", 60);
    let lasts = span.as_secs();
    let cases = [
        (format!("2 Mbit/s, {lasts} s of silence"), 2_000_u32, slow, Fault::Silence(span)),
        (format!("20 Mbit/s, {lasts} s of resets"), 20_000, fast, Fault::Resets(span)),
        ("20 Mbit/s, the node's address changes".to_owned(), 20_000, fast, Fault::Address),
    ];
    let folder = tempfile::Builder::new().prefix("skerry-pull-").tempdir()?;
    let mut table = String::from(HEAD);
    for (name, kbit, megabytes, fault) in cases {
        let bytes = megabytes * 1_000_000;
        let whole = Duration::from_millis(bytes * 8 / u64::from(kbit));
        let case = Case { name, kbit: f64::from(kbit), fault, limit: PATIENCE + 3 * whole };
        say(&format!("{}: images of {megabytes} MB", case.name))?;
        let here = folder.path().join(format!("{kbit}-{}", table.len()));
        std::fs::create_dir(&here)?;
        let images = images(&here, bytes)?;
        let (pull, ours) = (case.pull(&images, &here)?, case.skerry(&images)?);
        for (pull, ours) in pull.iter().zip(&ours) {
            let line = line(pull, ours, images[0].size);
            say(line.trim())?;
            table.push_str(&line);
        }
        std::fs::remove_dir_all(&here)?;
    }
    if let Some(page) = std::env::var_os("SKERRY_PULL_PAGE") {
        let text = format!("{TITLE}\n{table}\n{NOTES}");
        std::fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))?;
    }
    say(&table)
}

const HEAD: &str = "| link and fault | image | in the registry | bundle | received by `docker pull` | received by Skerry | ratio | `docker pull` | Skerry |\n|---|---|---:|---:|---:|---:|---:|---|---|\n";

const TITLE: &str = "# Beside `docker pull`\n
The same two images over the same link with the same fault, by `docker pull` from a registry (Debian's docker-registry and docker.io) and by
Skerry, each on a node and an engine of its own. Written by `make bench-pull`.
";

const NOTES: &str = "*Received* are all bytes of all frames to the node, headers, polls and what was sent again included; *ratio* is that of `docker pull` to that of
Skerry. The times are from the order until the image is complete in the engine; Skerry's contain the making of its bundle and the waits of its
polls. A fault begins when a third of what is to come has come: of the layers as the registry keeps them, or of the bundle.

The images are made of files of one machine, nine tenths a runtime, one tenth an application, in a layer each. The second is built anew a day
later with its application edited, without a cache, so that both layers are others. `docker pull` would fetch only the second layer again if the
first had been kept bit for bit. Images of the slow link are smaller (`SKERRY_PULL_SLOW_MB`), so that a run ends in half an hour.
`SKERRY_PULL_MB` and `SKERRY_PULL_CUT_S` change the others and the faults.
";

fn line(pull: &Row, ours: &Row, size: u64) -> String {
    let mut line = String::new();
    let ratio = pull.received * 10 / ours.received.max(1);
    let end = |row: &Row| match &row.failed {
        None => format!("complete after {:.0} s", row.took.as_secs_f64()),
        Some(said) => format!("failed after {:.0} s: {}", row.took.as_secs_f64(), said.replace('|', "/")),
    };
    let _ = writeln!(
        line,
        "| {} | {}, {} MB | {} | {} | {} | {} | {}.{} | {} | {} |",
        pull.case,
        pull.image,
        (size + 500_000) / 1_000_000,
        grouped(pull.file),
        grouped(ours.file),
        grouped(pull.received),
        grouped(ours.received),
        ratio / 10,
        ratio % 10,
        end(pull),
        end(ours)
    );
    line
}

/// `1234567` -> `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    out.flush().context("cannot write")
}
