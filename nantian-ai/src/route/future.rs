//! One request of a route: read, asked of one model after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use super::listing::{absent, listing, of_server};
use super::{Later, ModelRoute, Onward, RouteBody, StandIn};
use crate::Unasked;
use crate::body::RequestBody;
use crate::call::budget::BudgetedCall;
use crate::dialect::{ClientDialect, Operation, Surface};
use crate::error::{BoxError, Error};
use crate::memory::HeldMemory;
use crate::packed::unpack_within;
use crate::read::ReadBody;
use crate::respond::{DialectResponder, Responder as _};

pin_project! {
    /// The future of a [`ModelRoute`].
    ///
    /// # Cancellation
    /// Dropping it drops the call of the model that is being asked.
    pub struct RouteFuture<S, B>
    where
        S: Service<Request<RequestBody>>,
    {
        route: ModelRoute<S>,
        surface: Result<Surface, Error>,
        dialect: ClientDialect,
        // With its body, once that is read.
        request: Option<Request<Bytes>>,
        // What is said in place of a provider that does not have the operation.
        instead: Option<Response<Bytes>>,
        // The models that have not been asked, the next one last.
        left: Vec<usize>,
        // The one that is being asked.
        asked: usize,
        // The first that was passed over and may be asked again, after all others, and how.
        later: Option<(usize, Later)>,
        // Its right to be asked again, until there is an answer.
        permit: Option<Arc<BudgetedCall>>,
        onward: Onward,
        // What the request takes of memory while it may be sent again.
        held: Option<HeldMemory>,
        // A provider was asked, or could not be reached.
        tried: bool,
        // What the first of them has answered whose failure may pass, for which the conversation is too long,
        // or which does not have what is looked for; and which one that is.
        failed: Option<(usize, S::Response)>,
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<RequestBody>>,
    {
        Reading { #[pin] body: ReadBody<B> },
        Waiting { #[pin] sleep: Sleep, service: Option<S> },
        Readying { service: S },
        Asking { #[pin] answer: S::Future },
    }
}

// === impl RouteFuture ===

impl<S, B> RouteFuture<S, B>
where
    S: Service<Request<RequestBody>>,
{
    pub(super) fn new(route: ModelRoute<S>, request: Request<B>) -> Self {
        let (mut parts, body) = request.into_parts();
        let held: Option<HeldMemory> = parts.extensions.get().cloned().or_else(|| route.hold());
        if let Some(held) = &held {
            parts.extensions.insert(held.clone());
        }
        let surface = Surface::detect(&parts.method, parts.uri.path(), &parts.headers);
        let dialect = match &surface {
            Ok(surface) => surface.dialect(),
            Err(_) => Surface::guess(parts.uri.path(), &parts.headers),
        };
        let body = ReadBody::new(body, route.largest_body()).holding(held.clone());
        Self {
            route,
            surface,
            dialect,
            request: Some(Request::from_parts(parts, Bytes::new())),
            instead: None,
            left: Vec::new(),
            asked: 0,
            later: None,
            permit: None,
            onward: Onward::default(),
            held,
            tried: false,
            failed: None,
            state: State::Reading { body },
        }
    }
}

impl<S, B> RouteFuture<S, B>
where
    S: Service<Request<RequestBody>> + Clone,
{
    /// Turns to the next model, if there is one.
    fn turn(self: Pin<&mut Self>) -> Option<()> {
        let mut this = self.project();
        let makes_vectors = operation(this.surface) == Some(Operation::Embeddings);
        let (next, later) = match this.left.pop() {
            None => this.later.take().unzip(),
            next => (next, None),
        };
        let asked = next?;
        let may_stand_in = |at: &usize| !makes_vectors || this.route.are_alike(*at, asked);
        this.onward.more = this.later.is_some() || this.left.iter().any(may_stand_in);
        this.onward.repeats = later.map_or(0, |later| later.repeats);
        *this.asked = asked;
        let service = this.route.service(asked)?.clone();
        this.state.set(match later {
            Some(later) => State::Waiting { sleep: sleep_until(later.at), service: Some(service) },
            None => State::Readying { service },
        });
        Some(())
    }
}

impl<S, B, B2> RouteFuture<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B2>> + Clone,
    B2: Body<Data = Bytes>,
{
    /// What the client gets, if this answer ends the request; `None` if another model is to be asked.
    fn heard(self: Pin<&mut Self>, mut response: Response<B2>) -> Option<Response<RouteBody<B2>>> {
        let this = self.project();
        let judged = Judged::of(&response, operation(this.surface));
        if let Some(instead) = this.instead.take_if(|_| judged.is_unheard) {
            return Some(own(instead));
        }
        let said = response.extensions().get::<Onward>().copied();
        let permit = response.extensions_mut().remove();
        if let (None, Some(later)) = (&this.later, said.and_then(|said| said.later)) {
            (*this.later, *this.permit) = (Some((*this.asked, later)), permit);
        }
        if !judged.goes_on(this.onward.more, this.left, this.later.is_some()) {
            let mut response = match this.failed.take() {
                Some((by, earlier)) if by != *this.asked && is_refusal(&response) => {
                    in_place_of(response, earlier)
                }
                _ => response,
            };
            if *this.tried {
                response.extensions_mut().insert(StandIn);
            }
            return Some(response.map(RouteBody::of_model));
        }
        if let Some(before) = said {
            this.onward.sent |= before.sent;
            *this.tried = true;
        }
        if this.failed.is_none() && judged.counts {
            *this.failed = Some((*this.asked, response));
        }
        if judged.binds {
            this.left.retain(|at| this.route.are_alike(*at, *this.asked));
        }
        tracing::debug!(left = this.left.len(), "asking another model");
        None
    }
}

impl<S, B, B2> Future for RouteFuture<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B2>> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
{
    type Output = Result<Response<RouteBody<B2>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.state.as_mut().project() {
                StateProj::Reading { body } => {
                    let Some(request) = this.request.as_mut() else { return Poll::Pending };
                    if let Some(response) = at_once(this.route, this.surface, request, *this.dialect) {
                        return Poll::Ready(Ok(response));
                    }
                    let most = this.route.largest_body();
                    let read = ready!(body.poll(cx));
                    let held = this.held.as_ref();
                    let unpack = |body| unpack_within(request.headers_mut(), body, most, held);
                    let body = match read.and_then(unpack) {
                        Ok(body) => body,
                        Err(error) => return Poll::Ready(Ok(refuse(error, *this.dialect))),
                    };
                    (*this.left, *this.instead) = match this.route.plan(this.surface.as_ref().ok(), &body) {
                        Ok(order) => order,
                        Err(asked) => return Poll::Ready(Ok(own(absent(&asked, *this.dialect)))),
                    };
                    *request.body_mut() = body;
                }
                StateProj::Waiting { sleep, service } => {
                    ready!(sleep.poll(cx));
                    let Some(service) = service.take() else { return Poll::Pending };
                    this.state.set(State::Readying { service });
                    continue;
                }
                StateProj::Readying { service } => {
                    ready!(service.poll_ready(cx))?;
                    let request = match this.left.is_empty() && this.later.is_none() {
                        true => this.request.take(),
                        false => this.request.clone(),
                    };
                    let Some(request) = request else { return Poll::Pending };
                    let mut request = request.map(RequestBody::from);
                    if *this.onward != Onward::default() {
                        request.extensions_mut().insert(*this.onward);
                    }
                    let answer = service.call(request);
                    this.state.set(State::Asking { answer });
                    continue;
                }
                StateProj::Asking { answer } => {
                    let response = ready!(answer.poll(cx))?;
                    if let Some(last) = self.as_mut().heard(response) {
                        return Poll::Ready(Ok(last));
                    }
                }
            }
            if self.as_mut().turn().is_none() {
                let response = DialectResponder.respond(&Error::NoModel, self.dialect);
                return Poll::Ready(Ok(response.map(RouteBody::own)));
            }
        }
    }
}

impl<S, B> std::fmt::Debug for RouteFuture<S, B>
where
    S: Service<Request<RequestBody>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteFuture")
            .field("route", &self.route)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

/// An answer that needs no model.
fn own<B>(mut response: Response<Bytes>) -> Response<RouteBody<B>> {
    Onward::default().mark(&mut response);
    response.map(RouteBody::own)
}

fn refuse<B>(error: Error, dialect: ClientDialect) -> Response<RouteBody<B>> {
    let mut response = DialectResponder.respond(&error, dialect);
    response.extensions_mut().insert(Arc::new(error));
    own(response)
}

/// The answer to a request that needs neither its body nor a model.
fn at_once<S, B>(
    route: &ModelRoute<S>,
    surface: &Result<Surface, Error>,
    request: &Request<Bytes>,
    dialect: ClientDialect,
) -> Option<Response<RouteBody<B>>> {
    match surface {
        Err(error) => {
            let said = of_server(request.method(), request.uri().path());
            Some(said.map_or_else(|| refuse(error.clone(), dialect), own))
        }
        Ok(surface) if surface.operation() == Operation::Models => {
            Some(own(listing(surface, request.uri().query(), route.names())))
        }
        Ok(_) => None,
    }
}

/// What is asked for.
fn operation(surface: &Result<Surface, Error>) -> Option<Operation> {
    surface.as_ref().ok().map(Surface::operation)
}

/// What an answer means for the models that have not been asked.
#[derive(Clone, Copy, Debug)]
struct Judged {
    /// One of them may serve the request.
    failed: bool,
    /// What stands before the provider has refused the request: a limit, say.
    is_denied: bool,
    /// The model's dialect does not have the operation at all: it makes no vectors that others could be mixed
    /// with.
    is_unheard: bool,
    /// Nothing that a model says which stands in takes its place, but an answer.
    counts: bool,
    /// Only the same model may stand in: vectors of two cannot be compared.
    binds: bool,
}

// === impl Judged ===

impl Judged {
    fn of<B>(response: &Response<B>, operation: Option<Operation>) -> Self {
        let is_of_the_model = response.extensions().get::<Onward>().is_some();
        let (status, error) = (response.status(), response.extensions().get::<Arc<Error>>());
        let is_unheard = matches!(error.map(Arc::as_ref), Some(Error::UnsupportedPair { .. }));
        let is_elsewhere = operation == Some(Operation::Stored) && status == StatusCode::NOT_FOUND;
        Self {
            failed: is_elsewhere || error.is_some_and(|error| error.may_fail_over()),
            is_denied: !is_of_the_model
                && error.is_none()
                && (status.is_client_error() || status.is_server_error()),
            is_unheard,
            counts: is_elsewhere || !is_refusal(response) || is_of_the_provider(response),
            binds: operation == Some(Operation::Embeddings) && !is_unheard,
        }
    }

    /// Whether another one is asked; `more` if one may stand in for the one that has answered. Who is left
    /// for `later` may serve what is denied elsewhere.
    fn goes_on(self, more: bool, left: &[usize], later: bool) -> bool {
        (self.is_denied && later) || (self.failed && (more || (self.is_unheard && !left.is_empty())))
    }
}

/// Whether the request is refused, and would be again. A stream may say so, too.
fn is_refusal<B>(response: &Response<B>) -> bool {
    let error = response.extensions().get::<Arc<Error>>();
    let status = error.map_or(response.status(), |error| error.status());
    status.is_client_error() && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Whether a provider has refused for what it is itself: clients act on that (they shorten a conversation,
/// say), and not on what a model says that stands in.
fn is_of_the_provider<B>(response: &Response<B>) -> bool {
    let error = response.extensions().get::<Arc<Error>>().map(Arc::as_ref);
    matches!(error, Some(Error::Provider { fault, .. }) if fault.kind.is_of_the_provider())
}

/// An earlier answer in the place of the last one: what one model refuses that only stands in says nothing of
/// the one that was meant, which may serve the request later or once it is shorter.
fn in_place_of<B>(last: Response<B>, mut earlier: Response<B>) -> Response<B> {
    if let Some(unasked) = last.extensions().get::<Unasked>() {
        earlier.extensions_mut().insert(*unasked);
    }
    earlier
}
