use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn peer(address: &str, proxies: &Networks) -> Peer {
    let local = SocketAddr::from(([127, 0, 0, 1], 8080));
    let client = SocketAddr::new(address.parse().unwrap(), 4000);
    Peer::new(Ends { client, destination: local }, local, false, proxies)
}

#[test]
fn the_word_of_an_untrusted_peer_is_replaced() {
    let proxies = Networks::default();
    let mut map = headers(&[
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-real-ip", "1.2.3.4"),
    ]);
    let peer = peer("::ffff:9.9.9.9", &proxies);
    assert_eq!(peer.client(&map, &proxies), "9.9.9.9".parse::<IpAddr>().unwrap());
    let seen = HopHeaders::of(&map);
    peer.forward(&mut map, seen, Order::Any, Some(&HeaderValue::from_static("shop.example:8080")));
    assert_eq!(map["x-forwarded-for"], "9.9.9.9");
    assert_eq!(map["x-forwarded-proto"], "http");
    assert_eq!(map["x-forwarded-host"], "shop.example:8080");
    assert!(!map.contains_key("forwarded"));
    assert!(!map.contains_key("x-real-ip"));
}

#[test]
fn the_chain_of_a_trusted_proxy_is_extended_and_believed_up_to_the_first_stranger() {
    let proxies: Networks = "10.0.0.0/8, 192.168.1.1".parse().unwrap();
    let mut map = headers(&[
        ("x-forwarded-for", "6.6.6.6, 7.7.7.7"),
        ("x-forwarded-for", "192.168.1.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=7.7.7.7"),
    ]);
    let peer = peer("10.1.2.3", &proxies);
    assert_eq!(peer.client(&map, &proxies), "7.7.7.7".parse::<IpAddr>().unwrap());
    let seen = HopHeaders::of(&map);
    peer.forward(&mut map, seen, Order::Any, Some(&HeaderValue::from_static("shop.example")));
    assert_eq!(map["x-forwarded-for"], "6.6.6.6, 7.7.7.7, 192.168.1.1, 10.1.2.3");
    assert_eq!(map["x-forwarded-proto"], "https");
    assert_eq!(map["forwarded"], "for=7.7.7.7, for=10.1.2.3;host=\"shop.example\";proto=http");
}

#[test]
fn hops_may_have_ports_brackets_and_zones() {
    let proxies: Networks = "10.0.0.0/8".parse().unwrap();
    let peer = peer("10.1.2.3", &proxies);
    let client = |chain: &str| peer.client(&headers(&[("x-forwarded-for", chain)]), &proxies).to_string();
    for (hop, address) in [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7:51234 , 10.0.0.1:80", "203.0.113.7"),
    ] {
        assert_eq!(client(hop), address, "{hop}");
    }
    // Nothing left of what is no address is believed.
    for hop in [
        "unknown",
        "203.0.113.7:",
        "203.0.113.7:port",
        "[2001:db8::1]443",
        "[2001:db8::1",
        "203.0.113.7%1",
        "",
    ] {
        assert_eq!(client(&format!("6.6.6.6, {hop}")), "10.1.2.3", "{hop}");
    }
}
