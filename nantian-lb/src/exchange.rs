//! What is done at the head of a response.

use std::fmt;
use std::time::SystemTime;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;

use crate::attempt_timeout::AttemptTimeout;
use crate::blame::Blame;
use crate::body::ResponseBody;
use crate::clock::Timestamp;
use crate::in_flight::{InFlight, UpgradeGuard};
use crate::outcome::Outcome;
use crate::session::{Session, Sessions};

/// A request on its way, and what is to be done at the head of its response.
pub(crate) struct Exchange<J> {
    pub(crate) in_flight: InFlight,
    pub(crate) timeout: Option<AttemptTimeout>,
    /// When a request that nobody waits for any more has waited long enough itself.
    pub(crate) late_at: Option<Timestamp>,
    pub(crate) affinity: Option<SessionAffinity>,
    pub(crate) blame: J,
    pub(crate) is_connect: bool,
}

/// Keeps a client with its endpoint.
#[derive(Debug)]
pub(crate) struct SessionAffinity {
    sessions: Sessions,
    session: Option<Session>,
    /// Whether the endpoint of the session is passed over for the moment.
    is_detour: bool,
}

// === impl Exchange ===

impl<J> Exchange<J> {
    /// Tells what became of the request, and hands the guard to whatever ends last: the upgraded connection
    /// or the body.
    pub(crate) fn end<B: Body, E>(
        self,
        response: Result<Response<B>, E>,
    ) -> Result<Response<ResponseBody<B>>, E>
    where
        J: Blame<E>,
    {
        let Self { mut in_flight, affinity, blame, is_connect, .. } = self;
        let mut response = match response {
            Ok(response) => response,
            Err(error) => {
                if blame.blames(&error) {
                    in_flight.record(Outcome::Unreachable);
                }
                return Err(error);
            }
        };
        in_flight.record(Outcome::of(&response));
        if let Some(affinity) = affinity {
            affinity.write(response.headers_mut(), &in_flight);
        }
        let status = response.status();
        let upgrades = status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success());
        if upgrades {
            response.extensions_mut().insert(UpgradeGuard::new(in_flight));
            return Ok(response.map(|body| ResponseBody::new(body, None)));
        }
        Ok(response.map(|body| ResponseBody::new(body, Some(in_flight))))
    }

    /// Nobody waits for the response any more: if its time was over, there was no answer.
    pub(crate) fn give_up(&mut self) {
        let is_late = || self.late_at.is_some_and(|late_at| self.in_flight.now() >= late_at);
        if self.timeout.as_ref().is_some_and(AttemptTimeout::is_expired) || is_late() {
            self.in_flight.record(Outcome::Unreachable);
        }
    }
}

impl<J> fmt::Debug for Exchange<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("in_flight", &self.in_flight)
            .field("affinity", &self.affinity)
            .finish_non_exhaustive()
    }
}

// === impl SessionAffinity ===

impl SessionAffinity {
    /// Finds the session of a request.
    pub(crate) fn new<B>(sessions: &Sessions, request: &Request<B>) -> Self {
        let known = request.extensions().get::<Session>().copied();
        let session = known.or_else(|| sessions.find(request.headers(), SystemTime::now()));
        let session = session.filter(|session| sessions.owns(session));
        Self { sessions: sessions.clone(), session, is_detour: false }
    }

    /// On a detour the session stays with its endpoint, whoever answers.
    pub(crate) fn with_detour(self, is_detour: bool) -> Self {
        Self { is_detour, ..self }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    fn write(&self, headers: &mut HeaderMap, in_flight: &InFlight) {
        let session = self.session.as_ref();
        let own = session.filter(|_| self.is_detour).map(|session| session.endpoint);
        let endpoint = own.unwrap_or_else(|| in_flight.hash());
        self.sessions.write_for(headers, SystemTime::now(), session, endpoint);
    }
}
