use std::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use http::{Request, Response};
use kube::client::Body;
use serde_json::json;
use tokio::time::sleep;
use tower::service_fn;

use super::*;

const SERVICES: Part = Part { kind: Kind::Service, namespace: None };

/// A client of a server that answers `/readyz` with `readyz`, paths of namespaces with `listed`, and every
/// other path with `other`.
fn client(readyz: u16, listed: u16, other: u16) -> Client {
    let answer = move |request: Request<Body>| async move {
        let code = match request.uri().path() {
            "/readyz" => readyz,
            path if path.contains("/namespaces/") => listed,
            _ => other,
        };
        Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(b"text".to_vec())).unwrap())
    };
    Client::new(service_fn(answer), "default")
}

/// Follows Services, of which one is known, for `time`, while lists of them are answered with `listed`.
/// Returns whether it is still known then.
async fn is_known_after(time: Duration, readyz: u16, listed: u16) -> bool {
    let cache = Arc::new(ObjectCache::default());
    let service: Value = json!({ "metadata": { "name": "a", "namespace": "demo" } });
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    cache.put(Kind::Service, &resource, serde_json::from_value(service).unwrap());
    let part = Part { kind: Kind::Service, namespace: Some("demo".to_owned()) };
    cache.withhold(&part, false);
    let (done, _) = watch::channel(false);
    let following =
        follow_kind(client(readyz, listed, 404), part, resource, Arc::clone(&cache), Arc::default(), done);
    // It ends only when the kind is gone.
    let _ = timeout(time, following).await;
    assert_eq!(cache.withheld().is_empty(), cache.is_empty(), "a kind that is not there is not waited for");
    !cache.is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_forgotten_once_it_has_been_missing_for_a_minute() {
    // Whoever has no right to a kind is refused also where there is none.
    for listed in [404, 403] {
        assert!(is_known_after(Duration::from_secs(50), 200, listed).await);
        assert!(!is_known_after(Duration::from_secs(80), 200, listed).await);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_namespace_that_is_refused_and_one_that_is_gone_is_forgotten() {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    for (there, kept) in [("demo", 3), ("other", 1)] {
        let cache = Arc::new(ObjectCache::default());
        let object = json!({ "metadata": { "name": "a", "namespace": "demo" } });
        for kind in [Kind::Service, Kind::HttpRoute] {
            cache.put(kind, &resource, serde_json::from_value(object.clone()).unwrap());
        }
        assert_eq!(cache.take().len(), 2);
        // The one is followed here, the other one is refused as well.
        cache.withhold(&Part { kind: Kind::HttpRoute, namespace: Some("demo".to_owned()) }, false);
        let namespace = json!({ "metadata": { "name": there } });
        // Of which version is all the same.
        cache.put(Kind::Namespace, &resource, serde_json::from_value(namespace).unwrap());
        let part = Part { kind: Kind::Service, namespace: Some("demo".to_owned()) };
        let (done, is_listed) = watch::channel(false);
        let (is_up, shown) = watch::channel(false);
        let server = Arc::new(Server::new(is_up, watch::Sender::default()));
        let (client, known) = (client(200, 403, 403), Arc::clone(&cache));
        let mut following = pin!(follow_kind(client, part, resource.clone(), known, server, done));
        assert!(timeout(Duration::from_secs(5), &mut following).await.is_err(), "it has no end");
        assert_eq!((*is_listed.borrow(), *shown.borrow(), cache.len()), (false, false, 3), "it may pass");
        assert!(timeout(Duration::from_secs(20), &mut following).await.is_err(), "it has no end");
        assert!(*is_listed.borrow());
        assert_eq!((*shown.borrow(), cache.len()), (there == "other", kept), "{there} is there");
        assert_eq!(cache.withheld().contains("demo"), there == "demo");
        let has_route = cache.take().keys().any(|name| name.kind == "HTTPRoute");
        assert_eq!(has_route, there == "other", "what is gone with its namespace is taken away");
        let namespace = json!({ "metadata": { "name": "demo" } });
        cache.put(Kind::Namespace, &resource, serde_json::from_value(namespace).unwrap());
        assert!(cache.withheld().contains("demo"), "all that is there later is news");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_later_withholds_no_namespace_before_it_was_listed_there() {
    for (is_complete, was_listed) in [(false, false), (true, false), (true, true)] {
        let cache = Arc::new(ObjectCache::default());
        if is_complete {
            cache.set_complete();
        }
        let part = Part { kind: Kind::Service, namespace: Some("demo".to_owned()) };
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let (done, _) = watch::channel(was_listed);
        let client = client(200, 403, 403);
        let following = follow_kind(client, part, resource, Arc::clone(&cache), Arc::default(), done);
        assert!(timeout(Duration::from_secs(60), following).await.is_err(), "it has no end");
        assert_eq!(cache.withheld().contains("demo"), was_listed || !is_complete);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_namespace_is_handed_out_while_one_of_its_kinds_may_not_be_listed_or_watched() {
    // How many seconds the server takes to say what is wrong; it refuses a watch sooner.
    for (may_list, takes) in [(false, 0), (true, 0), (true, 40)] {
        let is_allowed = Arc::new(AtomicBool::new(false));
        let may_watch = Arc::clone(&is_allowed);
        let answer = move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            let (is_watch, is_question) = (query.contains("watch="), query.contains("limit=1"));
            let takes = Duration::from_secs(if is_question { takes } else { takes / 20 });
            let is_list_answered = may_list && !is_watch;
            let is_answered =
                is_list_answered || may_watch.load(Relaxed) || request.uri().path() == "/readyz";
            async move {
                sleep(takes).await;
                if is_watch && is_answered {
                    std::future::pending::<()>().await;
                }
                let list = json!({ "kind": "ServiceList", "apiVersion": "v1", "items": [], "metadata": { "resourceVersion": "1" } });
                let refusal = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "text", "reason": "Forbidden", "code": 403 });
                let (code, body) = if is_answered { (200_u16, list) } else { (403, refusal) };
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        };
        let cache = Arc::new(ObjectCache::default());
        let part = Part { kind: Kind::Service, namespace: Some("demo".to_owned()) };
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let route = json!({ "metadata": { "name": "a", "namespace": "demo" } });
        // Of which version is all the same.
        cache.put(Kind::HttpRoute, &resource, serde_json::from_value(route).unwrap());
        let ((done, is_listed), (is_up, shown)) = (watch::channel(false), watch::channel(false));
        let server = Arc::new(Server::new(is_up, watch::Sender::default()));
        let client = Client::new(service_fn(answer), "default");
        let mut following = pin!(follow_kind(client, part, resource, Arc::clone(&cache), server, done));
        assert!(timeout(Duration::from_secs(110), &mut following).await.is_err(), "it has no end");
        assert!(
            *is_listed.borrow() && cache.take().is_empty(),
            "nothing waits for it, and nothing is served"
        );
        assert!(!*shown.borrow() && cache.withheld().contains("demo"), "it is told");
        is_allowed.store(true, Relaxed);
        assert!(timeout(Duration::from_secs(110), &mut following).await.is_err(), "it has no end");
        assert_eq!((cache.take().len(), *shown.borrow()), (1, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_after_failures_is_well_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        let failures = if is_watch { asked.fetch_add(1, Relaxed) } else { 0 };
        async move {
            let list = json!({ "kind": "ServiceList", "apiVersion": "v1", "items": [], "metadata": { "resourceVersion": "1" } });
            match (is_watch, failures) {
                (false, _) => Ok::<_, Infallible>(Response::new(Body::from(list.to_string().into_bytes()))),
                (true, ..5) => {
                    Ok(Response::builder().status(500).body(Body::from(b"text".to_vec())).unwrap())
                }
                (true, _) => std::future::pending().await,
            }
        }
    };
    let (is_up, mut shown) = watch::channel(false);
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    let (client, server) =
        (Client::new(service_fn(answer), "default"), Arc::new(Server::new(is_up, watch::Sender::default())));
    let (done, _) = watch::channel(false);
    let following = follow_kind(client, SERVICES, resource, Arc::default(), server, done);
    let seen = async {
        for is_up in [true, false, true] {
            shown.wait_for(|shown| *shown == is_up).await.unwrap();
        }
    };
    tokio::select! {
        _ = following => panic!("the kind is served"),
        seen = timeout(Duration::from_secs(300), seen) => seen.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_well_in_between_is_missing_anew() {
    let watched = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let (is_watch, is_list) = (query.contains("watch="), query.contains("limit=500"));
        let is_readyz = request.uri().path() == "/readyz";
        let watches = if is_watch { watched.fetch_add(1, Relaxed) } else { 0 };
        async move {
            match (is_watch, watches) {
                (true, 1) => sleep(Duration::from_secs(90)).await,
                (true, 2..) => std::future::pending().await,
                _ => {}
            }
            let service = json!({ "metadata": { "name": "a", "namespace": "demo", "resourceVersion": "1" } });
            let list = json!({ "kind": "ServiceList", "apiVersion": "v1", "items": [service], "metadata": { "resourceVersion": "1" } });
            let (code, body) = match is_list || is_readyz {
                true => (200_u16, list.to_string()),
                false => (404, "text".to_owned()),
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap())
        }
    };
    let (client, cache) = (Client::new(service_fn(answer), "default"), Arc::new(ObjectCache::default()));
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    let (done, _) = watch::channel(false);
    let following = follow_kind(client, SERVICES, resource, Arc::clone(&cache), Arc::default(), done);
    assert!(timeout(Duration::from_secs(120), following).await.is_err(), "it is followed on");
    assert!(!cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_not_started_makes_nothing_forgotten() {
    assert!(is_known_after(Duration::from_secs(3600), 500, 404).await);
}
