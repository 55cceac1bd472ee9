//! Adding, reading, changing and removing stores.

// Which parts of a store an update changes.
mod update;

use std::time::Duration;

use flotilla_proto::store_url::{Login, PasswordsFrom, TlsFiles};
use flotilla_proto::{FieldViolation, InvalidName, Prefix, Refusal, SecretReference, StoreName, StoreUrl, v1};
use tonic::{Request, Response, Status};

use super::asked::begin;
use super::data::timeout;
use super::environments::request_id;
use super::page::Page;
use super::{Api, store_name, unfit_reply, worker_name};
use crate::audit::AuditEntry;
use crate::driver::View;
use crate::fleet::{Command, Reply, StoreAction, StoreCheck, StoreCommand};

/// Characters of a URL, a login or a path, at most.
const LONGEST: usize = 4096;

/// The handler of `StoreService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

impl Handler {
    async fn decide(
        &self,
        entry: Option<AuditEntry>,
        command: Result<StoreCommand, Refusal>,
    ) -> Result<Option<v1::Store>, Refusal> {
        match self.0.carry_out(entry, command.map(Command::Store)).await? {
            Reply::Store(store) => Ok(store.map(|store| *store)),
            Reply::Environment(_) | Reply::Worker(_) | Reply::Answer(_) | Reply::Applied(_) | Reply::Checked(_) => {
                Err(unfit_reply())
            }
        }
    }
}

fn creation(request: &v1::CreateStoreRequest) -> Result<StoreCommand, Refusal> {
    let id = request_id("create-store", &request.request_id, request)?;
    let mut violations = Vec::new();
    let name = store_name("name", &request.name).map_err(|refusal| violations.extend(refusal.violations)).ok();
    let url = url_of(request).map_err(|violation| violations.push(violation)).ok();
    let (Some(store), Some(url)) = (name, url) else {
        return Err(Refusal::fields(violations));
    };
    let action = StoreAction::Create(Box::new(url));
    Ok(StoreCommand { store, action, request: id, validate_only: request.validate_only })
}

fn update(request: v1::UpdateStoreRequest) -> Result<StoreCommand, Refusal> {
    let id = request_id("update-store", &request.request_id, &request)?;
    let (name, validate_only) = (request.name.clone(), request.validate_only);
    let action = StoreAction::Update(update::change(request)?);
    Ok(StoreCommand { store: store_name("name", &name)?, action, request: id, validate_only })
}

fn removal(request: &v1::DeleteStoreRequest) -> Result<StoreCommand, Refusal> {
    let id = request_id("delete-store", &request.request_id, request)?;
    let store = store_name("name", &request.name)?;
    Ok(StoreCommand { store, action: StoreAction::Delete, request: id, validate_only: request.validate_only })
}

fn check(request: v1::CheckStoreRequest, timeout: Duration) -> Result<Command, Refusal> {
    let v1::CheckStoreRequest { name, worker, prefix } = request;
    let store = store_name("name", &name)?;
    let worker = if worker.is_empty() { None } else { Some(worker_name("worker", &worker)?) };
    let prefix = if prefix.is_empty() { None } else { Some(prefix_of(&prefix)?) };
    Ok(Command::CheckStore(StoreCheck { store, worker, prefix, timeout }))
}

/// What a request says of how a store is reached.
struct Given {
    url: String,
    login: Login,
    sentinel_login: Login,
    passwords_from: PasswordsFrom,
    files: TlsFiles,
}

impl Given {
    fn new(
        url: String,
        login: Option<v1::StoreLogin>,
        sentinel_login: Option<v1::StoreLogin>,
        tls: Option<v1::StoreTls>,
    ) -> Result<Self, FieldViolation> {
        let v1::StoreTls { ca_file, cert_file, key_file } = tls.unwrap_or_default();
        let (login, from) = login_of("login.password_from", login)?;
        let (sentinel_login, sentinel_from) = login_of("sentinel_login.password_from", sentinel_login)?;
        let passwords_from = PasswordsFrom { redis: from, sentinel: sentinel_from };
        let texts = [&url, &login.username, &*login.password, &sentinel_login.username];
        let more = [&*sentinel_login.password, &ca_file, &cert_file, &key_file];
        if texts.into_iter().chain(more).any(|text| text.len() > LONGEST) {
            return Err(FieldViolation::new("url", &format!("a part of it is longer than {LONGEST} characters")));
        }
        let path = |text: String| Some(text).filter(|text| !text.is_empty());
        let files = TlsFiles { ca: path(ca_file), cert: path(cert_file), key: path(key_file) };
        Ok(Self { url, login, sentinel_login, passwords_from, files })
    }
}

/// A login, and where workers find its password, which it then does not hold.
fn login_of(
    field: &'static str,
    given: Option<v1::StoreLogin>,
) -> Result<(Login, Option<SecretReference>), FieldViolation> {
    let v1::StoreLogin { username, password, password_from } = given.unwrap_or_default();
    let from = match password_from.as_str() {
        "" => None,
        text => Some(SecretReference::parse(field, text)?),
    };
    if from.is_some() && !password.is_empty() {
        return Err(FieldViolation::new(field, "given beside the password itself; say one of the two"));
    }
    Ok((Login { username, password: password.into() }, from))
}

/// The URL with all that is given beside it.
fn url_of(request: &v1::CreateStoreRequest) -> Result<StoreUrl, FieldViolation> {
    let v1::CreateStoreRequest { url, login, sentinel_login, tls, .. } = request.clone();
    full_url(url, login, sentinel_login, tls)
}

/// As [`url_of`], of any message.
pub(super) fn full_url(
    url: String,
    login: Option<v1::StoreLogin>,
    sentinel_login: Option<v1::StoreLogin>,
    tls: Option<v1::StoreTls>,
) -> Result<StoreUrl, FieldViolation> {
    let Given { url, login, sentinel_login, passwords_from, files } = Given::new(url, login, sentinel_login, tls)?;
    let url = StoreUrl::parse("url", &url)?.with_access("url", login, sentinel_login, files)?;
    url.with_passwords_from("url", passwords_from)
}

fn prefix_of(text: &str) -> Result<Prefix, Refusal> {
    text.parse().map_err(|error: InvalidName| FieldViolation::new("prefix", &error.to_string()).into())
}

fn list_page(view: &View<'_>, page: &Page) -> v1::ListStoresResponse {
    // An empty text is no name: this is the first page.
    let after: Option<StoreName> = page.after.parse().ok();
    let stores = view.fleet.stores_after(after.as_ref());
    let (stores, next_page_token) = page.fill(stores.map(|store| (store.name.clone(), store)));
    v1::ListStoresResponse { stores, next_page_token }
}

#[tonic::async_trait]
impl v1::store_service_server::StoreService for Handler {
    async fn create_store(
        &self,
        request: Request<v1::CreateStoreRequest>,
    ) -> Result<Response<v1::CreateStoreResponse>, Status> {
        let (request, entry) = begin(request)?;
        let store = self.decide(entry, creation(&request)).await?;
        Ok(Response::new(v1::CreateStoreResponse { store }))
    }

    async fn get_store(
        &self,
        request: Request<v1::GetStoreRequest>,
    ) -> Result<Response<v1::GetStoreResponse>, Status> {
        let name = store_name("name", &request.into_inner().name)?;
        let store = self.0.driver.read(move |view| view.fleet.existing_store(&name)).await??;
        Ok(Response::new(v1::GetStoreResponse { store: Some(store) }))
    }

    async fn list_stores(
        &self,
        request: Request<v1::ListStoresRequest>,
    ) -> Result<Response<v1::ListStoresResponse>, Status> {
        let request = request.into_inner();
        let page = Page::parse(request.page_size, &request.page_token, b"stores")?;
        Ok(Response::new(self.0.driver.read(move |view| list_page(view, &page)).await?))
    }

    async fn update_store(
        &self,
        request: Request<v1::UpdateStoreRequest>,
    ) -> Result<Response<v1::UpdateStoreResponse>, Status> {
        let (request, entry) = begin(request)?;
        let store = self.decide(entry, update(request)).await?;
        Ok(Response::new(v1::UpdateStoreResponse { store }))
    }

    async fn check_store(
        &self,
        request: Request<v1::CheckStoreRequest>,
    ) -> Result<Response<v1::CheckStoreResponse>, Status> {
        let timeout = timeout(request.metadata());
        let (request, entry) = begin(request)?;
        match self.0.carry_out(entry, check(request, timeout)).await? {
            Reply::Checked(checked) => Ok(Response::new(checked)),
            Reply::Environment(_) | Reply::Worker(_) | Reply::Store(_) | Reply::Answer(_) | Reply::Applied(_) => {
                Err(unfit_reply().into())
            }
        }
    }

    async fn delete_store(
        &self,
        request: Request<v1::DeleteStoreRequest>,
    ) -> Result<Response<v1::DeleteStoreResponse>, Status> {
        let (request, entry) = begin(request)?;
        self.decide(entry, removal(&request)).await?;
        Ok(Response::new(v1::DeleteStoreResponse {}))
    }
}
