//! The Redis of a relay.

use flotilla_proto::store_url::{Address, Login, TlsFiles};
use flotilla_proto::{FieldViolation, StoreUrl};

use super::options::Honoured;
use super::settings::{Setting, Settings, SourceKind};
use super::{Hidden, RelayError, Secret};

/// Where the relay finds Redis if it is not told.
const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;

/// What became of it.
pub(super) enum Found {
    /// It is not switched on.
    Off,
    /// It is here.
    On(Box<StoreUrl>, Option<Secret>),
}

/// Where it is, and how one gets in, or all that is wrong with what is said of it.
pub(super) fn redis(settings: &Settings) -> Result<Found, Vec<RelayError>> {
    let get = |what| settings.last(what, "");
    let (host, port, url) = (get(Honoured::RedisHost), get(Honoured::RedisPort), get(Honoured::RedisUrl));
    let mut errors = Vec::new();
    // A switch that is neither on nor off stands for one that is on: what is wrong beside it is told too.
    let mut is_on = |switch| {
        is_on(settings, switch).unwrap_or_else(|error| {
            errors.push(error);
            true
        })
    };
    let is_used = match settings.kind {
        SourceKind::File => host.or(port).or(url).is_some(),
        SourceKind::Variables => is_on(Honoured::UseRedis),
    };
    if !is_used {
        return Ok(Found::Off);
    }
    let is_encrypted = is_on(Honoured::RedisTls);
    let address = match (url, host.or(port)) {
        (Some(url), Some(other)) => {
            let problem =
                format!("please specify Redis URL or host/port, but not both; {} is the other", other.place);
            Err(vec![url.error(&problem)])
        }
        (Some(url), None) => of_url(url, is_encrypted).map_err(|error| vec![error]),
        (None, _) => of_address(host, port, is_encrypted),
    };
    match address.and_then(|url| with_login(settings, url).map_err(|error| vec![error])) {
        Ok(found) if errors.is_empty() => Ok(found),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// Whether a switch is on; an empty one is a mistake, as for the relay.
fn is_on(settings: &Settings, switch: Honoured) -> Result<bool, RelayError> {
    settings.every(switch, "").next_back().map_or(Ok(false), |setting| setting.is_on(settings.kind))
}

fn of_url(setting: &Setting, is_encrypted: bool) -> Result<StoreUrl, RelayError> {
    let text = match setting.text().strip_prefix("redis:") {
        Some(rest) if is_encrypted => format!("rediss:{rest}"),
        Some(_) | None => setting.text().to_owned(),
    };
    StoreUrl::parse("url", &text).map_err(|FieldViolation { description, .. }| setting.error(&description))
}

fn of_address(
    host: Option<&Setting>,
    port: Option<&Setting>,
    is_encrypted: bool,
) -> Result<StoreUrl, Vec<RelayError>> {
    let mut address = Address { host: DEFAULT_HOST.to_owned(), port: DEFAULT_PORT };
    let mut errors = Vec::new();
    if let Some(setting) = host {
        setting.text().clone_into(&mut address.host);
    }
    if let Some(setting) = port {
        // As links between containers write it.
        let number = match setting.text().strip_prefix("tcp://") {
            Some(both) => {
                let (host, port) = both.rsplit_once(':').unwrap_or((both, ""));
                host.trim_start_matches('[').trim_end_matches(']').clone_into(&mut address.host);
                port
            }
            None => setting.text(),
        };
        match number.parse() {
            Ok(number) => address.port = number,
            Err(_) => errors.push(setting.error("not a valid integer")),
        }
    }
    let scheme = if is_encrypted { "rediss" } else { "redis" };
    let is_plain = !address.host.contains(['/', '@', '?', '#', ',', '\\', ' ']);
    match StoreUrl::parse("host", &format!("{scheme}://{address}")).ok().filter(|_| is_plain) {
        Some(url) if errors.is_empty() => Ok(url),
        Some(_) => Err(errors),
        None => {
            // Without either it is the default, which is valid.
            errors.extend(host.or(port).map(|setting| setting.error("invalid Redis hostname")));
            Err(errors)
        }
    }
}

fn with_login(settings: &Settings, url: StoreUrl) -> Result<Found, RelayError> {
    let get = |what| settings.last(what, "");
    let text = |what| get(what).map(|setting| setting.text().to_owned());
    let (username, password) = (get(Honoured::RedisUsername), get(Honoured::RedisPassword));
    if let Some(setting) = username.or(password)
        && url.login != Login::default()
    {
        return Err(setting.error("the Redis URL holds a login too; say it once"));
    }
    let variable = match password {
        Some(Setting { place: super::Place::Variable(name), .. }) => Some(name.clone()),
        Some(_) | None => None,
    };
    let login = Login {
        username: text(Honoured::RedisUsername).unwrap_or_default(),
        password: text(Honoured::RedisPassword).unwrap_or_default().into(),
    };
    let files = TlsFiles {
        ca: text(Honoured::RedisCa),
        cert: text(Honoured::RedisCertificate),
        key: text(Honoured::RedisKey),
    };
    let url = url.with_access("url", login, Login::default(), files).map_err(
        |FieldViolation { description, .. }| RelayError {
            place: settings.place(),
            problem: format!("the Redis of it: {description}"),
        },
    )?;
    let password = (!url.login.password.is_empty()).then(|| Secret {
        text: Hidden::new(url.login.password.to_string()),
        variable,
        name: "redis-password".to_owned(),
        made_up: "REDIS_PASSWORD".to_owned(),
    });
    Ok(Found::On(Box::new(url), password))
}
