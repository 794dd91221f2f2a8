//! Lookups of names. The system's resolver blocks a thread for each, for as long as name servers are silent.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::sync::lock;

/// How many names are looked up at once; more wait for their turn.
const MOST: usize = 256;

/// How long a lookup without an answer is that of all who ask, from when it began. Where a packet is lost the
/// resolver waits for seconds until it asks again; whoever asks later has another try.
const FRESH: Duration = Duration::from_millis(250);

/// How often one name is looked up at once.
const TRIES: usize = 3;

static NAMES: LazyLock<Arc<Names>> = LazyLock::new(|| Names::new(MOST, resolve));

/// The lookups of a process, on threads of their own: a runtime's, which others need, would all wait for a
/// resolver that hangs, and so would the runtime's end.
struct Names {
    most: usize,
    resolve: Box<Resolve>,
    lookups: Mutex<Lookups>,
}

#[derive(Default)]
struct Lookups {
    /// The names that have no answer.
    open: HashMap<Arc<str>, Lookup>,
    /// What no thread has begun with.
    waiting: VecDeque<Try>,
    threads: usize,
}

/// The lookup of a name.
#[derive(Default)]
struct Lookup {
    answer: watch::Sender<Option<Answer>>,
    /// How many have not ended.
    tries: usize,
    /// Whether one has failed. No further one begins then, or who asks all the time would never hear of it.
    has_failed: bool,
    /// When the last try began; `None` while it waits for its turn.
    begun: Option<Instant>,
}

/// One try to look up a name. The first that finds it has found it for all who wait.
struct Try {
    name: Arc<str>,
    answer: watch::Sender<Option<Answer>>,
}

type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The addresses of a name, or the one that it is, with this port. All who wait for those of a name share the
/// first answer.
///
/// # Errors
/// What the resolver says, or that there is no thread to ask it.
///
/// # Cancellation
/// Dropping the future leaves the lookup to the others.
pub(crate) async fn lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => NAMES.lookup(name, port).await,
    }
}

fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    // Whoever waits has a port of his own.
    Ok((name, 0).to_socket_addrs()?.collect())
}

// === impl Names ===

impl Names {
    fn new(
        most: usize,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { most, resolve: Box::new(resolve), lookups: Mutex::default() })
    }

    async fn lookup(self: &Arc<Self>, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut answer = self.ask(name)?;
        let answer = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        match answer {
            Some(Ok(mut addresses)) => {
                for address in &mut addresses {
                    address.set_port(port);
                }
                Ok(addresses)
            }
            // What this machine has not enough of is known by its number.
            Some(Err(error)) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error),
            }),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Where the answer comes, of a lookup that has begun or begins now.
    fn ask(self: &Arc<Self>, name: &str) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut lookups = lock(&self.lookups);
        // Names that hang must not take the turns of others.
        let is_crowded = lookups.threads > self.most / 2;
        if let Some(open) = lookups.open.get(name).filter(|open| is_crowded || open.is_enough()) {
            return Ok(open.answer.subscribe());
        }
        if lookups.threads < self.most {
            let names = Arc::clone(self);
            match thread::Builder::new().name("names".to_owned()).spawn(move || names.answer()) {
                Ok(_) => lookups.threads += 1,
                Err(error) if lookups.threads == 0 => return Err(error),
                // One of the others comes to it.
                Err(_) => {}
            }
        }
        let name: Arc<str> = name.into();
        let open = lookups.open.entry(Arc::clone(&name)).or_default();
        (open.tries, open.begun) = (open.tries + 1, None);
        let (answer, awaited) = (open.answer.clone(), open.answer.subscribe());
        lookups.waiting.push_back(Try { name, answer });
        Ok(awaited)
    }

    /// Looks up what waits, until nothing does.
    fn answer(&self) {
        while let Some(next) = self.next() {
            let answer = (self.resolve)(&next.name).map_err(Arc::new);
            let mut lookups = lock(&self.lookups);
            let Some(open) = lookups.of(&next) else { continue };
            if answer.is_err() && open.tries > 1 {
                // Another try may have more luck.
                (open.tries, open.has_failed) = (open.tries - 1, true);
                continue;
            }
            lookups.open.remove(&next.name);
            next.answer.send_replace(Some(answer));
        }
    }

    /// What a thread, which else ends, looks up next: nothing for which nobody waits any more.
    fn next(&self) -> Option<Try> {
        let mut lookups = lock(&self.lookups);
        while let Some(next) = lookups.waiting.pop_front() {
            let Some(open) = lookups.of(&next) else { continue };
            if open.answer.receiver_count() > 0 {
                open.begun = Some(Instant::now());
                return Some(next);
            }
            lookups.open.remove(&next.name);
        }
        lookups.threads -= 1;
        None
    }
}

// === impl Lookups ===

impl Lookups {
    /// The lookup that a try is of, unless it has ended.
    fn of(&mut self, one: &Try) -> Option<&mut Lookup> {
        self.open.get_mut(&one.name).filter(|open| open.answer.same_channel(&one.answer))
    }
}

// === impl Lookup ===

impl Lookup {
    /// Whether another try would be of no use, or one too many.
    fn is_enough(&self) -> bool {
        self.has_failed || self.tries == TRIES || self.begun.is_none_or(|begun| begun.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    /// Names with two threads, the lookups that have begun, and who lets them end.
    fn names() -> (Arc<Names>, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let ((begin, begun), (end, ends)) = (mpsc::channel(), mpsc::channel());
        let ends = Mutex::new(ends);
        let names = Names::new(2, move |name| {
            begin.send(name.to_owned()).unwrap();
            lock(&ends).recv().unwrap();
            Ok(vec![([192, 0, 2, 1], 0).into()])
        });
        (names, begun, end)
    }

    /// Names with eight threads, and who lets each try end, which fails where that is dropped.
    fn tries() -> (Arc<Names>, mpsc::Receiver<mpsc::Sender<()>>) {
        let (begin, begun) = mpsc::channel();
        let names = Names::new(8, move |_| {
            let (end, ended) = mpsc::channel::<()>();
            begin.send(end).unwrap();
            ended.recv().map_err(|_| io::ErrorKind::TimedOut)?;
            Ok(vec![([192, 0, 2, 1], 0).into()])
        });
        (names, begun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_is_shared_and_goes_on_without_whoever_asked_first() {
        let (names, begun, end) = names();
        let [mut first, mut second] = [80, 81].map(|port| Box::pin(names.lookup("name.test", port)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        end.send(()).unwrap();
        assert_eq!(second.await.unwrap(), [SocketAddr::from(([192, 0, 2, 1], 81))]);
        assert_eq!(begun.try_iter().count(), 1);
        end.send(()).unwrap();
        names.lookup("name.test", 80).await.unwrap();
        assert_eq!(begun.try_iter().count(), 1, "what has been found is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_has_so_many_threads_and_others_have_their_turn() {
        let (names, begun, end) = names();
        let mut lookups =
            ["a.test", "b.test", "left.test", "c.test"].map(|name| Box::pin(names.lookup(name, 80)));
        for lookup in &mut lookups {
            assert!(lookup.as_mut().now_or_never().is_none());
        }
        let mut hanging = [(); 2].map(|()| begun.recv().unwrap());
        hanging.sort();
        assert_eq!(hanging, ["a.test", "b.test"]);
        assert_eq!(lock(&names.lookups).threads, 2);
        advance(FRESH * 1000).await;
        drop(names.ask("a.test").unwrap());
        assert_eq!(lock(&names.lookups).waiting.len(), 2, "no second try where others wait");
        let [a, b, left, c] = lookups;
        drop(left);
        for _ in 0..3 {
            end.send(()).unwrap();
        }
        for lookup in [a, b, c] {
            lookup.await.unwrap();
        }
        assert_eq!(begun.try_iter().collect::<Vec<_>>(), ["c.test"], "nobody waits for the other");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_lost_keeps_nobody_else_waiting() {
        let (names, begun) = tries();
        let ask = || names.ask("name.test").unwrap();
        let end = || begun.recv_timeout(Duration::from_secs(60)).expect("it is looked up once more");
        let (mut awaited, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..TRIES {
            awaited.push(ask());
            ends.push(end());
            advance(FRESH * 1000).await;
        }
        awaited.push(ask());
        assert_eq!(lock(&names.lookups).threads, TRIES, "so often and no more");
        ends.pop().unwrap().send(()).unwrap();
        for mut answer in awaited {
            assert!(matches!(&*answer.wait_for(Option::is_some).await.unwrap(), Some(Ok(_))));
        }
        let (mut next, end) = (ask(), end());
        // What the others say at last is news to nobody.
        drop(ends);
        end.send(()).unwrap();
        assert!(matches!(&*next.wait_for(Option::is_some).await.unwrap(), Some(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_fails_leaves_it_to_the_others() {
        let (names, begun) = tries();
        let (mut first, fails) = (names.ask("name.test").unwrap(), begun.recv().unwrap());
        advance(FRESH * 1000).await;
        let (mut second, ends) = (names.ask("name.test").unwrap(), begun.recv().unwrap());
        drop(fails);
        while lock(&names.lookups).threads > 1 {
            thread::yield_now();
        }
        advance(FRESH * 1000).await;
        let mut third = names.ask("name.test").unwrap();
        assert_eq!(lock(&names.lookups).threads, 1, "or it might never be told that all fail");
        ends.send(()).unwrap();
        for answer in [&mut first, &mut second, &mut third] {
            assert!(matches!(&*answer.wait_for(Option::is_some).await.unwrap(), Some(Ok(_))));
        }
    }

    #[tokio::test]
    async fn what_the_resolver_says_is_told() {
        let names = Names::new(1, |_| Err(io::Error::new(io::ErrorKind::NotFound, "no such name")));
        let error = names.lookup("name.test", 80).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such name".to_owned()));
        assert_eq!(lookup("::1", 80).await.unwrap(), ["[::1]:80".parse::<SocketAddr>().unwrap()]);
    }
}
