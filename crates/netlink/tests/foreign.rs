//! Rules in tables of others: `nft`'s and, where the peers' root is set up, those of Debian's iptables. Each test in a
//! network namespace of its own. Needs root, and `nft`.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};

use ferry_netlink::nft::{
    Base, Batch, ChainKind, Changed, Command, Family, Field, Hook, Nft, Policy, Rule, Statement, Value, Watch, priority,
};

fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        work();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn run(program: &mut Program) -> String {
    let output = program.output().unwrap();
    assert!(
        output.status.success(),
        "{program:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn nft(command: &str) -> String {
    run(Program::new("nft").arg(command))
}

/// Runs a program of the peers' root, which sees the test's network namespace, on an input.
fn iptables() -> Option<impl Fn(&str, &str) -> String> {
    let home = std::env::var_os("PEERS_ROOT").map(PathBuf::from);
    let root = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ferry-peers/root")))?;
    let there = root.join("usr/sbin/iptables-nft").exists();
    let run = move |command: &str, input: &str| {
        let mut child = Program::new("chroot")
            .arg(&root)
            .args(command.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command}");
        String::from_utf8(output.stdout).unwrap()
    };
    there.then_some(run)
}

fn accept(chain: &str, field: Field, link: Value, comment: &str) -> Command {
    Command::InsertRule(Rule {
        chain: chain.to_owned(),
        statements: vec![Statement::is(field, link), Statement::Counter, Statement::accept()],
        comment: Some(comment.to_owned()),
    })
}

#[test]
fn a_rule_in_iptables_chain_is_one_that_iptables_understands() {
    let Some(iptables) = iptables() else {
        return println!("skipped: the peers' root has no iptables");
    };
    in_namespace(move || {
        let mut nft = Nft::open().unwrap();
        for (family, program) in [(Family::Ip, "iptables"), (Family::Ip6, "ip6tables")] {
            let text = |command: &str, input: &str| iptables(command, input);
            let iptables = |arguments: &str| text(&format!("{program}-nft {arguments}"), "");
            iptables("-P FORWARD DROP");
            iptables("-A FORWARD -i docker0 -m conntrack --ctstate NEW -j ACCEPT");
            let before = iptables("-S FORWARD");
            let chains = nft.base_chains(Hook::Forward).unwrap();
            let [chain] = &chains.iter().filter(|chain| chain.family == family).collect::<Vec<_>>()[..] else {
                panic!("{chains:?}");
            };
            assert_eq!(
                (chain.table.as_str(), chain.name.as_str(), chain.priority, chain.policy),
                ("filter", "FORWARD", 0, Policy::Drop)
            );
            let mut batch = Batch::new(family, &chain.table);
            batch.push(accept(
                &chain.name,
                Field::OifName,
                Value::InterfacePrefix("fb-".into()),
                "ferry: own bridges",
            ));
            batch.push(accept(
                &chain.name,
                Field::IifName,
                Value::InterfacePrefix("fb-".into()),
                "ferry: own bridges",
            ));
            batch.push(accept(
                &chain.name,
                Field::IifName,
                Value::Interface("ferry0".into()),
                "ferry0",
            ));
            nft.commit(&batch).unwrap();

            let expected = "\
-P FORWARD DROP
-A FORWARD -i ferry0 -m comment --comment ferry0 -j ACCEPT
-A FORWARD -i fb-+ -m comment --comment \"ferry: own bridges\" -j ACCEPT
-A FORWARD -o fb-+ -m comment --comment \"ferry: own bridges\" -j ACCEPT
";
            let listed = iptables("-S FORWARD");
            assert!(listed.starts_with(expected), "{listed}");
            assert!(iptables("-L FORWARD -v -n").contains("/* ferry: own bridges */"));
            // What iptables saves and restores are the same rules, with comments where we look for them.
            let saved = text(&format!("{program}-nft-save -t filter"), "");
            assert!(
                saved.contains("-A FORWARD -o fb-+ -m comment --comment \"ferry: own bridges\" -j ACCEPT"),
                "{saved}"
            );
            text(&format!("{program}-nft-restore"), &saved);
            assert_eq!(iptables("-S FORWARD"), listed);
            iptables("-D FORWARD -i ferry0 -m comment --comment ferry0 -j ACCEPT");

            let ours: Vec<_> = nft
                .chain_rules(family, "filter", "FORWARD")
                .unwrap()
                .into_iter()
                .filter(|rule| rule.comment.as_deref().is_some_and(|text| text.starts_with("ferry")))
                .collect();
            assert_eq!(ours.len(), 2);
            // iptables that adds rules of its own leaves them.
            iptables("-A FORWARD -j LOG");
            iptables("-D FORWARD -j LOG");
            let mut batch = Batch::new(family, "filter");
            for rule in ours {
                batch.push(Command::DeleteRule {
                    chain: rule.chain,
                    handle: rule.handle,
                });
            }
            nft.commit(&batch).unwrap();
            assert_eq!(iptables("-S FORWARD"), before);
        }
        assert!(nft.chain_rules(Family::Ip, "filter", "nothere").unwrap().is_empty());
        assert!(nft.chain_rules(Family::Ip, "nothere", "FORWARD").unwrap().is_empty());
    });
}

#[test]
fn base_chains_of_all_families_are_found_in_order_and_no_others() {
    in_namespace(|| {
        nft("add table inet z; add chain inet z f { type filter hook forward priority 10; policy drop; }");
        nft("add table ip6 a; add chain ip6 a b { type filter hook forward priority -5; }; add chain ip6 a plain");
        nft("add chain ip6 a o { type filter hook output priority 0; }");
        nft("add table bridge b; add chain bridge b c { type filter hook forward priority 0; policy drop; }");
        nft("add table netdev n; add chain netdev n i { type filter hook ingress device lo priority 0; }");
        nft("add table inet z; add chain inet z i { type filter hook ingress device lo priority 0; }");
        nft("add table arp r; add chain arp r i { type filter hook input priority 0; }");
        let mut own = Nft::open().unwrap();
        let found = own.base_chains(Hook::Forward).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|chain| {
                (
                    chain.family,
                    chain.table.as_str(),
                    chain.name.as_str(),
                    chain.priority,
                    chain.policy,
                )
            })
            .collect();
        let expected = [
            (Family::Ip6, "a", "b", -5, Policy::Accept),
            (Family::Bridge, "b", "c", 0, Policy::Drop),
            (Family::Inet, "z", "f", 10, Policy::Drop),
        ];
        assert_eq!(found, expected);
        assert_eq!(own.base_chains(Hook::Output).unwrap().len(), 1);
        assert_eq!(own.base_chains(Hook::Postrouting).unwrap(), []);
        nft("flush ruleset");
        assert_eq!(own.base_chains(Hook::Forward).unwrap(), []);
    });
}

#[test]
fn a_watch_tells_our_changes_from_others_and_names_their_program() {
    in_namespace(|| {
        let mut own = Nft::open().unwrap();
        let (mut watch, mut all) = (Watch::open(Family::Inet, "own").unwrap(), Watch::all().unwrap());
        let ports = [own.port()];
        let table = |rules: usize| {
            let mut batch = Batch::replace(Family::Inet, "own", None);
            batch.chain("c", None);
            (0..rules).for_each(|_| {
                batch.rule("c", vec![Statement::drop()]);
            });
            batch
        };
        let ours = Changed {
            own: true,
            ..Changed::default()
        };
        let theirs = Changed {
            foreign: true,
            by: Some("nft".to_owned()),
            ..Changed::default()
        };
        own.commit(&table(1)).unwrap();
        assert_eq!(watch.changed_by(&ports).unwrap(), ours);
        assert_eq!(watch.changed_by(&ports).unwrap(), Changed::default());
        assert_eq!(all.changed_by(&ports).unwrap(), ours);
        nft("add table ip other");
        assert_eq!(watch.changed_by(&ports).unwrap(), Changed::default());
        assert_eq!(all.changed_by(&ports).unwrap(), theirs);
        nft("add rule inet own c accept");
        own.commit(&table(2)).unwrap();
        let both = Changed {
            own: true,
            ..theirs.clone()
        };
        assert_eq!(watch.changed_by(&ports).unwrap(), both);
        nft("flush ruleset");
        assert_eq!(watch.changed_by(&ports).unwrap(), theirs);
        own.commit(&table(5000)).unwrap();
        assert_eq!(watch.changed_by(&ports).unwrap(), ours);
        // Another socket is not ours unless it is said to be.
        let mut another = Nft::open().unwrap();
        another.commit(&table(1)).unwrap();
        let changed = watch.changed_by(&ports).unwrap();
        assert!(changed.foreign && !changed.own, "{changed:?}");
        another.commit(&table(1)).unwrap();
        assert_eq!(watch.changed_by(&[own.port(), another.port()]).unwrap(), ours);
    });
}

#[test]
fn names_by_prefix_redirection_and_no_tracking_print_and_read_back() {
    in_namespace(|| {
        let base = |kind, priority| {
            Some(Base {
                kind,
                hook: Hook::Prerouting,
                priority,
                policy: Policy::Accept,
            })
        };
        let mut batch = Batch::replace(Family::Inet, "t", None);
        batch.chain("raw", base(ChainKind::Filter, priority::RAW));
        batch.chain("nat", base(ChainKind::Nat, priority::DSTNAT));
        let bridges = || Value::InterfacePrefix("fb-".into());
        batch.rule(
            "raw",
            vec![Statement::is(Field::IifName, bridges()), Statement::NoTrack],
        );
        batch.rule(
            "raw",
            vec![Statement::is_not(Field::IifName, bridges()), Statement::drop()],
        );
        let redirect = |port| Statement::Redirect { port };
        batch.rule(
            "nat",
            vec![Statement::is(Field::TcpDport, Value::Port(80)), redirect(Some(8080))],
        );
        batch.rule(
            "nat",
            vec![Statement::is(Field::UdpDport, Value::Port(53)), redirect(None)],
        );
        let mut own = Nft::open().unwrap();
        own.commit(&batch).unwrap();
        let listed = nft("list ruleset");
        for expected in [
            "iifname \"fb-*\" notrack",
            "iifname != \"fb-*\" drop",
            "tcp dport 80 redirect to :8080",
            "udp dport 53 redirect",
        ] {
            assert!(listed.contains(expected), "{expected}: {listed}");
        }
        nft("flush ruleset");
        let mut child = Program::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = batch.to_string();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
        assert_eq!(nft("list ruleset"), listed);
        for bad in ["", "sixteen-letters-", "a\0"] {
            let mut batch = Batch::new(Family::Inet, "t");
            let value = Value::InterfacePrefix(bad.to_owned());
            batch.rule("raw", vec![Statement::is(Field::IifName, value)]);
            assert!(own.commit(&batch).is_err());
        }
    });
}
