use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::{
    parse::{Preamble, parse},
    *,
};

/// Version 2 with this command, family and block.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, block].concat()
}

const V4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let (mut client, mut destination) = ([0; 16], [0; 16]);
    (client[0], client[1], client[15], destination[15]) = (0x20, 0x01, 7, 1);
    [&client[..], &destination, &[0x12, 0x34, 0x01, 0xbb]].concat()
}

fn ends(client: &str, destination: &str) -> Option<Ends> {
    Some(Ends { client: client.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// Preambles, and what they say.
fn golden() -> Vec<(Vec<u8>, Option<Ends>)> {
    let line = |text: &str| text.as_bytes().to_vec();
    let tlv = [4, 0, 3, 1, 2, 3];
    let ipv4 = ends("203.0.113.7:4660", "192.0.2.1:443");
    vec![
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n"), ipv4),
        (
            line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n"),
            ends("255.255.255.255:65535", "255.255.255.255:0"),
        ),
        (line("PROXY TCP6 2001::7 ::1 4660 443\r\n"), ends("[2001::7]:4660", "[::1]:443")),
        (
            line("PROXY TCP6 ::ffff:203.0.113.7 ::1 4660 443\r\n"),
            ends("[::ffff:203.0.113.7]:4660", "[::1]:443"),
        ),
        (line("PROXY UNKNOWN\r\n"), None),
        (line("PROXY UNKNOWN ffff:f...f:ffff whatever 65535\r\n"), None),
        (binary(0x21, 0x11, V4), ipv4),
        (binary(0x21, 0x11, &[V4, &tlv].concat()), ipv4),
        (binary(0x21, 0x11, &[V4, &[0; LONGEST - 28]].concat()), ipv4),
        (binary(0x21, 0x21, &v6()), ends("[2001::7]:4660", "[::1]:443")),
        (binary(0x21, 0x21, &[&v6()[..], &tlv].concat()), ends("[2001::7]:4660", "[::1]:443")),
        (binary(0x20, 0x00, &[]), None),
        (binary(0x20, 0x11, V4), None),
        (binary(0x20, 0x11, &[]), None),
        (binary(0x20, 0xff, &tlv), None),
        (binary(0x21, 0x00, &tlv), None),
        (binary(0x21, 0x12, V4), None),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
    ]
}

#[test]
fn each_form_says_what_the_protocol_makes_of_it() {
    for (bytes, ends) in golden() {
        let length = bytes.len();
        let title = String::from_utf8_lossy(&bytes[..length.min(50)]).into_owned();
        let followed = [&bytes[..], b"\r\nGET"].concat();
        assert_eq!(parse(&followed).unwrap(), Some(Preamble { ends, length }), "{title:?}");
        for end in 0..length.min(300) {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{end} bytes of {title:?}");
        }
    }
}

#[test]
fn what_breaks_the_rules_is_refused_as_soon_as_it_does() {
    for text in [
        "G",
        "PROXX",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.\u{e9} 5.6.7.8 1 2\r\n",
        "\r\n\r\nG",
    ] {
        assert!(matches!(parse(text.as_bytes()), Err(PreambleError::Malformed)), "{text:?}");
    }
    let line = format!("PROXY UNKNOWN {}", "a".repeat(LONGEST));
    assert_eq!(parse(&line.as_bytes()[..106]).unwrap(), None);
    assert!(matches!(parse(&line.as_bytes()[..107]), Err(PreambleError::Malformed)));
    for (command, family, block) in [
        (0x11, 0x11, V4),
        (0x22, 0x11, V4),
        (0x21, 0x13, V4),
        (0x21, 0x01, V4),
        (0x21, 0x41, V4),
        (0x21, 0x11, &V4[1..]),
        (0x21, 0x21, V4),
    ] {
        let head = &binary(command, family, block)[..16];
        assert!(matches!(parse(head), Err(PreambleError::Malformed)), "{command:x} {family:x}");
    }
    let long = binary(0x21, 0x11, &[0; LONGEST - 15]);
    assert!(matches!(parse(&long[..16]), Err(PreambleError::TooLong)));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0..3_u8) {
        let begin: &[u8] = match form {
            0 => b"",
            1 => b"PROXY TCP4 ",
            _ => b"\r\n\r\n\0\r\nQUIT\n\x21",
        };
        let bytes = [begin, &bytes].concat();
        if let Ok(Some(Preamble { length, .. })) = parse(&bytes) {
            prop_assert!(length <= bytes.len());
            prop_assert!(parse(&bytes[..length]).unwrap().is_some(), "it does not need what follows");
        }
    }
}

/// The two ends of a connection, and a writer of pieces that waits until each was read.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn in_any_pieces_it_is_the_same_and_what_follows_is_left() {
    for (bytes, ends) in golden() {
        for size in [1, 5, 255, 256, 257, LONGEST + 3] {
            let (mut client, mut server) = connected().await;
            let sent = [&bytes[..], b"\r\nGET"].concat();
            // The reader has a turn after each piece.
            let write = async {
                for piece in sent.chunks(size.max(sent.len() / 300)) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let read = async {
                assert_eq!(read(&mut server).await.unwrap(), ends);
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"\r\nGET");
            };
            tokio::join!(write, read);
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_first_has_none() {
    let (mut client, mut server) = connected().await;
    client.write_all(b"PROXY TCP4").await.unwrap();
    drop(client);
    assert!(matches!(read(&mut server).await, Err(PreambleError::Ended(_))));
}
