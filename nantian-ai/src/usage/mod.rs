//! How many tokens an answer took, and who wants to know.
//!
//! [`Meter`] is the core: it is fed the reply as it passes and keeps next to nothing of it.
//! [`UsageLayer`] puts it around any service, for routes whose backend is no
//! [`AiService`](crate::AiService); an `AiService` has it built in.

mod about;
mod asking;
mod body;
mod call;
mod content;
mod excerpt;
mod format;
mod future;
mod hide;
mod layer;
mod meter;
mod reply;
mod service;
mod tally;

pub use self::asking::{AsksForUsage, ask_for_usage, refuses_to_tell_usage};
pub use self::body::MeteredBody;
pub use self::call::{AttemptReport, CallReport};
pub use self::content::Content;
pub use self::future::UsageFuture;
pub use self::hide::HideUsage;
pub use self::layer::UsageLayer;
pub use self::meter::{End, Meter};
pub use self::service::UsageService;

pub(crate) use self::about::About;
pub(crate) use self::asking::{is_added, options_that_ask};
pub(crate) use self::body::Metering;
pub(crate) use self::excerpt::excerpt;

use std::sync::Arc;

use http::Extensions;

use crate::facts::RequestFacts;

/// Tokens of one request and its answer.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that went in, those from a cache and into one included.
    pub input: u64,
    /// Tokens that came out, reasoning included.
    pub output: u64,
    /// The part of `input` that the provider read from its cache.
    pub cached: u64,
    /// The part of `input` that the provider wrote into its cache.
    pub cache_written: u64,
    /// The part of `output` that is reasoning, where the provider tells it apart.
    pub reasoning: u64,
    /// All tokens: what the provider says, or the sum of both.
    pub total: u64,
    /// Whether any of the numbers is an estimate because the provider did not report it.
    ///
    /// An estimate is good enough to charge for more than was reserved, but not to refund: even a complete
    /// answer has one where the provider tells no usage, and the input of a request that nobody read counts
    /// as zero.
    pub estimated: bool,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The client went away, or the process ended, before the answer was complete.
    Aborted,
    /// The answer was complete.
    Completed,
    /// There was no answer: the upstream refused, or could not be reached. The usage is zero.
    NotServed,
    /// The upstream refused, though it has the prompt, or one before it has: a model that has thought for as
    /// long as its answer may be, a server that has waited in vain for one. The usage is estimated.
    Refused,
    /// The upstream ended the answer early, or did not begin it though it has the prompt: an error inside the
    /// stream, a broken connection, a timeout.
    Truncated,
}

/// What an observer is told, once for each request.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UsageReport {
    /// The tokens.
    pub usage: Usage,
    /// How the answer ended.
    pub outcome: Outcome,
    /// How the call went.
    pub call: CallReport,
}

/// Wants to know the usage of every request.
///
/// A function of the request's extensions and [`RequestFacts`] that gives a [`UsageSink`] is one, and so is
/// an `Arc` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no observer of usage",
    note = "it is a `UsageObserver`, an `Arc` of one, or a closure, whose arguments need their types: \
            `|extensions: &http::Extensions, facts: &RequestFacts| move |report: UsageReport| ..`"
)]
pub trait UsageObserver {
    /// What is told the usage of one request.
    type Sink: UsageSink;

    /// Called when a request is about to be sent, with its extensions: there is what an earlier layer left,
    /// such as a reservation. Not called for requests that are refused before.
    fn begin(&self, extensions: &Extensions, facts: &RequestFacts) -> Self::Sink;

    /// How much of a conversation and of its answer is kept to be told, in bytes each. Of a longer request
    /// the latest messages are kept that fit, of a longer answer its beginning. Nothing unless it is
    /// implemented, and nothing of a call where a quarter of the [`BodyMemory`](crate::BodyMemory) is held;
    /// only an [`AiService`](crate::AiService) asks.
    fn keeps(&self) -> usize {
        0
    }
}

/// Is told the usage of one request. Taken by value, so that it cannot be told twice.
pub trait UsageSink {
    /// Called when the answer has ended, failed, or has been dropped.
    ///
    /// Where targets of a [`route`](crate::route) have been asked before, which have [passed
    /// on](Self::pass_on) their calls, the report is what settles for all: if those may have used tokens and
    /// this one has failed, it is [`Outcome::Truncated`] or [`Outcome::Refused`] with the estimate of the
    /// input, even if this one was sent nothing. Metrics of single targets are to look at
    /// [`CallReport::error`], too.
    fn finish(self, report: UsageReport);

    /// Called instead of [`finish`](Self::finish) where the call has failed and another target is asked: who
    /// settles for the request as a whole is told of that one. Does nothing unless it is implemented.
    fn pass_on(self, report: UsageReport)
    where
        Self: Sized,
    {
        drop(report);
    }
}

// === impl UsageReport ===

impl UsageReport {
    /// What a [`UsageSink`] is told: to tell one directly, as tests do.
    pub fn new(usage: Usage, outcome: Outcome) -> Self {
        Self { usage, outcome, call: CallReport::default() }
    }
}

// === impl UsageObserver ===

impl UsageObserver for () {
    type Sink = ();

    fn begin(&self, _extensions: &Extensions, _facts: &RequestFacts) -> Self::Sink {}
}

impl<O: UsageObserver + ?Sized> UsageObserver for Arc<O> {
    type Sink = O::Sink;

    fn begin(&self, extensions: &Extensions, facts: &RequestFacts) -> Self::Sink {
        (**self).begin(extensions, facts)
    }

    fn keeps(&self) -> usize {
        (**self).keeps()
    }
}

impl<F, K> UsageObserver for F
where
    F: Fn(&Extensions, &RequestFacts) -> K,
    K: UsageSink,
{
    type Sink = K;

    fn begin(&self, extensions: &Extensions, facts: &RequestFacts) -> K {
        self(extensions, facts)
    }
}

// === impl UsageSink ===

impl UsageSink for () {
    fn finish(self, _report: UsageReport) {}
}

impl<K: UsageSink> UsageSink for Option<K> {
    fn finish(self, report: UsageReport) {
        if let Some(sink) = self {
            sink.finish(report);
        }
    }

    fn pass_on(self, report: UsageReport) {
        if let Some(sink) = self {
            sink.pass_on(report);
        }
    }
}

impl<F: FnOnce(UsageReport)> UsageSink for F {
    fn finish(self, report: UsageReport) {
        self(report);
    }
}
