//! Calls between a client and a server of tonic.

use std::{convert::Infallible, time::Duration};

use bytes::{Buf as _, BufMut as _};
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::GrpcService,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server,
};
use tower::service_fn;

use crate::support::{Backend, Running, World, after, soon};

/// Messages that are text.
#[derive(Debug, Clone, Copy)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8(bytes.to_vec()).unwrap()))
    }
}

async fn serve(request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
    let mut grpc = server::Grpc::new(Text);
    match request.uri().path() {
        "/demo.Echo/Say" => {
            let say = async |request: Request<String>| {
                let mut response = Response::new(request.into_inner());
                response.metadata_mut().insert("x-said", "yes".parse().unwrap());
                Ok::<_, Status>(response)
            };
            grpc.unary(service_fn(say), request).await
        }
        "/demo.Echo/Scatter" => {
            let scatter = async |request: Request<String>| {
                let words: Vec<_> =
                    request.into_inner().split(' ').map(|word| Ok::<_, Status>(word.to_owned())).collect();
                Ok::<_, Status>(Response::new(stream::iter(words)))
            };
            grpc.server_streaming(service_fn(scatter), request).await
        }
        "/demo.Echo/Gather" => {
            let gather = async |request: Request<Streaming<String>>| {
                let words: Vec<_> = request.into_inner().map(Result::unwrap).collect().await;
                Ok::<_, Status>(Response::new(words.join(" ")))
            };
            grpc.client_streaming(service_fn(gather), request).await
        }
        "/demo.Echo/Shout" => {
            let shout = async |request: Request<Streaming<String>>| {
                let words = request.into_inner().map(|word| match word?.as_str() {
                    "stop" => Err(Status::data_loss("stopped")),
                    word => Ok(word.to_uppercase()),
                });
                Ok::<_, Status>(Response::new(words))
            };
            grpc.streaming(service_fn(shout), request).await
        }
        path => {
            let is_late = path.ends_with("Late");
            let fail = move |_: Request<String>| async move {
                if is_late {
                    after(Duration::from_secs(60)).await;
                }
                Err::<Response<String>, _>(Status::not_found("nothing is here"))
            };
            grpc.unary(service_fn(fail), request).await
        }
    }
}

async fn gateway() -> Running {
    let server = Backend::h2c(|request| async {
        serve(request).await.map(|body| body.map_err(|status| -> Infallible { panic!("{status}") }))
    })
    .await;
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r, namespace: demo}
spec:
  parentRefs: [{name: demo}]
  rules: [{matches: [{method: {service: demo.Echo}}], backendRefs: [{name: a, port: 80}]}]
";
    World::new().h2c_service("a", &server).manifest("route", route).start().await
}

async fn client(
    gateway: &Running,
) -> tonic::client::Grpc<impl GrpcService<tonic::body::Body, ResponseBody = Incoming> + use<>> {
    let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
    let (sender, connection) =
        soon(http2::handshake::<_, _, tonic::body::Body>(TokioExecutor::new(), TokioIo::new(stream)))
            .await
            .unwrap();
    tokio::spawn(connection);
    let service = service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    tonic::client::Grpc::with_origin(service, "http://example.org".parse().unwrap())
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

#[tokio::test]
async fn every_kind_of_call_goes_through() {
    let gateway = gateway().await;
    let mut client = client(&gateway).await;
    let said =
        soon(client.unary(Request::new("hello".to_owned()), path("/demo.Echo/Say"), Text)).await.unwrap();
    assert_eq!(said.metadata().get("x-said").unwrap().to_str().unwrap(), "yes");
    assert_eq!(said.get_ref(), "hello");

    let words = Request::new("a b c".to_owned());
    let words = soon(client.server_streaming(words, path("/demo.Echo/Scatter"), Text)).await.unwrap();
    let words: Vec<_> = soon(words.into_inner().map(Result::unwrap).collect()).await;
    assert_eq!(words, ["a", "b", "c"]);

    let words = Request::new(stream::iter(["a", "b", "c"].map(str::to_owned)));
    let joined = soon(client.client_streaming(words, path("/demo.Echo/Gather"), Text)).await.unwrap();
    assert_eq!(joined.into_inner(), "a b c");

    let (sender, mut words) = mpsc::unbounded_channel::<String>();
    let words = Request::new(stream::poll_fn(move |cx| words.poll_recv(cx)));
    let shouted = soon(client.streaming(words, path("/demo.Echo/Shout"), Text)).await.unwrap();
    let mut shouted = shouted.into_inner();
    for (word, expected) in [("a", "A"), ("b", "B")] {
        sender.send(word.to_owned()).unwrap();
        assert_eq!(soon(shouted.message()).await.unwrap().as_deref(), Some(expected), "while both go on");
    }
    sender.send("stop".to_owned()).unwrap();
    let stopped = soon(shouted.message()).await.unwrap_err();
    assert_eq!((stopped.code(), stopped.message()), (Code::DataLoss, "stopped"), "a status after messages");
}

#[tokio::test]
async fn errors_are_those_of_the_server_or_of_the_gateway() {
    let gateway = gateway().await;
    let mut client = client(&gateway).await;
    let mut call = async |method, timeout: Option<Duration>| {
        let mut request = Request::new("hello".to_owned());
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        soon(client.unary::<_, String, _>(request, path(method), Text)).await.unwrap_err()
    };
    let missing = call("/demo.Echo/Missing", None).await;
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "nothing is here"), "trailers alone");
    assert_eq!(call("/demo.Other/Say", None).await.code(), Code::Unimplemented);
    let late = call("/demo.Echo/Late", Some(Duration::from_millis(200))).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
}
