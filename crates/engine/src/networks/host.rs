//! The host's name servers: its resolv.conf as it was read last, and word of its changes.
//!
//! A start reads the file once. Changes in between are told by the kernel (inotify): of the directories in which the file, and
//! what it is a symbolic link to, are replaced, and of the file itself, which may be written in place.

use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_dns::{From, Server};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::net::{AddressFamily, SocketType};

use super::guard::descriptor;
use crate::config::Dns;
use crate::container::{Command, Record};
use crate::world::World;

const FILE: &str = "/etc/resolv.conf";
/// Where the host's resolver settings are when the file points to a stub on the loopback.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// No such file is longer.
const MAX: u64 = 64 * 1024;
/// As many symbolic links as are followed.
const LINKS: usize = 8;
/// Who replaces the file may write it in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Until the watch is tried again where it cannot be set up.
const RETRY: Duration = Duration::from_secs(60);

/// What containers have from the host, where they ask for nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub text: String,
    /// systemd-resolved's own, read where nobody but the host reaches a server of the first.
    fallback: String,
    /// daemon.json's: what a container is given that asks for nothing itself.
    pub dns: Dns,
}

impl Host {
    fn read(dns: &Dns) -> Self {
        let text = read(FILE);
        let fallback = match reachable(&text).contains("nameserver") {
            true => String::new(),
            false => read(RESOLVED),
        };
        Self {
            text,
            fallback,
            dns: dns.clone(),
        }
    }

    /// The file without servers that a container does not reach: those on the loopback, and those of a link of the host's.
    pub fn reachable(&self) -> String {
        let kept = reachable(&self.text);
        if kept.contains("nameserver") || self.fallback.is_empty() {
            return kept;
        }
        reachable(&self.fallback)
    }

    /// There are servers, and containers reach none.
    fn is_out_of_reach(&self) -> bool {
        servers(&self.text).next().is_some() && !self.reachable().contains("nameserver")
    }

    /// As the host asks them.
    fn servers(&self) -> Vec<Server> {
        let known = servers(&self.text).filter_map(|text| {
            let (address, link) = text.split_once('%').unwrap_or((text, ""));
            let address = address.parse().ok()?;
            let scope = match link {
                "" => 0,
                link => link.parse().ok().or_else(|| index(link))?,
            };
            Some(Server {
                scope,
                ..Server::new(address, From::Host)
            })
        });
        known.collect()
    }

    /// The servers that a container's resolver asks.
    pub fn upstreams(&self, record: &Record) -> Vec<Server> {
        match self.asked(&record.host_config.dns, &self.dns.servers) {
            Some(given) => given
                .iter()
                .filter_map(|text| text.parse().ok())
                .map(|address| Server::new(address, From::Container))
                .collect(),
            None => self.servers(),
        }
    }

    /// What the container asks for, or else the daemon for it.
    pub fn asked<'a>(&self, own: &'a Option<Vec<String>>, daemons: &'a [String]) -> Option<&'a [String]> {
        let own = own.as_deref().filter(|own| !own.is_empty());
        own.or(Some(daemons).filter(|daemons| !daemons.is_empty()))
    }

    /// Whether the container's questions about names go to its own resolver: on a network with names, and where the host's
    /// name servers are reached by nobody but the host.
    pub fn needs_resolver(&self, record: &Record) -> bool {
        let wanted = super::membership::wanted(record);
        let named = wanted.keys().any(|name| name != ferry_api::network::mode::BRIDGE);
        let given = self.asked(&record.host_config.dns, &self.dns.servers).is_some();
        named || (!wanted.is_empty() && !given && self.is_out_of_reach())
    }
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let done = std::fs::File::open(path).and_then(|file| file.take(MAX).read_to_end(&mut bytes));
    done.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

fn server(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("nameserver")?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim())
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

fn reachable(text: &str) -> String {
    let keep = |line: &&str| {
        server(line).is_none_or(|server| match server.split('%').next().unwrap_or_default().parse() {
            Ok(IpAddr::V4(v4)) => !v4.is_loopback(),
            Ok(IpAddr::V6(v6)) => v6 != Ipv6Addr::LOCALHOST && !v6.is_unicast_link_local(),
            Err(_) => true,
        })
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// The number of a link of this namespace.
fn index(link: &str) -> Option<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, link).ok()
}

/// The host's servers as they are known.
#[derive(Debug)]
pub(crate) struct Known {
    current: Mutex<Arc<Host>>,
    changed: tokio::sync::Notify,
}

impl Known {
    pub fn new(dns: &Dns) -> Self {
        Self {
            current: Mutex::new(Arc::new(Host::read(dns))),
            changed: tokio::sync::Notify::new(),
        }
    }

    pub fn get(&self) -> Arc<Host> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file. What has changed is told to those who run.
    pub fn refresh(&self) -> Arc<Host> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Host::read(&current.dns);
        if now != **current {
            *current = Arc::new(now);
            self.changed.notify_one();
        }
        Arc::clone(&current)
    }
}

/// Lets every container that runs know the host's servers: now, and after each change, until the engine closes.
pub(super) async fn follow(world: Arc<World>) {
    loop {
        tell(&world);
        tokio::select! {
            () = world.networks.host.changed.notified() => {}
            () = watch(&world) => {}
            () = world.closing.cancelled() => return,
        }
    }
}

fn tell(world: &Arc<World>) {
    for handle in world.containers.all() {
        if handle.snapshot().record.run.status.is_live() {
            world.tasks.spawn(async move {
                // One that ends meanwhile need not know.
                let _ = handle.ask(|reply| Command::Renew { reply }).await;
            });
        }
    }
}

/// Refreshes what is known whenever the file may have changed. Never returns.
async fn watch(world: &World) {
    loop {
        let Ok(ready) = inotify().and_then(|queue| descriptor(&queue).map_err(std::io::Error::other)) else {
            tracing::warn!("cannot watch {FILE}: containers learn of other name servers at their next start");
            tokio::time::sleep(RETRY).await;
            continue;
        };
        // After the watch stands, so that no change is between the two.
        world.networks.host.refresh();
        if ready.readable().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// A queue that tells of every place where the file can be replaced. Made anew after each change, since the links may lead
/// elsewhere then.
fn inotify() -> std::io::Result<std::os::fd::OwnedFd> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let inside = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    let mut path = PathBuf::from(FILE);
    let mut watched = 0;
    for _ in 0..LINKS {
        // The nearest directory that is there.
        let parent = path.ancestors().skip(1).find(|parent| parent.is_dir());
        let added = parent.map(|parent| inotify::add_watch(&queue, parent, inside));
        watched += usize::from(added.is_some_and(|added| added.is_ok()));
        let Ok(target) = std::fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    let itself = WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    // It may be mounted over, and then its directory tells nothing of it.
    watched += usize::from(inotify::add_watch(&queue, FILE, itself).is_ok());
    match watched {
        0 => Err(std::io::ErrorKind::NotFound.into()),
        _ => Ok(queue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str, fallback: &str) -> Host {
        Host {
            text: text.to_owned(),
            fallback: fallback.to_owned(),
            dns: Dns::default(),
        }
    }

    #[test]
    fn what_a_container_does_not_reach_is_left_out() {
        let text = "search a\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\n";
        assert_eq!(host(text, "").reachable(), "search a\nnameserver 192.0.2.1\n");
        assert!(!host(text, "").is_out_of_reach());
        let stub = host("nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n");
        assert_eq!(stub.reachable(), "nameserver 192.0.2.9\n");
        assert!(!stub.is_out_of_reach());
        assert!(host("nameserver fe80::1%3\nnameserver 127.0.0.1", "").is_out_of_reach());
        assert!(!host("", "").is_out_of_reach());
    }

    #[test]
    fn the_host_is_asked_by_its_own_links() {
        let known = host(
            "nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%nope\n",
            "",
        )
        .servers();
        let seen: Vec<_> = known
            .iter()
            .map(|server| (server.address.to_string(), server.scope))
            .collect();
        assert_eq!(seen, [("fe80::1".to_owned(), 1), ("fe80::2".to_owned(), 7)]);
    }
}
