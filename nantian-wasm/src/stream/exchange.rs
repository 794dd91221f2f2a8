//! One HTTP exchange as its plugins see it.

use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use futures_util::lock::Mutex;
use http::header::TRANSFER_ENCODING;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};

use super::Streaming;
use super::direction::{ByDirection, Direction};
use super::fields::HeaderFields;
use super::info::StreamInfo;
use super::plugin_state::{BodyBuffer, Pause, PluginMessage, PluginState};
use super::removed_pseudo_headers::RemovedPseudoHeaders;
use crate::error::{Cause, Failure};

/// Both messages, what guests did to them, and what they left behind.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) info: StreamInfo,
    pub(crate) started: SystemTime,
    pub(crate) request: RequestHead,
    /// The request is here, or a copy of it.
    pub(crate) has_request: bool,
    pub(crate) response: Option<ResponseHead>,
    pub(crate) trailers: ByDirection<Option<Box<HeaderMap>>>,
    /// One for each plugin the request has reached.
    pub(crate) plugins: Vec<PluginState>,
    /// The plugin whose guest has the exchange.
    pub(crate) current: usize,
    pub(crate) streaming: Streaming,
    /// The stream is over.
    pub(crate) is_over: bool,
    /// It is being logged: everything can be read, nothing changed.
    pub(crate) is_logged: bool,
    /// Body bytes that have passed.
    pub(crate) bytes_passed: ByDirection<u64>,
    /// Bytes of both bodies that have come, whoever holds them.
    pub(crate) bytes_come: u64,
    /// Why the response is what it is: `response.code_details`.
    pub(crate) details: Option<String>,
    /// What went wrong, in the bits of Envoy: `response.flags`.
    pub(crate) flags: u32,
    pub(crate) undo: Undo,
    /// A guest did something that a task may be waiting for.
    pub(crate) is_touched: bool,
    /// Who waits for that, by direction; the third is the task that waits for the response.
    wakers: [Option<Waker>; 3],
}

/// An exchange that a stream and the instances that hold it can get at.
pub(crate) type SharedExchange = Arc<Mutex<Exchange>>;

#[derive(Debug, Clone, Default)]
pub(crate) struct RequestHead {
    /// What a guest has set it to, where the target has none.
    pub(crate) scheme: Option<Scheme>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderFields,
    /// What of it guests have taken away; absent while they have taken nothing.
    pub(crate) removed: Option<Box<RemovedPseudoHeaders>>,
}

#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderFields,
}

/// What a callback of a plugin that fails open has changed, as it was before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undo {
    pub(crate) wanted: bool,
    saved: Option<Box<Saved>>,
}

#[derive(Debug, Clone, Default)]
struct Saved {
    messages: Option<Messages>,
    /// Body bytes in the plugin's hands: a callback can change those of either message.
    windows: ByDirection<Option<BodyBuffer>>,
}

/// Both messages without their bodies.
#[derive(Debug, Clone)]
struct Messages {
    request: RequestHead,
    response: Option<ResponseHead>,
    trailers: ByDirection<Option<Box<HeaderMap>>>,
}

// === impl Exchange ===

impl Exchange {
    /// An exchange that so many plugins will see.
    pub(crate) fn new(info: StreamInfo, plugins: usize) -> Self {
        Self {
            info,
            started: SystemTime::now(),
            request: RequestHead::default(),
            has_request: true,
            response: None,
            trailers: ByDirection::default(),
            plugins: Vec::with_capacity(plugins),
            current: 0,
            streaming: Streaming::No,
            is_over: false,
            is_logged: false,
            bytes_passed: ByDirection::default(),
            bytes_come: 0,
            details: None,
            flags: 0,
            undo: Undo::default(),
            is_touched: false,
            wakers: [None, None, None],
        }
    }

    /// Moves the parts of a request in; [`return_request`](Self::return_request) moves them back.
    pub(crate) fn lend_request(&mut self, parts: &mut request::Parts) {
        std::mem::swap(&mut self.request.method, &mut parts.method);
        std::mem::swap(&mut self.request.uri, &mut parts.uri);
        self.request.version = parts.version;
        self.request.headers = std::mem::take(&mut parts.headers).into();
    }

    /// Moves the parts of a request back, leaving a copy of them if later callbacks may look at them.
    pub(crate) fn return_request(&mut self, parts: &mut request::Parts, keep: bool) {
        let request = &mut self.request;
        std::mem::swap(&mut request.method, &mut parts.method);
        std::mem::swap(&mut request.uri, &mut parts.uri);
        parts.headers = request.headers.take();
        if keep {
            request.method.clone_from(&parts.method);
            request.uri.clone_from(&parts.uri);
            request.headers = HeaderFields::copy_of(&parts.headers);
        }
    }

    /// Moves the parts of a response in; [`return_response`](Self::return_response) moves them back.
    pub(crate) fn lend_response(&mut self, parts: &mut response::Parts) {
        let headers = std::mem::take(&mut parts.headers).into();
        self.response = Some(ResponseHead { status: parts.status, headers });
    }

    /// Moves the parts of a response back, leaving a copy of the headers if later callbacks may look at them.
    pub(crate) fn return_response(&mut self, parts: &mut response::Parts, keep: bool) {
        let Some(response) = self.response.as_mut() else { return };
        parts.status = response.status;
        parts.headers = response.headers.take();
        if keep {
            response.headers = HeaderFields::copy_without(&parts.headers, &TRANSFER_ENCODING);
        }
    }

    /// Counts body bytes that reached the first plugin of their direction.
    pub(crate) fn count_bytes(&mut self, direction: Direction, bytes: usize) {
        let total = self.bytes_passed.of(direction);
        *total = total.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// What the plugin has whose guest has the exchange.
    pub(crate) fn own(&mut self) -> Option<&mut PluginState> {
        self.plugins.get_mut(self.current)
    }

    pub(crate) fn own_ref(&self) -> Option<&PluginState> {
        self.plugins.get(self.current)
    }

    /// What a plugin has of a message.
    pub(crate) fn message_of(&mut self, index: usize, direction: Direction) -> Option<&mut PluginMessage> {
        self.plugins.get_mut(index).map(|own| own.messages.of(direction))
    }

    /// Puts headers and trailers by before the first change, for a plugin that fails open.
    pub(crate) fn before_change(&mut self) {
        if !self.undo.wanted {
            return;
        }
        let saved = self.undo.saved.get_or_insert_default();
        saved.messages.get_or_insert_with(|| Messages {
            request: self.request.clone(),
            response: self.response.clone(),
            trailers: self.trailers.clone(),
        });
    }

    /// Puts the body bytes in the plugin's hands by before the first change of them, for a plugin that fails
    /// open.
    pub(crate) fn before_change_of_body(&mut self, direction: Direction) {
        let saved = self.undo.saved.as_mut().and_then(|saved| saved.windows.get(direction).as_ref());
        if !self.undo.wanted || saved.is_some() {
            return;
        }
        let window = self.own_ref().and_then(|own| own.messages.get(direction).window.clone());
        *self.undo.saved.get_or_insert_default().windows.of(direction) = window;
    }

    /// How many bytes of bodies are put by.
    pub(crate) fn saved_bytes(&self) -> usize {
        let windows = self.undo.saved.iter().flat_map(|saved| saved.windows.iter());
        windows.flatten().map(|window| window.bytes.len()).sum()
    }

    /// Forgets the body bytes that are put by of a message that has left the plugin's hands.
    pub(crate) fn forget_body(&mut self, plugin_index: usize, direction: Direction) {
        if let Some(saved) = self.undo.saved.as_mut().filter(|_| self.current == plugin_index) {
            *saved.windows.of(direction) = None;
        }
    }

    /// Takes back every change since the last callback began, if that was of this plugin: what others have
    /// made of a message since is theirs. Body bytes that have left the plugin's hands meanwhile do not come
    /// back.
    pub(crate) fn roll_back(&mut self, plugin_index: usize) {
        let Some(saved) = self.undo.saved.take_if(|_| self.current == plugin_index) else { return };
        if let Some(messages) = saved.messages {
            self.request = messages.request;
            self.response = messages.response;
            self.trailers = messages.trailers;
        }
        let mut windows = saved.windows;
        for direction in [Direction::Request, Direction::Response] {
            if let Some(saved) = windows.of(direction).take()
                && let Some(window) = self.own().and_then(|own| own.messages.of(direction).window.as_mut())
            {
                *window = saved;
            }
        }
    }

    /// Ends the stream for a reason other than a trap; the first reason stays, unless only the second one is
    /// a refusal.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.is_touched = true;
        if let Some(own) = self.own()
            && own.fault.as_ref().is_none_or(|first| cause.is_refusal() && !first.is_refusal())
        {
            own.fault = Some(cause);
        }
    }

    /// Says why the response is what it is, or why there is none, when a plugin has failed the stream.
    pub(crate) fn explain_failure(&mut self, failure: &Failure) {
        // What is there of a response says it already.
        let closes = failure.cause == Cause::Closed && self.details.is_none() && self.response.is_none();
        if let Some(details) = failure.details().or(closes.then_some("wasm_close_stream")) {
            self.details = Some(details.to_owned());
        }
    }

    /// Prepares for one callback of this plugin.
    pub(crate) fn begin(&mut self, plugin_index: usize, undo: bool) {
        self.current = plugin_index;
        self.undo = Undo { wanted: undo, ..Undo::default() };
    }

    /// Lets the held message of a direction go, if it is held or turns out to be.
    pub(crate) fn resume(&mut self, direction: Direction) {
        let Some(own) = self.own() else { return };
        // Whichever way is continued, the request is out of the guest's hands then, as it is in Envoy.
        let request = &mut own.messages.request;
        (request.has_headers, request.has_trailers, request.may_add_trailers) = (false, false, false);
        let message = own.messages.of(direction);
        message.is_continued = true;
        if message.pause.is_held() {
            message.pause = Pause::Over;
            self.is_touched = true;
        }
    }

    /// Notes whether call-outs of the guest for the stream are under way. A response that waits for these
    /// and nothing else, goes on when they are over; the request stays in the hands of the guest, which has
    /// continued nothing.
    pub(crate) fn note_calls(&mut self, expects_calls: bool) {
        let Some(own) = self.own() else { return };
        own.expects_calls = expects_calls;
        let response = &mut own.messages.response;
        if response.waits_for_calls && !expects_calls && response.pause.is_held() {
            response.pause = Pause::Over;
            self.is_touched = true;
        }
    }

    /// Leaves word of who is to be woken when a guest does something.
    pub(crate) fn await_touch(&mut self, waiter: Waiter, waker: &Waker) {
        if let Some(place) = self.wakers.get_mut(waiter as usize)
            && !place.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            *place = Some(waker.clone());
        }
    }

    /// Wakes those who wait, if a guest did something.
    pub(crate) fn notify(&mut self) {
        if std::mem::take(&mut self.is_touched) {
            self.wake();
        }
    }

    /// Wakes those who wait.
    pub(crate) fn wake(&mut self) {
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

/// A task that waits for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Request,
    Response,
    /// The one that waits for the response of the inner service.
    Future,
}

impl From<Direction> for Waiter {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Request => Self::Request,
            Direction::Response => Self::Response,
        }
    }
}
