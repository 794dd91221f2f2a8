//! The last good version of each object.

use std::{collections::HashMap, mem};

#[cfg(feature = "kubernetes")]
use super::placement::Placements;
use super::{
    object::Object,
    objects::{ObjectRef, Objects},
};

/// The versions that are handed out, each with its origin, and the newer ones that were taken back.
#[derive(Debug)]
pub(super) struct Versions<O> {
    served: HashMap<ObjectRef, Served<O>>,
    objects: Objects,
}

/// The version of an object that is handed out.
#[derive(Debug)]
struct Served<O> {
    origin: O,
    object: Object,
    /// The version before, as long as this one is new and may be rejected.
    before: Option<Object>,
    /// A newer version that was rejected.
    rejected: Option<Object>,
}

impl<O> Default for Versions<O> {
    fn default() -> Self {
        Self { served: HashMap::new(), objects: Objects::default() }
    }
}

impl<O> Versions<O> {
    /// All that are handed out.
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Says where Gateways are reached.
    #[cfg(feature = "kubernetes")]
    pub(super) fn place(&mut self, placements: Placements) {
        self.objects.placements = placements;
    }

    /// Where the version of an object that was last seen came from.
    pub(super) fn origin(&self, name: &ObjectRef) -> Option<&O> {
        self.served.get(name).map(|served| &served.origin)
    }

    /// What is handed out now stands: only versions that come from here on may be rejected.
    pub(super) fn settle(&mut self) {
        self.served.values_mut().for_each(|served| served.before = None);
    }

    /// Takes in a good version. Returns whether it is handed out in place of another one, or of none.
    pub(super) fn put(&mut self, name: &ObjectRef, origin: O, object: &Object) -> bool {
        let Some(served) = self.served.get_mut(name) else {
            self.objects.put(name.name.clone(), object.clone());
            let served = Served { origin, object: object.clone(), before: None, rejected: None };
            self.served.insert(name.clone(), served);
            return true;
        };
        served.origin = origin;
        if served.rejected.as_ref().is_some_and(|rejected| rejected.equals(object)) {
            return false;
        }
        served.rejected = None;
        if served.object.equals(object) {
            return false;
        }
        served.before = Some(mem::replace(&mut served.object, object.clone()));
        self.objects.put(name.name.clone(), object.clone());
        true
    }

    /// Takes an object out. Returns whether it was there.
    #[cfg(feature = "kubernetes")]
    pub(super) fn remove(&mut self, name: &ObjectRef) -> bool {
        let served = self.served.remove(name);
        served.inspect(|served| self.objects.remove(&served.object, &name.name)).is_some()
    }

    /// Takes out every object that does not stay. Returns those.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&ObjectRef, &O) -> bool) -> Vec<ObjectRef> {
        let mut removed = Vec::new();
        self.served.retain(|name, served| {
            let stays = stays(name, &served.origin);
            if !stays {
                self.objects.remove(&served.object, &name.name);
                removed.push(name.clone());
            }
            stays
        });
        removed
    }

    /// Brings back the versions that were replaced by `refused` ones since things were settled. Returns whether there
    /// were any.
    ///
    /// A version stays rejected until another one comes. An object that had no version before stays as it is.
    pub(super) fn reject<'a>(&mut self, refused: impl IntoIterator<Item = &'a ObjectRef>) -> bool {
        let mut any = false;
        for name in refused {
            let Some(served) = self.served.get_mut(name) else { continue };
            let Some(before) = served.before.take() else { continue };
            self.objects.put(name.name.clone(), before.clone());
            served.rejected = Some(mem::replace(&mut served.object, before));
            any = true;
        }
        any
    }
}
