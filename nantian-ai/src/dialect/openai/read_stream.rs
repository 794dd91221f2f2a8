//! The events of a Chat Completions stream into the common form.
//!
//! Parts come one after the other there, while here chunks of several tool calls may be mixed: what is said
//! to a call that is not open yet is kept until its turn.

use super::details::{self, Details};
use super::options::{take_logprobs, take_tier};
use super::read_reply::{
    ABOUT_ITSELF, ABOUT_THE_PROVIDER, SIGNATURES, read_arguments, read_content, read_end, read_tokens,
    rest_of_call,
};
use super::signatures;
use super::streamed_call::Call;
use crate::codec::{Fields, Value};
use crate::dialect::anthropic;
use crate::ir::{Block, Event, Fault, Losses, Part, Reasoning, Stop, Tokens, ToolIds, is_nothing};

/// The most tool calls of one answer.
const MOST_CALLS: usize = 256;

/// Reads the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamReader {
    ids: ToolIds,
    started: bool,
    open: Option<Open>,
    calls: Vec<Call>,
    /// Encrypted and signed reasoning, which waits for the end of the calls.
    details: Details,
    stopped: bool,
    tokens: Tokens,
    losses: Losses,
}

/// What is being said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Open {
    Text,
    Refusal,
    Reasoning,
    Call(usize),
}

// === impl StreamReader ===

impl StreamReader {
    pub(crate) fn new(ids: ToolIds) -> Self {
        Self {
            ids,
            started: false,
            open: None,
            calls: Vec::new(),
            details: Details::default(),
            stopped: false,
            tokens: Tokens::default(),
            losses: Losses::default(),
        }
    }

    /// Reads the data of one event.
    pub(crate) fn event(&mut self, data: &[u8], sink: &mut impl FnMut(Event)) {
        if data.trim_ascii() == b"[DONE]" {
            return self.end(sink);
        }
        let mut chunk = match Fields::parse_unless_error(data) {
            Ok(chunk) => chunk,
            Err(fault) => return sink(Event::Failed(fault)),
        };
        let tier = take_tier(&mut chunk);
        if !std::mem::replace(&mut self.started, true) {
            // Messages tell it with their beginning alone.
            self.count(Tokens { tier, ..Tokens::default() }, sink);
            sink(Event::Start { id: chunk.some_text("id"), model: chunk.some_text("model") });
        }
        for choice in chunk.any_list("choices") {
            let mut choice = Fields::lenient(choice);
            // Several answers have not been asked for.
            if choice.any_count("index").unwrap_or(0) > 0 {
                continue;
            }
            if let Err(fault) = self.choice(&mut choice, sink) {
                return sink(Event::Failed(fault));
            }
            choice.ignore(&ABOUT_ITSELF);
            choice.rest(&mut self.losses);
        }
        self.count(Tokens { tier, ..read_tokens(&mut chunk.any_object("usage")) }, sink);
        chunk.ignore(&ABOUT_THE_PROVIDER);
        chunk.rest(&mut self.losses);
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        if self.stopped {
            sink(Event::End);
        } else {
            sink(Event::Failed(Fault::truncated()));
        }
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How much is kept of calls, and of what has not had its turn, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.calls.iter().map(Call::kept).sum::<usize>() + self.details.kept()
    }

    fn count(&mut self, tokens: Tokens, sink: &mut impl FnMut(Event)) {
        if tokens != Tokens::default() && tokens != self.tokens {
            self.tokens = tokens;
            sink(Event::Tokens(tokens));
        }
    }

    /// `[DONE]`, also where no reason came before. Where nothing did there is no answer.
    fn end(&mut self, sink: &mut impl FnMut(Event)) {
        if !self.started {
            return sink(Event::Failed(Fault::truncated()));
        }
        self.stop(Stop::End, sink);
        sink(Event::End);
    }

    /// Reads a piece of the answer, or how it has failed: what comes cannot be put in order, or the provider
    /// says so.
    fn choice(&mut self, choice: &mut Fields, sink: &mut impl FnMut(Event)) -> Result<(), Fault> {
        let mut delta = choice.any_object("delta");
        let plain = delta.some_text("reasoning_content");
        let other = delta.some_text("reasoning");
        let plain = plain.or(other);
        let is_plain = plain.is_some();
        if let Some(text) = plain {
            self.say(Open::Reasoning, text, sink);
        }
        for block in delta.any_list("thinking_blocks") {
            self.think(block, is_plain, sink);
        }
        let mut told = choice.any_object("logprobs");
        let logprobs = take_logprobs(&mut told, "content");
        told.rest_below("logprobs", &mut self.losses);
        let calls = delta.any_list("tool_calls");
        // vLLM and llama.cpp tell those of reasoning and of calls, too.
        let is_of_text = delta.peek("content").is_some() && !is_plain && calls.is_empty();
        if is_of_text && !logprobs.is_empty() {
            sink(Event::Logprobs(logprobs));
        } else if !logprobs.is_empty() {
            self.losses.add("logprobs");
        }
        for block in read_content(delta.take("content"), &mut self.losses) {
            match block {
                Block::Text(text) => self.say(Open::Text, text, sink),
                Block::Reasoning(reasoning) => self.say(Open::Reasoning, reasoning.text, sink),
                _ => {}
            }
        }
        if let Some(text) = delta.some_text("refusal") {
            self.say(Open::Refusal, text, sink);
        }
        for call in calls {
            if !self.call(call, sink) {
                return Err(Fault::unreadable());
            }
        }
        self.details.take(&mut delta, &mut self.losses);
        if let Some(stop) = read_end(choice)? {
            self.stop(stop, sink);
        }
        delta.ignore(&["role", "reasoning", "reasoning_content", "refusal"]);
        delta.rest(&mut self.losses);
        Ok(())
    }

    /// Reasoning as Anthropic has it. Its text is told in plain words too, with it or before its signature
    /// comes.
    fn think(&mut self, block: Value, is_plain: bool, sink: &mut impl FnMut(Event)) {
        match anthropic::read_thinking_block(block, &mut self.losses) {
            Some(Block::Reasoning(Reasoning { text, signature })) => {
                let is_told = is_plain || signature.is_some() && self.open == Some(Open::Reasoning);
                if !is_told {
                    self.say(Open::Reasoning, text, sink);
                }
                if let Some(signature) = signature {
                    self.open(Open::Reasoning, sink);
                    sink(Event::Signature(signature));
                    self.close(sink);
                }
            }
            Some(Block::RedactedReasoning(data)) => {
                self.flush_calls(sink);
                self.close(sink);
                sink(Event::Open(Part::RedactedReasoning(data)));
                sink(Event::Close);
            }
            _ => {}
        }
    }

    fn say(&mut self, what: Open, text: String, sink: &mut impl FnMut(Event)) {
        // Some providers write line ends between calls.
        let is_between = text.trim().is_empty() && matches!(self.open, Some(Open::Call(_)));
        if !text.is_empty() && !is_between {
            self.open(what, sink);
            sink(Event::Delta(text));
        }
    }

    fn open(&mut self, what: Open, sink: &mut impl FnMut(Event)) {
        if self.open == Some(what) {
            return;
        }
        self.flush_calls(sink);
        self.close(sink);
        self.open = Some(what);
        sink(Event::Open(match what {
            Open::Refusal => Part::Refusal,
            Open::Reasoning => Part::Reasoning,
            Open::Text | Open::Call(_) => Part::Text,
        }));
    }

    fn call(&mut self, call: Value, sink: &mut impl FnMut(Event)) -> bool {
        let mut said = Fields::lenient(call);
        let mut function = said.any_object("function");
        let (index, id) = (said.any_count("index"), said.some_text("id"));
        let (name, more) = (function.some_text("name"), read_arguments(&mut function));
        let signature = signatures::take(&mut said, SIGNATURES, &mut self.losses);
        rest_of_call(said, function, &mut self.losses);
        if id.is_none() && name.is_none() && more.is_empty() && signature.is_none() {
            return true;
        }
        let Some(at) = self.find(index, id, name.as_deref(), &more) else { return false };
        let Some(call) = self.calls.get_mut(at) else { return false };
        if call.name.is_empty() {
            call.name = name.unwrap_or_default();
        }
        match signature {
            Some(_) if call.done || self.open == Some(Open::Call(at)) => self.losses.add(SIGNATURES),
            Some(signature) => call.signature = Some(signature),
            None => {}
        }
        if call.done {
            return more.trim().is_empty();
        }
        // Before anything else `null` is no arguments.
        if call.begun || !is_nothing(&more) {
            call.begun = true;
            call.waiting.push_str(&more);
        }
        // Arguments that are no JSON are passed on all the same; the client has to see them.
        let _ = call.scanner.push(more.as_bytes(), |_, _| {});
        self.advance(sink);
        true
    }

    /// The call that a chunk belongs to. A new id on a known index is a new call: some providers count all as
    /// 0. So is a name behind complete arguments, or another name before any, for some give no ids.
    fn find(
        &mut self,
        index: Option<u64>,
        id: Option<String>,
        name: Option<&str>,
        more: &str,
    ) -> Option<usize> {
        let same_id = |call: &Call| call.id.is_none() || id.is_none() || call.id == id;
        let known = match (index, &id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index && same_id(call)),
            (None, Some(_)) => self.calls.iter().rposition(|call| call.id == id),
            (None, None) => self.calls.len().checked_sub(1),
        };
        let is_next =
            |at: &usize| id.is_none() && self.calls.get(*at).is_some_and(|call| call.is_before(name, more));
        if let Some(at) = known.filter(|at| !is_next(at)) {
            let call = self.calls.get_mut(at)?;
            if call.id.is_none() {
                call.id = id;
            }
            return Some(at);
        }
        if self.calls.len() == MOST_CALLS {
            return None;
        }
        self.calls.push(Call { index, id, ..Call::default() });
        Some(self.calls.len() - 1)
    }

    /// Says what has come of the first call that is not complete; once it is, of the next.
    fn advance(&mut self, sink: &mut impl FnMut(Event)) {
        while let Some(at) = self.calls.iter().position(|call| !call.done) {
            let Some(call) = self.calls.get(at) else { return };
            if call.name.is_empty() {
                return;
            }
            self.speak(at, sink);
            let more = self.calls.len() > at + 1;
            let whole = self.calls.get(at).is_some_and(|call| call.scanner.is_complete());
            if !(more && whole) {
                return;
            }
            self.close(sink);
        }
    }

    /// Opens the call if it is not, and says what waits.
    fn speak(&mut self, at: usize, sink: &mut impl FnMut(Event)) {
        if self.open != Some(Open::Call(at)) {
            let Some(call) = self.calls.get_mut(at) else { return };
            let id = call.id.get_or_insert_with(|| self.ids.next()).clone();
            let part = Part::ToolCall { id, name: call.name.clone() };
            if let Some(signature) = call.signature.take() {
                self.sign(signature, sink);
            }
            self.close(sink);
            self.open = Some(Open::Call(at));
            sink(Event::Open(part));
        }
        let Some(call) = self.calls.get_mut(at) else { return };
        if !call.waiting.is_empty() {
            sink(Event::Delta(std::mem::take(&mut call.waiting)));
        }
    }

    /// Signs the reasoning before a call.
    fn sign(&mut self, signature: String, sink: &mut impl FnMut(Event)) {
        if self.open != Some(Open::Reasoning) {
            self.close(sink);
            self.open = Some(Open::Reasoning);
            sink(Event::Open(Part::Reasoning));
        }
        sink(Event::Signature(signature));
    }

    /// Says all calls to their end. What has neither a name nor arguments is none.
    fn flush_calls(&mut self, sink: &mut impl FnMut(Event)) {
        while let Some(at) = self.calls.iter().position(|call| !call.done && call.says_something()) {
            self.speak(at, sink);
            self.close(sink);
        }
    }

    fn close(&mut self, sink: &mut impl FnMut(Event)) {
        match self.open.take() {
            None => return,
            Some(Open::Call(at)) => {
                if let Some(call) = self.calls.get_mut(at) {
                    call.done = true;
                }
            }
            Some(Open::Text | Open::Refusal | Open::Reasoning) => {}
        }
        sink(Event::Close);
    }

    fn stop(&mut self, stop: Stop, sink: &mut impl FnMut(Event)) {
        self.flush_calls(sink);
        self.close(sink);
        // What has signed nothing.
        if self.calls.iter().any(|call| call.signature.is_some()) {
            self.losses.add(SIGNATURES);
        }
        let has_calls = self.calls.iter().any(|call| call.done);
        let encrypted = std::mem::take(&mut self.details).told(&mut self.losses);
        if self.stopped || !has_calls {
            if !encrypted.is_empty() {
                self.losses.add(details::NAME);
            }
        } else {
            for data in encrypted {
                sink(Event::Open(Part::RedactedReasoning(data)));
                sink(Event::Close);
            }
        }
        if !std::mem::replace(&mut self.stopped, true) {
            sink(Event::Stop(stop.with_calls(has_calls)));
        }
    }
}
