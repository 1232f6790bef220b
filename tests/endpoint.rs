//! What is an endpoint, what is none, and what the error says then.

use std::net::{SocketAddr, SocketAddrV6};
use std::path::Path;

use hythe::endpoint::{Endpoint, EndpointError, EndpointPart, HostPort};
use proptest::prelude::*;

const LINUX: bool = cfg!(target_os = "linux");

fn parse(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> EndpointError {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => panic!("{text:?} was accepted as {endpoint:?}"),
        Err(error) => error,
    }
}

#[test]
fn canonical_text_prints_as_it_was() {
    for text in [
        "tcp://127.0.0.1:9000",
        "tcp://127.0.0.1:0",
        "tcp://0.0.0.0:65535",
        "tcp://[::1]:0",
        "tcp://[::]:9000",
        "tcp://[fe80::1%2]:80",
        "tcp://[::ffff:127.0.0.1]:80",
        "tcp://localhost:9000",
        "tcp://a_b.xn--bcher-kva.example.:9000",
        "tcp://1and1.example:80",
        "tcp://3com.0xg:80",
        "udp://127.0.0.1:53",
        "udp://255.255.255.255:9000",
        "udp://239.1.1.1:9000",
        "udp://[ff02::1%3]:9000",
        "udp://localhost:9000",
        "tls://localhost:9000",
        "tls://[::1]:443",
        "unix:///run/app.sock",
        "unix:////run/app.sock",
        "unix:///run/my app%20.sock",
        "unix:///run/a@b:c?d#e.sock",
        "unix:///run/бюро.sock",
        "unix:app.sock",
        "unix:./@app.sock",
        "unix:../run/app.sock",
        "unix:~/app.sock",
        "mem:app",
        "mem:a b/c:d@e",
        "mem:@app",
        "fd:3",
        "fd:2147483647",
        "fd:http",
        "fd:app.socket",
        "fd:3a",
        "fd:a b@c",
    ] {
        let endpoint = parse(text);
        assert_eq!(endpoint.to_string(), text);
        assert!(text.starts_with(&format!("{}:", endpoint.scheme())));
        assert_eq!(Endpoint::try_from(text).unwrap(), endpoint);
        assert_eq!(Endpoint::try_from(text.to_owned()).unwrap(), endpoint);
    }
}

#[test]
fn other_accepted_text_prints_in_canonical_form() {
    for (text, canonical) in [
        ("TCP://127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("Unix:///Run/App.sock", "unix:///Run/App.sock"),
        ("MEM:App", "mem:App"),
        ("tcp://LocalHost:80", "tcp://localhost:80"),
        ("tcp://[0:0::1]:80", "tcp://[::1]:80"),
        ("tcp://[FE80::A%02]:80", "tcp://[fe80::a%2]:80"),
        ("tcp://[::1%0]:80", "tcp://[::1]:80"),
        ("tcp://127.0.0.1:0080", "tcp://127.0.0.1:80"),
        ("FD:Http", "fd:Http"),
        ("fd:003", "fd:3"),
        ("unix:/run/app.sock", "unix:///run/app.sock"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
        assert_eq!(parse(text), parse(canonical), "{text}");
    }
}

#[test]
fn a_bad_text_is_refused_with_the_part_the_reason_and_an_example() {
    use EndpointPart::{Host, Name, Path, Port, Scheme};
    let tcp = "tcp://127.0.0.1:9000";
    let udp = "udp://127.0.0.1:9000";
    let unix = "unix:///run/app.sock";
    #[rustfmt::skip]
    let table = [
        // Schemes.
        ("", Scheme, "the scheme is missing", tcp),
        ("   ", Scheme, "the scheme is missing", tcp),
        (":", Scheme, "the scheme is missing", tcp),
        ("://127.0.0.1:9000", Scheme, "the scheme is missing", tcp),
        ("127.0.0.1:9000", Scheme, "the scheme is missing", tcp),
        ("localhost:80", Scheme, "the scheme is missing", "tcp://localhost:80"),
        ("[::1]:80", Scheme, "the scheme is missing", "tcp://[::1]:80"),
        (":80", Scheme, "the scheme is missing", "tcp://0.0.0.0:80"),
        ("localhost", Scheme, "the scheme is missing", tcp),
        ("/run/a.sock", Scheme, "the scheme is missing", "unix:///run/a.sock"),
        ("/run/a:b.sock", Scheme, "the scheme is missing", "unix:///run/a:b.sock"),
        ("./a.sock", Scheme, "the scheme is missing", "unix:./a.sock"),
        ("tcp:127.0.0.1:80", Scheme, "needs // after it", "tcp://127.0.0.1:80"),
        ("udp:/localhost:80", Scheme, "needs // after it", "udp://localhost:80"),
        (" tcp://127.0.0.1:80", Scheme, "is no scheme", "tcp://127.0.0.1:80"),
        ("my tcp://127.0.0.1:80", Scheme, "\"my tcp\" is no scheme", tcp),
        ("tcp//127.0.0.1:80", Scheme, "the scheme is missing", tcp),
        ("quic://127.0.0.1:80", Scheme, "\"quic\" is not supported by this version", tcp),
        ("wss://host/path", Scheme, "which has tcp, tls, udp, unix, mem and fd", tcp),
        ("stdio:", Scheme, "\"stdio\" is not supported", tcp),
        ("TLS:443", Scheme, "needs // after it", "tls://127.0.0.1:9000"),
        ("ssl://host:443", Scheme, "\"ssl\" is not supported", "tls://host:443"),
        ("exec:prog arg", Scheme, "\"exec\" is not supported", tcp),
        ("gopher://host", Scheme, "\"gopher\" is not supported", tcp),
        // Hosts.
        ("tcp://", Host, "the host is missing", "tcp://0.0.0.0:9000"),
        ("tcp://:80", Host, "every address is 0.0.0.0 or [::]", "tcp://0.0.0.0:80"),
        ("udp://*:80", Host, "every address is 0.0.0.0 or [::]", "udp://0.0.0.0:80"),
        ("tcp://::1:80", Host, "an IPv6 address and needs brackets", "tcp://[::1]:80"),
        ("tcp://::1", Host, "an IPv6 address and needs brackets", "tcp://[::1]:9000"),
        ("udp://fe80::1", Host, "an IPv6 address and needs brackets", "udp://[fe80::1]:9000"),
        ("tcp://127.0.0.1:80:81", Host, "has a ':' in it", tcp),
        ("tcp://[::1:80", Host, "a [ without a ]", tcp),
        ("tcp://[127.0.0.1]:80", Host, "no IPv6 address", "tcp://127.0.0.1:80"),
        ("tcp://[]:80", Host, "no IPv6 address", tcp),
        ("tcp://[fe80::1%eth0]:80", Host, "the number of an interface", "tcp://[fe80::1%2]:80"),
        ("tcp://user@host:80", Host, "has a user before it", "tcp://host:80"),
        ("udp://a:b/c@host:80", Host, "has a user before it", "udp://host:80"),
        ("tcp://two words:80", Host, "the character ' '", tcp),
        ("tcp:// 127.0.0.1:80", Host, "the character ' '", tcp),
        ("tcp://a\0b:80", Host, r"the character '\0'", tcp),
        ("tcp://bücher.example:80", Host, "punycode", tcp),
        ("tcp://a..b:80", Host, "nothing between two dots", tcp),
        ("tcp://.:80", Host, "nothing between two dots", tcp),
        ("tcp://-a.b:80", Host, "starts or ends with '-'", tcp),
        ("tcp://256.0.0.1:80", Host, "no IPv4 address", tcp),
        ("tcp://127.1:80", Host, "no IPv4 address", tcp),
        ("tcp://127.0.0.01:80", Host, "no IPv4 address", tcp),
        ("tcp://0x7f000001:80", Host, "no IPv4 address", tcp),
        ("tcp://9000", Host, "no IPv4 address", tcp),
        // Ports.
        ("tcp://127.0.0.1", Port, "the port is missing", tcp),
        ("udp://localhost:", Port, "the port is missing", "udp://localhost:9000"),
        ("tcp://[::1]", Port, "the port is missing", "tcp://[::1]:9000"),
        ("tcp://[::1]80", Port, "the port comes after ]:", "tcp://[::1]:80"),
        ("tcp://127.0.0.1:65536", Port, "\"65536\" is above 65535", tcp),
        ("tcp://127.0.0.1:99999999999999999999", Port, "is above 65535", tcp),
        ("tcp://127.0.0.1:-1", Port, "\"-1\" is not a number", tcp),
        ("tcp://127.0.0.1:+80", Port, "\"+80\" is not a number", tcp),
        ("tcp://127.0.0.1:http", Port, "\"http\" is not a number", tcp),
        ("udp://127.0.0.1:٣", Port, "is not a number", udp),
        ("tcp://127.0.0.1: 80", Port, "\" 80\" is not a number", tcp),
        ("tcp://127.0.0.1:80\n", Port, r#""80\n" is not a number"#, "tcp://127.0.0.1:80"),
        // Paths.
        ("tcp://127.0.0.1:80/", Path, "has no place after the port", "tcp://127.0.0.1:80"),
        ("udp://127.0.0.1:80/a", Path, "has no place after the port", "udp://127.0.0.1:80"),
        ("tcp://127.0.0.1:80?a", Path, "has no place after the port", "tcp://127.0.0.1:80"),
        ("unix:", Path, "the path is missing", unix),
        ("unix://", Path, "the path is missing", unix),
        ("unix:///", Path, "that of a directory", unix),
        ("unix:///run/", Path, "that of a directory", unix),
        ("unix:.", Path, "that of a directory", unix),
        ("unix:run/..", Path, "that of a directory", unix),
        ("unix://run/a.sock", Path, "begins with /", "unix:///run/a.sock"),
        ("unix:///run/a\0b", Path, r"the character '\0'", unix),
        ("unix:///run/a\nb", Path, r"the character '\n'", unix),
        ("unix:///run/a\n", Path, "white space", "unix:///run/a"),
        ("unix: a", Path, "white space", unix),
        // Names.
        ("mem:", Name, "the name is missing", "mem:app"),
        ("mem://", Name, "no // before it", "mem:app"),
        ("mem://orders", Name, "no // before it", "mem:orders"),
        ("mem:a\u{7f}", Name, r"the character '\u{7f}'", "mem:app"),
        ("mem: a", Name, "white space", "mem:app"),
        ("mem:a ", Name, "white space", "mem:a"),
        ("fd:", Name, "is missing", "fd:3"),
        ("fd://3", Name, "no // before it", "fd:3"),
        ("fd:0", Name, "is below 3", "fd:3"),
        ("fd:2147483648", Name, "is too high", "fd:3"),
        ("fd:99999999999999999999", Name, "is too high", "fd:3"),
        ("fd:a:b", Name, "the character ':'", "fd:3"),
        ("fd:бюро", Name, "the character 'б'", "fd:3"),
        ("fd:http\n", Name, "white space", "fd:http"),
    ];
    for (text, part, problem, example) in table {
        let error = refused(text);
        let message = error.to_string();
        assert_eq!(error.part(), part, "{message}");
        assert!(message.contains(problem), "{message} has no {problem}");
        assert_eq!(error.example(), example, "{message}");
        assert!(!text.contains('@') || error.input() != text, "{message}");
        assert!(text.contains('@') || error.input() == text, "{message}");
    }
}

#[test]
fn messages_read_well() {
    for (text, message) in [
        (
            "tcp://127.0.0.1",
            "endpoint \"tcp://127.0.0.1\": the port is missing; \
             a right one is tcp://127.0.0.1:9000",
        ),
        (
            "127.0.0.1:9000",
            "endpoint \"127.0.0.1:9000\": the scheme is missing; \
             did you mean tcp://127.0.0.1:9000?",
        ),
        (
            "tcp://:9000",
            "endpoint \"tcp://:9000\": the host is missing (every address is 0.0.0.0 or [::]); \
             did you mean tcp://0.0.0.0:9000?",
        ),
        (
            "quic://h:1",
            "endpoint \"quic://h:1\": the scheme \"quic\" is not supported by this version, \
             which has tcp, tls, udp, unix, mem and fd; a right one is tcp://127.0.0.1:9000",
        ),
    ] {
        assert_eq!(refused(text).to_string(), message);
    }
}

#[test]
fn a_message_shows_at_most_64_characters_and_escapes_them() {
    let message = refused(&format!("mem:{}", "\u{1b}[31m\u{202e}".repeat(1000))).to_string();
    assert!(message.starts_with(r#"endpoint "mem:\u{1b}[31m\u{202e}\u{1b}"#), "{message}");
    assert!(message.contains("…\": the name"), "{message}");
    assert!(message.chars().count() < 200, "{message}");

    let long = "s".repeat(100_000);
    assert!(refused(&format!("{long}:x")).to_string().chars().count() < 400);
    assert_eq!(refused(&long).input(), long);
}

#[test]
fn a_password_stays_out_of_errors() {
    for text in [
        "tcp://root:hunter2@127.0.0.1:80",
        "tcp://root:hunter2/@127.0.0.1:80",
        "http://root:hunter2@host/",
        "root:hunter2@127.0.0.1:80",
        "TCP:root:hunter2@127.0.0.1:80",
        "//root:hunter2@127.0.0.1:80",
    ] {
        let error = refused(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert_eq!(refused("unix:///a@b/").input(), "unix:///a@b/");
}

#[test]
fn host_names_have_the_lengths_of_dns() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    parse(&format!("tcp://{longest}:80"));
    parse(&format!("tcp://{longest}.:80"));

    let message = refused(&format!("tcp://{longest}a:80")).to_string();
    assert!(message.contains("the host has 254 bytes, at most 253"), "{message}");
    let message = refused(&format!("tcp://{label}a.b:80")).to_string();
    assert!(message.contains("a label of 64 bytes, at most 63"), "{message}");
}

#[test]
fn paths_and_abstract_names_fit_in_a_socket_address() {
    let short = cfg!(any(
        target_vendor = "apple",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
    ));
    let most = if short { 103 } else { 107 };
    let path = format!("/{}", "a".repeat(most - 1));
    parse(&format!("unix://{path}"));

    let error = refused(&format!("unix://{path}a"));
    let expected = format!("the path has {} bytes, at most {most} are allowed", most + 1);
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(error.part(), EndpointPart::Path);

    if LINUX {
        let name = "é".repeat(53);
        parse(&format!("unix:@{name}a"));
        let error = refused(&format!("unix:@{name}é"));
        assert!(error.to_string().contains("the name has 108 bytes, at most 107"), "{error}");
    }
}

/// The limit is the one that the system has.
#[cfg(unix)]
#[test]
fn the_longest_path_is_accepted_by_the_system() {
    use std::os::unix::net::SocketAddr;
    let fits = |length: usize| {
        let path = "a".repeat(length);
        assert_eq!(Endpoint::unix(&path).is_ok(), SocketAddr::from_pathname(&path).is_ok(), "{length}",);
    };
    (1..300).for_each(fits);
}

#[test]
fn abstract_names_exist_on_linux_only() {
    if !LINUX {
        assert!(refused("unix:@app").to_string().contains("works on Linux only"));
        return;
    }
    for name in ["app", "@app", "a/b", "a b", "/"] {
        let endpoint = Endpoint::unix_abstract(name).unwrap();
        assert_eq!(endpoint.to_string(), format!("unix:@{name}"));
        assert_eq!(parse(&endpoint.to_string()), endpoint);
        let Endpoint::Unix(address) = endpoint else { panic!("{endpoint}") };
        assert_eq!((address.path(), address.abstract_name()), (None, Some(name)));
    }
    assert_eq!(refused("unix:@").part(), EndpointPart::Name);
    assert_eq!(refused("unix:@").example(), "unix:@app");
    assert_eq!(refused("unix:@a\0").part(), EndpointPart::Name);
    assert_eq!(refused("unix://@app").example(), "unix:@app");
    assert_eq!(refused("@app").example(), "unix:@app");
    assert!(Endpoint::unix_abstract("").is_err());
}

#[test]
fn endpoints_made_in_code_print_and_parse_back() {
    let v6 = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 2));
    for (endpoint, text) in [
        (Endpoint::tcp(([127, 0, 0, 1], 80).into()), "tcp://127.0.0.1:80"),
        (Endpoint::tls(v6), "tls://[fe80::1%2]:80"),
        (Endpoint::udp(v6), "udp://[fe80::1%2]:80"),
        (Endpoint::Tcp(HostPort::new("LocalHost", 0).unwrap()), "tcp://localhost:0"),
        (Endpoint::Tcp(HostPort::new("::1", 0).unwrap()), "tcp://[::1]:0"),
        (Endpoint::unix("/run/app.sock").unwrap(), "unix:///run/app.sock"),
        (Endpoint::unix(Path::new("//app.sock")).unwrap(), "unix:////app.sock"),
        (Endpoint::unix("app.sock").unwrap(), "unix:app.sock"),
        (Endpoint::mem("app").unwrap(), "mem:app"),
        (Endpoint::fd("3").unwrap(), "fd:3"),
        (Endpoint::fd("http").unwrap(), "fd:http"),
    ] {
        assert_eq!(endpoint.to_string(), text);
        assert_eq!(parse(text), endpoint);
    }
    assert_eq!(Endpoint::unix("@app").unwrap_err().example(), "unix:./@app");
    for path in ["", "/", "a/", "a\0", "a "] {
        assert_eq!(Endpoint::unix(path).unwrap_err().part(), EndpointPart::Path, "{path:?}");
    }
    for host in ["", "[::1]", "a:80", "user@host", "a/b", "fe80::1%eth0", "::1]:0"] {
        assert_eq!(HostPort::new(host, 80).unwrap_err().part(), EndpointPart::Host, "{host:?}");
    }
    assert_eq!(Endpoint::mem("//a").unwrap_err().example(), "mem:a");
    let error = Endpoint::fd(&"n".repeat(256)).unwrap_err();
    assert!(error.to_string().contains("the name has 256 bytes, at most 255"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(b"/run/\xff.sock");
    let error = Endpoint::unix(path).unwrap_err();
    assert!(error.to_string().contains("the path is not UTF-8"), "{error}");
}

#[test]
fn accessors_say_what_the_text_says() {
    let endpoint = parse("udp://[fe80::1%2]:80");
    assert_eq!((endpoint.scheme(), endpoint.is_stream()), ("udp", false));
    assert_eq!((endpoint.host(), endpoint.port()), (Some("fe80::1%2"), Some(80)));
    assert_eq!(endpoint.socket_addr(), Some("[fe80::1%2]:80".parse().unwrap()));

    let endpoint = parse("tcp://localhost:80");
    assert_eq!((endpoint.scheme(), endpoint.is_stream()), ("tcp", true));
    assert_eq!((endpoint.host(), endpoint.port()), (Some("localhost"), Some(80)));
    assert_eq!(endpoint.socket_addr(), None);

    for text in ["unix:///run/app.sock", "mem:app", "fd:3"] {
        let endpoint = parse(text);
        assert!(endpoint.is_stream());
        assert_eq!((endpoint.host(), endpoint.port(), endpoint.socket_addr()), (None, None, None));
    }
}

/// Text that is right, or nearly.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof![
        "(tcp|tls|udp|TCP)://([a-z0-9_.-]{1,12}|[0-9.]{7,11}|\\[[0-9a-f:%.]{2,12}\\]):[0-9]{1,5}",
        "(tcp|udp|mem|unix|tls|fd)?:?/{0,4}[\\[\\]@:%./a-f0-9 *-]{0,20}",
        "unix:/{0,4}@?\\PC{0,40}",
        "mem:\\PC{0,40}",
        "fd:([0-9]{1,11}|[a-z0-9:. ]{0,12})",
        any::<(bool, [u16; 8], u32, u16)>().prop_map(|(tcp, ip, zone, port)| {
            let addr = SocketAddrV6::new(ip.into(), port, 0, zone).into();
            if tcp { Endpoint::tcp(addr) } else { Endpoint::udp(addr) }.to_string()
        }),
        any::<SocketAddr>().prop_map(|addr| format!("tcp://{addr}")),
    ]
}

/// What holds for every text; the test fails by a panic as well.
fn check(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.to_string();
            let again: Endpoint = printed
                .parse()
                .map_err(|error| TestCaseError::fail(format!("{text:?} printed as {printed:?}: {error}")))?;
            prop_assert_eq!(&again, &endpoint);
            prop_assert_eq!(again.to_string(), printed);
            if let Some(addr) = endpoint.socket_addr() {
                prop_assert_eq!(Some(addr.port()), endpoint.port());
                prop_assert_eq!(
                    HostPort::new(endpoint.host().unwrap_or_default(), addr.port()).ok(),
                    Some(HostPort::from(addr))
                );
            }
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.contains(&error.part().to_string()), "{}", message);
            prop_assert!(!message.contains(char::is_control), "{}", message);
            prop_assert!(message.chars().count() < 350, "{}", message);
            prop_assert!(message.contains(error.example()), "{}", message);
            let example = error.example().parse::<Endpoint>();
            prop_assert!(example.is_ok(), "{}", message);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nearly_right_text_round_trips_or_is_explained(text in nearly()) {
        check(&text)?;
    }

    #[test]
    fn any_text_round_trips_or_is_explained(text in any::<String>()) {
        check(&text)?;
        for scheme in ["tcp://", "udp://[", "unix:", "unix:///", "unix:@", "mem:", "fd:"] {
            check(&format!("{scheme}{text}"))?;
        }
    }

    #[test]
    fn what_code_makes_round_trips(text in "\\PC{0,30}", addr in any::<SocketAddr>()) {
        let made = [
            Endpoint::unix(&text),
            Endpoint::unix_abstract(&text),
            Endpoint::mem(&text),
            Endpoint::fd(&text),
            HostPort::new(&text, 80).map(Endpoint::Tcp),
            Ok(Endpoint::udp(addr)),
        ];
        for endpoint in made.into_iter().flatten() {
            prop_assert_eq!(&parse(&endpoint.to_string()), &endpoint);
        }
    }
}
