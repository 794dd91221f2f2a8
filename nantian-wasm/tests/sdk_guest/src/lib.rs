//! One guest that does what the first word of its configuration says; the rest is that kind's argument.

use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    kind: String,
    argument: String,
    queue: Option<u32>,
}

struct Stream {
    id: u32,
    kind: String,
    argument: String,
    seen: usize,
}

fn define(kind: MetricType, name: &str) -> u32 {
    hostcalls::define_metric(kind, name).unwrap()
}

/// Adds one to a counter of this name.
fn count(name: &str) {
    hostcalls::increment_metric(define(MetricType::Counter, name), 1).unwrap();
}

/// Adds one to a number that all instances share.
fn add_to_shared(key: &str) -> u64 {
    loop {
        let (old, cas) = hostcalls::get_shared_data(key).unwrap();
        let old = old.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        match hostcalls::set_shared_data(key, Some(&(old + 1).to_le_bytes()), cas) {
            Ok(()) => return old + 1,
            Err(Status::CasMismatch) => continue,
            Err(status) => panic!("{status:?}"),
        }
    }
}

impl Context for Root {
    fn on_grpc_stream_message(&mut self, _: u32, size: usize) {
        count(&format!("message of {size}"));
    }

    fn on_grpc_stream_close(&mut self, _: u32, status: u32) {
        count(&format!("closed with {status}"));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = String::from_utf8(self.get_plugin_configuration().unwrap_or_default()).unwrap();
        let (kind, argument) = text.split_once(' ').unwrap_or((&text, ""));
        (self.kind, self.argument) = (kind.to_owned(), argument.to_owned());
        match kind {
            "refuse" => return false,
            "ticks" => self.set_tick_period(Duration::from_millis(10)),
            "queue" => self.queue = Some(self.register_shared_queue("jobs")),
            "grpc-stream" => {
                let stream = self.open_grpc_stream(argument, "echo.Echo", "Chat", vec![]).unwrap();
                self.send_grpc_stream_message(stream, Some(b"hello"), true);
            }
            _ => {}
        }
        true
    }

    fn on_tick(&mut self) {
        count("ticks");
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while let Some(job) = self.dequeue_shared_queue(queue).unwrap() {
            count(&String::from_utf8(job).unwrap());
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { id, kind: self.kind.clone(), argument: self.argument.clone(), seen: 0 }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Stream {
    fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    fn call(&self) -> u32 {
        let headers = vec![(":method", "GET"), (":path", "/auth"), (":authority", "auth.example"), ("x-for", "me")];
        self.dispatch_http_call(&self.argument, headers, Some(b"who?"), vec![], Duration::from_secs(5)).unwrap()
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, trailers: usize) {
        let status = self.get_http_call_response_header(":status").unwrap_or_else(|| "none".to_owned());
        let text = self.get_http_call_response_body(0, body).unwrap_or_default();
        let seen = format!("{token} {headers} {status} {} {trailers}", String::from_utf8_lossy(&text));
        match (self.kind.as_str(), status.as_str()) {
            ("late-answer", _) => self.send_http_response(429, vec![("x-late", "1")], Some(b"enough")),
            ("response-call", _) => {
                self.set_http_response_header("x-call", Some(&seen));
                self.resume_http_response();
            }
            ("body-call", _) => {
                self.set_http_request_body(0, usize::MAX, b"judged");
                self.resume_http_request();
            }
            (_, "200") => {
                self.set_http_request_header("x-call", Some(&seen));
                self.resume_http_request();
            }
            _ => self.send_http_response(403, vec![("x-call", seen.as_str())], Some(b"denied")),
        }
    }

    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let message = self.get_grpc_call_response_body(0, size).unwrap_or_default();
        let seen = format!("{token} {status} {}", String::from_utf8_lossy(&message));
        if status == 0 {
            self.set_http_request_header("x-grpc", Some(&seen));
            self.resume_http_request();
        } else {
            self.send_http_response(503, vec![("x-grpc", seen.as_str())], None);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, count: usize, end: bool) -> Action {
        match self.kind.as_str() {
            "light" => {
                for _ in 0..self.argument.parse().unwrap() {
                    let agent = self.get_http_request_header("user-agent");
                    let path = self.get_property(vec!["request", "path"]);
                    self.set_http_request_header("x-plugin", agent.as_deref().filter(|_| path.is_some()));
                }
                Action::Continue
            }
            "headers" => {
                let all = self.get_http_request_headers();
                assert_eq!(all.len(), count);
                let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
                self.set_http_request_header("x-names", Some(&names.join(" ")));
                self.set_http_request_header("x-first", Some("changed"));
                self.set_http_request_header("x-remove", None);
                self.add_http_request_header("x-added", "1");
                self.add_http_request_header("x-added", "2");
                self.set_http_request_header(":path", Some("/rewritten?by=guest"));
                Action::Continue
            }
            "auth" => {
                self.call();
                Action::Pause
            }
            "late-answer" => {
                self.call();
                Action::Continue
            }
            "grpc" => {
                let message = Some(&b"ping"[..]);
                self.dispatch_grpc_call(&self.argument, "echo.Echo", "Say", vec![("x-meta", b"1")], message, Duration::from_secs(1))
                    .unwrap();
                Action::Pause
            }
            "properties" => {
                for path in self.argument.split(' ') {
                    let value = self.get_property(path.split('.').collect());
                    let value = value.map_or("none".to_owned(), |value| value.escape_ascii().to_string());
                    self.add_http_request_header("x-property", &format!("{path}={value}"));
                }
                self.set_property(vec!["left"], Some(b"behind"));
                Action::Continue
            }
            "pseudo" => {
                for name in self.argument.split(' ') {
                    if let Some(set) = name.strip_prefix('!') {
                        self.set_http_request_header(set, Some("https"));
                        self.add_http_request_header("x-seen", name);
                    } else {
                        let value = self.get_http_request_header(name).unwrap_or_default();
                        self.add_http_request_header("x-seen", &format!("{name}={value}"));
                    }
                }
                Action::Continue
            }
            "queue" => {
                let queue = self.resolve_shared_queue("", "jobs").unwrap();
                self.enqueue_shared_queue(queue, Some(b"job")).unwrap();
                Action::Continue
            }
            "metrics" => {
                let (counter, gauge) = (define(MetricType::Counter, "requests"), define(MetricType::Gauge, "level"));
                let histogram = define(MetricType::Histogram, "sizes");
                hostcalls::increment_metric(counter, 2).unwrap();
                hostcalls::record_metric(gauge, 7).unwrap();
                hostcalls::increment_metric(gauge, -2).unwrap();
                hostcalls::record_metric(histogram, 100).unwrap();
                self.set_http_request_header("x-ids", Some(&format!("{counter} {gauge} {histogram} {end}")));
                Action::Continue
            }
            "counter" | "ticks" => {
                let count = add_to_shared("streams");
                self.set_http_request_header("x-count", Some(&count.to_string()));
                Action::Continue
            }
            "unknown-upstream" => {
                let headers = vec![(":method", "GET"), (":path", "/"), (":authority", "a")];
                let refused = self.dispatch_http_call("nowhere", headers, None, vec![], Duration::from_secs(1));
                self.set_http_request_header("x-status", Some(&format!("{refused:?}")));
                Action::Continue
            }
            "panic" => panic!("as asked"),
            "foreign" => {
                let answer = self.call_foreign_function("echo", Some(b"argument"));
                self.set_http_request_header("x-foreign", Some(&format!("{answer:?}")));
                let unknown = self.call_foreign_function("nothing", None);
                self.set_http_request_header("x-unknown", Some(&format!("{unknown:?}")));
                Action::Continue
            }
            "close" => {
                self.reset_http_request();
                Action::Continue
            }
            _ => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        match self.kind.as_str() {
            "body" if end => {
                let body = self.get_http_request_body(0, size).unwrap_or_default();
                self.set_http_request_body(0, size, &body.to_ascii_uppercase());
                Action::Continue
            }
            "body" => Action::Pause,
            "body-call" if end => {
                self.call();
                Action::Pause
            }
            "body-call" => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if self.is("body") || self.is("sse") {
            self.set_http_response_header("content-length", None);
        }
        if self.is("response-properties") {
            for path in self.argument.split(' ') {
                let value = self.get_property(path.split('.').collect()).unwrap_or_default();
                self.add_http_response_header("x-property", &format!("{path}={}", value.escape_ascii()));
            }
        }
        if self.is("response-call") {
            self.call();
            return Action::Pause;
        }
        if self.is("headers") {
            self.add_http_response_header("x-guest", &format!("stream {}", self.id));
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.seen += 1;
        match self.kind.as_str() {
            "sse" => {
                let text = String::from_utf8(self.get_http_response_body(0, size).unwrap_or_default()).unwrap();
                self.set_http_response_body(0, size, text.replace("secret", "******").as_bytes());
                Action::Continue
            }
            "body" if end => {
                let body = self.get_http_response_body(0, size).unwrap_or_default();
                self.set_http_response_body(0, size, &body.to_ascii_uppercase());
                Action::Continue
            }
            "body" => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        if self.is("log") {
            let path = self.get_http_request_header(":path").unwrap_or_default();
            let status = self.get_http_response_header(":status").unwrap_or_default();
            let details = self.get_property(vec!["response", "code_details"]).unwrap_or_default();
            count(&format!("{path} {status} {}", String::from_utf8_lossy(&details)));
        }
    }
}
