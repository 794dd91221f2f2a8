use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn peer(address: &str, proxies: &TrustedProxies) -> Peer {
    Peer::new(SocketAddr::new(address.parse().unwrap(), 4000), ([127, 0, 0, 1], 8080).into(), false, proxies)
}

#[test]
fn the_word_of_an_untrusted_peer_is_replaced() {
    let proxies = TrustedProxies::default();
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
    peer.forward(&mut map, seen, Some(&HeaderValue::from_static("shop.example:8080")));
    assert_eq!(map["x-forwarded-for"], "9.9.9.9");
    assert_eq!(map["x-forwarded-proto"], "http");
    assert_eq!(map["x-forwarded-host"], "shop.example:8080");
    assert!(!map.contains_key("forwarded"));
    assert!(!map.contains_key("x-real-ip"));
}

#[test]
fn the_chain_of_a_trusted_proxy_is_extended_and_believed_up_to_the_first_stranger() {
    let proxies: TrustedProxies = "10.0.0.0/8, 192.168.1.1".parse().unwrap();
    let mut map = headers(&[
        ("x-forwarded-for", "6.6.6.6, 7.7.7.7"),
        ("x-forwarded-for", "192.168.1.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=7.7.7.7"),
    ]);
    let peer = peer("10.1.2.3", &proxies);
    assert_eq!(peer.client(&map, &proxies), "7.7.7.7".parse::<IpAddr>().unwrap());
    let seen = HopHeaders::of(&map);
    peer.forward(&mut map, seen, Some(&HeaderValue::from_static("shop.example")));
    assert_eq!(map["x-forwarded-for"], "6.6.6.6, 7.7.7.7, 192.168.1.1, 10.1.2.3");
    assert_eq!(map["x-forwarded-proto"], "https");
    assert_eq!(map["forwarded"], "for=7.7.7.7, for=10.1.2.3;host=\"shop.example\";proto=http");
}
