//! One request: what it asks for, and the answer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    discovery,
    kinds::Kind,
    store::{Refusal, Store, forget, key, merge, missing},
    watch,
};

pub(super) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// What a path names.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) api_version: String,
    pub(super) namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    /// Whether objects are shown without all but their metadata.
    is_outline: bool,
}

pub(super) type Query = HashMap<String, String>;

pub(super) async fn answer(store: &Arc<Store>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    store.state().requests.push(path.clone());
    if store.state().silent.is_some_and(|silent| path.contains(silent)) {
        std::future::pending::<()>().await;
    }
    let query = request.uri().query().unwrap_or_default();
    let query: Query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            (name.to_owned(), value)
        })
        .collect();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments == ["readyz"] {
        let code = if store.state().is_starting { 500 } else { 200 };
        return text_response(code, "[+]etcd ok");
    }
    if let Some(document) = discovery::document(&store.state(), &segments) {
        return json_response(200, &document);
    }
    let Some(mut target) = target(store, &segments) else {
        return text_response(404, "404 page not found\n");
    };
    let accepted = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    target.is_outline = accepted.contains("as=PartialObjectMetadata");
    if request.method() == Method::GET {
        if store.state().hidden.contains(&target.kind.plural) {
            return refuse(&Refusal(403, "Forbidden", format!("{} is forbidden", target.kind.plural)));
        }
        if target.name.is_none() && query.get("watch").is_some_and(|watch| watch == "1" || watch == "true") {
            return watch::watch(store, &target, &query);
        }
        return read(store, &target, &query)
            .map_or_else(|refusal| refuse(&refusal), |object| json_response(200, &object));
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return refuse(&Refusal(400, "BadRequest", String::new())) };
    let body = body.to_bytes();
    let patch_type =
        head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A server-side apply may come as YAML, of which JSON is a part.
    let body: Value = match std::str::from_utf8(&body).ok().filter(|text| !text.is_empty()) {
        Some(text) => serde_saphyr::from_str(text).unwrap(),
        None => Value::Null,
    };
    match write(store, &target, &head.method, patch_type, body) {
        Ok((code, object, has_changed)) => {
            store.wrote(head.method.as_str(), &path, has_changed);
            json_response(code, &object)
        }
        Err(refusal) => refuse(&refusal),
    }
}

fn target(store: &Store, segments: &[&str]) -> Option<Target> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest != ["status"] => {
            (Some(*namespace), rest)
        }
        rest => (None, rest),
    };
    let (plural, rest) = rest.split_first()?;
    let kind = store.state().kind(group, version, plural)?;
    let text = |index: usize| rest.get(index).map(|text| (*text).to_owned());
    let api_version = kind.api_version(version);
    Some(Target {
        kind,
        api_version,
        namespace: namespace.map(str::to_owned),
        name: text(0),
        subresource: text(1),
        is_outline: false,
    })
}

impl Target {
    pub(super) fn covers(&self, (plural, namespace, _): &(String, String, String)) -> bool {
        *plural == self.kind.plural && self.namespace.as_ref().is_none_or(|asked| asked == namespace)
    }

    /// The object in the version that was asked for.
    pub(super) fn shown(&self, mut object: Value) -> Value {
        if self.is_outline {
            let metadata = object["metadata"].take();
            let kind = "PartialObjectMetadata";
            return json!({ "apiVersion": "meta.k8s.io/v1", "kind": kind, "metadata": metadata });
        }
        object["apiVersion"] = self.api_version.clone().into();
        object
    }
}

fn read(store: &Store, target: &Target, query: &Query) -> Result<Value, Refusal> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    if let Some(name) = &target.name {
        let object = store.get(&target.kind.plural, namespace, name);
        return object.map(|object| target.shown(object)).ok_or_else(|| missing(&target.kind.plural, name));
    }
    let state = store.state();
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (skipped, limit) = (number("continue").unwrap_or(0), number("limit").filter(|limit| *limit > 0));
    let all = state.objects.iter().filter(|(key, _)| target.covers(key)).map(|(_, object)| object);
    let selected: Vec<&Value> = all.filter(|object| is_selected(object, query)).collect();
    let page: Vec<Value> = selected
        .iter()
        .skip(skipped)
        .take(limit.unwrap_or(usize::MAX))
        .map(|object| target.shown((*object).clone()))
        .collect();
    let end = skipped + page.len();
    let next = if end < selected.len() { end.to_string() } else { String::new() };
    Ok(json!({
        "apiVersion": target.api_version,
        "kind": format!("{}List", target.kind.name),
        "metadata": { "resourceVersion": state.version.to_string(), "continue": next },
        "items": page,
    }))
}

/// Selectors by name and by type, the only ones that are asked for.
pub(super) fn is_selected(object: &Value, query: &Query) -> bool {
    let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    fields.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (field, value, is_wanted) = match term.split_once("!=") {
            Some((field, value)) => (field, value, false),
            None => term.split_once('=').map(|(field, value)| (field, value, true)).unwrap(),
        };
        let found = object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str);
        (found == Some(value)) == is_wanted
    })
}

fn write(
    store: &Store,
    target: &Target,
    method: &Method,
    patch_type: &str,
    body: Value,
) -> Result<(u16, Value, bool), Refusal> {
    let namespace = target.namespace.clone().unwrap_or_default();
    let name = target.name.clone().or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
    let name = name.or_else(|| {
        let prefix = body["metadata"]["generateName"].as_str()?;
        Some(format!("{prefix}{}", store.state().version))
    });
    let name = name.ok_or_else(|| Refusal(422, "Invalid", "no name".to_owned()))?;
    let is_status = target.subresource.as_deref() == Some("status");
    let plural = &target.kind.plural;
    store.change(|state| {
        let before = state.objects.get(&key(plural, &namespace, &name)).cloned();
        let (code, object) = match (method.as_str(), before) {
            ("POST", Some(_)) => {
                return Err(Refusal(409, "AlreadyExists", format!("{plural} {name:?} already exists")));
            }
            ("POST", None) => (201, body),
            ("PUT", Some(_)) => (200, body),
            ("PATCH", before) if patch_type == "application/apply-patch+yaml" => {
                let code = if before.is_some() { 200 } else { 201 };
                let mut object = before.unwrap_or_else(|| json!({ "metadata": {} }));
                object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
                let applied = state.applied.insert(key(plural, &namespace, &name), body.clone());
                forget(&mut object, &applied.unwrap_or_default(), &body);
                merge(&mut object, &body);
                (code, object)
            }
            ("PATCH", Some(mut object)) => {
                if body["metadata"]["resourceVersion"].is_null() {
                    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
                }
                merge(&mut object, &body);
                (200, object)
            }
            ("DELETE", Some(_)) => {
                return state
                    .delete(plural, &namespace, &name)
                    .map(|object| (200, target.shown(object), true));
            }
            _ => return Err(missing(plural, &name)),
        };
        if state.refuses_mixed_protocols {
            refuse_mixed_protocols(&target.kind.name, &object)?;
        }
        if is_status && state.guarded.contains(plural) {
            return Err(Refusal(403, "Forbidden", format!("{plural}/status is forbidden")));
        }
        let (object, has_changed) = state.put(&target.kind, &namespace, &name, object, is_status)?;
        Ok((code, target.shown(object), has_changed))
    })
}

fn refuse_mixed_protocols(kind: &str, object: &Value) -> Result<(), Refusal> {
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    let protocols: BTreeSet<_> = ports.filter_map(|port| port["protocol"].as_str()).collect();
    if kind == "Service" && object["spec"]["type"] == "LoadBalancer" && protocols.len() > 1 {
        let message = "spec.ports: may not contain a mix of protocols when 'type' is 'LoadBalancer'";
        return Err(Refusal(422, "Invalid", message.to_owned()));
    }
    Ok(())
}

fn refuse(Refusal(code, reason, message): &Refusal) -> Response<Body> {
    json_response(*code, &status(*code, reason, message))
}

/// A `Status` that is a failure.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn text_response(code: u16, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).boxed();
    Response::builder().status(code).header("content-type", "text/plain; charset=utf-8").body(body).unwrap()
}

fn json_response(code: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
