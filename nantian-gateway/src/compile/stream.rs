//! Sockets whose connections are not all HTTP.

use std::sync::Arc;

use super::{Problem, compiler::Compiler};
use crate::{
    ir::{self, ListenerProtocol, SocketProtocol},
    listen::{PortKey, TlsPayload, TlsServer},
    route::ServerNamesBuilder,
    snapshot::{PortProtocol, TlsMode, TlsNames},
    stream::{StreamBackend, StreamRoute, StreamSecurity},
    weighted::Weighted,
};

impl<'a> Compiler<'a> {
    /// What is spoken on a socket, and by which routes it is carried on.
    pub(super) fn spoken(&mut self, port: &'a ir::Port) -> PortProtocol {
        match port.protocol {
            SocketProtocol::Http => PortProtocol::Http,
            SocketProtocol::Tls => self.tls(port),
            // Of several routes the oldest has the socket.
            SocketProtocol::Tcp | SocketProtocol::Udp => {
                let of_listener = |listener: &'a ir::Listener| {
                    listener.routes.iter().map(move |attachment| (listener, attachment))
                };
                let mut attached = port.listeners.iter().flat_map(of_listener);
                PortProtocol::Stream(
                    attached.next().and_then(|(listener, attachment)| self.stream(listener, attachment)),
                )
            }
        }
    }

    fn tls(&mut self, port: &'a ir::Port) -> PortProtocol {
        let is_of = |protocol| move |listener: &&ir::Listener| listener.protocol == protocol;
        let of = |protocol| port.listeners.iter().filter(is_of(protocol)).collect::<Vec<_>>();
        let (https, streams) = (of(ListenerProtocol::Https), of(ListenerProtocol::Tls));
        let key = PortKey::from(port);
        let Some(https_server) = self.server(key, TlsPayload::Http, &https) else {
            return PortProtocol::Unusable;
        };
        if https.len() == port.listeners.len() {
            return PortProtocol::Https(https_server);
        }
        let Some(stream_server) = self.server(key, TlsPayload::Stream, &streams) else {
            return PortProtocol::Unusable;
        };
        let mut names = ServerNamesBuilder::new();
        for listener in &port.listeners {
            let uses = match listener.protocol {
                ListenerProtocol::Https => TlsMode::Https(https_server.clone()),
                ListenerProtocol::Tls => TlsMode::Terminate(stream_server.clone()),
                _ => TlsMode::PassThrough,
            };
            names.listener(&listener.hostname, uses);
            for attachment in listener.routes.iter().filter(|attached| !attached.route.kind.is_http()) {
                if let Some(route) = self.stream(listener, attachment) {
                    names.route(&attachment.hostnames, route);
                }
            }
        }
        PortProtocol::Tls(Arc::new(TlsNames { https: https_server, names: names.build() }))
    }

    fn server(&mut self, key: PortKey, inside: TlsPayload, listeners: &[&ir::Listener]) -> Option<TlsServer> {
        match self.registry.tls.server(key, inside, listeners) {
            Ok((server, faults)) => {
                for fault in &faults {
                    self.problems.push(Problem::of_certificate(fault));
                }
                for fault in faults.iter().filter(|fault| !fault.has_stand_in) {
                    let message = "it has no certificate that can be served".to_owned();
                    let problem = Problem::of_unserved(&fault.listener, message);
                    if !self.problems.contains(&problem) {
                        self.problems.push(problem);
                    }
                }
                Some(server)
            }
            Err(error) => {
                let unserved = listeners.iter().map(|listener| {
                    Problem::of_unserved(&listener.id, format!("TLS cannot be set up: {error}"))
                });
                self.problems.extend(unserved);
                None
            }
        }
    }

    /// The route of an attachment.
    fn stream(&mut self, listener: &ir::Listener, attachment: &ir::Attachment) -> Option<Arc<StreamRoute>> {
        let route = self.routes.get(&attachment.route).copied()?;
        self.identity = self.identity(listener);
        let name = route.id.to_string();
        let shares = route.rules.iter().flat_map(|rule| &rule.backends).map(|share| {
            let backend = match &share.target {
                ir::Target::Backend(id) => self.stream_backend(id, listener.protocol),
                ir::Target::AiService(_) | ir::Target::InvalidAiService | ir::Target::Invalid => None,
            };
            (share.weight, backend)
        });
        let backends = Weighted::new(shares);
        Some(Arc::new(StreamRoute {
            id: route.id.clone(),
            metrics: self.registry.metrics.stream(&name),
            name: name.into(),
            backends,
        }))
    }

    fn stream_backend(&mut self, id: &ir::BackendId, protocol: ListenerProtocol) -> Option<StreamBackend> {
        let registration = self.registry.registration(id)?;
        let is_of_client = match protocol {
            // The client verifies the backend, whatever its policy is (GEP-1897).
            ListenerProtocol::TlsPassthrough => true,
            ListenerProtocol::Tcp => self.registry.is_passthrough(id),
            _ => false,
        };
        if is_of_client {
            let balancer = self.registry.endpoints(id)?;
            return Some(StreamBackend { balancer, security: StreamSecurity::OfClient, registration });
        }
        let (balancer, presented) = self.service(id)?;
        Some(StreamBackend { balancer, security: StreamSecurity::OfBackend(presented), registration })
    }
}
