//! `/_sim/…`: what the handle does, over HTTP, so that the binary can be scripted with curl.
//!
//! | request | |
//! |---|---|
//! | `GET /_sim/environments` | keys, ids and sizes |
//! | `POST /_sim/environments?key=K[&id=I]` | adds one; the body is `{"flags":{},"segments":{}}` |
//! | `GET /_sim/counters[?key=K]` | of one, or the sum |
//! | `GET /_sim/data?key=K` | the payload |
//! | `POST /_sim/patch?key=K&kind=flag` | the body is the item |
//! | `POST /_sim/delete?key=K&kind=flag&item=I&version=N` | |
//! | `POST /_sim/put?key=K[&silent=true]` | a body replaces the data; silent: told to nobody |
//! | `POST /_sim/send?key=K` | the body is sent as it stands |
//! | `POST /_sim/status?key=K&fault=F[&times=N]` | `503`, `301:LOCATION`, `refuse`, `half-open`, `slow:BYTES`, `hang`, `delay:MILLISECONDS`, `none` |
//! | `POST /_sim/heartbeat?key=K&milliseconds=N` | |
//! | `POST /_sim/mute?key=K`, `/_sim/unmute?key=K` | |
//! | `POST /_sim/close[?key=K][&cut=true]` | ends open streams |

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::dataset::{Dataset, Item, Kind};
use super::environment::Ending;
use super::fault::{Fault, PlannedFault};
use super::server::{Body, full, parameters, status};
use super::{Counters, Simulator};

pub(super) async fn answer(simulator: &Simulator, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let call = Call { simulator, parameters: parameters(head.uri.query()), body: body.to_bytes() };
    let name = head.uri.path().trim_start_matches("/_sim/");
    let outcome = match head.method {
        Method::GET => call.read(name),
        Method::POST => call.write(name).map(|()| Bytes::from_static(b"{}")),
        _ => Err(anyhow::anyhow!("only GET and POST are known here")),
    };
    let (code, text) = match outcome {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::BAD_REQUEST, Bytes::from(json!({"error": format!("{error:#}")}).to_string())),
    };
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

struct Call<'request> {
    simulator: &'request Simulator,
    parameters: BTreeMap<String, String>,
    body: Bytes,
}

impl Call<'_> {
    fn read(&self, name: &str) -> anyhow::Result<Bytes> {
        match name {
            "environments" => Ok(self.environments()),
            "counters" => self.counters(),
            "data" => Ok(self.simulator.data(self.key()?).payload()),
            other => bail!("there is no GET /_sim/{other}"),
        }
    }

    fn write(&self, name: &str) -> anyhow::Result<()> {
        let simulator = self.simulator;
        match name {
            "environments" => {
                let id = self.parameters.get("id").map(String::as_str);
                simulator.add_environment(self.text("key")?, id, Dataset::parse(self.body_text()?)?);
            }
            "patch" => simulator.patch(self.key()?, self.kind()?, Item::parse(self.body_text()?)?),
            "delete" => {
                simulator.delete(self.key()?, self.kind()?, self.text("item")?, self.number("version")?);
            }
            "put" => self.put()?,
            "send" => simulator.send_raw(self.key()?, self.body.clone()),
            "status" => self.fault()?,
            "heartbeat" => {
                simulator.set_heartbeat(self.key()?, Duration::from_millis(self.number("milliseconds")?));
            }
            "mute" => simulator.mute(self.key()?),
            "unmute" => simulator.unmute(self.key()?),
            "close" => self.close()?,
            other => bail!("there is no POST /_sim/{other}"),
        }
        Ok(())
    }

    fn environments(&self) -> Bytes {
        let describe = |key: String| {
            let environment = self.simulator.find(&key)?;
            let data = environment.data();
            let (flags, segments) = (data.len(Kind::Flag), data.len(Kind::Segment));
            Some(json!({"key": key, "id": environment.id(), "flags": flags, "segments": segments}))
        };
        let all: Vec<_> = self.simulator.keys().into_iter().filter_map(describe).collect();
        Bytes::from(json!({ "environments": all }).to_string())
    }

    fn counters(&self) -> anyhow::Result<Bytes> {
        let counters: Counters = if self.parameters.contains_key("key") {
            self.simulator.counters(self.key()?)
        } else {
            self.simulator.total_counters()
        };
        Ok(Bytes::from(serde_json::to_vec(&counters)?))
    }

    fn put(&self) -> anyhow::Result<()> {
        let key = self.key()?;
        if !self.body.is_empty() {
            self.simulator.set_data(key, Dataset::parse(self.body_text()?)?);
        }
        if self.parameters.get("silent").is_none_or(|silent| silent != "true") {
            self.simulator.put(key);
        }
        Ok(())
    }

    fn fault(&self) -> anyhow::Result<()> {
        let key = self.key()?;
        let remaining = if self.parameters.contains_key("times") { Some(self.number("times")?) } else { None };
        let fault = parse_fault(self.text("fault")?)?.map(|fault| PlannedFault { fault, remaining });
        self.simulator.environment(key).set_fault(fault);
        Ok(())
    }

    fn close(&self) -> anyhow::Result<()> {
        let cut = self.parameters.get("cut").is_some_and(|cut| cut == "true");
        let ending = if cut { Ending::Cut } else { Ending::Clean };
        if self.parameters.contains_key("key") {
            self.simulator.environment(self.key()?).end_streams(ending);
        } else {
            self.simulator.all().iter().for_each(|environment| environment.end_streams(ending));
        }
        Ok(())
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.parameters.get(name).map(String::as_str).with_context(|| format!("the parameter {name} is missing"))
    }

    fn number<N: FromStr>(&self, name: &str) -> anyhow::Result<N> {
        let text = self.text(name)?;
        text.parse().ok().with_context(|| format!("{name} is {text:?}, which is not a number"))
    }

    /// The key of an environment that exists.
    fn key(&self) -> anyhow::Result<&str> {
        let key = self.text("key")?;
        self.simulator.find(key).with_context(|| format!("there is no environment of the key {key}"))?;
        Ok(key)
    }

    fn kind(&self) -> anyhow::Result<Kind> {
        Kind::parse(self.text("kind")?)
    }

    fn body_text(&self) -> anyhow::Result<&str> {
        std::str::from_utf8(&self.body).context("the body is not UTF-8")
    }
}

fn parse_fault(text: &str) -> anyhow::Result<Option<Fault>> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let fault = match name {
        "none" => return Ok(None),
        "refuse" => Fault::Refuse,
        "half-open" => Fault::HalfOpen,
        "hang" => Fault::HangMidEvent,
        "slow" => Fault::SlowPayload(value.parse().context("slow:BYTES_PER_SECOND")?),
        "delay" => Fault::Delay(Duration::from_millis(value.parse().context("delay:MILLISECONDS")?)),
        code => {
            let status = code.parse().with_context(|| format!("{text:?} is no known fault"))?;
            if text.contains(':') {
                Fault::Redirect { status, location: value.to_owned() }
            } else {
                Fault::Status(status)
            }
        }
    };
    Ok(Some(fault))
}
