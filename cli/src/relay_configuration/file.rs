//! From the file to settings.

use std::fmt::Write as _;

use super::options::RelayOption;
use super::settings::{Setting, Settings, SourceKind};
use super::{Place, gcfg};

/// Reads a file; `name` is what it is called.
pub(super) fn read(name: &str, text: &str) -> Settings {
    let mut settings = Settings::new(SourceKind::File, name.to_owned());
    match gcfg::parse(text) {
        Ok(sections) => sections.into_iter().for_each(|section| take(&mut settings, name, section)),
        Err(error) => settings.wrong(&Place::Line(name.to_owned(), error.line), error.problem),
    }
    settings
}

fn take(settings: &mut Settings, file: &str, section: gcfg::Section) {
    let gcfg::Section { line, name, subsection, entries } = section;
    let place = Place::Line(file.to_owned(), line);
    let known = RelayOption::section_named(&name);
    match (known, &subsection) {
        (Some("Environment"), Some(of)) => Settings::name(&mut settings.environments, of, &place),
        (Some("Filters"), Some(of)) => Settings::name(&mut settings.projects, of, &place),
        (Some(known @ ("Environment" | "Filters")), None) => {
            let problem = format!("[{known}] needs a name, as in [{known} \"NAME\"]");
            return settings.wrong(&place, problem);
        }
        (Some(_), None) => {}
        (Some(_), Some(_)) | (None, _) => {
            return settings.wrong(&place, misspelled(&name, subsection.as_deref(), None));
        }
    }
    let of = subsection.unwrap_or_default();
    for gcfg::Entry { line, key, value } in entries {
        let place = Place::Line(file.to_owned(), line);
        match RelayOption::of_key(&name, &key) {
            Some(option) => settings.all.push(Setting { place, option, of: of.clone(), value }),
            None => {
                settings
                    .wrong(&place, misspelled(&name, Some(of.as_str()).filter(|of| !of.is_empty()), Some(&key)));
            }
        }
    }
}

/// More than the relay's longest option has, in letters.
const LONGEST_OPTION: usize = 40;

/// In the relay's own words.
fn misspelled(section: &str, subsection: Option<&str>, key: Option<&str>) -> String {
    let mut text = format!("unsupported or misspelled section {section:?}");
    // What looks like no option may be a key of somebody who broke the line before it.
    let key = key.filter(|key| key.len() <= LONGEST_OPTION && key.chars().all(|c| c.is_ascii_alphabetic()));
    for (what, name) in [("subsection", subsection), ("variable", key)] {
        if let Some(name) = name {
            let _ = write!(text, ", {what} {name:?}");
        }
    }
    text.push_str("; the relay would not start with it either: correct it, or leave it out");
    text
}
