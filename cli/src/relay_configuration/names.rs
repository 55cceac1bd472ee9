//! Names that are valid here.

use flotilla_proto::EnvironmentName;

use super::settings::SourceKind;

/// Longest name, in bytes.
const LONGEST: usize = 63;

/// The name that stands for one of the relay's; `None`: nothing is left of it.
///
/// It is in small letters, and what is not allowed in it becomes a dash. So does the underscore of a variable's name, which
/// stands for a blank there.
pub(super) fn valid_name(original: &str, kind: SourceKind) -> Option<EnvironmentName> {
    let mut name = String::new();
    for c in original.chars().map(|c| c.to_ascii_lowercase()) {
        let keeps = match (c, kind) {
            ('_', SourceKind::Variables) => false,
            ('a'..='z' | '0'..='9' | '.' | '_' | '-', _) => true,
            _ => false,
        };
        if keeps {
            name.push(c);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let is_edge = |c: char| !c.is_ascii_alphanumeric();
    let name = name.trim_start_matches(is_edge);
    let name = name[..name.len().min(LONGEST)].trim_end_matches(is_edge);
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_valid() {
        use SourceKind::{File, Variables};
        let long = "x".repeat(62) + " y";
        for (original, kind, wanted) in [
            ("Spree Project Production", File, Some("spree-project-production")),
            ("Spree_Project_Production", Variables, Some("spree-project-production")),
            ("a_b", File, Some("a_b")),
            ("Spree/mobile", File, Some("spree-mobile")),
            ("  (Été) 1.0 ", File, Some("t-1.0")),
            (&long, File, Some(&long[..62])),
            ("été", File, Some("t")),
            ("日本", File, None),
            ("", File, None),
        ] {
            let name = valid_name(original, kind);
            assert_eq!(name.as_ref().map(EnvironmentName::as_str), wanted, "{original}");
        }
    }

    proptest! {
        #[test]
        fn a_letter_is_enough(original in "\\PC*[a-zA-Z0-9]") {
            prop_assert!(valid_name(&original, SourceKind::File).is_some());
        }

        #[test]
        fn a_valid_name_stays(name in "[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?") {
            let kept = valid_name(&name, SourceKind::File);
            prop_assert_eq!(kept.map(String::from), Some(name));
        }
    }
}
