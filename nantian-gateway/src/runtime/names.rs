//! Lookups of names. The system's resolver blocks a thread for each, for as long as name servers are silent.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, LazyLock, Mutex},
    thread,
};

use tokio::sync::watch;

use crate::sync::lock;

/// How many names are looked up at once; more wait for their turn.
const MOST: usize = 256;

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
    /// Who waits for those that have not ended.
    open: HashMap<Question, watch::Sender<Option<Answer>>>,
    /// Those that no thread has begun with.
    waiting: VecDeque<Question>,
    threads: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    name: Arc<str>,
    port: u16,
}

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// The addresses of a name, or the one that it is, with this port. All who ask while it is looked up share
/// the lookup.
///
/// # Errors
/// What the resolver says, or that there is no thread to ask it.
///
/// # Cancellation
/// Dropping the future leaves the lookup to the others.
pub(crate) async fn lookup(name: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok([SocketAddr::new(address, port)].into()),
        Err(_) => NAMES.lookup(name, port).await,
    }
}

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

// === impl Names ===

impl Names {
    fn new(
        most: usize,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { most, resolve: Box::new(resolve), lookups: Mutex::default() })
    }

    async fn lookup(self: &Arc<Self>, name: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        let mut answer = self.ask(Question { name: name.into(), port })?;
        let answer = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        match answer {
            Some(Ok(addresses)) => Ok(addresses),
            // What this machine has not enough of is known by its number.
            Some(Err(error)) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error),
            }),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Where the answer comes, of a lookup that has begun or begins now.
    fn ask(self: &Arc<Self>, question: Question) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut lookups = lock(&self.lookups);
        if let Some(open) = lookups.open.get(&question) {
            return Ok(open.subscribe());
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
        let (open, answer) = watch::channel(None);
        lookups.waiting.push_back(question.clone());
        lookups.open.insert(question, open);
        Ok(answer)
    }

    /// Looks up what waits, until nothing does.
    fn answer(&self) {
        while let Some(question) = self.next() {
            let answer = (self.resolve)(&question.name, question.port);
            let open = lock(&self.lookups).open.remove(&question);
            if let Some(open) = open {
                open.send_replace(Some(answer.map(Arc::from).map_err(Arc::new)));
            }
        }
    }

    /// What a thread, which else ends, looks up next.
    fn next(&self) -> Option<Question> {
        let mut lookups = lock(&self.lookups);
        let next = lookups.waiting.pop_front();
        if next.is_none() {
            lookups.threads -= 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    /// Names with two threads, the lookups that have begun, and who lets them end.
    fn names() -> (Arc<Names>, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let ((begin, begun), (end, ends)) = (mpsc::channel(), mpsc::channel());
        let ends = Mutex::new(ends);
        let names = Names::new(2, move |name, port| {
            begin.send(name.to_owned()).unwrap();
            lock(&ends).recv().unwrap();
            Ok(vec![([192, 0, 2, 1], port).into()])
        });
        (names, begun, end)
    }

    #[tokio::test]
    async fn a_lookup_is_shared_and_goes_on_without_whoever_asked_first() {
        let (names, begun, end) = names();
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(names.lookup("name.test", 80)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        end.send(()).unwrap();
        assert_eq!(second.await.unwrap().to_vec(), [SocketAddr::from(([192, 0, 2, 1], 80))]);
        assert_eq!(begun.try_iter().count(), 1);
        end.send(()).unwrap();
        names.lookup("name.test", 80).await.unwrap();
        assert_eq!(begun.try_iter().count(), 1, "what has been found is not kept");
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_has_so_many_threads_and_others_have_their_turn() {
        let (names, begun, end) = names();
        let mut lookups = ["a.test", "b.test", "c.test"].map(|name| Box::pin(names.lookup(name, 80)));
        for lookup in &mut lookups {
            assert!(lookup.as_mut().now_or_never().is_none());
        }
        let mut hanging = [(); 2].map(|()| begun.recv().unwrap());
        hanging.sort();
        assert_eq!(hanging, ["a.test", "b.test"]);
        assert_eq!(lock(&names.lookups).threads, 2);
        lookups.iter().for_each(|_| end.send(()).unwrap());
        for lookup in lookups {
            lookup.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_the_resolver_says_is_told() {
        let names = Names::new(1, |_, _| Err(io::Error::new(io::ErrorKind::NotFound, "no such name")));
        let error = names.lookup("name.test", 80).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such name".to_owned()));
        assert_eq!(lookup("::1", 80).await.unwrap().to_vec(), ["[::1]:80".parse::<SocketAddr>().unwrap()]);
    }
}
