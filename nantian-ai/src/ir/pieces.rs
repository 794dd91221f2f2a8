//! A whole answer into pieces, and pieces into a whole.

use super::{Block, Event, Fault, Json, Losses, Part, Reasoning, Reply, ToolCall};

/// The events of a stream that says what `reply` says.
///
/// ```
/// use nantian_ai::ir::{Block, Collector, Reply, pieces};
///
/// let reply = Reply { content: vec![Block::Text("Hi".to_owned())], ..Reply::default() };
/// let mut collector = Collector::default();
/// pieces(reply.clone()).into_iter().for_each(|event| collector.push(event));
/// assert_eq!(collector.finish().unwrap(), reply);
/// ```
pub fn pieces(reply: Reply) -> Vec<Event> {
    // Messages tell the tier with the beginning.
    let mut events = vec![Event::Tokens(reply.tokens), Event::Start { id: reply.id, model: reply.model }];
    if !reply.logprobs.is_empty() {
        events.push(Event::Logprobs(reply.logprobs));
    }
    for block in reply.content {
        let (part, delta, signature) = match block {
            Block::Text(text) => (Part::Text, text, None),
            Block::Refusal(text) => (Part::Refusal, text, None),
            Block::Reasoning(reasoning) => (Part::Reasoning, reasoning.text, reasoning.signature),
            Block::RedactedReasoning(data) => (Part::RedactedReasoning(data), String::new(), None),
            Block::ToolCall(call) => {
                let part = Part::ToolCall { id: call.id, name: call.name };
                (part, call.arguments.to_string(), None)
            }
            // Models do not answer with these.
            Block::Image(_) | Block::Document(_) | Block::Audio(_) | Block::ToolResult(_) => continue,
        };
        events.push(Event::Open(part));
        if !delta.is_empty() {
            events.push(Event::Delta(delta));
        }
        events.extend(signature.map(Event::Signature));
        events.push(Event::Close);
    }
    events.extend([Event::Stop(reply.stop), Event::End]);
    events
}

/// Puts a streamed answer together.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    reply: Reply,
    open: Option<(Part, String, Option<String>)>,
    end: Option<Result<(), Fault>>,
}

// === impl Collector ===

impl Collector {
    /// Takes the next event.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Start { id, model } => {
                self.reply.id = id;
                self.reply.model = model;
            }
            Event::Open(part) => {
                self.close();
                self.open = Some((part, String::new(), None));
            }
            Event::Delta(delta) => {
                if let Some((_, text, _)) = &mut self.open {
                    text.push_str(&delta);
                }
            }
            Event::Signature(signature) => {
                if let Some((_, _, open)) = &mut self.open {
                    *open = Some(signature);
                }
            }
            Event::Logprobs(more) => self.reply.logprobs.extend(more),
            Event::Close => self.close(),
            Event::Ping => {}
            Event::Tokens(tokens) => self.reply.tokens.merge(tokens),
            Event::Stop(stop) => self.reply.stop = stop,
            Event::End => {
                self.end.get_or_insert(Ok(()));
            }
            Event::Failed(fault) => {
                self.end.get_or_insert(Err(fault));
            }
        }
    }

    /// What has come so far, complete or not.
    pub fn into_partial(mut self) -> Reply {
        self.close();
        self.reply
    }

    /// The whole.
    ///
    /// # Errors
    /// What the stream failed with; that it broke off if it has no end.
    pub fn finish(mut self) -> Result<Reply, Fault> {
        self.close();
        match self.end {
            Some(Ok(())) => Ok(self.reply),
            Some(Err(fault)) => Err(fault),
            None => Err(Fault::truncated()),
        }
    }

    fn close(&mut self) {
        let Some((part, text, signature)) = self.open.take() else { return };
        self.reply.content.push(part.into_block(text, signature));
    }
}

// === impl Part ===

impl Part {
    /// The block that a part is once it is complete.
    pub(crate) fn into_block(self, text: String, signature: Option<String>) -> Block {
        match self {
            Self::Text => Block::Text(text),
            Self::Refusal => Block::Refusal(text),
            Self::Reasoning => Block::Reasoning(Reasoning { text, signature }),
            Self::RedactedReasoning(data) => Block::RedactedReasoning(data),
            Self::ToolCall { id, name } => {
                let arguments = arguments(&text);
                Block::ToolCall(ToolCall { id, name, arguments })
            }
        }
    }
}

/// The member that holds arguments which are no object.
pub(crate) const RAW: &str = "_raw";

/// The arguments that a model has written. None, or `null`, are an empty object; what is no object, such as
/// those of a call that was broken off, is kept in one, so that the tool can say what is wrong with it, and a
/// conversation can go on that has such a call in it.
pub(crate) fn arguments(text: &str) -> Json {
    whole(text).unwrap_or_else(|| raw(text))
}

/// The same of a call that a client gives back, with what is no object named as lost.
pub(crate) fn given_arguments(text: &str, at: &'static str, losses: &mut Losses) -> Json {
    whole(text).unwrap_or_else(|| {
        losses.add(at);
        raw(text)
    })
}

/// Whether a call has no arguments.
pub(crate) fn is_nothing(arguments: &str) -> bool {
    matches!(arguments.trim(), "" | "null")
}

fn whole(text: &str) -> Option<Json> {
    if is_nothing(text) {
        return Some(Json::empty_object());
    }
    Json::parse(text).filter(Json::is_object)
}

fn raw(text: &str) -> Json {
    Json::of(&serde_json::json!({ RAW: text }))
}
