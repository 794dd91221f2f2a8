//! The addresses that a Gateway asks for.

use std::net::IpAddr;

use gateway_api::experimental::gateways::Gateway;

/// A Gateway asks for an address of a type or in a form that is not supported, or for more than can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsupportedAddress {
    #[error("spec.addresses[{index}].type: {kind:?} is not supported, only IPAddress is")]
    Type { index: usize, kind: String },
    #[error("spec.addresses[{index}].value: {value:?} is not an IP address")]
    Value { index: usize, value: String },
    #[error("spec.addresses: a Service can be asked for one address alone")]
    Several,
}

/// The addresses that a Gateway asks to be bound on; any will do where it names none. An entry without a
/// value leaves the choice to the gateway, and so does one that names none in particular.
///
/// # Errors
/// [`UnsupportedAddress`] for the first entry that is of another type, or no address.
pub(crate) fn asked_addresses(gateway: &Gateway) -> Result<Vec<IpAddr>, UnsupportedAddress> {
    let mut addresses = Vec::new();
    let mut is_any = false;
    for (index, address) in gateway.spec.addresses.iter().flatten().enumerate() {
        if let Some(kind) = address.r#type.as_deref().filter(|kind| *kind != "IPAddress") {
            return Err(UnsupportedAddress::Type { index, kind: kind.to_owned() });
        }
        let Some(value) = address.value.as_deref().filter(|value| !value.is_empty()) else {
            is_any = true;
            continue;
        };
        let invalid = |_| UnsupportedAddress::Value { index, value: value.to_owned() };
        // An IPv4 address in the spelling of IPv6 is bound as what it is.
        let address = value.parse::<IpAddr>().map_err(invalid)?.to_canonical();
        is_any |= address.is_unspecified();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    // A socket on all interfaces covers every single address.
    Ok(if is_any { Vec::new() } else { addresses })
}

/// The address that a Gateway asks its Service to have; `None` if any will do.
///
/// # Errors
/// [`UnsupportedAddress`] as [`asked_addresses`] has it, and if there are several.
pub(crate) fn asked_of_service(gateway: &Gateway) -> Result<Option<IpAddr>, UnsupportedAddress> {
    match asked_addresses(gateway)?.as_slice() {
        [] => Ok(None),
        [address] => Ok(Some(*address)),
        _ => Err(UnsupportedAddress::Several),
    }
}
