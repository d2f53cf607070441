//! Networks and a container's place in them.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::container::PortMap;
use crate::wire::{omit, wire};

/// Modes a container's `NetworkMode` may name beside networks and `container:ID`.
pub mod mode {
    pub const DEFAULT: &str = "default";
    pub const BRIDGE: &str = "bridge";
    pub const HOST: &str = "host";
    pub const NONE: &str = "none";
}

wire! {
    /// Of `POST /containers/create`. The docker CLI sends an entry for the network mode with every create, `default`
    /// included.
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkingConfig {
        pub endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    /// A container's connection to a network: what was asked for, then what came of it.
    #[serde(rename_all = "PascalCase")]
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpam>,
        pub links: Option<Vec<String>>,
        /// Further names, on networks other than the default bridge.
        pub aliases: Option<Vec<String>>,
        pub mac_address: String,
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// The endpoint with the highest is the default gateway.
        pub gw_priority: i64,
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        /// Every name the network's DNS answers to; `null` on the default bridge.
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct EndpointIpam {
        #[serde(rename = "IPv4Address", skip_serializing_if = "omit")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "omit")]
        pub ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "omit")]
        pub link_local_ips: Vec<String>,
    }

    /// Of a container's inspect. From `endpoint_id` to `mac_address` the default bridge's endpoint is repeated; on any
    /// other network they are empty.
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkSettings {
        pub bridge: String,
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// The network namespace's path.
        pub sandbox_key: String,
        /// `{}` without a network; `null` values for ports exposed and not published.
        pub ports: Option<PortMap>,
        pub hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<Address>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<Address>>,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        pub mac_address: String,
        pub networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Address {
        pub addr: String,
        pub prefix_len: i64,
    }

    /// `GET /networks/{id}`, and one of `GET /networks` (there with `containers` empty).
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        pub name: String,
        pub id: String,
        pub created: Timestamp,
        /// `local`, `swarm` or `global`.
        pub scope: String,
        pub driver: String,
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        pub internal: bool,
        pub attachable: bool,
        pub ingress: bool,
        pub config_from: ConfigReference,
        pub config_only: bool,
        /// By container id; those running.
        pub containers: Option<BTreeMap<String, EndpointResource>>,
        pub options: Option<BTreeMap<String, String>>,
        pub labels: Option<BTreeMap<String, String>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Ipam {
        pub driver: String,
        pub options: Option<BTreeMap<String, String>>,
        pub config: Option<Vec<IpamConfig>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct IpamConfig {
        #[serde(skip_serializing_if = "omit")]
        pub subnet: String,
        #[serde(rename = "IPRange", skip_serializing_if = "omit")]
        pub ip_range: String,
        #[serde(skip_serializing_if = "omit")]
        pub gateway: String,
        /// Host name → address, never given to containers.
        #[serde(skip_serializing_if = "omit")]
        pub auxiliary_addresses: BTreeMap<String, String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct ConfigReference {
        pub network: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct EndpointResource {
        pub name: String,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub mac_address: String,
        /// With prefix length.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }

    /// The body of `POST /networks/create`.
    #[serde(rename_all = "PascalCase")]
    pub struct Create {
        pub driver: String,
        pub scope: String,
        #[serde(rename = "EnableIPv4", skip_serializing_if = "omit")]
        pub enable_ipv4: Option<bool>,
        #[serde(rename = "EnableIPv6", skip_serializing_if = "omit")]
        pub enable_ipv6: Option<bool>,
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        pub internal: bool,
        pub attachable: bool,
        pub ingress: bool,
        pub config_only: bool,
        pub config_from: Option<ConfigReference>,
        pub options: Option<BTreeMap<String, String>>,
        pub labels: Option<BTreeMap<String, String>>,
        pub name: String,
        /// Ignored since API 1.44: names are unique.
        #[serde(skip_serializing_if = "omit")]
        pub check_duplicate: Option<bool>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Created {
        pub id: String,
        pub warning: String,
    }

    /// The body of `POST /networks/{id}/connect`.
    #[serde(rename_all = "PascalCase")]
    pub struct Connect {
        pub container: String,
        #[serde(skip_serializing_if = "omit")]
        pub endpoint_config: Option<EndpointSettings>,
    }

    /// The body of `POST /networks/{id}/disconnect`.
    #[serde(rename_all = "PascalCase")]
    pub struct Disconnect {
        pub container: String,
        pub force: bool,
    }

    /// `POST /networks/prune`.
    #[serde(rename_all = "PascalCase")]
    pub struct Prune {
        pub networks_deleted: Option<Vec<String>>,
    }

    /// One of `GET /ports`: a port of the host, or several one after the other, and who has it. Ferry's own.
    #[serde(rename_all = "PascalCase")]
    pub struct HeldPort {
        #[serde(rename = "HostIP")]
        pub host_ip: String,
        pub host_port: u16,
        /// The last of a range; the same as `host_port` where it is one.
        pub host_port_end: u16,
        /// `tcp`, `udp` or `sctp`.
        pub protocol: String,
        /// Whose published port it is.
        #[serde(skip_serializing_if = "omit")]
        pub container: Option<HoldingContainer>,
        /// A process of the host that is bound to it. Beside a container: they are in each other's way, and what comes
        /// from outside goes to the container.
        #[serde(skip_serializing_if = "omit")]
        pub process: Option<HoldingProcess>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct HoldingContainer {
        #[serde(rename = "ID")]
        pub id: String,
        pub name: String,
        /// The first port inside; the others of a range follow it.
        pub port: u16,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct HoldingProcess {
        /// 0 when it could not be found: one of the kernel's own, or of another PID namespace.
        pub pid: u32,
        pub name: String,
        pub uid: u32,
    }
}
