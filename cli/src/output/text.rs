//! Times, ages, sizes and labels in words.

use std::collections::BTreeMap;

use flotilla_proto::Timestamp;

/// A time as RFC 3339 in UTC with milliseconds.
pub(crate) fn rfc3339(time: &prost_types::Timestamp) -> String {
    humantime::format_rfc3339_millis(Timestamp::from_proto(time).into()).to_string()
}

/// How long ago a time was, in its largest unit or two: `42s`, `3m`, `5h`, `12d`. `-` for no time.
pub(crate) fn age(now: Timestamp, time: Option<&prost_types::Timestamp>) -> String {
    let Some(time) = time else {
        return "-".to_owned();
    };
    let seconds = now.since(Timestamp::from_proto(time)).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago a time was, in a sentence: `42s ago`; `never` for no time.
pub(crate) fn ago(now: Timestamp, time: Option<&prost_types::Timestamp>) -> String {
    match time {
        Some(_) => format!("{} ago", age(now, time)),
        None => "never".to_owned(),
    }
}

/// A number of bytes with a unit, in steps of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with its noun: `1 flag`, `2 flags`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `k=v,k=v`; `-` for none.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_dash(&pairs.join(","))
}

/// The text, or `-` when it is empty.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Makes a text from elsewhere safe for a terminal: control characters are shown as escapes.
pub(crate) fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|character| {
            let escaped: Vec<char> =
                if character.is_control() { character.escape_default().collect() } else { vec![character] };
            escaped
        })
        .collect()
}

/// As [`printable`], but line ends stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp(1_000_000_000_000);
        let ago = |seconds: u64| age(now, Some(&Timestamp(now.0 - seconds * 1000).to_proto()));
        assert_eq!(
            [0, 119, 120, 7199, 7200, 172_799, 172_800].map(ago),
            ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]
        );
        assert_eq!(age(now, None), "-");
        assert_eq!(age(Timestamp(0), Some(&now.to_proto())), "0s", "another clock is ahead");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1_048_575, 1_048_576, 5_368_709_120, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "5.0 GiB", "16777215.9 TiB"]
        );
    }

    #[test]
    fn terminals_are_safe() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("é ✓"), "é ✓");
    }

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(&Timestamp(1_793_000_000_123).to_proto()), "2026-10-26T07:33:20.123Z");
    }
}
