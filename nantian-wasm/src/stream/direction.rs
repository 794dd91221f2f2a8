//! Which way bytes flow.

use crate::error::Phase;
use crate::proxy_wasm::MapKind;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// One for each direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByDirection<T> {
    pub(crate) request: T,
    pub(crate) response: T,
}

// === impl Direction ===

impl Direction {
    pub(crate) fn headers_phase(self) -> Phase {
        match self {
            Self::Request => Phase::RequestHeaders,
            Self::Response => Phase::ResponseHeaders,
        }
    }

    pub(crate) fn headers_kind(self) -> MapKind {
        match self {
            Self::Request => MapKind::RequestHeaders,
            Self::Response => MapKind::ResponseHeaders,
        }
    }

    pub(crate) fn trailers_phase(self) -> Phase {
        match self {
            Self::Request => Phase::RequestTrailers,
            Self::Response => Phase::ResponseTrailers,
        }
    }

    pub(crate) fn trailers_kind(self) -> MapKind {
        match self {
            Self::Request => MapKind::RequestTrailers,
            Self::Response => MapKind::ResponseTrailers,
        }
    }

    pub(crate) fn body_phase(self) -> Phase {
        match self {
            Self::Request => Phase::RequestBody,
            Self::Response => Phase::ResponseBody,
        }
    }
}

// === impl ByDirection ===

impl<T> ByDirection<T> {
    pub(crate) fn get(&self, direction: Direction) -> &T {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    pub(crate) fn of(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.request, &self.response].into_iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.request, &mut self.response].into_iter()
    }
}
