//! One watch over several namespaces: what each shows, as a single watch over all of them would show it.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

/// Objects in one page of a list: large lists are not to stand in memory as a whole.
const PAGE: u32 = 50;

/// Watches a kind in these namespaces, or in all if none is given, and begins again what fails, ever more slowly.
pub(crate) fn watch<K>(
    client: &Client,
    namespaces: &[String],
    config: watcher::Config,
) -> BoxStream<'static, Result<Event<K>, watcher::Error>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = config.page_size(PAGE);
    match namespaces {
        [] => return watcher(Api::<K>::all(client.clone()), config).default_backoff().boxed(),
        [only] => return watcher(Api::<K>::namespaced(client.clone(), only), config).default_backoff().boxed(),
        [..] => {}
    }
    let each = namespaces.iter().map(|namespace| {
        let name = namespace.clone();
        let events = watcher(Api::<K>::namespaced(client.clone(), namespace), config.clone());
        // Its own: a namespace that cannot be watched holds no other up.
        let events = events.default_backoff();
        events.map(move |event| event.map(|event| (name.clone(), event))).boxed()
    });
    merge(stream::select_all(each), namespaces.len()).boxed()
}

fn merge<K: Resource<DynamicType = ()> + Clone>(
    events: impl Stream<Item = Result<(String, Event<K>), watcher::Error>>,
    namespaces: usize,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> {
    let mut merged = Merged::new(namespaces);
    events.flat_map(move |event| {
        let shown = match event {
            Ok((namespace, event)) => merged.take_in(&namespace, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(shown)
    })
}

/// What has been shown of each namespace.
struct Merged<K> {
    spaces: HashMap<String, Shown<K>>,
    /// Namespaces whose first list is not complete.
    missing: usize,
    begun: bool,
    /// What was deleted while a list was under way: a list cannot take back what it has shown.
    late: Vec<K>,
}

struct Shown<K> {
    objects: HashMap<String, K>,
    listing: HashSet<String>,
    listed: bool,
}

impl<K: Resource<DynamicType = ()> + Clone> Merged<K> {
    fn new(namespaces: usize) -> Self {
        Self { spaces: HashMap::new(), missing: namespaces, begun: false, late: Vec::new() }
    }

    /// The first lists together are one list. A later list of one namespace is what has changed in it: one of a
    /// single namespace must not take the objects of the others away.
    fn take_in(&mut self, namespace: &str, event: Event<K>) -> Vec<Event<K>> {
        let first = !std::mem::replace(&mut self.begun, true);
        let mut out: Vec<Event<K>> = first.then_some(Event::Init).into_iter().collect();
        let complete = self.missing == 0;
        let shown = self.spaces.entry(namespace.to_owned()).or_insert_with(|| Shown {
            objects: HashMap::new(),
            listing: HashSet::new(),
            listed: false,
        });
        match event {
            Event::Init => shown.listing.clear(),
            Event::InitApply(object) => {
                shown.listing.insert(object.name_any());
                shown.objects.insert(object.name_any(), object.clone());
                out.push(if complete { Event::Apply(object) } else { Event::InitApply(object) });
            }
            Event::InitDone => {
                let gone: Vec<String> =
                    shown.objects.keys().filter(|name| !shown.listing.contains(*name)).cloned().collect();
                out.extend(gone.iter().filter_map(|name| shown.objects.remove(name)).map(Event::Delete));
                if !std::mem::replace(&mut shown.listed, true) {
                    self.missing = self.missing.saturating_sub(1);
                    if self.missing == 0 {
                        out.push(Event::InitDone);
                        out.extend(std::mem::take(&mut self.late).into_iter().map(Event::Delete));
                    }
                }
            }
            // Before the lists of all are complete, what changes is part of them.
            Event::Apply(object) => {
                self.late.retain(|late| !is_same(late, &object));
                shown.objects.insert(object.name_any(), object.clone());
                out.push(if complete { Event::Apply(object) } else { Event::InitApply(object) });
            }
            Event::Delete(object) => {
                shown.objects.remove(&object.name_any());
                if complete {
                    out.push(Event::Delete(object));
                } else {
                    self.late.push(object);
                }
            }
        }
        out
    }
}

fn is_same<K: Resource>(one: &K, other: &K) -> bool {
    (one.namespace(), one.name_any()) == (other.namespace(), other.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    fn show(events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let named = |word: &str, o: &ConfigMap| format!("{word} {}/{}", o.namespace().unwrap(), o.name_any());
        events
            .iter()
            .map(|event| match event {
                Event::Init => "init".to_owned(),
                Event::InitApply(o) => named("list", o),
                Event::InitDone => "done".to_owned(),
                Event::Apply(o) => named("apply", o),
                Event::Delete(o) => named("delete", o),
            })
            .collect()
    }

    #[test]
    fn the_first_lists_are_one_and_a_later_one_takes_away_only_its_own() {
        let mut merged = Merged::new(2);
        let mut take = |namespace: &str, event| show(merged.take_in(namespace, event));
        assert_eq!(take("a", Event::Init), ["init"]);
        assert_eq!(take("a", Event::InitApply(object("a", "x"))), ["list a/x"]);
        assert_eq!(take("a", Event::InitDone), Vec::<String>::new());
        assert_eq!(take("a", Event::Apply(object("a", "y"))), ["list a/y"], "the other list is under way");
        assert_eq!(take("b", Event::Init), Vec::<String>::new());
        assert_eq!(take("b", Event::InitApply(object("b", "x"))), ["list b/x"]);
        assert_eq!(take("a", Event::Delete(object("a", "y"))), Vec::<String>::new());
        assert_eq!(take("b", Event::InitDone), ["done", "delete a/y"]);
        assert_eq!(take("a", Event::Apply(object("a", "y"))), ["apply a/y"]);
        // The watch of a begins anew, and x has gone meanwhile.
        assert_eq!(take("a", Event::Init), Vec::<String>::new());
        assert_eq!(take("a", Event::InitApply(object("a", "y"))), ["apply a/y"]);
        assert_eq!(take("a", Event::InitDone), ["delete a/x"]);
        assert_eq!(take("b", Event::Delete(object("b", "x"))), ["delete b/x"]);
    }
}
