//! Messages of Envoy that guests serialize, as far as something in them matters here.

/// Kinds of a protobuf field, by the lowest bits of its tag.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

/// Numbers of `GrpcService.envoy_grpc` and `google_grpc`, and of `EnvoyGrpc.cluster_name` and
/// `GoogleGrpc.target_uri` in these.
const ENVOY_GRPC: u64 = 1;
const GOOGLE_GRPC: u64 = 2;
const NAME: u64 = 1;

/// The upstream of a gRPC call as guests of the C++ SDK name it: the cluster or the target of an
/// `envoy.config.core.v3.GrpcService`; none if these bytes are not one, and a name by themselves.
pub(super) fn upstream(message: &[u8]) -> Option<&str> {
    let name = match field(message, ENVOY_GRPC)? {
        Some(envoy_grpc) => name(envoy_grpc)?,
        None => host(name(field(message, GOOGLE_GRPC)??)?),
    };
    Some(name).filter(|name| !name.is_empty())
}

fn name(service: &[u8]) -> Option<&str> {
    std::str::from_utf8(field(service, NAME)??).ok()
}

/// The host and port of a target, which gRPC writes `host:port` or `dns:[//authority/]host:port`.
fn host(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("dns:") else { return target };
    rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).map_or(rest, |(_, host)| host)
}

/// Whether these bytes are a message that begins with a text, such as a name.
pub(super) fn is_message(bytes: &[u8]) -> bool {
    field(bytes, NAME).is_some()
}

/// The content of the last field of this number in a message, if it has one; none if a part of the message
/// is none.
fn field(mut message: &[u8], number: u64) -> Option<Option<&[u8]>> {
    let mut found = None;
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        let (content, rest) = match tag & 7 {
            VARINT => (None, varint(rest)?.1),
            FIXED_64 => (None, rest.get(8..)?),
            FIXED_32 => (None, rest.get(4..)?),
            LENGTH_DELIMITED => {
                let (length, rest) = varint(rest)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(content), rest)
            }
            _ => return None,
        };
        if tag >> 3 == number {
            found = Some(content?);
        }
        message = rest;
    }
    Some(found)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serialized_service_names_its_cluster_or_its_target() {
        // envoy_grpc { cluster_name: "auth", authority: "a" }, timeout { seconds: 5 }.
        assert_eq!(upstream(b"\x0a\x09\x0a\x04auth\x12\x01a\x1a\x02\x08\x05"), Some("auth"));
        assert_eq!(upstream(b"\x1a\x02\x08\x05\x0a\x06\x0a\x04auth"), Some("auth"), "in any order");
        // google_grpc { target_uri: "dns:///auth:80", stat_prefix: "a" }, and the other forms.
        assert_eq!(upstream(b"\x12\x13\x0a\x0edns:///auth:80\x22\x01a"), Some("auth:80"));
        assert_eq!(upstream(b"\x12\x0d\x0a\x0bdns:auth:80"), Some("auth:80"));
        assert_eq!(upstream(b"\x12\x17\x0a\x15dns://8.8.8.8/auth:80"), Some("auth:80"));
        assert_eq!(upstream(b"\x12\x06\x0a\x04auth"), Some("auth"), "by itself");
        assert_eq!(upstream(b"\x0a\x08\x0a\x06dns:80"), Some("dns:80"), "a cluster is no target");
    }

    #[test]
    fn names_and_everything_else_are_no_service() {
        for other in [
            &b""[..],
            b"auth",
            b"outbound|80||auth.shop.svc.cluster.local",
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01auth",
            b"\x0a\x06\x0a\x04aut",
            b"\x0a\x02\x0a\x00",
            b"\x12\x03\x22\x01a",
            b"\x0b\x0c",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(upstream(other), None, "{other:?}");
        }
    }

    #[test]
    fn whatever_is_cut_short_is_no_message() {
        // name: "mine", readonly: true.
        for (bytes, is_one) in
            [(&b"\x0a\x04mine\x10\x01"[..], true), (b"", true), (b"\x0a\x04mi", false), (b"x", false)]
        {
            assert_eq!(is_message(bytes), is_one, "{bytes:?}");
        }
    }
}
