//! What a meter has learnt of a reply so far.

use super::about::{self, About};
use crate::dialect::signal::{Reasoning, Reported, Signal};
use crate::dialect::{Dialect, anthropic, bedrock, gemini, ollama, openai, responses};
use crate::estimate::Weight;
use crate::wire::{frames, ndjson, sse};

/// What has been learnt so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) about: About,
    /// Events, and those that say something.
    pub(super) events: u64,
    pub(super) spoken: u64,
    pub(super) reported: Reported,
    pub(super) text: Weight,
    pub(super) bytes: u64,
    pub(super) token: bool,
    pub(super) settled: bool,
    pub(super) complete: bool,
    /// How many answers are asked for, and which of them have ended, a bit each.
    choices: u64,
    ended: u128,
    pub(super) failed: bool,
    /// Nothing has been shown of the reasoning that came last, or of some before.
    conceals: bool,
    concealed: bool,
    /// The last event is too large to be read.
    pub(super) unread: bool,
}

/// The members of a buffered reply that hold counts, or say what it is.
pub(super) fn members(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Ollama => &["prompt_eval_count", "eval_count", about::MODEL, about::DONE_REASON],
        Dialect::Anthropic => &["usage", about::ID, about::MODEL, about::STOP_REASON],
        Dialect::Bedrock => &["usage", bedrock::INPUT_TEXT_TOKENS, about::STOP_REASON_OF_BEDROCK],
        Dialect::Gemini => &["usageMetadata", about::RESPONSE_ID, about::MODEL_VERSION, about::CANDIDATES],
        Dialect::OpenAi => &["usage", about::ID, about::MODEL, about::CHOICES],
        Dialect::Responses => &["usage", about::ID, about::MODEL, about::STATUS],
    }
}

// === impl Tally ===

impl Tally {
    /// Of so many answers.
    pub(super) fn of(choices: u64) -> Self {
        Self { choices, ..Self::default() }
    }

    pub(super) fn sse(&mut self, dialect: Dialect, item: sse::Item<'_>) {
        match item {
            // It is the end of nothing, whoever says so.
            sse::Item::Event { data, .. } if self.events == 0 && data.trim_ascii() == b"[DONE]" => {}
            sse::Item::Event { data, .. } => {
                let signal = match dialect {
                    Dialect::Anthropic => anthropic::event(data),
                    // It speaks in frames.
                    Dialect::Bedrock => Signal::unreadable(),
                    Dialect::Gemini => gemini::event(data),
                    Dialect::Ollama => ollama::line(data),
                    Dialect::OpenAi => openai::event(data),
                    Dialect::Responses => responses::event(data),
                };
                self.add(signal, data);
            }
            sse::Item::Comment => {}
            sse::Item::Oversized => self.skip(),
        }
    }

    pub(super) fn frame(&mut self, item: frames::Item<'_>) {
        match item {
            frames::Item::Frame(frame) => self.add(bedrock::frame(&frame), frame.payload()),
            frames::Item::Oversized => self.skip(),
            frames::Item::Malformed => self.add(Signal { failed: true, ..Signal::default() }, &[]),
        }
    }

    pub(super) fn line(&mut self, item: ndjson::Item<'_>) {
        match item {
            ndjson::Item::Line(line) => self.add(ollama::line(line), line),
            ndjson::Item::Oversized => self.skip(),
        }
    }

    pub(super) fn member(&mut self, dialect: Dialect, name: &str, json: &[u8]) {
        if self.about.member(name, json) {
            return;
        }
        self.reported.merge(match dialect {
            Dialect::Anthropic => anthropic::usage(json),
            Dialect::Bedrock => bedrock::usage(name, json),
            Dialect::Gemini => gemini::usage(json),
            Dialect::Ollama => ollama::count(name, json),
            Dialect::OpenAi | Dialect::Responses => openai::usage(json),
        });
    }

    fn add(&mut self, signal: Signal, data: &[u8]) {
        if self.events == 0 || signal.complete || signal.settled || signal.ended != 0 {
            self.about.read(data);
        }
        self.events += 1;
        self.spoken += u64::from(signal.token);
        self.reported.merge(signal.reported);
        self.text += signal.text;
        self.token |= signal.token;
        self.settled |= signal.settled;
        self.ended |= signal.ended;
        let all_ended = self.ended != 0 && u64::from(self.ended.count_ones()) >= self.choices;
        self.complete |= signal.complete || all_ended;
        self.failed |= signal.failed;
        match signal.reasoning {
            Some(Reasoning::Begins) => self.concealed |= std::mem::replace(&mut self.conceals, true),
            Some(Reasoning::Shown) => self.conceals = false,
            None => {}
        }
        self.unread = false;
    }

    /// Whether more has been generated than can be counted by what has come: nothing was shown, or reasoning
    /// is kept back.
    pub(super) fn is_unseen(&self) -> bool {
        self.text == Weight::default() || self.conceals || self.concealed
    }

    /// An event that is too large to be read.
    fn skip(&mut self) {
        self.add(Signal::unreadable(), &[]);
        self.unread = true;
    }
}
