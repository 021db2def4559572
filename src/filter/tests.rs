use super::*;

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
        // "and" and "or" bind alike, from the left.
        ("tcp or udp and port 81", false),
        ("udp and port 81 or tcp", true),
        ("udp or (tcp and port 80)", true),
        ("not tcp or port 80", true),
    ] {
        assert_eq!(matches(expression), expected, "{expression:?}");
    }
}

#[test]
fn errors_carry_what_libpcap_says() {
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
    assert!(matches!(Filter::compile("ip protochain 6", LinkType::ETHERNET), Err(FilterError::Unsafe { .. })));
}

/// libpcap recurses; a thread of ordinary size must do for the longest expression.
#[test]
fn the_longest_expressions_are_compiled_or_refused() {
    let fill = |piece: &str| piece.repeat((EXPRESSION_BYTES_MAX - 10) / piece.len());
    for (expression, compiles) in [
        (fill("tcp or ") + "tcp", true),
        (fill("host 10.0.0.1 and port 5 or ") + "tcp", true),
        (fill("not ") + "tcp", true),
        (fill("vlan and ") + "tcp", true),
        (format!("{}1 > 0", fill("ip[1]+")), true),
        (fill("("), false),
        (format!("{}tcp{}", "(".repeat(4_000), ")".repeat(4_000)), true),
        (format!("len > {}1", fill("-").split_off(20)), true),
    ] {
        let result = Filter::compile(&expression, LinkType::ETHERNET);
        assert_eq!(result.is_ok(), compiles, "{expression:.40} {:?}", result.err());
    }
}

#[test]
fn the_optimizer_changes_no_answer() {
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
    // Of the right one two, of the wrong one each usual link type.
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
