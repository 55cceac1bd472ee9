//! How a store is reached may change while environments use it; which place it is may not.

use std::collections::BTreeSet;

use flotilla_proto::store_url::StoreEndpoint;
use flotilla_proto::{FieldViolation, Refusal, StoreName, StoreUrl};

use super::Decision;
use crate::fleet::boundary::StoreChange;
use crate::fleet::{Fleet, Store};

impl Fleet {
    pub(super) fn decide_store_change(
        &self,
        name: &StoreName,
        present: &Store,
        change: StoreChange,
    ) -> Result<Decision, Refusal> {
        if *name == StoreName::default_store() {
            let why =
                "the store \"default\" is that of control's --redis-url; change that option and restart control";
            return Err(FieldViolation::new("name", why).into());
        }
        let url = (change.0)(&present.url)?;
        if url == present.url {
            return Ok(Decision::Unchanged);
        }
        self.check_stays_in_place(name, present, &url)?;
        Ok(Decision::Change(Box::new(url)))
    }

    /// What was said of the place holds for the new URL, now and for a control that starts with it.
    fn check_stays_in_place(&self, name: &StoreName, present: &Store, url: &StoreUrl) -> Result<(), Refusal> {
        let (before, after) = (present.url.endpoint(), url.endpoint());
        if !before.meets(&after) {
            let why = format!(
                "it leads to {after} and store \"{name}\" is {before}: an update changes how a store is reached, not \
                 where it is; add another store, remove the environments and add them there"
            );
            return Err(FieldViolation::new("url", &why).into());
        }
        self.check_is_one_place(&after)?;
        // Only addresses tell that two stores are one place, and control must find that again when it starts.
        let others = self.stores.iter().filter(|(other, _)| *other != name);
        for (other, Store { url: theirs, .. }) in others {
            let theirs = theirs.endpoint();
            if theirs.meets(&before) && !theirs.meets(&after) {
                let why = format!(
                    "it has no address in common with store \"{other}\" ({theirs}), which is the same place; keep one, or \
                     update that store first"
                );
                return Err(FieldViolation::new("url", &why).into());
            }
        }
        let users = self.environments.values().map(|user| &user.record).filter(|user| user.spec.store == *name);
        for user in users {
            if let Err(why) = url.check_prefix(&user.spec.prefix) {
                let why = format!("it cannot be the store of environment \"{}\": {why}", user.name);
                return Err(FieldViolation::new("url", &why).into());
            }
        }
        Ok(())
    }

    /// The same place is reached in another way; whoever has to do with its environments is told.
    pub(super) fn change_store(&mut self, name: &StoreName, url: StoreUrl) {
        let Some(store) = self.stores.get_mut(name) else { return };
        store.url = url;
        let (known, endpoint) = (store.endpoint.clone(), store.url.endpoint());
        self.rename_place(&known, &endpoint);
        let users: Vec<_> = self.users_of(name).cloned().collect();
        for user in users {
            self.tell_all(&user);
        }
    }

    /// A place is known by its present addresses, as it would be after a start: former ones may belong to others one day.
    fn rename_place(&mut self, known: &StoreEndpoint, endpoint: &StoreEndpoint) {
        for store in self.stores.values_mut().filter(|store| store.endpoint == *known) {
            store.endpoint.clone_from(endpoint);
        }
        let prefixes: Vec<_> = self.prefixes.extract_if(.., |(place, _), _| place == known).collect();
        self.prefixes
            .extend(prefixes.into_iter().map(|((_, prefix), holder)| ((endpoint.clone(), prefix), holder)));
        // What was granted in a store that was removed counts here, where an address tells that it was this place.
        let places: BTreeSet<_> = self.stores.values().map(|store| &store.endpoint).collect();
        let is_it = |place: &StoreEndpoint| place == known || (place.meets(endpoint) && !places.contains(place));
        let epochs: Vec<_> = self.epochs.extract_if(.., |(place, _), _| is_it(place)).collect();
        for ((_, prefix), epoch) in epochs {
            let highest = self.epochs.entry((endpoint.clone(), prefix)).or_default();
            *highest = epoch.max(*highest);
        }
    }
}
