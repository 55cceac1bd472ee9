//! From settings to what they come to. All that is wrong is told at once.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::{EnvironmentName, Prefix, SdkKey};

use super::names::valid_name;
use super::options::{Honoured, Meaning, Unsupported};
use super::redis::{Found, redis};
use super::settings::{Named, Setting, Settings, SourceKind};
use super::{Hidden, Place, RelayConfiguration, RelayEnvironment, RelayError, Secret};

/// What the relay's keys begin with where it is not told.
const DEFAULT_PREFIX: &str = "launchdarkly";
/// The relay takes this for its default base URI, which it is no more.
const FORMER_BASE_URI: &str = "https://app.launchdarkly.com";
const BASE_URI: &str = "https://sdk.launchdarkly.com";

/// What it comes to, or what is wrong.
pub(super) fn resolve(settings: Settings) -> Result<RelayConfiguration, Vec<RelayError>> {
    let mut resolver = Resolver {
        errors: settings.errors.clone(),
        warnings: settings.warnings.iter().map(ToString::to_string).collect(),
        not_needed: Vec::new(),
        settings: &settings,
    };
    resolver.sort_out();
    let redis = match redis(&settings) {
        Ok(Found::On(url, password)) => Some((*url, password)),
        Ok(Found::Off) => {
            // What is there in its place is named already.
            if resolver.errors.is_empty() {
                resolver.errors.push(no_redis(&settings));
            }
            None
        }
        Err(errors) => {
            resolver.errors.extend(errors);
            None
        }
    };
    let environments = resolver.environments();
    let uri = |what| settings.last(what, "").map(|setting| setting.text().trim_end_matches('/').to_owned());
    let (stream_uri, mut base_uri) = (uri(Honoured::StreamUri), uri(Honoured::BaseUri));
    resolver.check_uris();
    if base_uri.as_deref() == Some(FORMER_BASE_URI) {
        base_uri = Some(BASE_URI.to_owned());
    }
    let Resolver { errors, warnings, not_needed, .. } = resolver;
    match redis {
        Some((redis, password)) if errors.is_empty() => Ok(RelayConfiguration {
            source: settings.source,
            redis,
            password,
            stream_uri,
            base_uri,
            environments,
            not_needed,
            warnings,
        }),
        // What was left out may be what is missing.
        Some(_) | None => Err(errors.into_iter().chain(settings.warnings).collect()),
    }
}

fn no_redis(settings: &Settings) -> RelayError {
    let problem = match settings.kind {
        SourceKind::File => {
            "it says no Redis, so that the relay keeps nothing for daemon mode; say [Redis] host and port, or url"
        }
        SourceKind::Variables => {
            "USE_REDIS is not set to 1, so that the relay keeps nothing for daemon mode; set it"
        }
    };
    RelayError { place: settings.place(), problem: problem.to_owned() }
}

struct Resolver<'a> {
    settings: &'a Settings,
    errors: Vec<RelayError>,
    warnings: Vec<String>,
    not_needed: Vec<String>,
}

impl<'a> Resolver<'a> {
    fn wrong(&mut self, place: &Place, problem: impl Into<String>) {
        self.errors.push(RelayError { place: place.clone(), problem: problem.into() });
    }

    /// Tells what has no meaning here, each option once, and what cannot be honoured, each kind once.
    fn sort_out(&mut self) {
        let settings = self.settings;
        let mut seen = BTreeSet::new();
        let mut refused = Vec::new();
        for setting in &settings.all {
            match setting.option.meaning {
                Meaning::Honoured(_) => {}
                Meaning::NotNeeded(why) => {
                    if seen.insert((setting.option.section, setting.option.key, why)) {
                        self.not_needed.push(self.not_needed_line(setting, why));
                    }
                }
                Meaning::Unsupported(what) => match is_in_use(settings, setting, what) {
                    Ok(true) if !refused.contains(&what) => {
                        refused.push(what);
                        self.errors.push(setting.error(what.way_out()));
                    }
                    Ok(true) => {}
                    Ok(false) => {
                        let why = "it is not switched on";
                        if seen.insert((setting.option.section, setting.option.key, why)) {
                            self.not_needed.push(self.not_needed_line(setting, why));
                        }
                    }
                    Err(error) => self.errors.push(error),
                },
            }
        }
    }

    /// One line for all places where it is said.
    fn not_needed_line(&self, setting: &Setting, why: &str) -> String {
        let option = setting.option;
        let places = self.settings.all.iter().filter(|one| one.option == option).map(|one| &one.place);
        let all = places.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &setting.place {
            Place::Variable(_) => format!("{all}: {why}"),
            Place::Line(..) | Place::Source(_) => format!("[{}] {} ({all}): {why}", option.section, option.key),
        }
    }

    fn check_uris(&mut self) {
        for what in [Honoured::StreamUri, Honoured::BaseUri] {
            if let Some(setting) = self.settings.last(what, "")
                && let Err(violation) = flotilla_proto::spec::parse_service_uri("uri", setting.text())
            {
                self.errors.push(setting.error(&violation.description));
            }
        }
    }

    fn environments(&mut self) -> Vec<RelayEnvironment> {
        let settings = self.settings;
        if settings.environments.is_empty() && self.errors.is_empty() {
            self.wrong(&settings.place(), "you must specify at least one environment in your configuration");
        }
        let filters = self.filters();
        let mut taken = Taken::default();
        let mut all = Vec::new();
        for named in &settings.environments {
            for environment in self.environment(named, &filters) {
                if let Some(problem) = taken.clash(&environment, &named.place) {
                    self.wrong(&named.place, problem);
                }
                all.push(environment);
            }
        }
        all
    }

    /// An environment, and those that the filters of its project make of it.
    fn environment(&mut self, named: &Named, filters: &BTreeMap<&str, Vec<String>>) -> Vec<RelayEnvironment> {
        let Named { name: original, place } = named;
        let settings = self.settings;
        let sdk_key = self.sdk_key(named);
        let said = settings.last(Honoured::Prefix, original);
        if said.is_none() {
            self.no_prefix(named);
        }
        let prefix_text = said.map_or(DEFAULT_PREFIX, Setting::text);
        let name = self.name(original, place);
        let prefix = self.prefix(prefix_text, said.map_or(place, |setting| &setting.place));
        let (Some(sdk_key), Some(name), Some(prefix)) = (sdk_key, name, prefix) else { return Vec::new() };
        let filter = self.filter(original);
        let mut all =
            vec![RelayEnvironment { name, original: original.clone(), prefix, filter, sdk_key: sdk_key.clone() }];
        let project = settings.last(Honoured::ProjectKey, original).map_or("", Setting::text);
        for key in filters.get(project).into_iter().flatten() {
            let original = format!("{original}/{key}");
            if said.is_none() {
                let problem = format!(
                    "the relay keeps {original:?} and the environment without a filter under one prefix, {DEFAULT_PREFIX:?}, and \
                     each wipes the other out; give the environment a prefix"
                );
                self.wrong(place, problem);
                continue;
            }
            // As the relay names it.
            let prefix = self.prefix(&format!("{prefix_text}/{key}"), place);
            if let (Some(name), Some(prefix)) = (self.name(&original, place), prefix) {
                all.push(RelayEnvironment {
                    name,
                    original,
                    prefix,
                    filter: Some(key.clone()),
                    sdk_key: sdk_key.clone(),
                });
            }
        }
        all
    }

    fn sdk_key(&mut self, Named { name, place }: &Named) -> Option<Secret> {
        let Some(setting) = self.settings.last(Honoured::SdkKey, name) else {
            self.wrong(place, format!("SDK key is required for environment {name:?}"));
            return None;
        };
        match SdkKey::parse("sdkKey", setting.text()) {
            Ok(key) => {
                let variable = match &setting.place {
                    Place::Variable(name) => Some(name.clone()),
                    Place::Line(..) | Place::Source(_) => None,
                };
                let name = valid_name(name, self.settings.kind)?.to_string();
                let made_up = format!("SDK_KEY_{name}");
                Some(Secret { text: Hidden::new(key.expose().to_owned()), variable, name, made_up })
            }
            Err(violation) => {
                self.errors.push(setting.error(&violation.description));
                None
            }
        }
    }

    fn filter(&mut self, original: &str) -> Option<String> {
        let setting =
            self.settings.last(Honoured::FilterKey, original).filter(|setting| !setting.text().is_empty())?;
        if !is_filter_key(setting.text()) {
            self.errors
                .push(setting.error("not a filter key: 1 to 256 characters of A-Z, a-z, 0-9, '.', '_' and '-'"));
        }
        Some(setting.text().to_owned())
    }

    fn no_prefix(&mut self, Named { name, place }: &Named) {
        let problem = format!("environment {name:?} does not have a prefix specified for database storage");
        if self.settings.environments.len() > 1 {
            self.wrong(place, problem);
        } else {
            self.warnings.push(format!("{place}: {problem}; it is {DEFAULT_PREFIX:?}, as it is for the relay"));
        }
    }

    fn name(&mut self, original: &str, place: &Place) -> Option<EnvironmentName> {
        let name = valid_name(original, self.settings.kind);
        if name.is_none() {
            let problem = format!(
                "nothing of the name {original:?} can stay, for names are of a-z, 0-9, '.', '_' and '-'; rename it, which changes \
                 nothing in Redis"
            );
            self.wrong(place, problem);
        }
        name
    }

    fn prefix(&mut self, text: &str, place: &Place) -> Option<Prefix> {
        text.parse().map_err(|error| self.wrong(place, format!("{error}"))).ok()
    }

    /// The filters of each project, as the relay checks them.
    fn filters(&mut self) -> BTreeMap<&'a str, Vec<String>> {
        let settings = self.settings;
        let mut filters = BTreeMap::new();
        let projects: Vec<_> = settings
            .environments
            .iter()
            .map(|one| (one, settings.last(Honoured::ProjectKey, &one.name).map(Setting::text)))
            .collect();
        if !settings.projects.is_empty() {
            for (named, _) in projects.iter().filter(|(_, project)| project.is_none()) {
                let problem = format!(
                    "when filters are configured, all environments must specify a 'projKey': {:?}",
                    named.name
                );
                self.wrong(&named.place, problem);
            }
        }
        for Named { name, place } in &settings.projects {
            if !projects.iter().any(|(_, project)| *project == Some(name)) {
                let problem = format!(
                    "filters are configured for project '{name}', but no environment references that project"
                );
                self.wrong(place, problem);
            }
            let lists = settings.every(Honoured::FilterKeys, name).flat_map(|setting| setting.text().split(','));
            let mut keys: Vec<_> = lists.map(|key| key.trim().to_owned()).collect();
            if keys.iter().all(String::is_empty) {
                self.wrong(place, format!("filter key list for project '{name}' cannot be empty"));
            } else if let Some(index) = keys.iter().position(|key| !is_filter_key(key)) {
                let problem = format!(
                    "filter key [{index}] for project '{name}' is malformed (note: lists are comma-delimited)"
                );
                self.wrong(place, problem);
            }
            keys.retain(|key| is_filter_key(key));
            filters.insert(name.as_str(), keys);
        }
        filters
    }
}

fn is_filter_key(key: &str) -> bool {
    (1..=256).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether the relay makes use of what cannot be honoured.
fn is_in_use(settings: &Settings, setting: &Setting, what: Unsupported) -> Result<bool, RelayError> {
    let switch = match (what, settings.kind) {
        (Unsupported::DynamoDb, _) => Some("enabled"),
        (Unsupported::Consul, SourceKind::Variables) => Some(""),
        (Unsupported::OfflineMode, _) if setting.option.section == "Environment" => Some("offline"),
        (
            Unsupported::Consul
            | Unsupported::Table
            | Unsupported::AutoConfig
            | Unsupported::OfflineMode
            | Unsupported::Proxy,
            _,
        ) => None,
    };
    let Some(key) = switch else { return Ok(!setting.text().is_empty()) };
    let mut switches = settings.all.iter().filter(|one| {
        one.option.section == setting.option.section && one.option.key == key && one.of == setting.of
    });
    switches.next_back().map_or(Ok(false), |switch| switch.is_on(settings.kind))
}

/// What is taken, by whom, and where that is said.
#[derive(Default)]
struct Taken {
    names: BTreeMap<EnvironmentName, (String, Place)>,
    prefixes: BTreeMap<Prefix, (String, Place)>,
}

impl Taken {
    /// Takes name and prefix, or says whose they are.
    fn clash(&mut self, environment: &RelayEnvironment, place: &Place) -> Option<String> {
        let RelayEnvironment { name, original, prefix, .. } = environment;
        let this = || (original.clone(), place.clone());
        let mut problem = None;
        if let Some((other, there)) = self.names.insert(name.clone(), this()) {
            problem = Some(format!(
                "{original:?} and {other:?} ({there}) both become {:?} here; rename one, which changes nothing in Redis",
                name.as_str()
            ));
        }
        if let Some((other, there)) = self.prefixes.insert(prefix.clone(), this()) {
            problem = Some(format!(
                "{original:?} and {other:?} ({there}) both have the prefix {:?}, where each wipes the other out; give one \
                 of them another",
                prefix.as_str()
            ));
        }
        problem
    }
}
