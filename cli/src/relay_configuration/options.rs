//! All that the relay knows, and what it means here. The names are those of its documentation.

use Honoured as H;
use Meaning::{Honoured as Yes, NotNeeded as No, Unsupported as Never};
use Unsupported as U;
use Variable::{Each, Named, Nowhere};

/// One option of the relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RelayOption {
    /// Section of the file.
    pub(super) section: &'static str,
    /// Key in there; empty: it is none of the file's.
    pub(super) key: &'static str,
    /// The variable.
    pub(super) variable: Variable,
    /// What it means here.
    pub(super) meaning: Meaning,
}

/// Which variable says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    /// None.
    Nowhere,
    /// This one.
    Named(&'static str),
    /// One for each environment or project, whose name follows.
    Each(&'static str),
}

/// What an option means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The same.
    Honoured(Honoured),
    /// Nothing, and why.
    NotNeeded(&'static str),
    /// It would be wrong to leave it out, and it cannot be honoured.
    Unsupported(Unsupported),
}

/// What is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Honoured {
    StreamUri,
    BaseUri,
    UseRedis,
    RedisHost,
    RedisPort,
    RedisUrl,
    RedisTls,
    RedisUsername,
    RedisPassword,
    RedisCa,
    RedisCertificate,
    RedisKey,
    SdkKey,
    Prefix,
    ProjectKey,
    FilterKey,
    FilterKeys,
}

/// What cannot be honoured yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    DynamoDb,
    Table,
    Consul,
    AutoConfig,
    OfflineMode,
    Proxy,
}

impl Unsupported {
    /// What it is, and the way out.
    pub(super) fn way_out(self) -> &'static str {
        match self {
            Self::DynamoDb => {
                "DynamoDB cannot be written to yet; keep the environments in Redis, or with the relay"
            }
            Self::Table => {
                "a table is DynamoDB's, which cannot be written to yet; leave it out where the environment is in Redis"
            }
            Self::Consul => "Consul cannot be written to yet; keep the environments in Redis, or with the relay",
            Self::AutoConfig => {
                "environments of an auto-configuration cannot be learnt yet; name each with its key and prefix, as \
                 [Environment \"NAME\"], or add them by `flotilla env add` or a manifest"
            }
            Self::OfflineMode => {
                "archives of offline mode cannot be read yet; flag-data files can: `flotilla env add NAME --source file:PATH`"
            }
            Self::Proxy => {
                "workers cannot go through a proxy yet; run them where they reach LaunchDarkly without one, and leave it out"
            }
        }
    }
}

const LISTENER: &str = "SDKs read Redis and nothing connects to Flotilla for flags; control and workers have --listen and --http-listen";
const CLIENTS: &str = "it is for SDKs that connect to the relay; those go on with a relay that stays for them";
const STARTING: &str = "each environment is tried until it is there and holds up none; `flotilla status` and `env wait` tell what is current";
const STATUS: &str = "`flotilla status`, and /status of control, tell what is current and since when";
const BIG_SEGMENTS: &str =
    "Flotilla does not keep big segments; a relay has to stay for environments that have them";
const CLEANUP: &str = "a key that is replaced by `env rotate-key` is dropped once the new one is proved";
const LOGGING: &str = "--log-level of control and of workers is for all environments";
const CACHE: &str = "it is the relay's cache for its own readers; a worker keeps its copy as long as it owns the environment, \
                     and SDK cache times are set in the SDK";
const WRITING: &str = "a write is one script, with a bound on how long it may take";
const EVENTS: &str = "Flotilla forwards no events; SDKs send them to LaunchDarkly, or to a relay that stays for it";
const METRICS: &str = "metrics are at /metrics of control and of each worker";
const ENDING: &str = "a worker has --drain-timeout";

/// All of them.
pub(super) const OPTIONS: &[RelayOption] = &[
    row("Main", "streamUri", Named("STREAM_URI"), Yes(H::StreamUri)),
    row("Main", "baseUri", Named("BASE_URI"), Yes(H::BaseUri)),
    row("Main", "clientSideBaseUri", Named("CLIENT_SIDE_BASE_URI"), No(CLIENTS)),
    row("Main", "exitOnError", Named("EXIT_ON_ERROR"), No(STARTING)),
    row("Main", "exitAlways", Named("EXIT_ALWAYS"), No(STARTING)),
    row("Main", "ignoreConnectionErrors", Named("IGNORE_CONNECTION_ERRORS"), No(STARTING)),
    row("Main", "initTimeout", Named("INIT_TIMEOUT"), No(STARTING)),
    row("Main", "port", Named("PORT"), No(LISTENER)),
    row("Main", "tlsEnabled", Named("TLS_ENABLED"), No(LISTENER)),
    row("Main", "tlsCert", Named("TLS_CERT"), No(LISTENER)),
    row("Main", "tlsKey", Named("TLS_KEY"), No(LISTENER)),
    row("Main", "tlsMinVersion", Named("TLS_MIN_VERSION"), No(LISTENER)),
    row("Main", "disconnectedStatusTime", Named("DISCONNECTED_STATUS_TIME"), No(STATUS)),
    row("Main", "bigSegmentsStaleAsDegraded", Named("BIG_SEGMENTS_STALE_AS_DEGRADED"), No(BIG_SEGMENTS)),
    row("Main", "bigSegmentsStaleThreshold", Named("BIG_SEGMENTS_STALE_THRESHOLD"), No(BIG_SEGMENTS)),
    row("Main", "", Named("LD_TRACE_LOG_BIG_SEGMENTS"), No(BIG_SEGMENTS)),
    row("Main", "expiredCredentialCleanupInterval", Named("EXPIRED_CREDENTIAL_CLEANUP_INTERVAL"), No(CLEANUP)),
    row("Main", "heartbeatInterval", Named("HEARTBEAT_INTERVAL"), No(CLIENTS)),
    row("Main", "maxClientConnectionTime", Named("MAX_CLIENT_CONNECTION_TIME"), No(CLIENTS)),
    row("Main", "maxClientRequestBodySize", Named("MAX_CLIENT_REQUEST_BODY_SIZE"), No(CLIENTS)),
    row("Main", "pingStreamJitterTime", Named("PING_STREAM_JITTER_TIME"), No(CLIENTS)),
    row("Main", "gracefulShutdownTimeout", Named("GRACEFUL_SHUTDOWN_TIMEOUT"), No(ENDING)),
    row("Main", "logLevel", Named("LOG_LEVEL"), No(LOGGING)),
    row("Redis", "", Named("USE_REDIS"), Yes(H::UseRedis)),
    row("Redis", "host", Named("REDIS_HOST"), Yes(H::RedisHost)),
    row("Redis", "port", Named("REDIS_PORT"), Yes(H::RedisPort)),
    row("Redis", "url", Named("REDIS_URL"), Yes(H::RedisUrl)),
    row("Redis", "tls", Named("REDIS_TLS"), Yes(H::RedisTls)),
    row("Redis", "username", Named("REDIS_USERNAME"), Yes(H::RedisUsername)),
    row("Redis", "password", Named("REDIS_PASSWORD"), Yes(H::RedisPassword)),
    row("Redis", "caFile", Named("REDIS_CA_FILE"), Yes(H::RedisCa)),
    row("Redis", "clientCertificateFile", Named("REDIS_CLIENT_CERT_FILE"), Yes(H::RedisCertificate)),
    row("Redis", "clientKeyFile", Named("REDIS_CLIENT_KEY_FILE"), Yes(H::RedisKey)),
    row("Redis", "localTtl", Named("CACHE_TTL"), No(CACHE)),
    row("Redis", "atomicUpsert", Named("REDIS_ATOMIC_UPSERT"), No(WRITING)),
    row("Redis", "connectTimeout", Named("REDIS_CONNECT_TIMEOUT"), No(WRITING)),
    row("Redis", "readTimeout", Named("REDIS_READ_TIMEOUT"), No(WRITING)),
    row("Environment", "sdkKey", Each("LD_ENV_"), Yes(H::SdkKey)),
    row("Environment", "prefix", Each("LD_PREFIX_"), Yes(H::Prefix)),
    row("Environment", "projKey", Each("LD_PROJ_KEY_"), Yes(H::ProjectKey)),
    row("Environment", "filterKey", Nowhere, Yes(H::FilterKey)),
    row("Environment", "tableName", Each("LD_TABLE_NAME_"), Never(U::Table)),
    row("Environment", "offline", Nowhere, Never(U::OfflineMode)),
    row("Environment", "logLevel", Each("LD_LOG_LEVEL_"), No(LOGGING)),
    row("Environment", "mobileKey", Each("LD_MOBILE_KEY_"), No(CLIENTS)),
    row("Environment", "envId", Each("LD_CLIENT_SIDE_ID_"), No(CLIENTS)),
    row("Environment", "secureMode", Each("LD_SECURE_MODE_"), No(CLIENTS)),
    row("Environment", "ttl", Each("LD_TTL_"), No(CLIENTS)),
    row("Environment", "allowedOrigin", Each("LD_ALLOWED_ORIGIN_"), No(CLIENTS)),
    row("Environment", "allowedHeader", Each("LD_ALLOWED_HEADER_"), No(CLIENTS)),
    row("Filters", "keys", Each("LD_FILTER_KEYS_"), Yes(H::FilterKeys)),
    row("AutoConfig", "key", Named("AUTO_CONFIG_KEY"), Never(U::AutoConfig)),
    row("AutoConfig", "envDatastorePrefix", Named("ENV_DATASTORE_PREFIX"), Never(U::AutoConfig)),
    row("AutoConfig", "envDatastoreTableName", Named("ENV_DATASTORE_TABLE_NAME"), Never(U::AutoConfig)),
    row("AutoConfig", "envAllowedOrigin", Named("ENV_ALLOWED_ORIGIN"), Never(U::AutoConfig)),
    row("AutoConfig", "envAllowedHeader", Named("ENV_ALLOWED_HEADER"), Never(U::AutoConfig)),
    row("AutoConfig", "cacheKey", Named("AUTO_CONFIG_CACHE_KEY"), Never(U::AutoConfig)),
    row("AutoConfig", "cacheEncryptionKey", Named("AUTO_CONFIG_CACHE_ENCRYPTION_KEY"), Never(U::AutoConfig)),
    row("OfflineMode", "fileDataSource", Named("FILE_DATA_SOURCE"), Never(U::OfflineMode)),
    row(
        "OfflineMode",
        "fileDataSourceMonitoringInterval",
        Named("FILE_DATA_SOURCE_MONITORING_INTERVAL"),
        Never(U::OfflineMode),
    ),
    row("OfflineMode", "envDatastorePrefix", Nowhere, Never(U::OfflineMode)),
    row("OfflineMode", "envDatastoreTableName", Nowhere, Never(U::OfflineMode)),
    row("OfflineMode", "envAllowedOrigin", Nowhere, Never(U::OfflineMode)),
    row("OfflineMode", "envAllowedHeader", Nowhere, Never(U::OfflineMode)),
    row("DynamoDB", "enabled", Named("USE_DYNAMODB"), Never(U::DynamoDb)),
    row("DynamoDB", "tableName", Named("DYNAMODB_TABLE"), Never(U::DynamoDb)),
    row("DynamoDB", "url", Named("DYNAMODB_URL"), Never(U::DynamoDb)),
    row("DynamoDB", "localTtl", Nowhere, No(CACHE)),
    row("Consul", "", Named("USE_CONSUL"), Never(U::Consul)),
    row("Consul", "host", Named("CONSUL_HOST"), Never(U::Consul)),
    row("Consul", "token", Named("CONSUL_TOKEN"), Never(U::Consul)),
    row("Consul", "tokenFile", Named("CONSUL_TOKEN_FILE"), Never(U::Consul)),
    row("Consul", "localTtl", Nowhere, No(CACHE)),
    row("Proxy", "url", Named("PROXY_URL"), Never(U::Proxy)),
    row("Proxy", "ntlmAuth", Named("PROXY_AUTH_NTLM"), Never(U::Proxy)),
    row("Proxy", "user", Named("PROXY_AUTH_USER"), Never(U::Proxy)),
    row("Proxy", "password", Named("PROXY_AUTH_PASSWORD"), Never(U::Proxy)),
    row("Proxy", "domain", Named("PROXY_AUTH_DOMAIN"), Never(U::Proxy)),
    row("Proxy", "caCertFiles", Named("PROXY_CA_CERTS"), Never(U::Proxy)),
    row("Events", "sendEvents", Named("USE_EVENTS"), No(EVENTS)),
    row("Events", "eventsUri", Named("EVENTS_HOST"), No(EVENTS)),
    row("Events", "flushInterval", Named("EVENTS_FLUSH_INTERVAL"), No(EVENTS)),
    row("Events", "capacity", Named("EVENTS_CAPACITY"), No(EVENTS)),
    row("Events", "inlineUsers", Named("EVENTS_INLINE_USERS"), No(EVENTS)),
    row("Events", "maxInboundPayloadSize", Named("EVENTS_MAX_INBOUND_PAYLOAD_SIZE"), No(EVENTS)),
    row("Events", "", Named("EVENTS_METRICS_CAPACITY"), No(EVENTS)),
    row("Prometheus", "enabled", Named("USE_PROMETHEUS"), No(METRICS)),
    row("Prometheus", "port", Named("PROMETHEUS_PORT"), No(METRICS)),
    row("Prometheus", "prefix", Named("PROMETHEUS_PREFIX"), No(METRICS)),
    row("Datadog", "enabled", Named("USE_DATADOG"), No(METRICS)),
    row("Datadog", "prefix", Named("DATADOG_PREFIX"), No(METRICS)),
    row("Datadog", "traceAddr", Named("DATADOG_TRACE_ADDR"), No(METRICS)),
    row("Datadog", "statsAddr", Named("DATADOG_STATS_ADDR"), No(METRICS)),
    row("Datadog", "tag", Each("DATADOG_TAG_"), No(METRICS)),
    row("Stackdriver", "enabled", Named("USE_STACKDRIVER"), No(METRICS)),
    row("Stackdriver", "prefix", Named("STACKDRIVER_PREFIX"), No(METRICS)),
    row("Stackdriver", "projectId", Named("STACKDRIVER_PROJECT_ID"), No(METRICS)),
    row("OpenTelemetry", "enabled", Named("USE_OTLP"), No(METRICS)),
    row("OpenTelemetry", "protocol", Nowhere, No(METRICS)),
    row("OpenTelemetry", "metricsCardinalityLimit", Nowhere, No(METRICS)),
    row("OpenTelemetry", "environmentStatusMetrics", Named("OTEL_ENVIRONMENT_STATUS_METRICS"), No(METRICS)),
    row("Concurrency", "maxConcurrent", Named("INIT_MAX_CONCURRENT"), No(CLIENTS)),
    row("Concurrency", "maxQueued", Named("INIT_MAX_QUEUED"), No(CLIENTS)),
    row("Concurrency", "sendTimeout", Named("INIT_SEND_TIMEOUT"), No(CLIENTS)),
    row("Http", "enableCompression", Nowhere, No(CLIENTS)),
    row("Http", "idleConnTimeout", Nowhere, No(CLIENTS)),
    row("Http", "maxIdleConns", Nowhere, No(CLIENTS)),
    row("Http", "maxIdleConnsPerHost", Nowhere, No(CLIENTS)),
    row("Http", "disableKeepAlives", Nowhere, No(CLIENTS)),
];

/// Variables that the relay once had, and their successors.
pub(super) const OBSOLETE: [(Variable, Option<&str>); 3] = [
    (Named("EVENTS_SAMPLING_INTERVAL"), None),
    (Each("LD_TTL_MINUTES_"), Some("LD_TTL_")),
    (Named("REDIS_TTL"), Some("CACHE_TTL")),
];

const fn row(section: &'static str, key: &'static str, variable: Variable, meaning: Meaning) -> RelayOption {
    RelayOption { section, key, variable, meaning }
}

impl Variable {
    /// The name that follows, of a variable that is of this kind: empty where there is one for all.
    pub(super) fn name_in<'a>(&self, variable: &'a str) -> Option<&'a str> {
        match self {
            Self::Nowhere => None,
            Self::Named(name) => (*name == variable).then_some(""),
            Self::Each(begin) => variable.strip_prefix(begin).filter(|name| !name.is_empty()),
        }
    }
}

impl RelayOption {
    /// The option of this key of the file.
    pub(super) fn of_key(section: &str, key: &str) -> Option<&'static Self> {
        let mut options = OPTIONS.iter().filter(|option| option.section.eq_ignore_ascii_case(section));
        options.find(|option| !option.key.is_empty() && option.key.eq_ignore_ascii_case(key))
    }

    /// The option that a variable says, and the name in it.
    pub(super) fn of_variable(variable: &str) -> Option<(&'static Self, &str)> {
        OPTIONS.iter().find_map(|option| Some((option, option.variable.name_in(variable)?)))
    }

    /// The section as the documentation writes it.
    pub(super) fn section_named(name: &str) -> Option<&'static str> {
        OPTIONS.iter().map(|option| option.section).find(|section| section.eq_ignore_ascii_case(name))
    }
}
