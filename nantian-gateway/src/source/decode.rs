//! Bytes of one manifest file to objects and faults.

use std::{path::Path, str, sync::Arc};

use serde_json::{Map, Value};

use super::{
    check::Checker,
    envelope::{Envelope, list_items, reference},
    fault::{Fault, SourceLocation, Subject},
    kind::Object,
    objects::ObjectRef,
    placeholder::placeholder,
    yaml::documents,
};

/// Everything that one file says.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The objects that it names, in their order.
    pub(super) items: Vec<Item>,
    /// All that is wrong with it, in the order of documents.
    pub(super) faults: Vec<Fault>,
    /// Objects of kinds of someone else.
    pub(super) skipped: usize,
    /// Objects of kinds of the Gateway API that the gateway does not serve.
    pub(super) unserved: Vec<Subject>,
    /// Whether some of it could not be told apart: an object that is no longer named may still be there.
    pub(super) is_opaque: bool,
}

/// One object in a file.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: ObjectRef,
    pub(super) place: SourceLocation,
    /// The object; `None` if something is wrong with it.
    pub(super) object: Option<Object>,
    /// What stands for an object that cannot be read, and why it cannot.
    pub(super) placeholder: Option<(Object, String)>,
}

/// Reads `bytes`, the content of `file`.
pub(super) fn decode(file: &Arc<Path>, bytes: &[u8], checker: &Checker) -> Content {
    let mut content = Content::default();
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            content.unreadable(
                SourceLocation::whole(file).fault(format_args!("line {line}: is not UTF-8 text")),
            );
            return content;
        }
    };
    for document in documents(text) {
        let place = SourceLocation { file: Arc::clone(file), line: document.line };
        match document.read() {
            Ok(Some(value)) => content.document(&place, value, checker),
            Ok(None) => {}
            Err(error) => content.unreadable(place.fault(error)),
        }
    }
    content
}

// === impl Content ===

impl Content {
    /// A file of which nothing can be told.
    pub(super) fn of_unreadable(fault: Fault) -> Self {
        Self { faults: vec![fault], is_opaque: true, ..Self::default() }
    }

    fn document(&mut self, place: &SourceLocation, value: Value, checker: &Checker) {
        let Value::Object(mut object) = value else {
            return self.unreadable(place.fault("is no object: expected apiVersion, kind and metadata"));
        };
        if list_items(&object).is_none() {
            return self.object(place, "", object, checker);
        }
        let items = object.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let path = format!("items[{index}]");
            match item {
                Value::Object(item) => self.object(place, &format!("{path}."), item, checker),
                _ => self.unreadable(Fault { path, ..place.fault("is no object") }),
            }
        }
    }

    /// Reads one object; `prefix` leads to it from the root of its document.
    fn object(
        &mut self,
        place: &SourceLocation,
        prefix: &str,
        object: Map<String, Value>,
        checker: &Checker,
    ) {
        let (kind, name) = match Envelope::open(&object) {
            Envelope::Object(kind, name) => (kind, name),
            Envelope::Skipped(subject) => {
                tracing::debug!(%place, object = %subject, "skipped an object of a kind that the gateway does not read");
                self.skipped += 1;
                return;
            }
            Envelope::Unserved(subject) => return self.unserved.push(subject),
            Envelope::Faulty(object, field, reason) => {
                let place = place.clone();
                return self.unreadable(Fault { place, object, path: format!("{prefix}{field}"), reason });
            }
        };
        let placeholder = placeholder(kind, &name, &object);
        let object = checker.read(kind, &name, object);
        let name = reference(kind, name);
        let subject = Subject { kind: name.kind.to_owned(), name: Some(name.name.clone()) };
        let fault = |complaint: super::check::FieldProblem| Fault {
            place: place.clone(),
            object: Some(subject.clone()),
            path: complaint.path,
            reason: complaint.reason,
        };
        let mut reasons = Vec::new();
        let object = match object {
            Ok(object) => Some(object),
            Err(complaints) => {
                reasons.extend(complaints.iter().map(ToString::to_string));
                self.faults.extend(complaints.into_iter().map(fault));
                None
            }
        };
        let placeholder =
            placeholder.filter(|_| object.is_none()).map(|placeholder| (placeholder, reasons.join("; ")));
        self.items.push(Item { name, place: place.clone(), object, placeholder });
    }

    fn unreadable(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.is_opaque = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Content {
        decode(&Path::new("a.yaml").into(), text.as_bytes(), &Checker::default())
    }

    /// Pieces of manifests, which are rarely put together well.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "---\n",
            "--- ",
            "...\n",
            "# a\n",
            "kind: Service\n",
            "kind: List\n",
            "apiVersion: v1\n",
            "items:\n",
            "- ",
            "metadata:\n",
            "  name: a\n",
            "  name: B\n",
            "spec:\n",
            "  ports: [{port: 0}]\n",
            "{",
            "}",
            "[",
            "\"",
            "'",
            "\t",
            "\n",
            ": ",
            "&a ",
            "*a",
            "<<: ",
            "!!binary ",
            "| \n",
            "%YAML 1.1\n",
            "\u{feff}",
            "\u{0}",
            "\u{1F600}",
            "null",
            "1e999",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_text_is_too_broken_to_be_read(pieces in prop::collection::vec(piece(), 0..24)) {
            let content = read(&pieces.concat());
            let places = content.faults.iter().map(|fault| fault.place.line);
            prop_assert!(places.is_sorted(), "{:?}", content.faults);
        }

        #[test]
        fn a_broken_document_hides_no_other(pieces in prop::collection::vec(piece(), 0..12)) {
            let broken = pieces.concat().replace("--", "").replace("...", "");
            let good = "{apiVersion: v1, kind: Namespace, metadata: {name: demo}}";
            let content = read(&format!("{good}\n---\n{broken}\n---\n{}", good.replace("demo", "other")));
            let names: Vec<_> = content.items.iter().filter(|item| item.object.is_some()).map(|item| item.name.to_string()).collect();
            prop_assert!(names.contains(&"Namespace demo".to_owned()), "{names:?}");
            prop_assert!(names.contains(&"Namespace other".to_owned()), "{names:?}");
        }
    }

    #[test]
    fn lists_are_flattened() {
        let content = read(
            "{kind: ServiceList, apiVersion: v1, items: [\
               {apiVersion: v1, kind: Service, metadata: {name: a}},\
               {apiVersion: v1, kind: Service, metadata: {name: b}}]}",
        );
        assert_eq!(content.items.len(), 2);
        assert!(content.faults.is_empty(), "{:?}", content.faults);
    }
}
