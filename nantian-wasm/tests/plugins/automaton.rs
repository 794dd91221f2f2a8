//! The state machine of a stream against a reference automaton, for any order of events and any verdicts of
//! the guest.

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{Action, Engine, FailurePolicy, Module, Plugin, PluginConfig, StreamContext, StreamInfo};
use proptest::prelude::*;

use crate::support::{guest, ticks_with_logs};

const REQUEST: usize = 0;
const RESPONSE: usize = 1;

const ANSWERS: u8 = 0x10;
const CONTINUES: [u8; 2] = [0x20, 0x40];
const TRAPS: u8 = 0x80;

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Headers { end: bool },
    Body { bytes: Vec<u8>, end: bool },
    Trailers,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// These bytes go on now; nothing else is held up.
    Passed(Vec<u8>),
    /// The part waits for the guest.
    Stuck,
    Answered,
    Failed,
    /// The stream has ended in a callback of the other message.
    BrokenOff,
}

/// One direction of the reference.
#[derive(Debug, Default)]
struct Side {
    /// Bytes that the guest has seen and keeps: the one buffer of the message.
    buffer: Vec<u8>,
    /// It sees them again with the next part, which is in the buffer then, whatever the guest makes of it.
    is_buffering: bool,
    is_held: bool,
    /// It held the message and has let it go from a callback of the other direction.
    is_let_go: bool,
    /// It has continued the message in its last callback, which may be one that holds it.
    is_continued: bool,
    /// The headers have left.
    has_left: bool,
    /// Nothing more of it goes on.
    is_over: bool,
}

/// The automaton: what the documentation says of one plugin that holds, continues, answers and traps.
#[derive(Debug)]
struct Reference {
    script: Vec<u8>,
    place: usize,
    trace: u64,
    sides: [Side; 2],
    fails_open: bool,
    /// It trapped and fails open: it is not asked any more, and holds nothing.
    is_out: bool,
}

enum End {
    Answered,
    Failed,
}

impl Side {
    fn take(&mut self) -> Vec<u8> {
        (self.is_held, self.is_let_go) = (false, false);
        std::mem::take(&mut self.buffer)
    }
}

impl Reference {
    fn call(&mut self, callback: u64, length: usize, end: bool) -> Result<u8, End> {
        if self.is_out {
            return Ok(0);
        }
        let code = (callback << 40) + ((length as u64) << 1) + u64::from(end);
        self.trace = self.trace.wrapping_mul(1_000_003).wrapping_add(code);
        let what = self.script.get(self.place).copied().unwrap_or_default();
        self.place += 1;
        for (side, flag) in self.sides.iter_mut().zip(CONTINUES) {
            side.is_continued = what & flag != 0;
            if side.is_continued && side.is_held {
                (side.is_held, side.is_let_go) = (false, true);
            }
        }
        if what & TRAPS != 0 && !self.fails_open {
            return Err(End::Failed);
        }
        self.is_out = what & TRAPS != 0;
        // A guest that has answered before it traps has refused the message all the same.
        if what & ANSWERS != 0 {
            // Behind the response's headers there is nobody to answer.
            return Err(if self.sides[RESPONSE].has_left { End::Failed } else { End::Answered });
        }
        if self.is_out {
            return Ok(0);
        }
        Ok(what & 3)
    }

    fn step(&mut self, direction: usize, part: &Part) -> Outcome {
        if self.sides[direction].is_over {
            return Outcome::BrokenOff;
        }
        let result = match part {
            Part::Headers { end } => self.headers(direction, *end),
            Part::Body { bytes, end } => self.body(direction, bytes, *end),
            Part::Trailers => self.trailers(direction),
        };
        self.sides[direction].has_left |= matches!(result, Ok(Outcome::Passed(_)));
        result.unwrap_or_else(|end| {
            self.sides[REQUEST].is_over = true;
            // Before its headers have left, a response takes the place of the one that was to come.
            self.sides[RESPONSE].is_over |= direction == RESPONSE || self.sides[RESPONSE].has_left;
            match end {
                End::Answered => Outcome::Answered,
                End::Failed => {
                    self.is_out = true;
                    Outcome::Failed
                }
            }
        })
    }

    fn headers(&mut self, direction: usize, end: bool) -> Result<Outcome, End> {
        match self.call(direction as u64 * 3 + 1, 0, end)? {
            0 | 2 => Ok(Outcome::Passed(Vec::new())),
            _ if self.sides[direction].is_continued => Ok(Outcome::Passed(Vec::new())),
            _ => {
                self.sides[direction].is_held = true;
                Ok(Outcome::Stuck)
            }
        }
    }

    fn body(&mut self, direction: usize, bytes: &[u8], end: bool) -> Result<Outcome, End> {
        let mut front =
            if self.sides[direction].is_let_go { self.sides[direction].take() } else { Vec::new() };
        let side = &mut self.sides[direction];
        let length = bytes.len() + if side.is_buffering { side.buffer.len() } else { 0 };
        let verdict = self.call(direction as u64 * 3 + 2, length, end)?;
        let side = &mut self.sides[direction];
        let was_buffering = std::mem::replace(&mut side.is_buffering, verdict == 1);
        if verdict != 3 || was_buffering {
            side.buffer.extend_from_slice(bytes);
        }
        // The end is not withheld by forgetting it, and takes with it what was kept.
        if verdict == 0 || verdict == 3 && end {
            front.append(&mut side.take());
            return Ok(Outcome::Passed(front));
        }
        if end && side.is_continued {
            front.append(&mut side.take());
            return Ok(Outcome::Passed(front));
        }
        (side.is_held, side.is_let_go) = (true, side.is_continued);
        if end {
            front.append(&mut side.buffer);
            side.buffer = front;
            return Ok(Outcome::Stuck);
        }
        Ok(Outcome::Passed(front))
    }

    fn trailers(&mut self, direction: usize) -> Result<Outcome, End> {
        let mut bytes =
            if self.sides[direction].is_let_go { self.sides[direction].take() } else { Vec::new() };
        let held = self.sides[direction].buffer.len();
        if held > 0 {
            // The whole of it, as the end; it stays until the trailers have been seen.
            self.call(direction as u64 * 3 + 2, held, true)?;
        }
        let verdict = self.call(direction as u64 * 3 + 3, 0, false)?;
        let side = &mut self.sides[direction];
        bytes.append(&mut side.buffer);
        if verdict == 0 || side.is_continued {
            (side.is_held, side.is_let_go) = (false, false);
            return Ok(Outcome::Passed(bytes));
        }
        (side.buffer, side.is_held, side.is_let_go) = (bytes, true, false);
        Ok(Outcome::Stuck)
    }

    /// A stuck part goes on, if the guest has let it go since.
    fn retry(&mut self, direction: usize) -> Outcome {
        let side = &mut self.sides[direction];
        if side.is_over {
            Outcome::BrokenOff
        } else if side.is_let_go || self.is_out {
            side.has_left = true;
            Outcome::Passed(side.take())
        } else {
            Outcome::Stuck
        }
    }

    /// What goes on between two parts of a message, because the guest has let it go since or holds nothing
    /// any more.
    fn let_go(&mut self, direction: usize) -> Option<Outcome> {
        let side = &mut self.sides[direction];
        if side.is_over {
            return Some(Outcome::BrokenOff);
        }
        let goes_on = side.is_let_go || (side.is_held && self.is_out);
        goes_on.then(|| Outcome::Passed(side.take()))
    }
}

/// The machine under test.
struct Machine {
    stream: StreamContext,
    request: http::request::Parts,
    response: http::response::Parts,
    /// The arguments of the part that is stuck, by direction.
    chunks: [Bytes; 2],
    trailers: [HeaderMap; 2],
    /// While a guest runs, the other direction is polled too, and may be the one that lets it run.
    is_polled_elsewhere: bool,
}

impl Machine {
    fn new(plugin: &Plugin, is_polled_elsewhere: bool) -> Self {
        Self {
            stream: StreamContext::new([plugin.clone()].into(), StreamInfo::default()),
            request: Request::new(()).into_parts().0,
            response: Response::new(()).into_parts().0,
            chunks: Default::default(),
            trailers: Default::default(),
            is_polled_elsewhere,
        }
    }

    fn step(&mut self, direction: usize, part: &Part) -> Outcome {
        match part {
            Part::Body { bytes, .. } => self.chunks[direction] = Bytes::from(bytes.clone()),
            Part::Trailers => {
                self.trailers[direction] =
                    HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
            }
            Part::Headers { .. } => {}
        }
        self.show_until_held(direction, part)
    }

    /// Lets the guest use as many slices of time as it takes.
    fn show_until_held(&mut self, direction: usize, part: &Part) -> Outcome {
        loop {
            let outcome = self.show(direction, part);
            if outcome != Outcome::Stuck || !(0..8).any(|_| self.poll(direction).is_ready()) {
                return outcome;
            }
        }
    }

    fn poll(&mut self, direction: usize) -> Poll<()> {
        let mut context = Context::from_waker(Waker::noop());
        if self.is_polled_elsewhere {
            let _ = match direction {
                REQUEST => self.stream.poll_response(&mut context),
                _ => self.stream.poll_request(&mut context),
            };
        }
        match direction {
            REQUEST => self.stream.poll_request(&mut context),
            _ => self.stream.poll_response(&mut context),
        }
    }

    fn show(&mut self, direction: usize, part: &Part) -> Outcome {
        let Self { stream, request, response, chunks, trailers, .. } = self;
        let (chunk, trailers) = (&mut chunks[direction], &mut trailers[direction]);
        let action = match (part, direction) {
            (Part::Headers { end }, REQUEST) => stream.on_request_headers(request, *end),
            (Part::Headers { end }, _) => stream.on_response_headers(response, *end),
            (Part::Body { end, .. }, REQUEST) => stream.on_request_body(chunk, *end),
            (Part::Body { end, .. }, _) => stream.on_response_body(chunk, *end),
            (Part::Trailers, REQUEST) => stream.on_request_trailers(chunk, trailers),
            (Part::Trailers, _) => stream.on_response_trailers(chunk, trailers),
        };
        match action {
            Action::Continue => {
                assert!(*part != Part::Trailers || trailers.len() == 1, "trailers pass whole");
                Outcome::Passed(std::mem::take(chunk).to_vec())
            }
            Action::Pending => Outcome::Stuck,
            Action::Respond(answer) => {
                assert_eq!(answer.status, 200);
                Outcome::Answered
            }
            Action::Fail(_) => Outcome::Failed,
            Action::BreakOff(_) => Outcome::BrokenOff,
            action => panic!("{action:?}"),
        }
    }

    /// Shows a stuck part again if the machine says that it may go on.
    fn retry(&mut self, direction: usize, part: &Part) -> Outcome {
        match self.poll(direction) {
            Poll::Ready(()) => self.show_until_held(direction, part),
            Poll::Pending => Outcome::Stuck,
        }
    }

    /// Shows an empty part if the machine says that something is let go.
    fn let_go(&mut self, direction: usize) -> Option<Outcome> {
        let empty = Part::Body { bytes: Vec::new(), end: false };
        self.poll(direction).is_ready().then(|| self.step(direction, &empty))
    }
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().unwrap().0);
static MODULE: LazyLock<Module> =
    LazyLock::new(|| Module::compile(&ENGINE, &guest("scripted"), None).unwrap());

fn scripted(script: &[u8], fails_open: bool) -> Plugin {
    let mut config = PluginConfig::new("scripted");
    if fails_open {
        config.failure_policy = FailurePolicy::FailOpen;
    }
    config.configuration = Bytes::copy_from_slice(script);
    config.instances = NonZeroUsize::new(1);
    Plugin::new(&MODULE, config).unwrap()
}

#[test]
fn bytes_that_a_plugin_has_let_go_pass_though_it_fails_open_with_the_next_part() {
    // It runs for two slices with each part, and traps with the second one of the body.
    let _clock = tracing::subscriber::set_default(ticks_with_logs(Engine::clone(&ENGINE), 2));
    let plugin = scripted(&[0, 2, CONTINUES[REQUEST], TRAPS], true);
    let mut machine = Machine::new(&plugin, false);
    let headers = Part::Headers { end: false };
    let body = |bytes: &[u8]| Part::Body { bytes: bytes.to_vec(), end: false };
    for (direction, part, passed) in [
        (REQUEST, headers.clone(), &b""[..]),
        (REQUEST, body(b"one"), b""),
        (RESPONSE, headers, b""),
        (REQUEST, body(b"two"), b"onetwo"),
    ] {
        assert_eq!(machine.step(direction, &part), Outcome::Passed(passed.to_vec()), "{part:?}");
    }
}

/// A message: headers, pieces of a body, and perhaps trailers.
fn message() -> impl Strategy<Value = Vec<Part>> {
    let pieces = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..4), 0..4);
    (pieces, any::<bool>(), any::<bool>()).prop_map(|(pieces, has_trailers, is_bodiless)| {
        if is_bodiless && pieces.is_empty() {
            return vec![Part::Headers { end: true }];
        }
        let mut parts = vec![Part::Headers { end: false }];
        parts.extend(pieces.into_iter().map(|bytes| Part::Body { bytes, end: false }));
        parts.push(if has_trailers { Part::Trailers } else { Part::Body { bytes: Vec::new(), end: true } });
        parts
    })
}

/// What a guest does; it mostly holds and continues, or no message would come far.
fn what() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => 0..4_u8,
        3 => (0..4_u8, prop::sample::select(vec![0x20_u8, 0x40, 0x60])).prop_map(|(action, flags)| action | flags),
        1 => prop::sample::select(vec![ANSWERS, TRAPS, ANSWERS | TRAPS, ANSWERS | 0x60]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn streams_go_the_way_of_the_reference_automaton(
        script in prop::collection::vec(what(), 0..14),
        request in message(),
        response in message(),
        order in prop::collection::vec(any::<bool>(), 0..16),
        // Milliseconds that pass in the middle of each callback: the guest gives way, and goes on later.
        slices in 0..3_u32,
        is_polled_elsewhere: bool,
        fails_open: bool,
        // Between its parts, a message is waited for.
        is_waited_for: bool,
    ) {
        let engine = Engine::clone(&ENGINE);
        let _clock = tracing::subscriber::set_default(ticks_with_logs(engine, slices));
        let plugin = scripted(&script, fails_open);
        let mut machine = Machine::new(&plugin, is_polled_elsewhere);
        let mut reference =
            Reference { script, place: 0, trace: 0, sides: Default::default(), fails_open, is_out: false };
        let mut waiting = [request.into_iter().collect::<std::collections::VecDeque<_>>(), response.into()];
        let mut stuck: [Option<Part>; 2] = [None, None];
        let mut order = order.into_iter();
        let (mut has_passed_headers, mut has_response_come) = (false, false);
        loop {
            // Nothing is answered before the request's headers have left.
            let may_respond = has_passed_headers;
            let may = |direction: usize| {
                stuck[direction].is_none()
                    && !waiting[direction].is_empty()
                    && (direction == REQUEST || may_respond)
            };
            let direction = match (may(REQUEST), may(RESPONSE)) {
                (true, true) => usize::from(order.next().unwrap_or(false)),
                (true, false) => REQUEST,
                (false, true) => RESPONSE,
                (false, false) => break,
            };
            let part = waiting[direction].pop_front().unwrap();
            let had_come = has_response_come;
            has_response_come |= direction == RESPONSE;
            let outcome = machine.step(direction, &part);
            prop_assert_eq!(&outcome, &reference.step(direction, &part), "{} {:?}", direction, part);
            match outcome {
                Outcome::Passed(_) => has_passed_headers = true,
                Outcome::Stuck => stuck[direction] = Some(part),
                // What stands for it is shown as a response of its own, if none has come so far.
                Outcome::Answered | Outcome::Failed if direction == REQUEST && !had_come => {
                    has_passed_headers = true;
                    waiting[RESPONSE] = [Part::Headers { end: true }].into();
                }
                // It is sent instead of the response that waits.
                Outcome::Answered | Outcome::Failed if matches!(stuck[RESPONSE], Some(Part::Headers { .. })) => break,
                Outcome::Answered | Outcome::Failed | Outcome::BrokenOff => {}
            }
            let other = 1 - direction;
            if let Some(part) = stuck[other].take() {
                let outcome = machine.retry(other, &part);
                prop_assert_eq!(&outcome, &reference.retry(other), "{} {:?} again", other, part);
                if outcome == Outcome::Stuck {
                    stuck[other] = Some(part);
                }
            }
            for direction in [REQUEST, RESPONSE] {
                if !is_waited_for || stuck[direction].is_some() {
                    continue;
                }
                let outcome = machine.let_go(direction);
                prop_assert_eq!(&outcome, &reference.let_go(direction), "{} between parts", direction);
                let is_over = outcome == Some(Outcome::BrokenOff);
                prop_assert_eq!(machine.poll(direction).is_ready(), is_over, "{} is let go once", direction);
            }
        }
        let metrics = plugin.status().metrics;
        prop_assert_eq!(metrics[0].value, reference.trace, "the guest saw the same");
    }
}
