//! A request as the upstream gets it, and what is changed of it between attempts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{Extensions, Request, StatusCode};

use super::{Prepared, Way, answer_model};
use crate::body::RequestBody;
use crate::dialect::{Operation, anthropic, bedrock};
use crate::facts::RequestFacts;
use crate::ir::Losses;
use crate::outbound::fitted_limit::{Bound, fitted};
use crate::translate::Translation;
use crate::usage::Meter;
use crate::wish::{Wish, Wishes};

// === impl Prepared ===

impl Prepared {
    /// What is known about the request.
    pub fn facts(&self) -> &RequestFacts {
        &self.facts
    }

    /// What says the answer anew, where the provider speaks another dialect than the client.
    pub fn translation(&self) -> Option<&Translation> {
        match &self.way {
            Way::Translated(translation) => Some(translation),
            Way::Same | Way::HidingUsage | Way::Renamed(_) => None,
        }
    }

    /// Whether usage has been asked for that the client must not see: its stream goes through a
    /// [`HideUsage`](crate::usage::HideUsage).
    pub fn hides_usage(&self) -> bool {
        matches!(self.way, Way::HidingUsage)
    }

    /// By which name the answer is to call its model, if that is the client's and not the provider's:
    /// [`rename`](Self::rename) writes it.
    ///
    /// Claude Code gives reasoning back only to the model that has thought it, which it tells by this name.
    /// The answers that a [`Translation`] says anew have it already.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use nantian_ai::{Target, TargetConfig};
    ///
    /// let target = Target::new(TargetConfig::new("example/claude", "anthropic", "claude-sonnet-4-5"))?;
    /// let (head, body) = http::Request::post("/v1/messages")
    ///     .body(Bytes::from(r#"{"model":"ours","max_tokens":9,"messages":[]}"#))?
    ///     .into_parts();
    /// let prepared = target.prepare(&target.admit(&head)?, head, body)?;
    ///
    /// assert_eq!(prepared.answer_model(), Some("ours"));
    /// let answer = prepared.rename(Bytes::from(r#"{"model":"claude-sonnet-4-5","content":[]}"#));
    /// assert_eq!(answer, r#"{"model":"ours","content":[]}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer_model(&self) -> Option<&str> {
        self.facts.model.as_deref().filter(|_| matches!(self.way, Way::Renamed(_)))
    }

    /// An answer under that name: a whole one, or of a stream as much as has come with its first event at
    /// least. It is as it was where it has no other name.
    pub fn rename(&self, answer: Bytes) -> Bytes {
        match &self.way {
            Way::Renamed(name) => answer_model::beginning(answer_model::whole(answer, name), name),
            Way::Same | Way::HidingUsage | Way::Translated(_) => answer,
        }
    }

    /// A meter of the answer as the upstream gives it, before it is said anew.
    pub fn meter(&self) -> Meter {
        let (dialect, operation) = self.asked;
        Meter::of(dialect, operation, &self.facts)
    }

    pub(crate) fn wishes(&self) -> Wishes {
        self.wishes
    }

    /// Whether there is anything that the provider may refuse, where the client has not said it in the
    /// provider's own words.
    pub(crate) fn may_be_refused(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// Leaves out what the provider refuses of it, if that is what it says; what that was. Where `more` may
    /// be asked that see pictures, these stay.
    pub(crate) fn withdraw(&mut self, status: StatusCode, said: &[u8], more: bool) -> Option<Wish> {
        let wishes = self.wishes;
        let mut may_go = wishes.iter().filter(|wish| !more || *wish != Wish::Pictures);
        may_go.find(|wish| wish.is_refused(status, said) && self.leave_out(*wish))
    }

    /// Leaves out what is wished; false if it is not there.
    pub(super) fn leave_out(&mut self, wish: Wish) -> bool {
        let mut lost = Losses::default();
        self.wishes.losses(wish).iter().for_each(|loss| lost.add(*loss));
        let Some(body) = wish.taken_out(&self.body.joined(), &mut lost) else { return false };
        if wish == Wish::Stream && !self.asks_whole() {
            return false;
        }
        self.wishes.remove(wish);
        self.body = RequestBody::from(vec![body]);
        self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        self.lost_mut().extend(lost);
        if self.hides_usage() && wish == Wish::Usage {
            self.way = Way::Same;
        }
        true
    }

    /// Asks Bedrock for the answer in one piece; false if that is what it is asked for. The client gets a
    /// stream of it.
    fn asks_whole(&mut self) -> bool {
        let uri = self.head.uri.to_string();
        let Some(Ok(uri)) = uri.strip_suffix("-stream").map(str::parse) else { return false };
        self.head.uri = uri;
        self.head.headers.insert(ACCEPT, bedrock::accept(false));
        true
    }

    /// Asks for as many tokens as the bound leaves; false if that is what has been asked for, or the client
    /// must get what it has asked for.
    pub(crate) fn fit(&mut self, bound: Bound) -> bool {
        let (true, Way::Translated(translation)) = (self.may_fit, &mut self.way) else { return false };
        let Some((body, limit)) = fitted(&self.body.joined(), bound) else { return false };
        self.body = RequestBody::from(vec![body]);
        self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let translation = Arc::make_mut(translation);
        translation.losses_mut().add("max_tokens");
        translation.limit(limit);
        true
    }

    /// Whether it may be asked with another limit.
    pub(crate) fn may_fit(&self) -> bool {
        self.may_fit
    }

    /// What the provider is not told of the request: in its own dialect reasoning of another family, and what
    /// it is known to refuse, or has refused.
    pub fn losses(&self) -> &Losses {
        self.translation().map_or(&self.lost, Translation::losses)
    }

    /// What is said anew has them in its translation.
    fn lost_mut(&mut self) -> &mut Losses {
        match &mut self.way {
            Way::Translated(translation) => Arc::make_mut(translation).losses_mut(),
            Way::Same | Way::HidingUsage | Way::Renamed(_) => &mut self.lost,
        }
    }

    /// How the answer comes back to the client.
    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    /// What other layers have left with the request.
    pub fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    /// The request, once more.
    pub fn request(&self) -> Request<RequestBody> {
        sent(self.head.clone(), self.body.clone(), self.at_vertex())
    }

    /// The request, for the last time.
    pub fn into_request(self) -> Request<RequestBody> {
        let at_vertex = self.at_vertex();
        sent(self.head, self.body, at_vertex)
    }

    /// What Claude at Vertex AI is asked for.
    fn at_vertex(&self) -> Option<Operation> {
        self.is_at_vertex.then_some(self.asked.1)
    }
}

/// A request in the form that Claude has at Vertex AI, if it is asked there.
fn sent(mut head: Parts, mut body: RequestBody, at_vertex: Option<Operation>) -> Request<RequestBody> {
    if let Some(operation) = at_vertex {
        body = anthropic::vertex::body(operation, body.joined()).into();
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Request::from_parts(head, body)
}
