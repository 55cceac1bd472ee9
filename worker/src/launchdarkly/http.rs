//! The HTTP side: one client for all environments, the headers LaunchDarkly asks for, and careful redirects.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::SdkKey;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Url;

use super::LaunchDarklySettings;
use crate::causes::with_causes;
use crate::source::SourceFailure;

const USER_AGENT: &str = concat!("Flotilla/", env!("CARGO_PKG_VERSION"));
const TAGS: HeaderName = HeaderName::from_static("x-launchdarkly-tags");
const INSTANCE_ID: HeaderName = HeaderName::from_static("x-launchdarkly-instance-id");
const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-ld-envid");

const MAX_REDIRECTS: usize = 5;
const MAX_TAG_CHARS: usize = 64;
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A dead peer is given up after this many unanswered probes.
const KEEPALIVE_RETRIES: u32 = 4;
const POOL_IDLE: Duration = Duration::from_secs(90);
const POOL_PER_HOST: usize = 32;
/// hyper's read buffer grows with a large payload and stays so for the life of the stream. By default that is up to
/// 400 KB; a thousand streams would keep that idle. It also bounds the head of a response.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

type Inner = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The HTTP client that all environments of a process share.
pub(super) struct HttpClient {
    fresh: Inner,
    pooled: Inner,
}

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Its own: a stream keeps it for hours and must not begin on one that has been idle.
    Fresh,
    /// One that an earlier poll left, if there is any.
    Pooled,
}

impl HttpClient {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .expect("ring supports the default TLS versions")
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);

        let mut builder = Client::builder(TokioExecutor::new());
        builder.http1_max_buf_size(MAX_BUFFER_BYTES).timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let pooled = builder
            .clone()
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_PER_HOST)
            .build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector);
        Self { fresh, pooled }
    }

    /// Asks for `url`, following redirects that keep the key where it is. `response_timeout` counts for each request,
    /// connect included. Any status is an answer.
    pub(super) async fn get(
        &self,
        mut url: Url,
        headers: &HeaderMap,
        connection: Connection,
        response_timeout: Duration,
    ) -> Result<Response<Incoming>, SourceFailure> {
        let client = match connection {
            Connection::Fresh => &self.fresh,
            Connection::Pooled => &self.pooled,
        };
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = uri(&url)?;
            *request.headers_mut() = headers.clone();
            let response = match timeout(response_timeout, client.request(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    return Err(network(format!("request to {} failed: {}", authority(&url), with_causes(&error))));
                }
                Err(_) => {
                    let message = format!("{} did not answer within {response_timeout:?}", authority(&url));
                    return Err(network(message));
                }
            };
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            url = redirect_target(&url, response.status(), response.headers())?;
        }
        Err(network(format!("{} redirected more than {MAX_REDIRECTS} times", authority(&url))))
    }
}

/// The address of `path` below `base`, whether or not `base` ends with a slash.
pub(super) fn endpoint(base: &Url, path: &str, filter: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_fragment(None);
    // Form encoding writes a space as `+`, which not every server reads back; a plus itself is already `%2B`.
    let query = filter.map(|filter| {
        let encoded: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        format!("filter={}", encoded.replace('+', "%20"))
    });
    url.set_query(query.as_deref());
    url
}

/// The headers of every request of an environment.
pub(super) fn headers(settings: &LaunchDarklySettings, key: &SdkKey, accept: &'static str) -> HeaderMap {
    let mut authorization = HeaderValue::from_str(key.expose()).expect("a key is plain ASCII");
    authorization.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let instance_id = settings.instance_id.to_string();
    headers.insert(INSTANCE_ID, HeaderValue::from_str(&instance_id).expect("a UUID is plain ASCII"));
    let tags = tags(settings.application_id.as_deref(), settings.application_version.as_deref());
    if let Some(tags) = tags {
        headers.insert(TAGS, HeaderValue::from_str(&tags).expect("tags are checked to be plain ASCII"));
    }
    headers
}

/// `application-id/… application-version/…`, in this order; a part that LaunchDarkly would not take is left out.
fn tags(id: Option<&str>, version: Option<&str>) -> Option<String> {
    let parts: Vec<String> = [("application-id", id), ("application-version", version)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| is_tag(value))?)))
        .map(|(name, value)| format!("{name}/{value}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn is_tag(value: &str) -> bool {
    (1..=MAX_TAG_CHARS).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// LaunchDarkly's id of the environment that answers.
pub(super) fn environment_id(headers: &HeaderMap) -> Option<Box<str>> {
    headers.get(ENVIRONMENT_ID)?.to_str().ok().filter(|id| !id.is_empty()).map(Into::into)
}

/// What an answer without data is called.
pub(super) fn refusal(status: StatusCode) -> SourceFailure {
    match status.as_u16() {
        status @ (401 | 403) => SourceFailure::Auth { status },
        status => SourceFailure::Http { status },
    }
}

pub(super) fn network(message: String) -> SourceFailure {
    SourceFailure::Network { message }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

fn redirect_target(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Url, SourceFailure> {
    let location = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .map(str::trim)
        .filter(|location| !location.is_empty());
    let target = location.and_then(|location| from.join(location).ok());
    let Some(mut to) = target.filter(|to| matches!(to.scheme(), "http" | "https") && to.has_host()) else {
        let message = format!("{} answered with HTTP status {status} without a usable Location", authority(from));
        return Err(network(message));
    };
    // The key goes to the server that the user named, and never from a protected to an open connection.
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https";
    let is_same_port = from.port_or_known_default() == to.port_or_known_default();
    let is_downgrade = from.scheme() == "https" && to.scheme() == "http";
    if from.host() != to.host() || is_downgrade || !(is_same_port || is_upgrade) {
        let message = format!(
            "the redirect from {} to {} is not followed, because the SDK key would go there",
            origin(from),
            origin(&to)
        );
        return Err(network(message));
    }
    to.set_fragment(None);
    Ok(to)
}

fn uri(url: &Url) -> Result<Uri, SourceFailure> {
    // Credentials in an address are nothing that LaunchDarkly knows; they would only end up in logs of others.
    let mut bare = url.clone();
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.as_str().parse().map_err(|_| network(format!("the address of {} cannot be used", authority(url))))
}

/// Host and port, for messages: never the whole address, which may hold what the user would not show.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("an address without a host");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    #[test]
    fn an_endpoint_has_one_slash_and_an_encoded_filter() {
        for (base, expected) in [
            ("https://stream.launchdarkly.com", "https://stream.launchdarkly.com/all"),
            ("https://stream.launchdarkly.com/", "https://stream.launchdarkly.com/all"),
            ("http://localhost:8080/base/?x=1#y", "http://localhost:8080/base/all"),
            ("http://localhost:8080/base//", "http://localhost:8080/base/all"),
        ] {
            assert_eq!(endpoint(&url(base), "/all", None).as_str(), expected);
        }
        let filtered = endpoint(&url("https://s/"), "/all", Some("encoding necessary +! %& ( )é"));
        assert_eq!(filtered.query(), Some("filter=encoding%20necessary%20%2B%21%20%25%26%20%28%20%29%C3%A9"));
        assert_eq!(uri(&filtered).expect("a URI").query(), filtered.query());
    }

    #[test]
    fn a_redirect_stays_on_its_server_and_never_gives_up_tls() {
        let target = |from: &str, location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_str(location).expect("a header value"));
            redirect_target(&url(from), StatusCode::FOUND, &headers).map(String::from).ok()
        };
        for (from, location, expected) in [
            ("https://a/all", "/b?c=d#e", Some("https://a/b?c=d")),
            ("https://a/x/all", "b", Some("https://a/x/b")),
            ("https://a/all", "https://a:443/b", Some("https://a/b")),
            ("http://a/all", "https://a/b", Some("https://a/b")),
            ("https://a/all", "//a/b", Some("https://a/b")),
            ("https://a/all", "http://a/b", None),
            ("https://a/all", "http://a:443/b", None),
            ("https://a/all", "https://a:444/b", None),
            ("https://a/all", "https://b/all", None),
            ("https://a/all", "//b/all", None),
            ("https://a/all", "https://a.b/all", None),
            ("https://a/all", "https://a@b/all", None),
            ("https://a/all", "data:,x", None),
            ("https://a/all", " ", None),
            ("https://a/all", "https://", None),
        ] {
            assert_eq!(target(from, location).as_deref(), expected, "{from} {location}");
        }
    }

    #[test]
    fn tags_are_sorted_and_leave_out_what_is_not_valid() {
        assert_eq!(tags(Some("a"), Some("1.0")).as_deref(), Some("application-id/a application-version/1.0"));
        assert_eq!(tags(None, Some("1_0-x")).as_deref(), Some("application-version/1_0-x"));
        assert_eq!(tags(Some("a b"), Some("")), None);
        assert_eq!(tags(Some(&"a".repeat(64)), Some(&"a".repeat(65))).map(|tags| tags.len()), Some(15 + 64));
        assert_eq!(tags(None, None), None);
    }

    #[test]
    fn refusals_of_the_key_are_told_from_other_statuses() {
        assert_eq!(refusal(StatusCode::UNAUTHORIZED), SourceFailure::Auth { status: 401 });
        assert_eq!(refusal(StatusCode::FORBIDDEN), SourceFailure::Auth { status: 403 });
        assert_eq!(refusal(StatusCode::NOT_FOUND), SourceFailure::Http { status: 404 });
    }

    #[test]
    fn credentials_of_an_address_are_not_sent() {
        let uri = uri(&url("http://user:secret@localhost:1/all")).expect("a URI");
        assert_eq!(uri.to_string(), "http://localhost:1/all");
    }
}
