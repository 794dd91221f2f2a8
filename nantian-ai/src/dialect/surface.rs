//! Which operation of which dialect a request asks for, told from its path.

use std::borrow::Cow;

use http::Method;
use http::header::{HeaderMap, SEC_WEBSOCKET_KEY};

use super::ClientDialect;
use crate::error::Error;

/// What a client asks for. Each belongs to the dialect that its [`Surface`] names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// A conversation: OpenAI Chat Completions and Responses, Anthropic Messages, Ollama chat.
    Chat,
    /// The number of input tokens of a conversation, without an answer.
    CountTokens,
    /// A shorter form of a conversation, to go on with: `/responses/compact`.
    Compact,
    /// Vectors of texts.
    Embeddings,
    /// A continuation of a plain text: OpenAI Completions, Ollama generate.
    Generate,
    /// The models on offer, or one of them.
    Models,
    /// What one model is and can do: Ollama's `/api/show`.
    Show,
    /// An answer that the provider has stored: read, deleted, cancelled, or what it was made of.
    Stored,
}

/// An operation in a client's dialect, and its path below the base URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Surface {
    dialect: ClientDialect,
    operation: Operation,
    path: Cow<'static, str>,
}

/// What follows the id of a stored answer, and the methods that it takes.
const STORED: [(&str, &[Method]); 3] =
    [("/cancel", &[Method::POST]), ("/input_items", &[Method::GET]), ("", &[Method::GET, Method::DELETE])];

/// Path suffix as clients send it; how much of it is the prefix a base URL already has; what it is.
/// The longer of two suffixes that both match comes first, and before others what is asked for most.
const PATHS: &[(&str, &str, ClientDialect, Operation)] = &[
    ("", "/chat/completions", ClientDialect::OpenAi, Operation::Chat),
    ("", "/messages", ClientDialect::Anthropic, Operation::Chat),
    ("", "/responses", ClientDialect::Responses, Operation::Chat),
    ("/api", "/chat", ClientDialect::Ollama, Operation::Chat),
    ("/api", "/embed", ClientDialect::Ollama, Operation::Embeddings),
    ("/api", "/embeddings", ClientDialect::Ollama, Operation::Embeddings),
    ("/api", "/generate", ClientDialect::Ollama, Operation::Generate),
    ("/api", "/show", ClientDialect::Ollama, Operation::Show),
    ("/api", "/tags", ClientDialect::Ollama, Operation::Models),
    ("", "/messages/count_tokens", ClientDialect::Anthropic, Operation::CountTokens),
    ("", "/completions", ClientDialect::OpenAi, Operation::Generate),
    ("", "/embeddings", ClientDialect::OpenAi, Operation::Embeddings),
    ("", "/responses/compact", ClientDialect::Responses, Operation::Compact),
    ("", "/responses/input_tokens", ClientDialect::Responses, Operation::CountTokens),
    ("", "/models", ClientDialect::OpenAi, Operation::Models),
];

// === impl Operation ===

impl Operation {
    /// Whether an answer of the model is generated, which is what output tokens are.
    pub(crate) fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Compact | Self::Generate)
    }

    /// Whether tokens are spent at all.
    pub fn spends(self) -> bool {
        !matches!(self, Self::CountTokens | Self::Models | Self::Show | Self::Stored)
    }

    /// Whether the reply is to be a JSON object or a stream, so that its beginning tells whether it is, and
    /// its last brace whether it is whole.
    pub(crate) fn awaits_answer(self) -> bool {
        matches!(self, Self::Chat | Self::Compact | Self::Embeddings | Self::Generate)
    }

    /// Whether the request has a body that names a model.
    pub(crate) fn names_a_model(self) -> bool {
        !matches!(self, Self::Models | Self::Stored)
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chat => "chat",
            Self::Compact => "the compaction of a conversation",
            Self::CountTokens => "token counts",
            Self::Embeddings => "embeddings",
            Self::Generate => "completions",
            Self::Models => "the list of models",
            Self::Show => "the description of a model",
            Self::Stored => "a stored answer",
        })
    }
}

// === impl Surface ===

impl Surface {
    /// Tells the operation from method, path and headers.
    ///
    /// Only the end of the path counts, so that routes may mount a dialect under any prefix. `/models` is
    /// Anthropic's when the request has an `anthropic-version` header.
    ///
    /// # Errors
    /// [`Error::UnknownPath`] for any other path, [`Error::MethodNotAllowed`] for a method that the
    /// operation does not take, [`Error::NoWebSocket`] if that is to open a WebSocket.
    pub fn detect(method: &Method, path: &str, headers: &HeaderMap) -> Result<Self, Error> {
        let surface =
            Self::of_path(path, headers).ok_or_else(|| Error::UnknownPath { path: path.to_owned() })?;
        let allowed = surface.methods();
        if allowed.contains(method) {
            return Ok(surface);
        }
        match namesake(path).filter(|_| method == Method::GET) {
            Some(model) => Ok(Self {
                dialect: listing_dialect(headers),
                operation: Operation::Models,
                path: Cow::Owned(model.to_owned()),
            }),
            None if headers.contains_key(SEC_WEBSOCKET_KEY) => Err(Error::NoWebSocket { allowed }),
            None => Err(Error::MethodNotAllowed { method: method.clone(), allowed }),
        }
    }

    /// Like [`detect`](Self::detect), for a backend that may read a request otherwise: take a `%2F` in its
    /// path for a slash, as servers of ASGI do, capital letters there for small ones, as Express and ASP.NET
    /// do, or `post` for `POST`, as Hypercorn and ASP.NET do.
    ///
    /// # Errors
    /// Those of [`detect`](Self::detect).
    pub fn detect_decoded(method: &Method, path: &str, headers: &HeaderMap) -> Result<Self, Error> {
        Self::detect(method, path, headers).or_else(|error| {
            let loosely = path.to_ascii_lowercase().replace("%2f", "/");
            let loud = method.as_str().to_ascii_uppercase();
            if loosely == path && loud == method.as_str() {
                return Err(error);
            }
            let Ok(method) = Method::from_bytes(loud.as_bytes()) else { return Err(error) };
            Self::detect(&method, &loosely, headers).map_err(|_| error)
        })
    }

    fn of_path(path: &str, headers: &HeaderMap) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let known = PATHS.iter().find(|(prefix, suffix, ..)| {
            path.strip_suffix(suffix).is_some_and(|before| before.ends_with(prefix))
        });
        let (path, dialect, operation) = match known {
            Some(&(_, suffix, dialect, operation)) => (Cow::Borrowed(suffix), dialect, operation),
            None => match stored_answer(path) {
                Some(path) => (Cow::Owned(path.to_owned()), ClientDialect::Responses, Operation::Stored),
                None => (Cow::Owned(one_model(path)?.to_owned()), ClientDialect::OpenAi, Operation::Models),
            },
        };
        let dialect = match operation {
            Operation::Models if dialect == ClientDialect::OpenAi => listing_dialect(headers),
            _ => dialect,
        };
        Some(Self { dialect, operation, path })
    }

    /// The methods that the operation takes.
    pub fn methods(&self) -> &'static [Method] {
        match self.operation {
            Operation::Models => &[Method::GET],
            Operation::Stored => {
                STORED.iter().find(|(end, _)| self.path.ends_with(end)).map_or(&[], |(_, methods)| *methods)
            }
            _ => &[Method::POST],
        }
    }

    /// The dialect that a client most likely speaks, to answer even what no operation is known for.
    pub fn guess(path: &str, headers: &HeaderMap) -> ClientDialect {
        match Self::of_path(path, headers) {
            Some(surface) => surface.dialect,
            None if path.contains("/api/") => ClientDialect::Ollama,
            None => listing_dialect(headers),
        }
    }

    /// The dialect the client speaks.
    pub fn dialect(&self) -> ClientDialect {
        self.dialect
    }

    /// What the client asks for.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The path below a base URL, such as `/chat/completions`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a stream may tell what it used only where it is [asked to](crate::usage::ask_for_usage).
    pub fn may_hold_usage_back(&self) -> bool {
        self.dialect == ClientDialect::OpenAi
            && matches!(self.operation, Operation::Chat | Operation::Generate)
    }

    /// Whether the answer is a stream unless the body says otherwise.
    pub(crate) fn streams_by_default(&self) -> bool {
        self.dialect == ClientDialect::Ollama && self.operation.generates()
    }
}

fn listing_dialect(headers: &HeaderMap) -> ClientDialect {
    if headers.contains_key("anthropic-version") { ClientDialect::Anthropic } else { ClientDialect::OpenAi }
}

/// `/responses/{id}` at the end of a path, or what is below it.
fn stored_answer(path: &str) -> Option<&str> {
    let (_, found) = path.split_at_checked(path.rfind("/responses/")?)?;
    let rest = found.strip_prefix("/responses/")?;
    let id = STORED.iter().find_map(|(end, _)| rest.strip_suffix(end))?;
    let safe = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    safe.then_some(found)
}

/// `/models/{id}` at the end of a path. The id goes into an upstream path as it is, so it may not be
/// anything that a server could read as a step elsewhere.
fn one_model(path: &str) -> Option<&str> {
    let at = path.find("/models/")?;
    let (_, found) = path.split_at_checked(at)?;
    let id = found.strip_prefix("/models/")?;
    let safe = id.split('/').all(|segment| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:@".contains(&byte))
    });
    safe.then_some(found)
}

/// `/models/{id}` of a model whose id is the name of an operation, as `responses` is.
fn namesake(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let model = one_model(path.get(path.rfind("/models/")?..)?)?;
    (model.matches('/').count() == 2).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(method: Method, path: &str) -> Result<Surface, Error> {
        Surface::detect(&method, path, &HeaderMap::new())
    }

    #[test]
    fn each_path_names_its_dialect_and_operation() {
        for (path, dialect, operation, below) in [
            ("/v1/chat/completions", ClientDialect::OpenAi, Operation::Chat, "/chat/completions"),
            ("/openai/v1/chat/completions/", ClientDialect::OpenAi, Operation::Chat, "/chat/completions"),
            ("/v1/completions", ClientDialect::OpenAi, Operation::Generate, "/completions"),
            ("/v1/embeddings", ClientDialect::OpenAi, Operation::Embeddings, "/embeddings"),
            ("/v1/responses", ClientDialect::Responses, Operation::Chat, "/responses"),
            (
                "/v1/responses/input_tokens",
                ClientDialect::Responses,
                Operation::CountTokens,
                "/responses/input_tokens",
            ),
            ("/v1/messages", ClientDialect::Anthropic, Operation::Chat, "/messages"),
            (
                "/v1/messages/count_tokens",
                ClientDialect::Anthropic,
                Operation::CountTokens,
                "/messages/count_tokens",
            ),
            ("/api/chat", ClientDialect::Ollama, Operation::Chat, "/chat"),
            ("/api/generate", ClientDialect::Ollama, Operation::Generate, "/generate"),
            ("/api/show", ClientDialect::Ollama, Operation::Show, "/show"),
            ("/api/embed", ClientDialect::Ollama, Operation::Embeddings, "/embed"),
            ("/api/embeddings", ClientDialect::Ollama, Operation::Embeddings, "/embeddings"),
        ] {
            let surface = detect(Method::POST, path).unwrap();
            assert_eq!(surface.dialect(), dialect, "{path}");
            assert_eq!(surface.operation(), operation, "{path}");
            assert_eq!(surface.path(), below, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_one_to_some_backends_and_capital_letters_are_small_ones() {
        for path in [
            "/v1/chat%2Fcompletions",
            "/v1%2fchat/completions%2F",
            "/v1/models%2Fx%2Fchat%2Fcompletions",
            "/v1/Chat/Completions",
            "/V1/CHAT%2FCOMPLETIONS/",
        ] {
            detect(Method::POST, path).unwrap_err();
            let surface = Surface::detect_decoded(&Method::POST, path, &HeaderMap::new()).unwrap();
            assert_eq!(
                (surface.operation(), surface.path()),
                (Operation::Chat, "/chat/completions"),
                "{path}"
            );
        }
        Surface::detect_decoded(&Method::POST, "/form%2F%20", &HeaderMap::new()).unwrap_err();
    }

    #[test]
    fn a_method_in_small_letters_is_another_one_but_to_some_backends() {
        for name in ["post", "Post"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            detect(method.clone(), "/v1/messages").unwrap_err();
            for path in ["/v1/messages", "/V1/Messages"] {
                let surface = Surface::detect_decoded(&method, path, &HeaderMap::new()).unwrap();
                assert_eq!(surface.operation(), Operation::Chat, "{name} {path}");
            }
        }
        Surface::detect_decoded(&Method::PUT, "/v1/messages", &HeaderMap::new()).unwrap_err();
    }

    #[test]
    fn models_are_listed_in_the_dialect_of_the_headers() {
        let mut headers = HeaderMap::new();
        let listing =
            |headers: &HeaderMap| Surface::detect(&Method::GET, "/v1/models", headers).unwrap().dialect();
        assert_eq!(listing(&headers), ClientDialect::OpenAi);
        headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
        assert_eq!(listing(&headers), ClientDialect::Anthropic);
    }

    #[test]
    fn one_model_keeps_its_id_unless_it_could_leave_the_listing() {
        let surface = detect(Method::GET, "/v1/models/meta-llama/Llama-3.1:8b").unwrap();
        assert_eq!(surface.path(), "/models/meta-llama/Llama-3.1:8b");
        for path in ["/v1/models/../files", "/v1/models/%2e%2e", "/v1/models/a//b"] {
            assert!(detect(Method::GET, path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_model_may_be_called_as_an_operation_is() {
        for name in ["responses", "messages", "embeddings", "completions"] {
            let path = format!("/models/{name}");
            let surface = detect(Method::GET, &format!("/v1{path}")).unwrap();
            assert_eq!((surface.operation(), surface.path()), (Operation::Models, path.as_str()));
            // Azure has its operations there.
            assert_ne!(detect(Method::POST, &path).unwrap().operation(), Operation::Models, "{name}");
        }
        detect(Method::GET, "/models/chat/completions").unwrap_err();
        detect(Method::DELETE, "/v1/models/responses").unwrap_err();
    }

    #[test]
    fn stored_answers_are_asked_for_by_their_ids() {
        for (method, path) in [
            (Method::GET, "/responses/resp_1"),
            (Method::DELETE, "/responses/resp_1"),
            (Method::POST, "/responses/resp_1/cancel"),
            (Method::GET, "/responses/resp_1/input_items"),
        ] {
            let surface = detect(method, &format!("/openai/v1{path}")).unwrap();
            assert_eq!(
                (surface.dialect(), surface.operation()),
                (ClientDialect::Responses, Operation::Stored)
            );
            assert_eq!(surface.path(), path);
        }
        assert_eq!(detect(Method::POST, "/v1/responses/compact").unwrap().operation(), Operation::Compact);
        let refused = detect(Method::PUT, "/v1/responses/resp_1").unwrap_err();
        assert_eq!(refused.to_string(), "method PUT is not allowed here, use GET or DELETE");
        for path in ["/v1/responses/../files", "/v1/responses/a%2fb", "/v1/responses/", "/v1/responses/a/b"] {
            assert!(detect(Method::GET, path).is_err(), "{path}");
        }
    }

    #[test]
    fn any_other_path_or_method_is_refused() {
        for path in ["/", "/v1/files", "/v1/xmessages", "/chat", "/v1/audio/speech"] {
            assert!(matches!(detect(Method::POST, path), Err(Error::UnknownPath { .. })), "{path}");
        }
        assert!(matches!(detect(Method::GET, "/v1/chat/completions"), Err(Error::MethodNotAllowed { .. })));
        let offer = HeaderMap::from_iter([(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap())]);
        let refused = Surface::detect(&Method::GET, "/v1/responses", &offer).unwrap_err();
        assert_eq!(refused.to_string(), "nothing is served here over a WebSocket, use POST");
    }
}
