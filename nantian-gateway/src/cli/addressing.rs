//! How the Gateways of a cluster get their addresses.

use std::sync::Arc;

use clap::Args;
use kube::Client;
use tokio::sync::watch;

use crate::{
    controller::{GatewayServiceConfig, ServiceKind},
    ir::ObjectName,
    source::{
        Objects, PublicAddress,
        kube::{AddressPool, Addressing},
    },
};

/// Where Gateways are reached.
#[derive(Debug, Args)]
pub(super) struct AddressOptions {
    /// Addresses of this machine, as a network (10.0.0.0/28) or a range (10.0.0.1-10.0.0.9): each Gateway
    /// that asks for none is bound on one of its own.
    #[arg(
        long,
        env = "NANTIAN_GATEWAY_ADDRESS_POOL",
        value_name = "CIDR|RANGE",
        conflicts_with = "manifests"
    )]
    gateway_address_pool: Option<AddressPool>,
    /// Where clients find the machines that this runs on, as addresses or host names: each Gateway that asks
    /// for none is bound on all interfaces, and tells these in its status.
    #[arg(
        long,
        env = "NANTIAN_GATEWAY_STATUS_ADDRESS",
        value_name = "ADDR,…",
        value_delimiter = ',',
        conflicts_with_all = ["manifests", "gateway_address_pool", "gateway_service"]
    )]
    gateway_status_address: Vec<PublicAddress>,
    /// Makes a Service of this type for each Gateway, in its namespace and owned by it, and tells the address
    /// that it is given; a load balancer is asked for the one that the Gateway names. Without this, a pool or
    /// a --gateway-status-address Gateways that ask for no address are bound on all interfaces, and are not
    /// Programmed, for nobody knows their address.
    #[arg(
        long,
        env = "NANTIAN_GATEWAY_SERVICE",
        value_name = "TYPE",
        conflicts_with_all = ["manifests", "gateway_address_pool"]
    )]
    gateway_service: Option<ServiceKind>,
    /// The Service, in the namespace of this process, whose endpoints are the replicas of the gateway: the
    /// Services of --gateway-service lead to them.
    #[arg(long, env = "NANTIAN_OWN_SERVICE", value_name = "NAME", default_value = "nantian-gateway")]
    own_service: String,
}

/// How Services are made, and for which objects.
pub(super) type StartGatewayServices = (GatewayServiceConfig, watch::Receiver<Arc<Objects>>);

impl AddressOptions {
    /// Who gives addresses to Gateways, and what takes care of that.
    pub(super) fn addressing(&self, client: &Client) -> (Addressing, Option<StartGatewayServices>) {
        if let Some(pool) = &self.gateway_address_pool {
            return (Addressing::Pool(pool.clone()), None);
        }
        if !self.gateway_status_address.is_empty() {
            return (Addressing::Known(self.gateway_status_address.clone()), None);
        }
        let Some(kind) = self.gateway_service else { return (Addressing::Nobody, None) };
        let own_service = ObjectName::new(client.default_namespace(), self.own_service.as_str());
        let config = GatewayServiceConfig { kind, own_service };
        let (show, objects) = watch::channel(Arc::new(Objects::default()));
        (Addressing::Services(show), Some((config, objects)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(options: &[&str]) -> Result<AddressOptions, clap::Error> {
        let cli = Cli::try_parse_from(["nantian-gateway", "run"].iter().chain(options))?;
        let Command::Run(run) = cli.command else { panic!("not run") };
        Ok(run.cluster.addresses)
    }

    #[test]
    fn what_contradicts_another_option_is_refused() {
        const KNOWN: [&str; 2] = ["--gateway-status-address", "192.0.2.7,edge.example.com"];
        for others in [
            ["--gateway-service", "LoadBalancer"],
            ["--gateway-address-pool", "10.0.0.0/28"],
            ["--manifests", "a"],
        ] {
            assert!(parsed(&[KNOWN, others].concat()).is_err(), "{others:?}");
        }
    }

    #[test]
    fn an_address_to_tell_is_a_number_or_a_name() {
        let told = |text| parsed(&["--gateway-status-address", text]).map(|it| it.gateway_status_address);
        let ip = |text: &str| PublicAddress::Ip(text.parse().unwrap());
        let name = PublicAddress::Host("edge.example.com".to_owned());
        assert_eq!(told("192.0.2.7,2001:db8::7").unwrap(), [ip("192.0.2.7"), ip("2001:db8::7")]);
        assert_eq!(told("::ffff:192.0.2.7,Edge.example.com").unwrap(), [ip("192.0.2.7"), name]);
        for wrong in
            ["0.0.0.0", "::", "192.0.2.300", "192.0.2.7:80", "*.example.com", "a_b", "a,", "10.0.0.0/8"]
        {
            let error = told(wrong).unwrap_err().to_string();
            assert!(error.contains("is neither an address nor a host name"), "{wrong}: {error}");
        }
    }
}
