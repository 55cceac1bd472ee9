//! From variables to settings.

use std::collections::BTreeMap;

use super::options::{Honoured, Meaning, OBSOLETE, RelayOption};
use super::settings::{Setting, Settings, SourceKind};
use super::{Hidden, Place, RelayError};

/// Variables of every program, in capitals or not.
pub(super) const PROXIES: [&str; 2] = ["HTTP_PROXY", "HTTPS_PROXY"];
pub(super) const PROXY_PROBLEM: &str = "the relay would go through this proxy, and workers cannot yet; unset it where they reach \
                                        LaunchDarkly without one";

/// Variables that begin as the relay's do, and are the dynamic linker's.
const LINKER: [&str; 23] = [
    "LD_ASSUME_KERNEL",
    "LD_AUDIT",
    "LD_BIND_NOT",
    "LD_BIND_NOW",
    "LD_DEBUG",
    "LD_DEBUG_OUTPUT",
    "LD_DYNAMIC_WEAK",
    "LD_HWCAP_MASK",
    "LD_LIBRARY_PATH",
    "LD_ORIGIN_PATH",
    "LD_POINTER_GUARD",
    "LD_PREFER_MAP_32BIT_EXEC",
    "LD_PRELOAD",
    "LD_PROFILE",
    "LD_PROFILE_OUTPUT",
    "LD_RUN_PATH",
    "LD_SHOW_AUXV",
    "LD_TRACE_LOADED_OBJECTS",
    "LD_TRACE_PRELINKING",
    "LD_UNUSED",
    "LD_USE_LOAD_BIAS",
    "LD_VERBOSE",
    "LD_WARN",
];

/// Reads variables, among which may be others. Empty ones are not there, as for the relay.
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Settings {
    let mut settings = Settings::new(SourceKind::Variables, "the environment variables".to_owned());
    let sorted: BTreeMap<_, _> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    for (variable, value) in sorted {
        take(&mut settings, &variable, value);
    }
    check_names(&mut settings);
    settings
}

fn take(settings: &mut Settings, variable: &str, value: String) {
    let place = Place::Variable(variable.to_owned());
    let obsolete = OBSOLETE.iter().find_map(|(gone, successor)| Some((gone.name_in(variable)?, successor)));
    if let Some((name, successor)) = obsolete {
        let way_out = successor.map_or(String::new(), |successor| format!("; use {successor}{name}"));
        return settings.wrong(&place, format!("this variable is no longer supported{way_out}"));
    }
    if PROXIES.contains(&variable.to_ascii_uppercase().as_str()) {
        return settings.wrong(&place, PROXY_PROBLEM);
    }
    let Some((option, of)) = RelayOption::of_variable(variable) else {
        if variable.starts_with("LD_") && !LINKER.contains(&variable) {
            let problem = "the relay knows no such variable, and leaves it alone, as is done here".to_owned();
            settings.warnings.push(RelayError { place, problem });
        }
        return;
    };
    match option.meaning {
        Meaning::Honoured(Honoured::SdkKey) => Settings::name(&mut settings.environments, of, &place),
        Meaning::Honoured(Honoured::FilterKeys) => Settings::name(&mut settings.projects, of, &place),
        Meaning::Honoured(_) | Meaning::NotNeeded(_) | Meaning::Unsupported(_) => {}
    }
    let of = of.to_owned();
    settings.all.push(Setting { place, option, of, value: Some(Hidden::new(value)) });
}

/// What is said of an environment without a key, the relay leaves alone: it is a slip of the pen.
fn check_names(settings: &mut Settings) {
    let is_known = |of: &str| settings.environments.iter().any(|one| one.name == of);
    let strays: Vec<_> = settings
        .all
        .iter()
        .filter(|one| one.option.section == "Environment" && !is_known(&one.of))
        .map(|one| {
            let problem = format!(
                "there is no LD_ENV_{}, and without it the relay ignores this variable; add it, or unset this one",
                one.of
            );
            (one.place.clone(), problem)
        })
        .collect();
    for (place, problem) in strays {
        settings.wrong(&place, problem);
    }
}
