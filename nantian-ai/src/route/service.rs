//! The service: which model a request goes to.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::listing::{of_model, shown};
use super::{RouteBody, RouteFuture};
use crate::body::RequestBody;
use crate::dialect::{Operation, Surface};
use crate::edit::model_of;
use crate::error::BoxError;
use crate::memory::{BodyMemory, HeldMemory};
use crate::target::config::TargetConfig;

/// A model of a route.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Choice<S> {
    /// The name that clients may ask for, and that the route lists.
    pub name: String,
    /// The provider's name of the model, which clients may ask for too.
    pub model: String,
    /// The share of requests that name no model of the route; a model of weight 0 is not used at all.
    ///
    /// Default: 1.
    pub weight: u32,
    /// The model.
    pub service: S,
}

/// The service of a route: one of several models for each request.
///
/// If the `model` of the request's body names exactly one of them, that one is asked first, else one by
/// weight. If it cannot be reached, refuses by its own fault or is late, or the conversation is too long for
/// it, before anything has been sent to the client, the others are asked, each for itself; the last failure
/// is the answer, or the first one where those that stand in refuse the request by rules of their own, for it
/// may be served later, or once it is shorter. One that asks to be left alone for a while makes way for the
/// others, and is waited for once they have failed. Lists of models are answered here, and what Ollama's
/// clients ask the server before they chat; what one model can do, as far as its provider does not speak of
/// it. For vectors only targets of the same model stand in, since those of another one cannot be compared
/// with them; a stored answer is looked for at all of them.
///
/// It reads the whole body of a request, at most [`max_body`](Self::max_body) bytes.
pub struct ModelRoute<S> {
    choices: Arc<Vec<Choice<S>>>,
    max_body: u64,
    memory: Option<BodyMemory>,
}

// === impl Choice ===

impl<S> Choice<S> {
    /// A model that has the same share as others.
    pub fn new(name: impl Into<String>, model: impl Into<String>, service: S) -> Self {
        Self { name: name.into(), model: model.into(), weight: 1, service }
    }

    /// Sets the share of requests that name no model of the route.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
}

// === impl ModelRoute ===

impl<S> ModelRoute<S> {
    /// A route to these models.
    pub fn new(choices: impl IntoIterator<Item = Choice<S>>) -> Self {
        let choices = choices.into_iter().filter(|choice| choice.weight > 0).collect();
        Self { choices: Arc::new(choices), max_body: TargetConfig::DEFAULT_MAX_BODY, memory: None }
    }

    /// Sets the largest request body that is read, in bytes. Default: 32 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets what the bodies of all requests may take together. Default: no limit.
    #[must_use]
    pub fn memory(mut self, memory: BodyMemory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// What a request holds whose body nobody has begun to read.
    pub(super) fn hold(&self) -> Option<HeldMemory> {
        self.memory.as_ref().map(BodyMemory::begin)
    }

    pub(super) fn largest_body(&self) -> u64 {
        self.max_body
    }

    /// Whether there is more than one model to ask.
    fn chooses(&self) -> bool {
        self.choices.len() > 1
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().map(|choice| choice.name.as_str())
    }

    pub(super) fn name(&self, at: usize) -> &str {
        self.choices.get(at).map_or("", |choice| &choice.name)
    }

    pub(super) fn service(&self, at: usize) -> Option<&S> {
        self.choices.get(at).map(|choice| &choice.service)
    }

    /// Whether two of them are one model to their providers.
    pub(super) fn are_alike(&self, at: usize, other: usize) -> bool {
        let model = |at: usize| self.choices.get(at).map(|choice| &choice.model);
        model(at) == model(other)
    }

    /// The models in the order in which a request is asked of them, the last one first, and what is said in
    /// place of the only one.
    ///
    /// # Errors
    /// The model that the route would be to describe, and does not offer.
    pub(super) fn plan(
        &self,
        surface: Option<&Surface>,
        body: &[u8],
    ) -> Result<(Vec<usize>, Option<Response<Bytes>>), String> {
        let left = match surface.map(Surface::operation) {
            Some(Operation::Show) => {
                let asked = shown(body);
                vec![self.named(&asked).ok_or(asked)?]
            }
            _ if !self.chooses() => vec![0],
            _ => self.order(model_of(body).as_deref(), |below| fastrand::u64(..below)),
        };
        let first = left.last().copied().unwrap_or_default();
        let instead = surface.and_then(|surface| of_model(surface, self.name(first), body));
        Ok((if instead.is_some() { vec![first] } else { left }, instead))
    }

    /// The models in the order in which they are asked, the last one first. `draw` gives an even number below
    /// its argument.
    fn order(&self, model: Option<&str>, draw: impl Fn(u64) -> u64) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.choices.len()).collect();
        let mut order = Vec::with_capacity(left.len());
        if let Some(named) = model.and_then(|model| self.named(model)) {
            left.retain(|at| *at != named);
            order.push(named);
        }
        let weight = |at: &usize| self.choices.get(*at).map_or(0, |choice| u64::from(choice.weight));
        while !left.is_empty() {
            let mut point = draw(left.iter().map(weight).sum::<u64>().max(1));
            let drawn = left.iter().position(|at| {
                let found = point < weight(at);
                point = point.saturating_sub(weight(at));
                found
            });
            order.push(left.swap_remove(drawn.unwrap_or(0)));
        }
        order.reverse();
        order
    }

    /// The only model of that name.
    fn named(&self, model: &str) -> Option<usize> {
        let mut named = self
            .choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| choice.name == model || choice.model == model)
            .map(|(at, _)| at);
        named.next().filter(|_| named.next().is_none())
    }
}

impl<S> Clone for ModelRoute<S> {
    fn clone(&self) -> Self {
        Self { choices: Arc::clone(&self.choices), max_body: self.max_body, memory: self.memory.clone() }
    }
}

impl<S> fmt::Debug for ModelRoute<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelRoute")
            .field("models", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<S, B, B2> Service<Request<B>> for ModelRoute<S>
where
    S: Service<Request<RequestBody>, Response = Response<B2>> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
{
    type Response = Response<RouteBody<B2>>;
    type Error = S::Error;
    type Future = RouteFuture<S, B>;

    /// Always ready: which model must be, is known only with the request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        RouteFuture::new(self.clone(), request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(models: &[(&str, &str, u32)]) -> ModelRoute<()> {
        ModelRoute::new(
            models.iter().map(|(name, model, weight)| Choice::new(*name, *model, ()).with_weight(*weight)),
        )
    }

    /// The names in the order in which they are asked.
    fn asked(route: &ModelRoute<()>, model: Option<&str>, draw: impl Fn(u64) -> u64) -> Vec<String> {
        let names: Vec<_> = route.names().collect();
        route.order(model, draw).into_iter().rev().map(|at| names[at].to_owned()).collect()
    }

    #[test]
    fn the_named_model_comes_first_and_the_others_after_it() {
        let route = route(&[("a", "gpt-5", 1), ("b", "claude", 5), ("c", "gpt-5", 1)]);
        assert_eq!(asked(&route, Some("c"), |_| 0), ["c", "a", "b"]);
        assert_eq!(asked(&route, Some("claude"), |_| 0), ["b", "a", "c"]);
        // Two of that name are none.
        assert_eq!(asked(&route, Some("gpt-5"), |_| 3)[0], "b");
        assert_eq!(asked(&route, None, |sum| sum - 1)[0], "c");
    }

    #[test]
    fn weights_share_the_requests_out() {
        let route = route(&[("a", "x", 70), ("b", "y", 30), ("c", "z", 0)]);
        let first = |point| asked(&route, None, |sum| if sum == 100 { point } else { 0 });
        let shares = (0..100).filter(|point| first(*point)[0] == "a").count();
        assert_eq!(shares, 70);
        assert_eq!(first(0), ["a", "b"]);
    }
}
