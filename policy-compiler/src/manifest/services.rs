//! Services, and what names their backends.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::{address, reachable_address};
use super::fields::{Field, Mapping, Read};
use super::labels::labels;
use super::ports::{port_number, port_number_if_any, port_or_name, protocol};
use crate::model::{EndpointPort, EndpointSubset, Endpoints, ObjectName, Service, ServicePort, TargetPort};

/// The label that says whose backends an EndpointSlice has.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// `v1 Service`. What cannot be read of it is left out.
pub(super) fn service(object: &Mapping<'_>, name: ObjectName) -> Service {
    let mut service = Service {
        name,
        selector: None,
        external_name: None,
        addresses: Vec::new(),
        ports: Vec::new(),
        origin: Some(object.field().origin()),
    };
    let _ = object.optional("spec", |spec| read_spec(&spec.mapping()?, &mut service));
    let balancer = object.optional("status", |status| {
        let balancer = status
            .mapping()?
            .optional("loadBalancer", |balancer| balancer.mapping()?.list("ingress", balancer_address));
        Ok(balancer?.unwrap_or_default())
    });
    service.addresses.extend(readable(balancer.map(Option::unwrap_or_default)).flatten());
    let mut seen = Vec::new();
    service.addresses.retain(|address| {
        let first = !seen.contains(address);
        seen.push(*address);
        first
    });
    service
}

/// `ServiceSpec`
fn read_spec(spec: &Mapping<'_>, service: &mut Service) -> Read<()> {
    service.selector = spec.get("selector").as_ref().map(labels).filter(|labels| !labels.is_empty());
    let is_external = spec.optional("type", |field| Ok(field.text()? == "ExternalName"));
    if is_external == Ok(Some(true)) {
        service.external_name = spec.optional("externalName", |field| field.text().map(Into::into))?;
    }
    service.addresses.extend(readable(spec.list("clusterIPs", address_if_any)).flatten());
    for key in ["clusterIP", "loadBalancerIP"] {
        service.addresses.extend(spec.optional(key, address_if_any).ok().flatten().flatten());
    }
    service.addresses.extend(readable(spec.list("externalIPs", reachable_address)));
    service.ports = readable(spec.list("ports", service_port)).collect();
    Ok(())
}

fn readable<T>(list: Read<Vec<Read<T>>>) -> impl Iterator<Item = T> {
    list.unwrap_or_default().into_iter().flatten()
}

fn address_if_any(field: &Field<'_>) -> Read<Option<IpAddr>> {
    match field.text()? {
        "" | "None" => Ok(None),
        _ => address(field).map(Some),
    }
}

/// `LoadBalancerIngress`: the address, unless what is sent to it goes out of the cluster to the load balancer.
fn balancer_address(field: &Field<'_>) -> Read<Option<IpAddr>> {
    let ingress = field.mapping()?;
    let is_proxy = ingress.optional("ipMode", |mode| Ok(mode.text()? == "Proxy"))?.unwrap_or(false);
    Ok(ingress.optional("ip", address_if_any)?.flatten().filter(|_| !is_proxy))
}

fn service_port(field: &Field<'_>) -> Read<ServicePort> {
    let port = field.mapping()?;
    let name = port.optional("name", |field| field.text().map(str::to_owned));
    let protocol = protocol(&port);
    let number = port.required("port").and_then(|field| port_number(&field));
    let target = port.optional("targetPort", port_or_name);
    let node_port = port.optional("nodePort", port_number_if_any);
    let number = number?;
    Ok(ServicePort {
        name: name?,
        protocol: protocol?,
        number,
        target: target?.unwrap_or(TargetPort::Number(number)),
        node_port: node_port?.flatten(),
    })
}

/// `v1 Endpoints`
pub(super) fn endpoints(object: &Mapping<'_>, name: ObjectName) -> Endpoints {
    let subset = |field: &Field<'_>| {
        let subset = field.mapping()?;
        let addresses =
            subset.list("addresses", |entry| reachable_address(&entry.mapping()?.required("ip")?));
        Ok(EndpointSubset { addresses: readable(addresses).collect(), ports: endpoint_ports(&subset) })
    };
    let subsets = readable(object.list("subsets", subset)).collect();
    Endpoints { service: name.name.clone(), name, subsets }
}

/// `discovery.k8s.io/v1 EndpointSlice`; one that belongs to no Service, or has DNS names for addresses, is without
/// backends.
pub(super) fn endpoint_slice(object: &Mapping<'_>, name: ObjectName) -> Endpoints {
    let text = |path: &[&str]| object.peek(path).and_then(|node| node.text());
    let service: Arc<str> = text(&["metadata", "labels", SERVICE_NAME_LABEL]).unwrap_or_default().into();
    if text(&["addressType"]) == Some("FQDN") {
        return Endpoints { service, name, subsets: Vec::new() };
    }
    let addresses = object.list("endpoints", |field| {
        let endpoint = field.mapping()?;
        let is_ready = endpoint.optional("conditions", |conditions| {
            conditions.mapping()?.get("ready").map_or(Ok(true), |ready| ready.boolean())
        })?;
        let addresses = endpoint.list("addresses", reachable_address)?;
        Ok(addresses.into_iter().flatten().filter(|_| is_ready.unwrap_or(true)).collect::<Vec<_>>())
    });
    let addresses = readable(addresses).flatten().collect();
    let subset = EndpointSubset { addresses, ports: endpoint_ports(object) };
    Endpoints { service, name, subsets: vec![subset] }
}

/// `ports` of either.
fn endpoint_ports(object: &Mapping<'_>) -> Vec<EndpointPort> {
    let port = |field: &Field<'_>| {
        let port = field.mapping()?;
        let name = port.optional("name", |field| field.text().map(str::to_owned));
        let protocol = protocol(&port);
        let number = port.optional("port", port_number);
        let (name, protocol) = (name?.filter(|name| !name.is_empty()), protocol?);
        Ok(number?.map(|number| EndpointPort { name, protocol, number }))
    };
    readable(object.list("ports", port)).flatten().collect()
}
