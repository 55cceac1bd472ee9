//! Which fields an update names.

use flotilla_proto::{FieldViolation, Refusal};

/// Characters of a wrong path that are shown.
const SHOWN: usize = 80;

/// The paths of an update's mask: at least one, and all of them `mutable`. Of a field that is known and cannot be changed
/// `immutable` says why.
pub(super) fn paths(
    mask: Option<prost_types::FieldMask>,
    mutable: &[&str],
    immutable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Refusal> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let wrong = |path: &String| {
        if mutable.contains(&path.as_str()) {
            return None;
        }
        let why = immutable(path).unwrap_or_else(|| {
            let shown: String = path.chars().take(SHOWN).collect();
            format!("{shown:?} is not a field that can be changed; those are {}", mutable.join(", "))
        });
        Some(FieldViolation::new("update_mask", &why))
    };
    let violations: Vec<_> = paths.iter().filter_map(wrong).collect();
    if !violations.is_empty() {
        return Err(Refusal::fields(violations));
    }
    if paths.is_empty() {
        let why = format!("required: one or more of {}", mutable.join(", "));
        return Err(FieldViolation::new("update_mask", &why).into());
    }
    Ok(paths)
}
