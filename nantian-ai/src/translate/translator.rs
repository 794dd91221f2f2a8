//! A streamed answer, said anew while it passes.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{MOST_KEPT, StreamDecoder, StreamEncoder};
use crate::ir::{Event, Fault, Losses};
use crate::memory::HeldMemory;

/// Turns a stream of the upstream into one of the client while it passes.
#[derive(Debug)]
pub struct Translator {
    decoder: StreamDecoder,
    encoder: StreamEncoder,
    /// How the answer names its model, whatever the provider calls it.
    named: Option<String>,
    begun: Instant,
    events: VecDeque<Event>,
    /// Something of the answer itself has been said.
    spoken: bool,
    ended: bool,
    failed: Option<Fault>,
    /// Holds what is kept of the stream, if there is a bound for all.
    room: Option<HeldMemory>,
    /// It had none for this stream.
    roomless: bool,
}

// === impl Translator ===

impl Translator {
    pub(super) fn new(
        decoder: StreamDecoder,
        encoder: StreamEncoder,
        named: Option<String>,
        begun: Instant,
    ) -> Self {
        let events = VecDeque::new();
        let (spoken, ended, roomless) = (false, false, false);
        Self { decoder, encoder, named, begun, events, spoken, ended, failed: None, room: None, roomless }
    }

    /// Holds memory for what it keeps.
    pub(crate) fn holding(self, room: Option<HeldMemory>) -> Self {
        Self { room, ..self }
    }

    /// The next chunk, said anew; may be empty.
    pub fn push(&mut self, chunk: &[u8]) -> Bytes {
        if self.ended {
            return Bytes::new();
        }
        self.decoder.push(chunk, &mut self.events);
        self.write()
    }

    /// That there is nothing to say yet; empty where the client's dialect has no words for it.
    pub fn ping(&mut self) -> Bytes {
        if !self.ended {
            self.events.push_back(Event::Ping);
        }
        self.write()
    }

    /// Whether the client's dialect has words for that.
    pub(crate) fn pings(&self) -> bool {
        self.encoder.pings()
    }

    /// The end of the bytes, said anew.
    pub fn finish(&mut self) -> Bytes {
        self.decoder.finish(&mut self.events);
        self.write()
    }

    /// The end of a stream that cannot go on.
    pub fn fail(&mut self, fault: Fault) -> Bytes {
        if !self.ended {
            self.events.push_back(Event::Failed(fault));
        }
        self.write()
    }

    /// Whether the client has been told the end.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether that end is a failure.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The failure of a stream of which nothing has been said before.
    pub(crate) fn failed_at_once(&self) -> Option<&Fault> {
        self.failed.as_ref().filter(|_| !self.spoken)
    }

    /// Whether that is for want of memory on this side.
    pub(crate) fn lacks_room(&self) -> bool {
        self.roomless
    }

    /// What could not be said of the answer so far.
    pub fn losses(&self) -> Losses {
        let mut losses = self.decoder.losses().clone();
        losses.extend(self.encoder.losses().cloned().unwrap_or_default());
        losses
    }

    fn write(&mut self) -> Bytes {
        let mut out = Vec::new();
        self.say(&mut out);
        if let Some(fault) = self.lack_of_room() {
            self.events.push_back(Event::Failed(fault));
            self.say(&mut out);
        }
        Bytes::from(out)
    }

    /// Why the stream cannot go on, if too much of it is kept.
    fn lack_of_room(&mut self) -> Option<Fault> {
        if self.ended {
            return None;
        }
        let said = self.encoder.kept();
        if said > MOST_KEPT {
            return Some(Fault::too_large());
        }
        let kept = self.decoder.kept() + said + self.encoder.kept_of_request();
        let error = self.room.as_ref()?.keep(kept).err()?;
        self.roomless = true;
        Some(error.fault())
    }

    fn say(&mut self, out: &mut Vec<u8>) {
        self.encoder.set_took(self.begun.elapsed());
        while let Some(mut event) = self.events.pop_front() {
            // Of a stream that has been ended here more may come.
            if self.ended {
                continue;
            }
            self.ended = event.is_last();
            match &mut event {
                Event::Failed(fault) => self.failed = Some(fault.clone()),
                Event::Start { model, .. } if self.named.is_some() => *model = self.named.take(),
                Event::Start { .. } | Event::Ping | Event::Tokens(_) => {}
                _ => self.spoken = true,
            }
            self.encoder.push(event, out);
        }
    }
}
