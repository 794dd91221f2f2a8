//! How the Gateways of a cluster get their addresses.

use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use kube::Client;
use tokio::sync::watch;

use crate::{
    controller::{GatewayServiceConfig, ServiceKind, TrafficPolicy},
    ir::ObjectName,
    source::{
        Objects, PublicAddress,
        kube::{AddressPool, Addressing, Scope},
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
    /// The externalTrafficPolicy of these Services, where they are of type LoadBalancer. With Local, the
    /// default, the address of the client is kept, and a balancer sends to the machines with a replica; with
    /// Cluster it sends to all, and replicas see the address of a machine.
    #[arg(
        long,
        env = "NANTIAN_GATEWAY_SERVICE_TRAFFIC_POLICY",
        value_name = "POLICY",
        requires = "gateway_service",
        conflicts_with_all = ["manifests", "gateway_address_pool", "gateway_status_address"]
    )]
    gateway_service_traffic_policy: Option<TrafficPolicy>,
    /// The loadBalancerClass of the Services of type LoadBalancer that are made from now on: those that are
    /// there keep theirs, which cannot be changed. By default none, which is the cluster's own balancer.
    #[arg(
        long,
        env = "NANTIAN_GATEWAY_SERVICE_LOAD_BALANCER_CLASS",
        value_name = "NAME",
        requires = "gateway_service",
        conflicts_with_all = ["manifests", "gateway_address_pool", "gateway_status_address"]
    )]
    gateway_service_load_balancer_class: Option<String>,
    /// The Service, in the namespace of this process, whose endpoints are the replicas of the gateway: the
    /// Services of --gateway-service lead to them.
    #[arg(long, env = "NANTIAN_OWN_SERVICE", value_name = "NAME", default_value = "nantian-gateway")]
    own_service: String,
}

/// How Services are made, and for which objects.
pub(super) type StartGatewayServices = (GatewayServiceConfig, watch::Receiver<Arc<Objects>>);

impl AddressOptions {
    /// Who gives addresses to Gateways, and what takes care of that where `scope` is seen.
    ///
    /// # Errors
    /// When an option is for Services of another type.
    pub(super) fn addressing(
        &self,
        client: &Client,
        scope: &Scope,
    ) -> anyhow::Result<(Addressing, Option<StartGatewayServices>)> {
        if let Some(pool) = &self.gateway_address_pool {
            return Ok((Addressing::Pool(pool.clone()), None));
        }
        if !self.gateway_status_address.is_empty() {
            return Ok((Addressing::Known(self.gateway_status_address.clone()), None));
        }
        let Some(kind) = self.gateway_service else { return Ok((Addressing::Nobody, None)) };
        let config = self.services(kind, client.default_namespace(), scope)?;
        let (show, objects) = watch::channel(Arc::new(Objects::default()));
        Ok((Addressing::Services(show), Some((config, objects))))
    }

    fn services(
        &self,
        kind: ServiceKind,
        namespace: &str,
        scope: &Scope,
    ) -> anyhow::Result<GatewayServiceConfig> {
        ensure!(
            kind == ServiceKind::LoadBalancer
                || self.gateway_service_traffic_policy.is_none()
                    && self.gateway_service_load_balancer_class.is_none(),
            "--gateway-service-traffic-policy and -load-balancer-class are for --gateway-service LoadBalancer"
        );
        Ok(GatewayServiceConfig {
            kind,
            own_service: ObjectName::new(namespace, self.own_service.as_str()),
            scope: scope.clone().with_own(namespace),
            traffic_policy: self.gateway_service_traffic_policy.unwrap_or(TrafficPolicy::Local),
            load_balancer_class: self.gateway_service_load_balancer_class.clone(),
        })
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
        for (option, value) in [
            ("--gateway-service-traffic-policy", "Cluster"),
            ("--gateway-service-load-balancer-class", "example.com/internal"),
        ] {
            assert!(parsed(&[option, value]).is_err(), "{option} without Services");
            for others in [KNOWN, ["--gateway-address-pool", "10.0.0.0/28"], ["--manifests", "a"]] {
                assert!(parsed(&[others, [option, value]].concat()).is_err(), "{option} beside {others:?}");
            }
            let of = |kind| parsed(&[option, value, "--gateway-service", kind]).unwrap();
            let all = Scope::default();
            assert!(of("LoadBalancer").services(ServiceKind::LoadBalancer, "a", &all).is_ok());
            let error = of("ClusterIP").services(ServiceKind::ClusterIp, "a", &all).unwrap_err().to_string();
            assert!(error.ends_with("are for --gateway-service LoadBalancer"), "{error}");
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
