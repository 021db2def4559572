use super::compile::{COMPILATIONS, terms};
use super::*;
use base::packet::LinkType;

const TCP_SYN: [u8; 54] = {
    let mut frame = [0; 54];
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26] = 10;
    frame[29] = 1;
    frame[30] = 10;
    frame[33] = 2;
    frame[34] = 0x9c;
    frame[35] = 0x40;
    frame[37] = 80;
    frame[46] = 0x50;
    frame[47] = 2;
    frame
};

fn matches(expression: &str) -> bool {
    Filter::compile(expression, LinkType::ETHERNET).unwrap_or_else(|e| panic!("{e}")).matches(&TCP_SYN, 1514)
}

#[test]
fn expressions_mean_what_tcpdump_means() {
    for (expression, expected) in [
        ("", true),
        (" \t\n", true),
        ("tcp", true),
        ("host 10.0.0.1 and port 80", true),
        ("host 10.0.0.1 and port 81", false),
        ("src port 80", false),
        ("tcp[tcpflags] & tcp-syn != 0", true),
        ("len = 1514", true),
        ("greater 1514", true),
        ("less 100", false),
        ("ip[1000] = 0 or tcp", false),
        // `and` and `or` have the same precedence and associate to the left.
        ("tcp or udp and port 81", false),
        ("udp and port 81 or tcp", true),
        ("udp or (tcp and port 80)", true),
        ("not tcp or port 80", true),
    ] {
        assert_eq!(matches(expression), expected, "{expression:?}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let error = Filter::compile("tcp port bananas", LinkType::ETHERNET).unwrap_err().to_string();
    assert!(error.contains("\"tcp port bananas\""), "{error}");
    assert!(error.contains("bananas' is not a valid port") || error.contains("unknown port 'bananas'"), "{error}");
    for expression in
        ["tcp and", "(tcp", "))", "host", "ip proto", "ether host 1.2.3.4.5", "vlan 5000", "tcp and udp and arp"]
    {
        assert!(
            matches!(Filter::compile(expression, LinkType::ETHERNET), Err(FilterError::Rejected { .. })),
            "{expression}"
        );
    }
    assert!(matches!(Filter::compile("tcp\0 or udp", LinkType::ETHERNET), Err(FilterError::Nul { .. })));
    let long = "tcp or ".repeat(20_000);
    assert_eq!(
        Filter::compile(&long, LinkType::ETHERNET).unwrap_err(),
        FilterError::TooLong { bytes: long.trim().len() }
    );
    for expression in ["inbound", "outbound and tcp", "ifindex 3"] {
        assert!(
            matches!(Filter::compile(expression, LinkType::ETHERNET), Err(FilterError::Metadata { .. })),
            "{expression}"
        );
    }
    for (expression, expected) in [
        ("ip protochain 6", "use `proto`"),
        ("port 80 and tcp port bananas", "(at \"bananas\", character 22)"),
        ("tcp and", "(at the end)"),
        ("tcp and §", "(at \"§\", character 9)"),
        ("vlan 5000", "the VLAN id 5000 is above 4095"),
        ("host no.such.host.invalid", "getent ahosts no.such.host.invalid"),
        ("len / (1 - 1) = 1", "a divisor is always zero"),
    ] {
        let error = Filter::compile(expression, LinkType::ETHERNET).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The stack of an ordinary thread must suffice for the deepest expression, and no form of it takes long.
#[test]
fn the_longest_expressions_are_compiled_or_refused() {
    let fill = |piece: &str| piece.repeat((EXPRESSION_BYTES_MAX - 10) / piece.len());
    for (expression, compiles) in [
        (fill("tcp or ") + "tcp", false),
        ("host 192.168.100.101 or ".repeat(TERMS_MAX - 1) + "tcp", true),
        ("host 192.168.100.1 or ".repeat(TERMS_MAX) + "tcp", false),
        ("portrange 10000-20000 or ".repeat(TERMS_MAX - 1) + "tcp", true),
        (fill("not ") + "tcp", true),
        ("vlan and ".repeat(TERMS_MAX - 1) + "tcp", true),
        (format!("{}1 > 0", fill("len+")), true),
        (format!("{}1 > 0", "ip[1]+".repeat(TERMS_MAX - 1)), true),
        (format!("{}0{} = 1", "ip[".repeat(TERMS_MAX - 1), "]".repeat(TERMS_MAX - 1)), true),
        (format!("{}0{} = 1", "ip[".repeat(TERMS_MAX), "]".repeat(TERMS_MAX)), false),
        (fill("("), false),
        (format!("{}tcp{}", "(".repeat(4_000), ")".repeat(4_000)), true),
        (format!("len > {}1", fill("-").split_off(20)), true),
    ] {
        let result = Filter::compile(&expression, LinkType::ETHERNET);
        assert_eq!(result.is_ok(), compiles, "{expression:.40} {:?}", result.err());
    }
}

#[test]
fn terms_are_counted_rather_too_many_than_too_few() {
    for (expression, expected) in [
        ("tcp", 1),
        ("port 80 or 443 or 8443", 3),
        ("tcp and (port 80 OR port 443)", 3),
        ("tcp&&port 80||udp", 3),
        ("not not host order.example.org", 1),
        ("host sand-or-rock.example and tcp", 2),
        ("tcp[tcpflags] & tcp-syn != 0", 2),
        ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", 3),
        ("(tcp)or(udp)and(ip)", 3),
        ("host fe80::1 or\thost fe80::2\nand tcp", 3),
    ] {
        assert_eq!(terms(expression), expected, "{expression}");
    }
    let error = Filter::compile(&"port 1 or ".repeat(300), LinkType::ETHERNET).unwrap_err();
    // The limit is checked first, so the syntax error (a trailing `or`) is not reported.
    assert_eq!(error, FilterError::TooManyTerms { terms: 301, most: TERMS_MAX });
    assert!(error.to_string().contains("at most 256") && error.to_string().contains("port ranges"), "{error}");
}

#[test]
fn long_lists_are_answered() {
    let hosts: Vec<_> = (0..120).map(|n| format!("host 10.0.0.{n}")).collect();
    for (hosts, expected) in [(&hosts[..], true), (&hosts[3..], false)] {
        let long = hosts.join(" or ");
        assert_eq!(matches(&long), expected, "{} bytes", long.len());
        assert_eq!(matches(&hosts[..10.min(hosts.len())].join(" or ")), expected);
    }
}

#[test]
fn link_types_have_their_runtime_numbers() {
    let ip_at = |link_type: u16, packet: &[u8]| {
        Filter::compile("src host 10.0.0.1", LinkType(link_type)).unwrap_or_else(|e| panic!("{e}")).matches(packet, 64)
    };
    let ip = &TCP_SYN[14..];
    let with = |header: &[u8]| [header, ip].concat();
    for (link_type, header, expected) in [
        (1, vec![0; 14], false),
        (12, vec![], true),
        (14, vec![], true),
        (101, vec![], true),
        (228, vec![], true),
        (229, vec![], false),
        (0, 2_u32.to_ne_bytes().to_vec(), true),
        (108, 2_u32.to_be_bytes().to_vec(), true),
        (113, [vec![0; 14], vec![8, 0]].concat(), true),
        (276, [vec![8, 0], vec![0; 18]].concat(), true),
        (9, vec![0xff, 3, 0, 0x21], true),
        (50, vec![0xff, 3, 0, 0x21], true),
        (104, vec![0x0f, 0, 8, 0], true),
        (100, vec![0xaa, 0xaa, 3, 0, 0, 0, 8, 0], true),
    ] {
        let accepted = Filter::compile("src host 10.0.0.1", LinkType(link_type)).is_ok();
        assert_eq!(accepted && ip_at(link_type, &with(&header)), expected, "link type {link_type}");
    }
}

#[test]
fn a_set_compiles_for_the_link_types_it_meets() {
    let ip = &TCP_SYN[14..];
    let mut set = FilterSet::new(" host 10.0.0.1 ").unwrap();
    assert_eq!((set.expression(), set.is_match_all()), ("host 10.0.0.1", false));
    assert!(set.matches(LinkType::ETHERNET, &TCP_SYN, 54));
    assert!(set.matches(LinkType::RAW, ip, 40));
    assert!(!set.matches(LinkType::RAW, &TCP_SYN, 40));
    assert!(set.matches(LinkType(50), &[&[0xff, 3, 0, 0x21], ip].concat(), 44));
    let mut ethernet = FilterSet::new("ether multicast").unwrap();
    assert!(ethernet.matches(LinkType::ETHERNET, &[1; 20], 20));
    assert!(!ethernet.matches(LinkType::RAW, &[1; 20], 20));
    let mut everything = FilterSet::new("  ").unwrap();
    assert!(everything.is_match_all());
    for link_type in 0..300 {
        assert!(everything.matches(LinkType(link_type), &[], 0));
    }
    assert_eq!(
        FilterSet::new("bananas and").unwrap_err(),
        Filter::compile("bananas and", LinkType::ETHERNET).unwrap_err()
    );
}

#[test]
fn programs_go_from_thread_to_thread() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&Program::match_all());
    assert!(Program::match_all().matches(&[], 0));
}

#[test]
fn within_an_answer_an_expression_is_compiled_once() {
    let before = COMPILATIONS.get();
    once(|| {
        for _ in 0..3 {
            FilterSet::for_these("port 53", &[LinkType::ETHERNET, LinkType::RAW], &[]).unwrap();
            SessionProbe::new("port 53").unwrap();
            assert!(FilterSet::for_these("prot 53", &[LinkType::RAW], &[]).is_err());
        }
    });
    // The valid expression compiles for two link types, the invalid one for each usual link type.
    assert_eq!(COMPILATIONS.get() - before, 2 + u32::try_from(USUAL_LINK_TYPES.len()).unwrap());
    SessionProbe::new("port 53").unwrap();
    assert_eq!(COMPILATIONS.get() - before, 7, "names may mean something else by now");
}

#[test]
fn a_set_for_some_link_types_accepts_what_means_something_for_others() {
    let mut set = FilterSet::for_these("ether host 2:0:0:0:0:1", &[LinkType::RAW], &[]).unwrap();
    assert!(set.program(LinkType::RAW).is_none() && set.program(LinkType::ETHERNET).is_some());
    assert!(FilterSet::for_these("type mgt", &[LinkType::ETHERNET], &[]).is_err());
    assert!(FilterSet::for_these("type mgt", &[LinkType::ETHERNET], &[LinkType(105)]).is_ok());
}

/// Every link type that the decoder opens accepts an expression about hosts.
#[test]
fn every_link_type_that_is_opened_can_be_asked() {
    let mut refused = Vec::new();
    for number in 0..300 {
        let link_type = LinkType(number);
        if decode::opens(link_type) {
            let mut set = FilterSet::for_these("host 10.0.0.1", &[link_type], &[]).unwrap();
            assert!(set.can_ask(link_type), "{link_type}");
            if set.program(link_type).is_none() {
                refused.push(number);
            }
        }
    }
    eprintln!("{refused:?}");
    assert!(refused.contains(&239), "{refused:?}");
}
