//! The page of the benchmark of bundles, as Markdown.

use std::fmt::Write;

use crate::measure::Cost;
use crate::pairs::{APPLY, Bar, INDEXED, MAKE};
use crate::peers::Tool;
use crate::results::Outcome;
use crate::rows::Row;

/// An image that is made of fewer new bytes is no measure of speed.
const ENOUGH: u64 = 10_000_000;

/// The page.
pub fn text(rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    page.push_str(&sizes(rows));
    page.push_str(&bars(rows));
    page.push_str(&costs(rows));
    page.push_str(&times(rows));
    page
}

const HEAD: &str = "# Bundles beside other tools

Made by `make bench-delta`: all tools of a row on the same `docker save` archives and the same machine, every result decoded and compared with the
target byte for byte. Rows may be of different days, for which the images were built anew; they are kept in [delta.jsonl](delta.jsonl).
Bundles are whole: signature and table of contents included. Times are wall times of one run, and include the start of the program;
those of the peers may be of a machine that also did other work.
What each peer's bytes are:

- layers: what a registry sends for those that the node lacks; the configuration is not counted;
- casync: chunks of the archive that the node's store lacks, and the chunk index in zstd -19;
- rdiff: the delta in gzip -9; the signature that the node sends first is not counted;
- zstd --patch-from with --long=31; xdelta3 -S lzma with a window over the whole old archive; bsdiff 4.3; bidiff 1.0.0 over the whole
  archive, its patch in zstd -19.

![Bytes of each tool as a multiple of Skerry's](delta.svg)
";

/// A number with thin groups of three, as in `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn sizes(rows: &[Row]) -> String {
    let tools: Vec<_> =
        Tool::ALL.into_iter().filter(|tool| *tool != Tool::Indexed && rows.iter().any(|row| row.tools.contains_key(tool))).collect();
    let mut page = String::from("\n## Bytes\n\n| pair | day | image |");
    for tool in &tools {
        let _ = write!(page, " {} |", tool.name());
    }
    let _ = writeln!(page, "\n|---|---|---:|{}", "---:|".repeat(tools.len()));
    for row in rows {
        let _ = write!(page, "| {}, {} | {} | {} |", row.name, row.what, row.day, grouped(row.image));
        for tool in &tools {
            let cell = match row.tools.get(tool) {
                Some(Outcome::Done { bytes, .. }) => grouped(*bytes),
                Some(Outcome::Late) => "not ended in 15 minutes".to_owned(),
                Some(Outcome::TooBig(bytes)) => format!("needs {} MB of memory", grouped(bytes / 1_000_000)),
                None if row.tries(*tool) => "not run".to_owned(),
                None => "-".to_owned(),
            };
            let _ = write!(page, " {cell} |");
        }
        page.push('\n');
    }
    page
}

/// A mark beside what does not hold.
fn mark(holds: bool) -> &'static str {
    if holds { "" } else { " **missed**" }
}

/// The bars that a pair misses: of bytes against the peer that its bar names, of making and of applying.
pub fn missed(row: &Row) -> Vec<&'static str> {
    let (Some(ours), Some(bar)) = (row.tools.get(&Tool::Skerry), row.bar()) else { return Vec::new() };
    let &Outcome::Done { bytes, make, apply } = ours else { return vec!["an end in time and memory"] };
    let ratio = bar.peer.and_then(|peer| Some(float(bytes) / float(row.bytes(peer)?)));
    let indexed = done(row, Tool::Indexed).map(|(make, _)| make.seconds);
    let long = match ratio.zip(bar.ratio) {
        Some((ratio, most)) => ratio > most,
        None => bytes > bar.bytes,
    };
    let all = [
        (long, "bytes"),
        (make.seconds >= MAKE.0, "time of making"),
        (make.rss * 1024 >= MAKE.1, "memory of making"),
        (indexed.is_some_and(|seconds| seconds >= INDEXED), "time with the index"),
        (row.made >= ENOUGH && float(row.made) / apply.seconds < bar.speed, "speed of applying"),
        (apply.pss * 1024 >= APPLY, "memory of applying"),
    ];
    all.into_iter().filter_map(|(missed, what)| missed.then_some(what)).collect()
}

fn bars(rows: &[Row]) -> String {
    let mut page = String::from(
        "\n## Against the peers\n\nRatio: bytes of the bundle to those of a peer in the same row. A bar names the best peer that had been measured for it, which some \
         tools had not been; both ratios are here. Where a peer did not run, the best may be missing.\n
| pair | bundle | bar in bytes | peer of the bar | its bytes | ratio | best peer | its bytes | ratio | bar of the ratio | goal |\n|---|---:|---:|---|---:|---:|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let (Some(bytes), Some(bar)) = (row.bytes(Tool::Skerry), row.bar()) else { continue };
        let named = bar.peer.and_then(|peer| Some((peer, row.bytes(peer)?)));
        // Images are built anew, so the ratio counts where there is one.
        let _ =
            write!(page, "| {} | {}{} | {} |", row.name, grouped(bytes), mark(named.is_some() || bytes <= bar.bytes), grouped(bar.bytes));
        page.push_str(&beside(bytes, named, bar, ""));
        page.push_str(&beside(bytes, row.best_peer(), bar, if row.complete() { "" } else { " (some not run)" }));
        let [most, goal] = [bar.ratio, bar.goal].map(|number| number.map(|number| number.to_string()).unwrap_or_default());
        let _ = writeln!(page, " {most} | {goal} |");
    }
    page
}

/// The cells of a peer: its name, its bytes, the ratio of the bundle to them.
fn beside(bytes: u64, peer: Option<(Tool, u64)>, bar: &Bar, note: &str) -> String {
    let Some((tool, theirs)) = peer else { return " - | | |".to_owned() };
    let ratio = float(bytes) / float(theirs);
    let word = match (bar.ratio, bar.goal) {
        (_, Some(goal)) if ratio <= goal => ", goal met",
        (Some(most), _) => mark(ratio <= most),
        _ => "",
    };
    format!(" {}{note} | {} | {ratio:.4}{word} |", tool.name(), grouped(theirs))
}

/// Of a cost that was measured.
fn done(row: &Row, tool: Tool) -> Option<(Cost, Cost)> {
    match row.tools.get(&tool)? {
        Outcome::Done { make, apply, .. } => Some((*make, *apply)),
        _ => None,
    }
}

fn costs(rows: &[Row]) -> String {
    let mut page = format!(
        "\n## What it costs\n\nBars: made in under {} s and {} MB; with the old image's index at hand, for S2 and S8, in under {INDEXED} s; applied in under \
         {} MB of memory (Pss of the process that applies) at 40 MB/s, S6 at 5 MB/s. Images with less than {} MB of new layers say nothing of speed.\n
| pair | made in | memory | with the index | applied in | speed | memory (Pss) | (RSS) |\n|---|---:|---:|---:|---:|---:|---:|---:|\n",
        MAKE.0,
        MAKE.1 / 1_000_000,
        APPLY / 1_000_000,
        ENOUGH / 1_000_000
    );
    for row in rows {
        let (Some((make, apply)), Some(bar)) = (done(row, Tool::Skerry), row.bar()) else { continue };
        let indexed = done(row, Tool::Indexed).map(|(make, _)| format!("{:.2} s{}", make.seconds, mark(make.seconds < INDEXED)));
        let rate = float(row.made) / apply.seconds;
        let speed = if row.made < ENOUGH { "-".to_owned() } else { format!("{:.0} MB/s{}", rate / 1e6, mark(rate >= bar.speed)) };
        let _ = writeln!(
            page,
            "| {} | {:.1} s{} | {:.0} MB{} | {} | {:.2} s | {speed} | {:.1} MB{} | {:.1} MB |",
            row.name,
            make.seconds,
            mark(make.seconds < MAKE.0),
            megabytes(make.rss),
            mark(make.rss * 1024 < MAKE.1),
            indexed.unwrap_or_else(|| "-".to_owned()),
            apply.seconds,
            megabytes(apply.pss),
            mark(apply.pss * 1024 < APPLY),
            megabytes(apply.rss),
        );
    }
    page
}

fn times(rows: &[Row]) -> String {
    let mut page = String::from(
        "\n## Times and memory of all tools\n\n| pair | tool | made in | memory (RSS) | decoded in | memory (RSS) |\n|---|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        for tool in Tool::ALL {
            if let Some((make, apply)) = done(row, tool) {
                let _ = writeln!(
                    page,
                    "| {} | {} | {:.1} s | {:.0} MB | {:.1} s | {:.0} MB |",
                    row.name,
                    tool.name(),
                    make.seconds,
                    megabytes(make.rss),
                    apply.seconds,
                    megabytes(apply.rss)
                );
            }
        }
    }
    page
}

fn megabytes(kib: u64) -> f64 {
    float(kib) * 1024.0 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn bars_are_missed_one_by_one() {
        let cost = |seconds, kib| Cost { seconds, rss: kib, pss: kib };
        let row = |bytes, make, apply| {
            let peer = Outcome::Done { bytes: 1_000_000, make: cost(1.0, 1), apply: cost(1.0, 1) };
            let tools = [(Tool::Skerry, Outcome::Done { bytes, make, apply }), (Tool::Bidiff, peer)].into();
            Row { name: "S3".into(), what: String::new(), image: 1, made: 100_000_000, day: String::new(), tools }
        };
        assert_eq!(missed(&row(629_000, cost(119.0, 900_000), cost(2.4, 23_000))), [""; 0]);
        assert_eq!(missed(&row(631_000, cost(120.0, 900_000), cost(2.4, 24_000))), ["bytes", "time of making", "memory of applying"]);
        assert_eq!(missed(&row(1, cost(1.0, 1_000_000), cost(2.6, 1))), ["memory of making", "speed of applying"]);
        let mut late = row(1, cost(1.0, 1), cost(1.0, 1));
        late.tools.insert(Tool::Skerry, Outcome::Late);
        assert_eq!(missed(&late).len(), 1);
        late.tools.remove(&Tool::Skerry);
        assert_eq!(missed(&late), [""; 0], "it was not asked for");
    }

    #[test]
    fn a_bundle_is_held_against_the_peer_of_its_bar_and_the_best_one() {
        let tools = [(Tool::Skerry, 540), (Tool::LayersGzip, 92_772), (Tool::Xdelta3, 6_375)];
        let done = |(tool, bytes)| (tool, Outcome::Done { bytes, make: Cost::default(), apply: Cost::default() });
        let row = Row { name: "S8".into(), what: String::new(), image: 1, made: 1, day: String::new(), tools: tools.map(done).into() };
        let text = bars(&[row]);
        assert!(text.contains("| S8 | 540 | 2,000 | layers, gzip -6 | 92,772 | 0.0058, goal met |"), "{text}");
        assert!(text.contains("| xdelta3 -9 (some not run) | 6,375 | 0.0847 **missed** | 0.022 | 0.015 |"), "{text}");
    }
}
