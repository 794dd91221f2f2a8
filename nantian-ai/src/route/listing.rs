//! The models that a route offers, as clients of each dialect list them, and what clients of Ollama ask
//! before they chat.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::codec::{Object, object};
use crate::dialect::ollama::Loading;
use crate::dialect::{ClientDialect, Operation, Surface};
use crate::edit;
use crate::ir::{Fault, FaultKind};

/// When a model was made, where nobody knows.
const SOMETIME: &str = "1970-01-01T00:00:00Z";

/// Of what bytes a model is made, where nobody knows. `ollama list` shows the beginning.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where Ollama's clients are told that a model is: they neither load it nor ask for its size.
const HOST: &str = "nantian";

/// The version of Ollama whose API this is: clients compare it with what they need, and VS Code with 0.6.4.
const OLLAMA_VERSION: &str = "0.12.6";

/// What a route passes on to any model. Whether one sees pictures or thinks aloud is not known here.
const CAPABILITIES: [&str; 2] = ["completion", "tools"];

/// By what Codex asks for models, and wants them told as it knows them alone.
const OF_CODEX: &str = "client_version=";

/// The answer to a request for all models, or for one of them, with this query.
pub(super) fn listing<'a>(
    surface: &Surface,
    query: Option<&str>,
    names: impl Iterator<Item = &'a str>,
) -> Response<Bytes> {
    let names: Vec<_> = names.collect();
    let dialect = surface.dialect();
    let body = match surface.path().strip_prefix("/models/") {
        None => object(|body| {
            write_all(body, &names, dialect);
            // Where there are none it goes by the models that it has been made with.
            if dialect != ClientDialect::Ollama && query.is_some_and(|query| query.contains(OF_CODEX)) {
                body.list("models", |_| {});
            }
        }),
        Some(asked) => match names.iter().find(|name| **name == asked) {
            Some(name) => object(|body| write_one(body, name, dialect)),
            None => return absent(asked, dialect),
        },
    };
    json(StatusCode::OK, Bytes::from(body))
}

/// The answer to who asks for a model that the route does not offer.
pub(super) fn absent(asked: &str, dialect: ClientDialect) -> Response<Bytes> {
    let fault = Fault::new(FaultKind::NotFound, format!("this route offers no model `{asked}`"));
    let (status, body) = dialect.encode_fault(&fault);
    json(status, body)
}

/// What Ollama says to a request that wants no answer of a model, where its provider has none to give: that
/// model is described, or loaded, which is as good as done.
pub(super) fn of_model(surface: &Surface, name: &str, body: &[u8]) -> Option<Response<Bytes>> {
    let body = match (surface.dialect(), surface.operation()) {
        (_, Operation::Show) => description(name),
        (ClientDialect::Ollama, _) => Loading::of(surface, &edit::Object::parse(body).ok()?)?.answer(name),
        _ => return None,
    };
    Some(json(StatusCode::OK, Bytes::from(body)))
}

/// The model that a client of Ollama wants to know of; old ones call it otherwise.
pub(super) fn shown(body: &[u8]) -> String {
    let Ok(body) = edit::Object::parse(body) else { return String::new() };
    let model = body.text("model").filter(|model| !model.is_empty());
    model.or_else(|| body.text("name")).unwrap_or_default().into_owned()
}

/// What Ollama's `/api/show` says of a model that only the route knows.
fn description(name: &str) -> Vec<u8> {
    object(|body| {
        ["modelfile", "parameters", "template"].into_iter().for_each(|part| body.text(part, ""));
        body.object("details", no_details);
        body.object("model_info", |info| info.text("general.basename", name));
        body.list("capabilities", |list| CAPABILITIES.into_iter().for_each(|can| list.text(can)));
        body.text("modified_at", SOMETIME);
        write_place(body, name);
    })
}

/// What clients of Ollama ask the server itself; `None` if it is none of that.
pub(super) fn of_server(method: &Method, path: &str) -> Option<Response<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    // Where a route has a prefix the server is at its end; what an API has is no server.
    let is_of_api = || path.split('/').any(|segment| matches!(segment, "api" | "v1"));
    if path.ends_with('/') && !is_of_api() {
        let mut response = Response::new(Bytes::from_static(b"Ollama is running"));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        return Some(response);
    }
    let body = if path.ends_with("/api/version") {
        object(|body| body.text("version", OLLAMA_VERSION))
    } else if path.ends_with("/api/ps") {
        // No model is loaded here.
        object(|body| body.list("models", |_| {}))
    } else {
        return None;
    };
    Some(json(StatusCode::OK, Bytes::from(body)))
}

fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn write_all(body: &mut Object<'_>, names: &[&str], dialect: ClientDialect) {
    let list = if dialect == ClientDialect::Ollama { "models" } else { "data" };
    if dialect == ClientDialect::OpenAi {
        body.text("object", "list");
    }
    body.list(list, |list| names.iter().for_each(|name| list.object(|item| write_one(item, name, dialect))));
    if dialect == ClientDialect::Anthropic {
        body.flag("has_more", false);
        body.some_text("first_id", names.first().copied());
        body.some_text("last_id", names.last().copied());
    }
}

fn write_one(item: &mut Object<'_>, name: &str, dialect: ClientDialect) {
    match dialect {
        ClientDialect::Anthropic => {
            item.text("type", "model");
            item.text("id", name);
            item.text("display_name", name);
            item.text("created_at", SOMETIME);
        }
        ClientDialect::Ollama => {
            item.text("name", name);
            item.text("model", name);
            item.text("modified_at", SOMETIME);
            item.count("size", 0);
            item.text("digest", NO_DIGEST);
            item.object("details", no_details);
            write_place(item, name);
        }
        ClientDialect::OpenAi | ClientDialect::Responses => {
            item.text("id", name);
            item.text("object", "model");
            item.count("created", 0);
            item.text("owned_by", "nantian");
        }
    }
}

/// What a model is made of, of which nothing is known.
fn no_details(details: &mut Object<'_>) {
    ["parent_model", "format", "family"].into_iter().for_each(|part| details.text(part, ""));
    details.list("families", |_| {});
    ["parameter_size", "quantization_level"].into_iter().for_each(|part| details.text(part, ""));
}

/// That a model is somewhere else.
fn write_place(item: &mut Object<'_>, name: &str) {
    item.text("remote_model", name);
    item.text("remote_host", HOST);
}
