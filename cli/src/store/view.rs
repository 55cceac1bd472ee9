//! Stores in tables and words.

use flotilla_proto::v1::{CheckStoreResponse, Store, StoreTls};

use crate::output::Width;
use crate::output::document::{outcome_text, topology_text};
use crate::output::table::{Align, columns, pairs};
use crate::output::text::or_dash;

/// Who the workers are, in words.
fn login(username: &str, has_password: bool, from: &str) -> String {
    let user = if username.is_empty() { "default" } else { username };
    match (username, has_password, from) {
        ("", false, _) => "-".to_owned(),
        (_, false, _) => format!("{user}, without a password"),
        (_, true, "") => format!("{user}, with a password"),
        (_, true, from) => format!("{user}, with the password in {from}"),
    }
}

pub(super) fn store_table(stores: &[Store], width: Width) -> String {
    let mut headers = vec![
        ("name", Align::Left),
        ("topology", Align::Left),
        ("environments", Align::Right),
        ("url", Align::Left),
    ];
    if width == Width::Wide {
        headers.push(("login", Align::Left));
    }
    let rows: Vec<Vec<String>> = stores
        .iter()
        .map(|store| {
            let mut row = vec![
                store.name.clone(),
                topology_text(store.topology()).to_owned(),
                store.environments.to_string(),
                store.url.clone(),
            ];
            if width == Width::Wide {
                row.push(login(&store.username, store.has_password, &store.password_from));
            }
            row
        })
        .collect();
    columns(&headers, &rows)
}

/// One line a check.
pub(super) fn check_table(checked: &CheckStoreResponse) -> String {
    let headers = [("check", Align::Left), ("outcome", Align::Left), ("found", Align::Left)];
    let rows: Vec<Vec<String>> = checked
        .checks
        .iter()
        .map(|check| vec![check.name.clone(), outcome_text(check.outcome()).to_owned(), check.message.clone()])
        .collect();
    columns(&headers, &rows)
}

pub(super) fn store_pairs(store: &Store) -> String {
    let mut lines = vec![
        ("Name", store.name.clone()),
        ("Topology", topology_text(store.topology()).to_owned()),
        ("URL", store.url.clone()),
        ("Login", login(&store.username, store.has_password, &store.password_from)),
    ];
    if !store.sentinel_username.is_empty() || store.has_sentinel_password {
        let login = login(&store.sentinel_username, store.has_sentinel_password, &store.sentinel_password_from);
        lines.push(("Sentinel login", login));
    }
    match &store.tls {
        None => lines.push(("TLS", "no".to_owned())),
        Some(StoreTls { ca_file, cert_file, key_file }) => lines.extend([
            ("TLS", "yes".to_owned()),
            ("TLS CA", or_dash(ca_file)),
            ("TLS certificate", or_dash(cert_file)),
            ("TLS key", or_dash(key_file)),
        ]),
    }
    lines.push(("Environments", store.environments.to_string()));
    pairs(0, &lines)
}

#[cfg(test)]
mod tests {
    use flotilla_proto::v1::{CheckOutcome, StoreCheck, StoreTopology};

    use super::*;

    fn stores() -> Vec<Store> {
        let ha = Store {
            name: "ha".to_owned(),
            url: "rediss+sentinel://s1:26379,s2:26379/mymaster".to_owned(),
            topology: StoreTopology::Sentinel.into(),
            username: "flotilla".to_owned(),
            has_password: true,
            has_sentinel_password: true,
            sentinel_password_from: "file:sentinel".to_owned(),
            tls: Some(StoreTls { ca_file: "/etc/ca.pem".to_owned(), ..StoreTls::default() }),
            environments: 12,
            ..Store::default()
        };
        let default = Store {
            name: "default".to_owned(),
            url: "redis://127.0.0.1:6379".to_owned(),
            topology: StoreTopology::Server.into(),
            ..Store::default()
        };
        vec![default, ha]
    }

    #[test]
    fn stores_are_shown_in_columns() {
        insta::assert_snapshot!(store_table(&stores(), Width::Wide), @r"
        NAME     TOPOLOGY  ENVIRONMENTS  URL                                           LOGIN
        default  server               0  redis://127.0.0.1:6379                        -
        ha       sentinel            12  rediss+sentinel://s1:26379,s2:26379/mymaster  flotilla, with a password
        ");
    }

    #[test]
    fn checks_are_shown_in_order() {
        let check = |name: &str, outcome: CheckOutcome, message: &str| StoreCheck {
            name: name.to_owned(),
            outcome: outcome.into(),
            message: message.to_owned(),
        };
        let checks = vec![
            check("version", CheckOutcome::Ok, "Redis 7.0.15"),
            check("eviction", CheckOutcome::Warning, "allkeys-lru"),
            check("permissions", CheckOutcome::Failed, "the user may not call EVALSHA"),
        ];
        insta::assert_snapshot!(check_table(&CheckStoreResponse { worker: "w1".to_owned(), checks }), @r"
        CHECK        OUTCOME  FOUND
        version      ok       Redis 7.0.15
        eviction     warning  allkeys-lru
        permissions  failed   the user may not call EVALSHA
        ");
    }

    #[test]
    fn one_store_is_shown_in_pairs() {
        insta::assert_snapshot!(store_pairs(&stores()[1]), @r"
        Name:             ha
        Topology:         sentinel
        URL:              rediss+sentinel://s1:26379,s2:26379/mymaster
        Login:            flotilla, with a password
        Sentinel login:   default, with the password in file:sentinel
        TLS:              yes
        TLS CA:           /etc/ca.pem
        TLS certificate:  -
        TLS key:          -
        Environments:     12
        ");
    }
}
