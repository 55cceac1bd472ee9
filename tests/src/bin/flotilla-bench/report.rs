//! The table on the terminal, and the page and its plots for `docs/`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;
use flotilla_tests::figures::machine;

use crate::contender::Contender;
use crate::plot::{Axes, Line, plot};
use crate::results::{Figure, Found, Results, Row, Spread, Unit};
use crate::{Options, version};

/// The table, one line for each figure and number of environments.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::from(
        "| | environments | Flotilla | ld-relay | ratio | limit | of the limit |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in results.rows() {
        let (figure, environments) = row;
        let [ours, theirs] = [Contender::Flotilla, Contender::Relay].map(|contender| results.of(contender, row));
        let limit = results.limit(row);
        let shown = |found| match found {
            Found::Nothing => String::new(),
            Found::Never => "never".to_owned(),
            Found::Spread(spread) => spread_text(figure.unit(), spread),
        };
        let ratio = ours.median().zip(theirs.median()).map(|(ours, theirs)| ratio_text(theirs, ours));
        let ratio = ratio.unwrap_or_default();
        let of_limit = ours.median().zip(limit).map(|(ours, limit)| format!("{:.2} ×", ours / limit));
        let limit = limit.map(|limit| figure.unit().text(limit)).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {environments} | {} | {} | {ratio} | {limit} | {} |",
            figure.title(),
            shown(ours),
            shown(theirs),
            of_limit.unwrap_or_default()
        );
    }
    text
}

/// How many times as much the other needs.
fn ratio_text(theirs: f64, ours: f64) -> String {
    // Less than a hundredth is not measured.
    if ours < 0.01 { String::new() } else { format!("{:.1} ×", theirs / ours) }
}

fn spread_text(unit: Unit, spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    let middle = unit.text(median);
    match [least, most].map(|value| unit.bare(value)) {
        [least, most] if least == most => middle,
        [least, most] => format!("{middle} ({least} to {most})"),
    }
}

/// Writes `benchmarks.md` and its plots.
pub(crate) fn write(options: &Options, results: &Results) -> anyhow::Result<()> {
    let plots = options.output.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    for (file, title, unit, figure) in [
        ("memory.svg", "Memory at rest", "MB", Figure::Memory),
        ("memory-after-cut.svg", "Memory after all streams were cut once", "MB", Figure::MemoryAfterCut),
        ("cold-start.svg", "Cold start until every $inited", "s", Figure::ColdStart),
        ("reconnect.svg", "CPU of a reconnect with unchanged data", "s", Figure::CutCpu),
    ] {
        let axes = Axes { title, x: "environments", y: unit };
        plot(&plots.join(file), &axes, &lines(results, figure))?;
    }
    let page = options.output.join("benchmarks.md");
    fs::write(&page, page_text(options, results)?).with_context(|| page.display().to_string())
}

fn lines(results: &Results, figure: Figure) -> Vec<Line> {
    let rows: Vec<Row> = results.rows().filter(|row| row.0 == figure).collect();
    let of = |name: &str, value: &dyn Fn(Row) -> Option<f64>| Line {
        name: name.to_owned(),
        points: rows.iter().filter_map(|row| Some((row.1 as f64, value(*row)?))).collect(),
    };
    let median = |contender, row| results.of(contender, row).median();
    let all = [
        of("ld-relay", &|row| median(Contender::Relay, row)),
        of("Flotilla", &|row| median(Contender::Flotilla, row)),
        of("the data, or a bare client", &|row| results.limit(row)),
    ];
    all.into_iter().filter(|line| !line.points.is_empty()).collect()
}

fn page_text(options: &Options, results: &Results) -> anyhow::Result<String> {
    let Options { rounds, flags, flag_bytes, .. } = options;
    let relay = match &options.relay {
        // It does not say which it is where it was built without being told.
        Some(path) => version(path)?,
        None => "not measured".to_owned(),
    };
    Ok(format!(
        "# Benchmarks\n\n\
         Written by `make bench`; [benchmarking.md](benchmarking.md) says what each line means and how to run it.\n\n\
         {} · {flags} flags of {flag_bytes} bytes in each environment · {rounds} rounds by turns, the median (least to most) · \
         Flotilla: control and worker together\n\n\
         Flotilla {} · relay {relay} · {}\n\n\
         {}\n\
         The ratio says how many times as much the relay needs. The limit is the bytes of the data, or what a client takes that \
         only writes the same bytes.\n\n\
         ![Memory at rest](benchmarks/memory.svg)\n\
         ![Memory after all streams were cut once](benchmarks/memory-after-cut.svg)\n\
         ![Cold start](benchmarks/cold-start.svg)\n\
         ![CPU of a reconnect](benchmarks/reconnect.svg)\n",
        machine()?,
        env!("CARGO_PKG_VERSION"),
        flotilla_tests::figures::redis_version()?,
        table(results)
    ))
}
