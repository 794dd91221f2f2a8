//! What is left of a request that is answered before its client has sent the whole of it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep, timeout};

use super::{
    stall_timer::StallTimer,
    state::{InFlight, State},
};

/// Of a request with more to come than this, in bytes, or nobody knows how much, the client is told that its
/// connection closes, so that it may stop sending: less is sooner sent than a new connection opened. Go's
/// `net/http` draws the line there, too.
const WORTH_READING: u64 = 256 * 1024;

/// How long a client may go on sending what nobody wants; nginx's `lingering_time`.
const LINGER: Duration = Duration::from_secs(30);

/// What is left of the present request of an HTTP/1.1 connection, which reads it and throws it away.
///
/// A socket that closes with bytes unread is reset, and a client that is still sending loses the response
/// that it should have read (RFC 9112, section 9.6). And who has sent the little that was left may go on with
/// its next request.
#[derive(Clone)]
pub(super) struct UnreadBody(Rc<Inner>);

/// Reads what is left of the request of an HTTP/2 stream and throws it away.
///
/// A stream whose request nobody reads is reset after its response. A client need not mind (RFC 9113, section
/// 8.1), but curl, Node.js and Python's h2 lose the response over it. One whose client does not take its
/// response ends at once. Until it is read the connection is not idle.
pub(super) async fn discard(mut incoming: Incoming, timer: Rc<StallTimer>) {
    let _busy = timer.resume();
    let rest = poll_fn(|cx| {
        timer.register(cx);
        while !timer.is_late() {
            let Some(Ok(_)) = ready!(Pin::new(&mut incoming).poll_frame(cx)) else { break };
        }
        Poll::Ready(())
    });
    // Who sends on for longer is told by the reset.
    let _ = timeout(LINGER, rest).await;
}

struct Inner {
    state: Arc<State>,
    rest: RefCell<Option<Rest>>,
    /// The client waits for 100 and may send its body or not, so that nobody knows what comes next.
    is_unclear: Cell<bool>,
    /// The task of the connection.
    task: RefCell<Waker>,
}

struct Rest {
    incoming: Incoming,
    /// Runs from the first time on that the client is waited for.
    patience: Option<Pin<Box<Sleep>>>,
    /// The connection is not idle, and what comes is no head.
    _busy: InFlight,
}

impl UnreadBody {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self(Rc::new(Inner {
            state,
            rest: RefCell::default(),
            is_unclear: Cell::default(),
            task: RefCell::new(Waker::noop().clone()),
        }))
    }

    /// Nobody wants the rest of this body. Whose client still waits for 100 is not asked for it.
    pub(super) fn leave(&self, incoming: Incoming, waits_for_100: bool) {
        if waits_for_100 {
            self.0.is_unclear.set(true);
            return;
        }
        let rest = Rest { incoming, patience: None, _busy: InFlight::resume(&self.0.state) };
        *self.0.rest.borrow_mut() = Some(rest);
        self.0.task.borrow().wake_by_ref();
    }

    /// Whether the connection had better close after the response that begins now.
    pub(super) fn is_long(&self) -> bool {
        let rest = self.0.rest.borrow();
        let length = rest.as_ref().map(|rest| rest.incoming.size_hint().upper());
        self.0.is_unclear.get()
            || length.is_some_and(|length| length.is_none_or(|length| length > WORTH_READING))
    }

    /// Reads on; returns whether the connection, whose task this is, has to be polled again.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.0.task.borrow_mut().clone_from(cx.waker());
        let mut rest = self.0.rest.borrow_mut();
        match rest.as_mut().map(|rest| rest.poll(cx)) {
            None | Some(Poll::Pending) => false,
            Some(Poll::Ready(more)) => {
                if !more {
                    *rest = None;
                }
                true
            }
        }
    }
}

impl Rest {
    /// Whether there may be more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(matches!(frame, Some(Ok(_)))),
            Poll::Pending => {
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                patience.as_mut().poll(cx).map(|()| false)
            }
        }
    }
}
