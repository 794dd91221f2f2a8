//! What happens to the chunks of a stream on their way to the client.

use bytes::Bytes;

use crate::dialect::{Operation, Surface};
use crate::error::Error;
use crate::ir::{Fault, Losses};
use crate::respond::error_event;
use crate::translate::Translator;
use crate::usage::{HideUsage, Meter};

/// The way of a body.
#[derive(Debug)]
pub(crate) enum ChunkPath {
    /// As it is.
    Pass,
    /// Without the usage that only this side has asked for.
    Hide(Box<HideUsage>),
    /// In another dialect.
    Translate(Box<Translator>),
}

// === impl ChunkPath ===

impl ChunkPath {
    /// The next chunk, as the client gets it; may be empty.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Bytes {
        match self {
            Self::Pass => chunk,
            Self::Hide(hide) => hide.push(chunk),
            Self::Translate(translator) => translator.push(&chunk),
        }
    }

    /// What the client gets at the end of the body; may be empty.
    pub(crate) fn finish(&mut self, meter: Option<&Meter>, surface: &Surface, target: &str) -> Bytes {
        let rest = match self {
            Self::Pass => Bytes::new(),
            Self::Hide(hide) => hide.finish(),
            Self::Translate(translator) => return translator.finish(),
        };
        match meter {
            Some(meter)
                if meter.reads_events() && surface.operation() != Operation::Models && !meter.has_end() =>
            {
                let error = error_event(&Error::truncated(target), surface.dialect(), meter);
                Bytes::from([rest, error].concat())
            }
            _ => rest,
        }
    }

    /// What the client gets when the body breaks off; `None` if it can only be told by breaking off too.
    pub(crate) fn fail(&mut self, error: &Error, meter: Option<&Meter>, surface: &Surface) -> Option<Bytes> {
        match (self, meter) {
            // It has told all that makes it whole.
            (Self::Translate(translator), Some(meter)) if meter.is_complete() => Some(translator.finish()),
            (Self::Translate(translator), _) => Some(translator.fail(error.fault())),
            (_, Some(meter)) if meter.reads_events() => Some(match meter.has_end() {
                true => Bytes::new(),
                false => error_event(error, surface.dialect(), meter),
            }),
            _ => None,
        }
    }

    /// What a client gets that has heard nothing for long; may be empty.
    pub(crate) fn ping(&mut self) -> Bytes {
        match self {
            Self::Translate(translator) => translator.ping(),
            Self::Pass | Self::Hide(_) => Bytes::new(),
        }
    }

    /// Whether it gets anything.
    pub(crate) fn pings(&self) -> bool {
        matches!(self, Self::Translate(translator) if translator.pings())
    }

    /// Whether the client has all that it will get.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Translate(translator) if translator.is_ended())
    }

    /// Whether that is a failure.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self, Self::Translate(translator) if translator.has_failed())
    }

    /// The failure of a stream of which the client has been told nothing before.
    pub(crate) fn failed_at_once(&self) -> Option<&Fault> {
        match self {
            Self::Translate(translator) => translator.failed_at_once(),
            Self::Pass | Self::Hide(_) => None,
        }
    }

    /// Whether that is for want of memory on this side.
    pub(crate) fn lacks_room(&self) -> bool {
        matches!(self, Self::Translate(translator) if translator.lacks_room())
    }

    /// What could not be said of the answer so far.
    pub(crate) fn losses(&self) -> Losses {
        match self {
            Self::Translate(translator) => translator.losses(),
            Self::Pass | Self::Hide(_) => Losses::default(),
        }
    }

    /// Whether the client speaks another dialect.
    pub(crate) fn is_translated(&self) -> bool {
        matches!(self, Self::Translate(_))
    }

    /// Whether bytes come out as they went in.
    pub(crate) fn is_pass(&self) -> bool {
        matches!(self, Self::Pass)
    }
}
