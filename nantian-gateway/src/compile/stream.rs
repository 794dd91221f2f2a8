//! Sockets whose connections are not all HTTP.

use std::sync::Arc;

use super::compiler::{Compiler, Problem};
use crate::{
    ir::{self, ListenerProtocol, SocketProtocol},
    listen::{Inside, PortKey, TlsServer},
    route::NamesBuilder,
    snapshot::{Spoken, TlsNames, TlsUse},
    stream::StreamRoute,
    weighted::Weighted,
};

impl<'a> Compiler<'a> {
    /// What is spoken on a socket, and by which routes it is carried on.
    pub(super) fn spoken(&mut self, port: &'a ir::Port) -> Spoken {
        match port.protocol {
            SocketProtocol::Http => Spoken::Http,
            SocketProtocol::Tls => self.tls(port),
            // Of several routes the oldest has the socket.
            SocketProtocol::Tcp | SocketProtocol::Udp => {
                let mut attached = port.listeners.iter().flat_map(|listener| &listener.routes);
                Spoken::Stream(attached.next().and_then(|attachment| self.stream(attachment)))
            }
        }
    }

    fn tls(&mut self, port: &'a ir::Port) -> Spoken {
        let is_of = |protocol| move |listener: &&ir::Listener| listener.protocol == protocol;
        let of = |protocol| port.listeners.iter().filter(is_of(protocol)).collect::<Vec<_>>();
        let (https, streams) = (of(ListenerProtocol::Https), of(ListenerProtocol::Tls));
        let key = PortKey::from(port);
        let Some(https_server) = self.server(key, Inside::Http, &https) else { return Spoken::Unusable };
        if https.len() == port.listeners.len() {
            return Spoken::Https(https_server);
        }
        let Some(stream_server) = self.server(key, Inside::Stream, &streams) else { return Spoken::Unusable };
        let mut names = NamesBuilder::new();
        for listener in &port.listeners {
            let uses = match listener.protocol {
                ListenerProtocol::Https => TlsUse::Https(https_server.clone()),
                ListenerProtocol::Tls => TlsUse::Terminate(stream_server.clone()),
                _ => TlsUse::PassThrough,
            };
            names.listener(&listener.hostname, uses);
            for attachment in listener.routes.iter().filter(|attached| !attached.route.kind.is_http()) {
                if let Some(route) = self.stream(attachment) {
                    names.route(&attachment.hostnames, route);
                }
            }
        }
        Spoken::Tls(Arc::new(TlsNames { https: https_server, names: names.build() }))
    }

    fn server(&mut self, key: PortKey, inside: Inside, listeners: &[&ir::Listener]) -> Option<TlsServer> {
        match self.registry.tls(key, inside, listeners) {
            Ok((server, faults)) => {
                self.problems.extend(faults.into_iter().map(Problem::of_certificate));
                Some(server)
            }
            Err(error) => {
                tracing::error!(%error, port = %key, "TLS cannot be set up");
                None
            }
        }
    }

    /// The route of an attachment.
    fn stream(&self, attachment: &ir::Attachment) -> Option<Arc<StreamRoute>> {
        let route = self.routes.get(&attachment.route)?;
        let name = route.id.to_string();
        let shares = route.rules.iter().flat_map(|rule| &rule.backends).map(|share| {
            let balancer = match &share.target {
                ir::Target::Backend(id) => self.registry.balancer(id),
                ir::Target::AiService(_) | ir::Target::Invalid => None,
            };
            (share.weight, balancer)
        });
        Some(Arc::new(StreamRoute {
            id: route.id.clone(),
            metrics: self.registry.metrics.stream(&name),
            name: name.into(),
            backends: Weighted::new(shares),
        }))
    }
}
