//! The models that a route offers, as clients of each dialect list them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::codec::{Object, object};
use crate::dialect::{ClientDialect, Dialect, Surface};
use crate::ir::{Fault, FaultKind};

/// When a model was made, where nobody knows.
const SOMETIME: &str = "1970-01-01T00:00:00Z";

/// The answer to a request for all models, or for one of them.
pub(super) fn listing<'a>(surface: &Surface, names: impl Iterator<Item = &'a str>) -> Response<Bytes> {
    let names: Vec<_> = names.collect();
    let dialect = surface.dialect();
    let body = match surface.path().strip_prefix("/models/") {
        None => object(|body| write_all(body, &names, dialect)),
        Some(asked) => match names.iter().find(|name| **name == asked) {
            Some(name) => object(|body| write_one(body, name, dialect)),
            None => {
                let fault = Fault::new(FaultKind::NotFound, format!("this route offers no model `{asked}`"));
                let (status, body) = ClientDialect::or_openai(dialect).encode_fault(&fault);
                return json(status, body);
            }
        },
    };
    json(StatusCode::OK, Bytes::from(body))
}

fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn write_all(body: &mut Object<'_>, names: &[&str], dialect: Dialect) {
    let list = if dialect == Dialect::Ollama { "models" } else { "data" };
    if dialect == Dialect::OpenAi {
        body.text("object", "list");
    }
    body.list(list, |list| names.iter().for_each(|name| list.object(|item| write_one(item, name, dialect))));
    if dialect == Dialect::Anthropic {
        body.flag("has_more", false);
        body.some_text("first_id", names.first().copied());
        body.some_text("last_id", names.last().copied());
    }
}

fn write_one(item: &mut Object<'_>, name: &str, dialect: Dialect) {
    match dialect {
        Dialect::Anthropic => {
            item.text("type", "model");
            item.text("id", name);
            item.text("display_name", name);
            item.text("created_at", SOMETIME);
        }
        Dialect::Ollama => {
            item.text("name", name);
            item.text("model", name);
            item.text("modified_at", SOMETIME);
        }
        Dialect::Bedrock | Dialect::Gemini | Dialect::OpenAi | Dialect::Responses => {
            item.text("id", name);
            item.text("object", "model");
            item.count("created", 0);
            item.text("owned_by", "nantian");
        }
    }
}
