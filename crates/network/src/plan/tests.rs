use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::*;
use crate::network::{Bridge, Driver, Gateway, Network, Range};

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));

fn network() -> Network {
    let subnet: IpNet = "172.17.0.0/16".parse().unwrap();
    Network {
        id: "n1".to_owned(),
        name: "bridge".to_owned(),
        driver: Driver::Bridge(Bridge {
            link: "ferry0".to_owned(),
            icc: true,
            masquerade: true,
            source: None,
            binding: None,
            gateway4: Gateway::Nat,
            gateway6: Gateway::Nat,
        }),
        ranges: vec![Range {
            subnet,
            gateway: Some("172.17.0.1".parse().unwrap()),
            pool: None,
            reserved: Vec::new(),
        }],
        internal: false,
        mtu: 1500,
        prefix: "eth".to_owned(),
    }
}

fn desired() -> Desired {
    Desired {
        bridges: vec![BridgeLink {
            name: "ferry0".to_owned(),
            network_id: "n1".to_owned(),
            mac: Mac::of(Ipv4Addr::new(172, 17, 0, 1)),
            mtu: 1500,
            addresses: vec![(GATEWAY, 16)],
        }],
        networks: BTreeSet::from(["n1".to_owned()]),
        firewall: Some(Firewall {
            table: "ferry".to_owned(),
            networks: vec![network()],
            ports: Vec::new(),
            routed: Vec::new(),
            was_off: (false, false),
        }),
        forward: (true, false),
        table: "ferry".to_owned(),
        endpoints: BTreeMap::new(),
        queues: BTreeSet::new(),
        prune: true,
        record: Record::default(),
    }
}

fn link(index: u32, name: &str, kind: &str, alias: &str, master: Option<u32>) -> Link {
    let (name, kind, alias) = (name.to_owned(), Some(kind.to_owned()), Some(alias.to_owned()));
    Link {
        index,
        name,
        kind,
        alias,
        master,
        up: true,
        ..Link::default()
    }
}

/// A host on which all is as it should be, with two containers.
fn settled() -> (Observed, Desired) {
    let mut desired = desired();
    desired.record.sysctls = vec![Sysctl::later_links()];
    let place = |hairpin| Place {
        bridge: "ferry0".to_owned(),
        port: Port {
            isolated: Some(false),
            hairpin,
            learning: None,
        },
    };
    desired.endpoints = [("aaaa", None), ("bbbb", Some(true))]
        .map(|(id, hairpin)| (id.to_owned(), place(hairpin)))
        .into();
    let observed = Observed {
        links: vec![
            link(5, "ferry0", "bridge", "ferry:n1", None),
            link(6, "fe-aaaa", "veth", "ferry:aaaa", Some(5)),
            link(7, "fe-bbbb", "veth", "ferry:bbbb", Some(5)),
            link(8, "veth9", "veth", "", Some(5)),
        ],
        addresses: vec![Address {
            link: 5,
            address: GATEWAY,
            prefix: 16,
        }],
        ip_forward: Some("0".to_owned()),
        later_forward: true,
        links_forward: [("ferry0", true), ("wan0", true)]
            .map(|(name, on)| (name.to_owned(), on))
            .into(),
        table: Some(TableState {
            comment: Some("ip_forward=0".to_owned()),
            intact: true,
        }),
        ..Observed::default()
    };
    (observed, desired)
}

fn text(observed: &Observed, desired: &Desired) -> String {
    let text = plan(observed, desired).unwrap().to_string();
    let firewall = text.lines().filter(|line| line.contains("inet ferry")).count();
    let rest: Vec<_> = text.lines().filter(|line| !line.contains("inet ferry")).collect();
    format!("{}{}", if firewall > 1 { "firewall\n" } else { "" }, rest.join("\n"))
}

#[test]
fn an_empty_host_gets_everything_and_the_firewall_first() {
    let observed = Observed {
        ip_forward: Some("0".to_owned()),
        links_forward: [("tun0", true), ("wan0", false)]
            .map(|(name, on)| (name.to_owned(), on))
            .into(),
        ..Observed::default()
    };
    let expected = "firewall\n\
        change net/ipv4/conf/tun0/forwarding from 1 to 1\n\
        write 1 to net/ipv4/conf/wan0/forwarding\n\
        change net/ipv4/conf/default/forwarding from 0 to 1\n\
        create bridge ferry0 mac 02:42:ac:11:00:01 mtu 1500 alias ferry:n1\n\
        write 0 to net/ipv6/conf/ferry0/accept_ra\n\
        add address 172.17.0.1/16 to ferry0\n\
        set ferry0 up";
    assert_eq!(text(&observed, &desired()), expected);
    assert!(
        plan(&observed, &desired())
            .unwrap()
            .to_string()
            .contains("oifname != @bridges drop")
    );
}

#[test]
fn forwarding_that_was_on_stays_unfiltered_and_is_not_ours_to_turn_off() {
    let observed = Observed {
        ip_forward: Some("1".to_owned()),
        ..Observed::default()
    };
    let plan = plan(&observed, &desired()).unwrap().to_string();
    assert!(
        plan.contains("oifname != @bridges accept") && !plan.contains("forwarding"),
        "{plan}"
    );
}

#[test]
fn a_settled_host_needs_nothing() {
    let (observed, desired) = settled();
    assert_eq!(plan(&observed, &desired).unwrap(), Plan::default());
}

#[test]
fn a_changed_or_missing_table_is_replaced() {
    let (mut observed, desired) = settled();
    observed.table.as_mut().unwrap().intact = false;
    assert_eq!(text(&observed, &desired), "firewall\n");
    observed.table = None;
    assert_eq!(text(&observed, &desired), "firewall\n");
}

#[test]
fn host_ends_without_a_container_go_and_others_are_left_alone() {
    let (mut observed, mut desired) = settled();
    desired.endpoints.remove("bbbb");
    observed.links.push(link(9, "fe-cccc", "veth", "ferry:cccc", None));
    observed.links.push(link(10, "fe-dddd", "veth", "ferry:dddd", Some(77)));
    observed.links.push(link(11, "fe-eeee", "veth", "somebody", None));
    assert_eq!(text(&observed, &desired), "delete link fe-bbbb\ndelete link fe-cccc");
    desired.prune = false;
    assert_eq!(text(&observed, &desired), "");
}

#[test]
fn a_bridge_that_is_gone_is_made_again_with_its_ports() {
    let (mut observed, desired) = settled();
    observed.links.remove(0);
    observed.links.iter_mut().for_each(|link| link.master = None);
    observed.addresses.clear();
    let expected = "create bridge ferry0 mac 02:42:ac:11:00:01 mtu 1500 alias ferry:n1\n\
        write 0 to net/ipv6/conf/ferry0/accept_ra\n\
        add address 172.17.0.1/16 to ferry0\n\
        set ferry0 up\n\
        make fe-aaaa a port of ferry0\n\
        make fe-bbbb a port of ferry0 hairpin";
    assert_eq!(text(&observed, &desired), expected);
}

#[test]
fn a_wrong_address_of_the_bridge_is_replaced() {
    let (mut observed, desired) = settled();
    observed.addresses[0].prefix = 24;
    observed.links[0].up = false;
    let expected = "delete address 172.17.0.1/24 of ferry0\nadd address 172.17.0.1/16 to ferry0\nset ferry0 up";
    assert_eq!(text(&observed, &desired), expected);
}

#[test]
fn a_link_of_that_name_that_is_not_ours_is_not_touched() {
    for stranger in [
        link(5, "ferry0", "bridge", "", None),
        link(5, "ferry0", "veth", "ferry:n1", None),
    ] {
        let observed = Observed {
            links: vec![stranger],
            ..Observed::default()
        };
        assert!(matches!(plan(&observed, &desired()), Err(Error::Taken { .. })));
        assert_eq!(
            plan(
                &observed,
                &Desired {
                    bridges: Vec::new(),
                    firewall: None,
                    ..desired()
                }
            )
            .unwrap(),
            Plan::default()
        );
    }
    let left = link(5, "ferry0", "bridge", "ferry:of another data root", None);
    let observed = Observed {
        links: vec![left, link(6, "fe-1", "veth", "ferry:1", Some(5))],
        ..Observed::default()
    };
    assert!(matches!(plan(&observed, &desired()), Err(Error::Taken { .. })));
    let alone = Observed {
        links: vec![observed.links[0].clone()],
        ..Observed::default()
    };
    assert!(
        plan(&alone, &desired())
            .unwrap()
            .to_string()
            .contains("delete link ferry0\n")
    );
}

#[test]
fn shutdown_takes_everything_down_and_the_firewall_last() {
    let (observed, mut desired) = settled();
    desired.bridges.clear();
    desired.firewall = None;
    desired.endpoints.clear();
    let plan = plan(&observed, &desired).unwrap().to_string();
    let expected = "put net/ipv4/conf/default/forwarding back to 0 if it still is 1\n\
        put net/ipv4/conf/wan0/forwarding back to 0 if it still is 1\n\
        delete link fe-aaaa\ndelete link fe-bbbb\ndelete link ferry0\ndelete table inet ferry\n";
    assert_eq!(plan, expected);
}

#[test]
fn that_forwarding_was_off_is_remembered_by_the_table_alone() {
    let (observed, _) = settled();
    assert_eq!(observed.recall(Record::default()).sysctls, [Sysctl::later_links()]);
    assert_eq!(Observed::default().recall(Record::default()), Record::default());
}

#[test]
fn who_turns_ip_forward_on_later_decides_and_who_turns_it_off_again_leaves_it_to_us() {
    let (mut observed, mut desired) = settled();
    observed.ip_forward = Some("1".to_owned());
    desired.record = observed.recall(desired.record);
    assert_eq!(desired.record, Record::default());
    let replaced = plan(&observed, &desired).unwrap().to_string();
    assert!(
        replaced.contains("oifname != @bridges accept") && !replaced.contains("oifname != @bridges drop"),
        "{replaced}"
    );
    // The kernel turns off all links with it.
    observed.ip_forward = Some("0".to_owned());
    observed.later_forward = false;
    observed
        .links_forward
        .values_mut()
        .for_each(|forwards| *forwards = false);
    observed.table.as_mut().unwrap().comment = None;
    let expected = "firewall\nwrite 1 to net/ipv4/conf/ferry0/forwarding\n\
        write 1 to net/ipv4/conf/wan0/forwarding\nchange net/ipv4/conf/default/forwarding from 0 to 1";
    assert_eq!(text(&observed, &desired), expected);
}

#[test]
fn a_host_that_begins_to_forward_ipv6_still_takes_advertisements() {
    let observed = Observed {
        ip_forward: Some("1".to_owned()),
        ip6_forward: Some("0".to_owned()),
        advertised: vec!["wan0".to_owned()],
        ..settled().0
    };
    let mut desired = Desired {
        forward: (true, true),
        record: Record::default(),
        ..settled().1
    };
    let expected = "firewall\nchange net/ipv6/conf/wan0/accept_ra from 1 to 2\n\
        change net/ipv6/conf/all/forwarding from 0 to 1";
    assert_eq!(text(&observed, &desired), expected);
    desired.record.sysctls = vec![Sysctl::advertised("wan0"), Sysctl::on(IP6_FORWARD)];
    desired.firewall = None;
    desired.bridges.clear();
    let down = plan(&observed, &desired).unwrap().to_string();
    let expected = "put net/ipv6/conf/all/forwarding back to 0 if it still is 1\n\
        put net/ipv6/conf/wan0/accept_ra back to 1 if it still is 2\n";
    assert!(down.starts_with(expected), "{down}");
}
