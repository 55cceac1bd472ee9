//! Which store the relay's Redis is.

use flotilla_proto::v1::Store;
use flotilla_proto::{StoreName, StoreUrl};

use crate::failure::Failure;
use crate::relay_configuration::{RelayConfiguration, StoreChoice};
use crate::session::Session;
use crate::store::list_all;

/// What the store is called where nothing else is said.
const NAME: &str = "relay";

/// What happens where control cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutControl {
    /// That is the failure.
    Fail,
    /// The store is a new one.
    Declare,
}

/// The store of control that leads to the relay's Redis, or a new one.
pub(super) async fn choose(
    session: &mut Session,
    configuration: &RelayConfiguration,
    wanted: Option<&StoreName>,
    without_control: WithoutControl,
) -> Result<StoreChoice, Failure> {
    let stores = match (list_all(&session.client).await, without_control) {
        (Ok(stores), _) => stores,
        (Err(error), WithoutControl::Fail) => return Err(error),
        (Err(error), WithoutControl::Declare) => {
            let name = named(wanted);
            session.note(&format!("the store is declared as \"{name}\": {error}, so which there are is not known"));
            return Ok(StoreChoice::New(name));
        }
    };
    let choice = choice(&stores, &configuration.redis, wanted).map_err(Failure::usage)?;
    if let StoreChoice::Present(name) = &choice {
        session.note(&format!(
            "the relay's Redis, {}, is the store \"{name}\" of the control at {}; how that is reached stays as it is",
            configuration.redis.redacted(),
            session.client.url()
        ));
    }
    Ok(choice)
}

fn named(wanted: Option<&StoreName>) -> StoreName {
    wanted.cloned().unwrap_or_else(|| NAME.parse().expect("letters make a valid name"))
}

/// What the relay's Redis is called, among these stores.
fn choice(stores: &[Store], redis: &StoreUrl, wanted: Option<&StoreName>) -> Result<StoreChoice, String> {
    let leads_there = |store: &&Store| {
        StoreUrl::parse("url", &store.url).is_ok_and(|url| url.endpoint().meets(&redis.endpoint()))
    };
    let name = named(wanted);
    let same_name = stores.iter().find(|store| store.name == name.as_str());
    let same_place = stores.iter().find(leads_there).and_then(|store| store.name.parse().ok());
    match (same_name, wanted, same_place) {
        (Some(store), _, _) if leads_there(&store) => Ok(StoreChoice::Present(name)),
        (_, None, Some(place)) => Ok(StoreChoice::Present(place)),
        (Some(store), _, _) => Err(format!(
            "--store: the store \"{name}\" leads to {}, and the relay's Redis is {}; say another name for it",
            store.url,
            redis.redacted()
        )),
        (None, _, _) => Ok(StoreChoice::New(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_the_same_place_is_taken_unless_another_name_is_wanted() {
        let store =
            |name: &str, url: &str| Store { name: name.to_owned(), url: url.to_owned(), ..Store::default() };
        let stores = [store("default", "redis://127.0.0.1:6379"), store("eu", "redis://eu")];
        let choose = |url: &str, wanted: Option<&str>| {
            let wanted = wanted.map(|name| name.parse().unwrap());
            choice(&stores, &StoreUrl::parse("url", url).unwrap(), wanted.as_ref())
        };
        let present = |name: &str| Ok(StoreChoice::Present(name.parse().unwrap()));
        let new = |name: &str| Ok(StoreChoice::New(name.parse().unwrap()));
        assert_eq!(choose("redis://localhost:6379", None), present("default"));
        assert_eq!(choose("redis://localhost:6379", Some("default")), present("default"));
        assert_eq!(choose("redis://localhost:6379", Some("mine")), new("mine"));
        assert_eq!(choose("redis://localhost:6379/1", None), new("relay"));
        assert_eq!(choose("redis://eu:6379", None), present("eu"));
        let wrong = choose("redis://us", Some("eu")).unwrap_err();
        assert!(
            wrong.contains("the store \"eu\" leads to redis://eu, and the relay's Redis is redis://us:6379"),
            "{wrong}"
        );
    }
}
