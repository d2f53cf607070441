//! What Docker Compose asks of networks: the real one, a file nobody wrote for us, up, scaled, restarted and down.

use ferry_testkit::{Engine, wait_until};

const FILE: &str = "\
name: shop
services:
  web:
    image: busybox:latest
    command: sh -c 'exec nc -ll -p 80 -e echo hello'
    ports: ['8080:80', '127.0.0.1:8443:443/udp']
    networks:
      front: {aliases: [www]}
      back: {ipv4_address: 10.66.0.10, priority: 100}
    depends_on: [db]
  db:
    image: busybox:latest
    command: sh -c 'exec nc -ll -p 5432 -e echo rows'
    networks:
      back: {aliases: [database], mac_address: '02:42:ac:11:00:99'}
    extra_hosts: ['other:10.1.2.3', 'host.docker.internal:host-gateway']
  job:
    image: busybox:latest
    network_mode: service:web
    command: sleep 1000
  plain:
    image: busybox:latest
    command: sleep 1000
networks:
  front:
    enable_ipv6: true
    driver_opts: {com.docker.network.driver.mtu: 1400}
  back:
    internal: true
    labels: {tier: data}
    ipam:
      config: [{subnet: 10.66.0.0/24, ip_range: 10.66.0.128/25, gateway: 10.66.0.1, aux_addresses: {reserved: 10.66.0.9}}]
";

#[test]
fn an_application_of_several_networks_goes_up_and_down() {
    let Some(compose) = ferry_testkit::peer::compose() else {
        return;
    };
    let engine = Engine::start();
    engine.busybox();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("compose.yaml");
    std::fs::write(&file, FILE).unwrap();
    let arguments = |words: &[&str]| {
        let run = ferry_testkit::Run::new(&compose).env("DOCKER_HOST", engine.host());
        let run = run.env("HOME", directory.path()).env("PATH", "/usr/bin:/bin");
        run.args(["-f".as_ref(), file.as_os_str()]).args(words).output()
    };
    let run = |line: &str| arguments(&line.split(' ').collect::<Vec<_>>());
    let inside = |service: &str, script: &str| arguments(&["exec", "-T", service, "sh", "-c", script]);
    let answers = |service: &str, target: &str, expected: &str| {
        wait_until(&format!("{service} reaches {target}"), || {
            let asked = inside(service, &format!("nc -w 1 {target} < /dev/null"));
            asked.stdout.trim_end() == expected
        });
    };
    run("up -d").ok();
    for target in ["db 5432", "database 5432", "shop-db-1 5432"] {
        answers("web", target, "rows");
        answers("job", target, "rows");
    }
    answers("job", "localhost 80", "hello");
    answers("db", "web 80", "hello");
    assert_eq!(
        engine.field("shop-web-1", "/NetworkSettings/Networks/shop_back/IPAddress"),
        "10.66.0.10"
    );
    assert_eq!(
        engine.field("shop-db-1", "/NetworkSettings/Networks/shop_back/MacAddress"),
        "02:42:ac:11:00:99"
    );
    // The front does not know the back, and the back not the way out.
    let stranger = inside("plain", "nc -w 1 10.66.0.10 80 < /dev/null");
    assert_ne!(stranger.stdout, "hello\n", "{stranger:?}");
    let hosts = run("exec -T db cat /etc/hosts").ok();
    assert!(hosts.contains("10.66.0.1\thost.docker.internal\n"), "{hosts}");
    let routes = run("exec -T db ip route").ok();
    assert!(!routes.contains("default"), "{routes}");
    let link = inside("web", "cat /sys/class/net/eth1/mtu; ip -o -6 addr show eth1").ok();
    assert!(link.starts_with("1400\n") && link.contains("scope global"), "{link}");
    assert_eq!(run("port web 80").ok(), "0.0.0.0:8080");
    assert_eq!(run("port --protocol udp web 443").ok(), "127.0.0.1:8443");
    // Nothing to do, then more of one, which has as many addresses by its name.
    let before = engine.field("shop-web-1", "/Id");
    run("up -d --scale plain=3").ok();
    assert_eq!(engine.field("shop-web-1", "/Id"), before);
    let asked = run("exec -T plain nslookup plain").ok();
    assert_eq!(asked.matches("Address: 172.").count(), 3, "{asked}");
    run("restart web").ok();
    answers("web", "db 5432", "rows");
    run("down").ok();
    assert_eq!(engine.cli(["ps", "-aq"]).ok(), "");
    let left = engine.cli(["network", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(left, "bridge\nhost\nnone");
}
