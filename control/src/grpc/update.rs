//! Which fields an update changes.

use flotilla_proto::{EnvironmentSpec, Refusal, v1};

use super::mask;
use crate::fleet::SpecChange;

/// The fields that can be changed, as the mask names them.
const MUTABLE: [&str; 10] = [
    "display_name",
    "source",
    "filter",
    "stream_uri",
    "base_uri",
    "application_id",
    "application_version",
    "labels",
    "worker_selector",
    "guard",
];

/// The change that a mask and new values describe. What the mask does not name stays as it is.
pub(super) fn spec_change(
    mask: Option<prost_types::FieldMask>,
    values: Option<v1::EnvironmentSpec>,
) -> Result<SpecChange, Refusal> {
    let immutable = |path: &str| {
        let is_known = matches!(path, "prefix" | "store");
        is_known.then(|| format!("{path} is immutable; remove the environment and add it anew"))
    };
    let paths = mask::paths(mask, &MUTABLE, immutable)?;
    let values = values.unwrap_or_default();
    Ok(SpecChange(Box::new(move |present: &EnvironmentSpec| {
        let mut message = v1::EnvironmentSpec::from(present);
        for path in &paths {
            copy_field(path, &values, &mut message);
        }
        EnvironmentSpec::parse(&message, "spec")
    })))
}

fn copy_field(path: &str, from: &v1::EnvironmentSpec, to: &mut v1::EnvironmentSpec) {
    match path {
        "display_name" => to.display_name.clone_from(&from.display_name),
        "source" => to.source.clone_from(&from.source),
        "filter" => to.filter.clone_from(&from.filter),
        "stream_uri" => to.stream_uri.clone_from(&from.stream_uri),
        "base_uri" => to.base_uri.clone_from(&from.base_uri),
        "application_id" => to.application_id.clone_from(&from.application_id),
        "application_version" => to.application_version.clone_from(&from.application_version),
        "labels" => to.labels.clone_from(&from.labels),
        "worker_selector" => to.worker_selector.clone_from(&from.worker_selector),
        "guard" => to.guard = from.guard,
        _ => unreachable!("the mask was checked against the same names"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> prost_types::FieldMask {
        prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    fn present() -> EnvironmentSpec {
        let message = v1::EnvironmentSpec {
            prefix: "p".to_owned(),
            filter: "f".to_owned(),
            application_id: "id".to_owned(),
            ..Default::default()
        };
        EnvironmentSpec::parse(&message, "spec").unwrap()
    }

    #[test]
    fn only_masked_fields_change_and_an_empty_value_unsets() {
        let values = v1::EnvironmentSpec {
            prefix: "other".to_owned(),
            application_id: "other".to_owned(),
            display_name: "Shown".to_owned(),
            ..Default::default()
        };
        let change = spec_change(Some(mask(&["filter", "display_name"])), Some(values)).unwrap();
        let expected = EnvironmentSpec { filter: None, display_name: "Shown".to_owned(), ..present() };
        assert_eq!((change.0)(&present()), Ok(expected));
    }

    #[test]
    fn every_mutable_field_can_be_copied() {
        let change = spec_change(Some(mask(&MUTABLE)), Some(v1::EnvironmentSpec::default())).unwrap();
        assert!((change.0)(&present()).is_ok());
    }

    #[test]
    fn wrong_masks_are_named() {
        for (paths, words) in [
            (vec![], "required"),
            (vec!["prefix"], "immutable"),
            (vec!["store"], "immutable"),
            (vec!["labels.team"], "labels.team"),
        ] {
            let Err(refusal) = spec_change(Some(mask(&paths)), None) else { panic!("{paths:?} was accepted") };
            assert_eq!(refusal.violations[0].field, "update_mask");
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        let values = v1::EnvironmentSpec { filter: "a b".to_owned(), ..Default::default() };
        let change = spec_change(Some(mask(&["filter"])), Some(values)).unwrap();
        assert_eq!((change.0)(&present()).unwrap_err()[0].field, "spec.filter");
    }
}
