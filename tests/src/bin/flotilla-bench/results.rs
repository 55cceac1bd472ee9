//! What is measured, and what was found.

use std::collections::BTreeMap;

use crate::contender::Contender;

/// One figure. In this order they stand in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    ColdStart,
    ColdStartCpu,
    Memory,
    IdleCpu,
    MemoryAfterCut,
    CutBytes,
    CutCommands,
    CutCpu,
    CutCalm,
    PatchP50,
    PatchP99,
    PatchMax,
    SlowPatchP50,
    SlowPatchMax,
    PatchCpu,
    Refill,
    Add,
    Takeover,
    LargeLoad,
    LargeMemory,
    LargeStall,
    LargeReconnectStall,
}

/// How a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Megabytes,
    Percent,
    Count,
}

impl Figure {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ColdStart => "cold start until every `$inited`",
            Self::ColdStartCpu => "CPU for a cold start",
            Self::Memory => "memory at rest",
            Self::IdleCpu => "CPU at rest, of one core",
            Self::MemoryAfterCut => "memory after all streams were cut once",
            Self::CutBytes => "reconnect, nothing changed: bytes to Redis",
            Self::CutCommands => "reconnect: commands to Redis",
            Self::CutCpu => "reconnect: CPU",
            Self::CutCalm => "reconnect: time until it is over",
            Self::PatchP50 => "patch sent → in Redis at 1,000/s, p50",
            Self::PatchP99 => "patch at 1,000/s, p99",
            Self::PatchMax => "patch at 1,000/s, longest",
            Self::SlowPatchP50 => "patch sent → in Redis at 1/s, p50",
            Self::SlowPatchMax => "patch at 1/s, longest",
            Self::PatchCpu => "CPU for 10,000 patches at 1,000/s",
            Self::Refill => "Redis restarted empty, until all is refilled",
            Self::Add => "one environment more, until its `$inited`",
            Self::Takeover => "the writer killed: until the next patch is in Redis",
            Self::LargeLoad => "20 MB in one environment: first load",
            Self::LargeMemory => "20 MB in one environment: memory",
            Self::LargeStall => "20 MB: longest silence of Redis at the first load",
            Self::LargeReconnectStall => "20 MB: longest silence of Redis at a reconnect",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Memory | Self::MemoryAfterCut | Self::CutBytes | Self::LargeMemory => Unit::Megabytes,
            Self::IdleCpu => Unit::Percent,
            Self::CutCommands => Unit::Count,
            Self::PatchP50
            | Self::PatchP99
            | Self::PatchMax
            | Self::SlowPatchP50
            | Self::SlowPatchMax
            | Self::LargeStall
            | Self::LargeReconnectStall => Unit::Milliseconds,
            Self::ColdStart
            | Self::ColdStartCpu
            | Self::CutCpu
            | Self::CutCalm
            | Self::PatchCpu
            | Self::Refill
            | Self::Add
            | Self::Takeover
            | Self::LargeLoad => Unit::Seconds,
        }
    }
}

impl Unit {
    /// A value with its unit.
    pub(crate) fn text(self, value: f64) -> String {
        let word = match self {
            Self::Seconds => " s",
            Self::Milliseconds => " ms",
            Self::Megabytes => " MB",
            Self::Percent => " %",
            Self::Count => "",
        };
        format!("{}{word}", self.bare(value))
    }

    /// A value without it.
    pub(crate) fn bare(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Megabytes if value >= 10.0 => format!("{value:.0}"),
            Self::Seconds | Self::Milliseconds | Self::Percent | Self::Megabytes => format!("{value:.2}"),
        }
    }
}

/// A figure with so many environments.
pub(crate) type Row = (Figure, usize);

/// What the rounds brought.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Nothing in a list: it never came to an end.
    found: BTreeMap<Row, BTreeMap<Contender, Vec<Option<f64>>>>,
    limits: BTreeMap<Row, f64>,
}

/// What the rounds of one contender brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Found {
    /// It was not measured.
    Nothing,
    /// It did not come to an end.
    Never,
    /// This.
    Spread(Spread),
}

impl Found {
    pub(crate) fn median(self) -> Option<f64> {
        match self {
            Self::Nothing | Self::Never => None,
            Self::Spread(spread) => Some(spread.median),
        }
    }
}

/// The middle and the extremes of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Results {
    /// Keeps it, and tells of it: the whole takes long.
    pub(crate) fn add(&mut self, contender: Contender, row: Row, value: f64) {
        eprintln!("  {}: {}", row.0.title(), row.0.unit().text(value));
        self.found.entry(row).or_default().entry(contender).or_default().push(Some(value));
    }

    /// It did not come to an end in a reasonable time.
    pub(crate) fn add_never(&mut self, contender: Contender, row: Row) {
        eprintln!("  {}: never", row.0.title());
        self.found.entry(row).or_default().entry(contender).or_default().push(None);
    }

    /// What the least conceivable work takes.
    pub(crate) fn add_limit(&mut self, row: Row, value: f64) {
        self.limits.insert(row, value);
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        self.found.keys().copied()
    }

    pub(crate) fn limit(&self, row: Row) -> Option<f64> {
        self.limits.get(&row).copied()
    }

    pub(crate) fn of(&self, contender: Contender, row: Row) -> Found {
        let values = self.found.get(&row).and_then(|found| found.get(&contender));
        match values.map(|values| values.iter().copied().collect::<Option<Vec<f64>>>()) {
            None => Found::Nothing,
            Some(None) => Found::Never,
            Some(Some(values)) => Found::Spread(spread(values)),
        }
    }
}

/// Of at least one value.
fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Spread { median, least: values[0], most: values[values.len() - 1] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_come_to_a_median_and_what_never_ends_to_nothing() {
        let row = (Figure::ColdStart, 500);
        let mut results = Results::default();
        for value in [3.0, 1.0, 2.0, 5.0] {
            results.add(Contender::Flotilla, row, value);
        }
        results.add_never(Contender::Relay, row);
        assert_eq!(
            results.of(Contender::Flotilla, row),
            Found::Spread(Spread { median: 2.5, least: 1.0, most: 5.0 })
        );
        assert_eq!(results.of(Contender::Relay, row), Found::Never);
        assert_eq!(results.of(Contender::Relay, (Figure::Memory, 500)), Found::Nothing);
    }
}
