//! Where plugins run, and what they are told of it.

use std::{net::SocketAddr, sync::Arc};

use http::Extensions;
use nantian_wasm::StreamInfo;

use crate::{listen::RequestInfo, upstream::Upgrade};

/// Where plugins run, as their guests are told.
#[derive(Debug, Clone)]
pub(crate) struct PluginPlace {
    /// The route as metrics and logs name it: `route_name`.
    pub(crate) route: Arc<str>,
    /// The backend, where there is no other one: `cluster_name`.
    pub(crate) backend: Option<Arc<str>>,
    /// Whether a guest can ask where the request went; found out when the plugins are.
    pub(crate) wants_address: bool,
    /// Whether further plugins follow, at a backend.
    pub(crate) leads_to_plugins: bool,
}

// === impl PluginPlace ===

impl PluginPlace {
    /// What the guests are told beside the headers.
    pub(super) fn tell(&self, known: &mut Extensions) -> StreamInfo {
        let mut stream = StreamInfo::default();
        stream.route = Some(Arc::clone(&self.route));
        stream.cluster.clone_from(&self.backend);
        stream.upgrade = known.get::<Upgrade>().is_some();
        let Some(info) = known.get_mut::<RequestInfo>() else { return stream };
        if self.leads_to_plugins {
            info.filter_state.get_or_insert_default();
        }
        stream.filter_state.clone_from(&info.filter_state);
        // A trusted proxy tells the client's address, not its port.
        let port = if info.client == info.peer.ip() { info.peer.port() } else { 0 };
        stream.source = Some(SocketAddr::new(info.client, port));
        stream.destination = Some(info.destination);
        stream.connection_id = Some(info.connection);
        stream.tls = info.tls;
        if let Some(session) = &info.session {
            stream.server_name.clone_from(&session.server_name);
            stream.tls_version.clone_from(&session.version);
            stream.client_certificate.clone_from(&session.client);
        }
        if self.wants_address {
            stream.upstream = Some(info.upstream.get_or_insert_default().clone());
        }
        stream
    }
}
