//! The events of a Responses stream into the common form.
//!
//! Items may be written at the same time there, while here parts come one after the other: what is said in an
//! item whose turn has not come is kept until then. llama.cpp says of no item which place it has, writes one
//! after the other, and says that they are complete at the very end.

use std::collections::VecDeque;

use super::item::{BETWEEN_PARTS, Identity};
use super::read_reply::{read_output, read_stop, read_tokens, rest_beside};
use super::streamed_item::{Item, Kind, Piece};
use crate::codec::{Fields, fault};
use crate::dialect::openai::options::take_logprobs;
use crate::ir::{Block, Event, Fault, Losses, Part, ToolIds};

/// The most items of one answer that wait for their turn.
const MOST_ITEMS: usize = 256;

/// Reads the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamReader {
    ids: ToolIds,
    started: bool,
    /// The first one's turn has come.
    items: VecDeque<Item>,
    open: Option<Kind>,
    /// Items without a place that have been told before they were said to be complete.
    told: Vec<Identity>,
    kept: usize,
    calls: bool,
    losses: Losses,
}

// === impl StreamReader ===

impl StreamReader {
    pub(crate) fn new(ids: ToolIds) -> Self {
        Self {
            ids,
            started: false,
            items: VecDeque::new(),
            open: None,
            told: Vec::new(),
            kept: 0,
            calls: false,
            losses: Losses::default(),
        }
    }

    /// Reads the data of one event.
    pub(crate) fn event(&mut self, data: &[u8], sink: &mut impl FnMut(Event)) {
        let Ok(mut event) = Fields::parse_said(data) else {
            // Some providers end their streams as those of Chat Completions end.
            if data.trim_ascii() != b"[DONE]" {
                sink(Event::Failed(Fault::unreadable()));
            }
            return;
        };
        let kind = event.any_text("type").unwrap_or_default();
        let mut response = event.any_object("response");
        if let Some(error) = error(&kind, &mut event, &mut response) {
            return sink(Event::Failed(error));
        }
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start { id: response.some_text("id"), model: response.some_text("model") });
        }
        let fits = match kind.as_str() {
            "response.output_item.added" => self.add(&mut event),
            "response.output_item.done" => self.complete(&mut event),
            "response.content_part.added" => return self.begin_part(&mut event),
            "response.completed" | "response.incomplete" => return self.end(response, sink),
            "keepalive" => return sink(Event::Ping),
            kind => match kind.strip_suffix(".delta").and_then(|kind| kind.strip_prefix("response.")) {
                Some(kind) => self.say(kind, &mut event),
                None => return,
            },
        };
        if !fits {
            return sink(Event::Failed(Fault::unreadable()));
        }
        self.tell(sink);
    }

    /// The stream has ended without saying so.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        sink(Event::Failed(Fault::truncated()));
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How much is kept of items, and of what has not had its turn, in bytes.
    pub(crate) fn kept(&self) -> usize {
        let items = self.items.iter().map(Item::named).chain(self.told.iter().map(Identity::kept));
        self.kept + items.sum::<usize>()
    }

    /// False if there are too many.
    fn add(&mut self, event: &mut Fields) -> bool {
        let index = event.any_count("output_index");
        let mut item = event.any_object("item");
        let identity = Identity::of(&item);
        let call = (identity.kind == "function_call").then(|| self.call(&mut item));
        let known = index.and_then(|_| self.find(index));
        if known.is_none() {
            self.end_said();
        }
        let Some(added) = known.or_else(|| self.push(index)).and_then(|at| self.items.get_mut(at)) else {
            return false;
        };
        added.call = added.call.take().or(call);
        added.identity = identity;
        self.told.len() <= MOST_ITEMS
    }

    /// Ends items without a place of which something has been said: another one begins.
    fn end_said(&mut self) {
        for item in &mut self.items {
            if item.index.is_none() && item.said && !item.done {
                item.done = true;
                self.told.push(item.identity.clone());
            }
        }
    }

    fn call(&mut self, item: &mut Fields) -> Part {
        self.calls = true;
        Part::ToolCall {
            id: item.some_text("call_id").unwrap_or_else(|| self.ids.next()),
            name: item.any_text("name").unwrap_or_default(),
        }
    }

    /// The unfinished item at a place, or the last one that may be meant where either is told none.
    fn find(&self, index: Option<u64>) -> Option<usize> {
        let placed = |item: &Item| index.is_some() && item.index == index && !item.done;
        let last =
            || self.items.iter().rposition(|item| (index.is_none() || item.index.is_none()) && !item.done);
        self.items.iter().position(placed).or_else(last)
    }

    /// The last item, if it is of this kind and has said nothing yet: vLLM announces one under the place of
    /// the item before it. It gets the place at which it speaks.
    fn misplaced(&mut self, index: Option<u64>, kind: &str) -> Option<usize> {
        let last = self.items.back_mut();
        let last = last.filter(|item| item.identity.kind == kind && !item.said && !item.done)?;
        last.index = index;
        Some(self.items.len() - 1)
    }

    /// Another part of what an item says.
    fn begin_part(&mut self, event: &mut Fields) {
        let item = self.find(event.any_count("output_index")).and_then(|at| self.items.get_mut(at));
        item.into_iter().for_each(|item| item.parts += 1);
    }

    /// A new item. `None` if there are too many.
    fn push(&mut self, index: Option<u64>) -> Option<usize> {
        if self.items.len() == MOST_ITEMS {
            return None;
        }
        self.items.push_back(Item {
            index,
            identity: Identity::default(),
            call: None,
            waiting: VecDeque::new(),
            part: None,
            parts: 0,
            said: false,
            done: false,
        });
        Some(self.items.len() - 1)
    }

    /// False if there are too many.
    fn say(&mut self, kind: &str, event: &mut Fields) -> bool {
        let index = event.any_count("output_index");
        let part = event.any_count("summary_index");
        let Some(text) = event.some_text("delta") else { return true };
        let logprobs = take_logprobs(event, "logprobs");
        let (kind, of): (fn(u64) -> Kind, _) = match kind {
            "output_text" => (Kind::Text, "message"),
            "refusal" => (Kind::Refusal, "message"),
            "reasoning_summary_text" | "reasoning_text" => (|_| Kind::Reasoning, "reasoning"),
            "function_call_arguments" => (|_| Kind::Call, "function_call"),
            // Tools that the provider runs itself.
            _ => return true,
        };
        let at = self.find(index).or_else(|| self.misplaced(index, of)).or_else(|| self.push(index));
        let Some(item) = at.and_then(|at| self.items.get_mut(at)) else { return false };
        let kind = kind(item.parts);
        if kind == Kind::Call && item.call.is_none() {
            return true;
        }
        let before = item.waiting.len();
        if kind == Kind::Reasoning {
            let part = part.or(Some(item.parts));
            if item.said && item.part != part {
                item.waiting.push_back(Piece::Say(kind, BETWEEN_PARTS.to_owned()));
            }
            item.part = part;
        }
        item.said = true;
        item.weigh(logprobs);
        item.waiting.push_back(Piece::Say(kind, text));
        self.kept += item.weight_after(before);
        true
    }

    /// An item is complete. What has not come in pieces comes as a whole.
    fn complete(&mut self, event: &mut Fields) -> bool {
        let index = event.any_count("output_index");
        let whole = event.any_object("item");
        let identity = Identity::of(&whole);
        if let (None, Some(at)) = (index, self.told.iter().position(|told| told.is(&identity))) {
            self.told.remove(at);
            read_output(whole, &mut self.ids, (&mut Vec::new(), &mut Vec::new()), &mut self.losses);
            return true;
        }
        let at = match index {
            Some(_) => self.find(index),
            None => self.items.iter().position(|item| item.identity.is(&identity) && !item.done),
        };
        let (mut blocks, mut logprobs) = (Vec::new(), Vec::new());
        read_output(whole, &mut self.ids, (&mut blocks, &mut logprobs), &mut self.losses);
        self.calls |= blocks.iter().any(|block| matches!(block, Block::ToolCall(_)));
        let at = at.or_else(|| self.push(index));
        let Some(item) = at.and_then(|at| self.items.get_mut(at)) else { return false };
        let (is_call, before) = (item.call.is_some(), item.waiting.len());
        if !item.said {
            item.weigh(logprobs);
        }
        for (at, block) in (0..).zip(blocks) {
            item.take(at, block, is_call);
        }
        item.done = true;
        self.kept += item.weight_after(before);
        true
    }

    /// Tells what has come of the first item; once it is complete, of the next.
    fn tell(&mut self, sink: &mut impl FnMut(Event)) {
        while let Some(item) = self.items.front_mut() {
            if let Some(call) = &item.call
                && self.open.is_none()
            {
                self.open = Some(Kind::Call);
                sink(Event::Open(call.clone()));
            }
            while let Some(piece) = item.waiting.pop_front() {
                self.kept = self.kept.saturating_sub(piece.weight());
                match piece {
                    Piece::Say(kind, text) => {
                        open(&mut self.open, kind, sink);
                        sink(Event::Delta(text));
                    }
                    Piece::Logprobs(logprobs) => sink(Event::Logprobs(logprobs)),
                    Piece::Signature(signature) => {
                        open(&mut self.open, Kind::Reasoning, sink);
                        sink(Event::Signature(signature));
                    }
                    Piece::Redacted(data) => {
                        close(&mut self.open, sink);
                        sink(Event::Open(Part::RedactedReasoning(data)));
                        sink(Event::Close);
                    }
                }
            }
            if !item.done {
                return;
            }
            close(&mut self.open, sink);
            self.items.pop_front();
        }
    }

    fn end(&mut self, mut response: Fields, sink: &mut impl FnMut(Event)) {
        self.items.iter_mut().for_each(|item| item.done = true);
        self.tell(sink);
        sink(Event::Tokens(read_tokens(&mut response)));
        let Some(stop) = read_stop(&mut response) else {
            return sink(Event::Failed(Fault::unreadable()));
        };
        // It has been told.
        response.ignore(&["output"]);
        rest_beside(response, &mut self.losses);
        sink(Event::Stop(stop.with_calls(self.calls)));
        sink(Event::End);
    }
}

/// What an event says that went wrong, in either of the shapes that there are.
fn error(kind: &str, event: &mut Fields, response: &mut Fields) -> Option<Fault> {
    if let Some(error) = event.take("error").or_else(|| response.take("error")) {
        return Some(fault::of_error(error));
    }
    match kind {
        "error" => Some(fault::of_event(event)),
        "response.failed" | "response.cancelled" => Some(Fault::truncated()),
        _ => None,
    }
}

fn open(open: &mut Option<Kind>, kind: Kind, sink: &mut impl FnMut(Event)) {
    if *open == Some(kind) {
        return;
    }
    close(open, sink);
    *open = Some(kind);
    sink(Event::Open(match kind {
        Kind::Refusal(_) => Part::Refusal,
        Kind::Reasoning => Part::Reasoning,
        Kind::Text(_) | Kind::Call => Part::Text,
    }));
}

fn close(open: &mut Option<Kind>, sink: &mut impl FnMut(Event)) {
    if open.take().is_some() {
        sink(Event::Close);
    }
}
