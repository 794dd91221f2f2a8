//! The last good version of each object.

use std::{collections::HashMap, mem};

#[cfg(feature = "kubernetes")]
use super::placement::Placements;
use super::{
    kind::Object,
    objects::{ObjectRef, Objects},
};
use crate::ir::ControllerName;

/// What is told of an object whose newest version is refused: the one before is kept in memory alone.
pub(crate) const FORMER_SERVES: &str =
    "the version before serves on, but a gateway that starts later does not have it";

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
    /// There was no good version yet: this one only keeps shut what the object is to guard.
    is_placeholder: bool,
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

    /// Says whose classes are served.
    pub(super) fn answer_for(&mut self, controller: ControllerName) {
        self.objects.controller = controller;
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

    /// Takes in a good version. Returns whether it is handed out in place of another one, or of none, or
    /// lifts a rejection.
    pub(super) fn put(&mut self, name: &ObjectRef, origin: O, object: &Object) -> bool {
        let Some(served) = self.served.get_mut(name).filter(|served| !served.is_placeholder) else {
            if let Some(placeholder) = self.served.remove(name) {
                forget(&mut self.objects, name, &placeholder);
            }
            self.insert(name, origin, object, false);
            return true;
        };
        served.origin = origin;
        if served.rejected.as_ref().is_some_and(|rejected| rejected.equals(object)) {
            return false;
        }
        let was_rejected = served.rejected.take().is_some();
        if served.object.equals(object) {
            return was_rejected;
        }
        served.before = Some(mem::replace(&mut served.object, object.clone()));
        self.objects.put(name.name.clone(), object.clone());
        true
    }

    /// Takes in what stands for an object of which there is no good version, and why. Returns whether that
    /// changed.
    pub(super) fn placeholder(&mut self, name: &ObjectRef, origin: O, object: &Object, reason: &str) -> bool {
        if let Some(served) = self.served.get(name) {
            let is_known = self.objects.unreadable.get(name).is_some_and(|known| known == reason);
            if !served.is_placeholder || (is_known && served.object.equals(object)) {
                return false;
            }
        }
        self.objects.unreadable.insert(name.clone(), reason.to_owned());
        self.insert(name, origin, object, true);
        true
    }

    fn insert(&mut self, name: &ObjectRef, origin: O, object: &Object, is_placeholder: bool) {
        self.objects.put(name.name.clone(), object.clone());
        let served = Served { origin, object: object.clone(), before: None, rejected: None, is_placeholder };
        self.served.insert(name.clone(), served);
    }

    /// Takes an object out. Returns whether it was there.
    #[cfg(feature = "kubernetes")]
    pub(super) fn remove(&mut self, name: &ObjectRef) -> bool {
        let served = self.served.remove(name);
        served.inspect(|served| forget(&mut self.objects, name, served)).is_some()
    }

    /// Takes out every object that does not stay. Returns those.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&ObjectRef, &O) -> bool) -> Vec<ObjectRef> {
        let mut removed = Vec::new();
        self.served.retain(|name, served| {
            let stays = stays(name, &served.origin);
            if !stays {
                forget(&mut self.objects, name, served);
                removed.push(name.clone());
            }
            stays
        });
        removed
    }

    /// Brings back the versions that were replaced by `refused` ones since things were settled. Returns
    /// whether there were any.
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

fn forget<O>(objects: &mut Objects, name: &ObjectRef, served: &Served<O>) {
    objects.remove(&served.object, &name.name);
    if served.is_placeholder {
        objects.unreadable.remove(name);
    }
}
