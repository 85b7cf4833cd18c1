//! The plot of the benchmark: for each pair each tool's bytes as a multiple of Skerry's, on a logarithmic axis.

use std::fmt::Write;

use crate::page::{float, grouped};
use crate::peers::Tool;
use crate::rows::Row;

const LEFT: f64 = 60.0;
const WIDTH: f64 = 720.0;
const TOP: f64 = 46.0;
const STEP: f64 = 26.0;

/// Colour and shape of a tool's mark; shapes tell them apart without colours.
fn look(tool: Tool) -> (&'static str, &'static str) {
    match tool {
        Tool::Skerry | Tool::Indexed => ("#000000", "disc"),
        Tool::LayersGzip => ("#d55e00", "square"),
        Tool::LayersZstd => ("#e69f00", "square"),
        Tool::Casync => ("#cc79a7", "diamond"),
        Tool::Rdiff => ("#999999", "diamond"),
        Tool::Xdelta3 => ("#009e73", "triangle"),
        Tool::Zstd3 => ("#56b4e9", "cross"),
        Tool::Zstd19 => ("#0072b2", "cross"),
        Tool::Bsdiff => ("#7f6000", "ring"),
        Tool::Bidiff => ("#882255", "ring"),
        Tool::ZstdWhole => ("#0072b2", "triangle"),
    }
}

/// The tools of the plot.
fn tools(rows: &[Row]) -> Vec<Tool> {
    Tool::ALL.into_iter().filter(|tool| *tool != Tool::Indexed && rows.iter().any(|row| row.bytes(*tool).is_some())).collect()
}

/// The picture.
pub fn svg(rows: &[Row]) -> String {
    let tools = tools(rows);
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.bytes(Tool::Skerry)?))).collect();
    let multiples = rows.iter().flat_map(|(row, own)| Tool::ALL.into_iter().filter_map(|tool| Some(float(row.bytes(tool)?) / float(*own))));
    let (least, most) = multiples.fold((1.0f64, 10.0f64), |(least, most), multiple| (least.min(multiple), most.max(multiple)));
    // Whole decades, so that every line of the grid is a power of ten.
    let (first, last) = (least.log10().floor(), most.log10().ceil());
    let place = |multiple: f64| LEFT + (multiple.log10() - first) / (last - first) * WIDTH;
    let bottom = TOP + STEP * float(rows.len() as u64);
    let height = bottom + 56.0 + 18.0 * float(tools.len().div_ceil(4) as u64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\">Bytes as a multiple of Skerry's bundle (logarithmic; right of 1 is more)</text>\n",
        LEFT + WIDTH + 30.0
    );
    #[expect(clippy::cast_possible_truncation, reason = "a few decades")]
    for decade in first as i32..=last as i32 {
        let x = place(10f64.powi(decade));
        let label = if decade >= 0 { grouped(10u64.pow(decade.unsigned_abs())) } else { format!("{}", 10f64.powi(decade)) };
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>", TOP - 8.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", TOP - 12.0);
    }
    for (number, (row, own)) in (0u64..).zip(&rows) {
        let y = TOP + STEP * (float(number) + 0.5);
        let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eeeeee\"/>", LEFT + WIDTH);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, y + 4.0, row.name);
        for tool in &tools {
            if let Some(bytes) = row.bytes(*tool) {
                let title = format!("{} {}: {} bytes", row.name, tool.name(), grouped(bytes));
                out.push_str(&shape(*tool, place(float(bytes) / float(*own)), y, &title));
            }
        }
    }
    for (number, tool) in tools.iter().enumerate() {
        let (x, y) = (LEFT + WIDTH / 4.0 * float(number as u64 % 4), bottom + 34.0 + 18.0 * float(number as u64 / 4));
        out.push_str(&shape(*tool, x, y, tool.name()));
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 10.0, y + 4.0, tool.name());
    }
    out.push_str("</svg>\n");
    out
}

fn shape(tool: Tool, x: f64, y: f64, title: &str) -> String {
    let (color, form) = look(tool);
    let body = match form {
        "square" => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" fill=\"{color}\">", x - 4.0, y - 4.0),
        "diamond" => format!("<path d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\" fill=\"{color}\">", y - 5.0),
        "triangle" => format!("<path d=\"M{x:.1} {:.1}l5 9h-10z\" fill=\"{color}\">", y - 5.0),
        "cross" => format!("<path d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\" stroke=\"{color}\" stroke-width=\"2\" fill=\"none\">", x - 4.0, y - 4.0),
        "ring" => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" stroke=\"{color}\" stroke-width=\"2\" fill=\"none\">"),
        _ => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\">"),
    };
    let end = body[1..].split(' ').next().unwrap_or_default().to_owned();
    format!("{body}<title>{title}</title></{end}>\n")
}
