//! The bridge itself: made when first needed, made again when it is gone, removed in the end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;

use ferry_netlink::Route;
use ferry_netlink::route::{Address, LinkId};

use super::{Bridge, Ready, State};
use crate::endpoint::{ALIAS, Endpoint};
use crate::ipam::{self, Ipam};
use crate::plan::{Desired, Plan, Record, plan};
use crate::sysctl::Sysctls;
use crate::{Addressing, Error, Result, Subnet, apply, namespace};

impl Bridge {
    /// Removes all that is ours: what that is shows in names and aliases.
    pub(super) fn tear_down(&self, state: &mut State) -> Result<Plan> {
        state.ready = None;
        let ipam = state.ipam.take();
        let endpoints = ipam.iter().flat_map(Ipam::holders).map(str::to_owned).collect();
        let State {
            route,
            record,
            firewall,
            ..
        } = state;
        namespace::inside(self.host.as_fd(), || {
            let observed = apply::observe(route, &self.config.table, firewall)?;
            *record = observed.recall(std::mem::take(record));
            let plan = plan(&observed, &self.desired(None, endpoints, record.clone()))?;
            apply::apply(&plan, route, record, firewall)?;
            Ok(plan)
        })
    }

    /// Observes, plans, applies, and notes what came of it. Without knowing who lives, nobody's host end goes.
    pub(super) fn set_up(&self, state: &mut State, live: Option<&[Endpoint]>) -> Result<Plan> {
        let (live, prune) = (live.unwrap_or_default(), live.is_some());
        let State {
            route,
            record,
            firewall,
            ready,
            ipam,
        } = state;
        *ready = None;
        let addressing = match ipam.as_ref().filter(|ipam| !ipam.is_unused()) {
            Some(ipam) => ipam.addressing(),
            None => self.find_addressing(route, record, live)?,
        };
        record.addressing = Some(addressing);
        ipam.take_if(|ipam| ipam.addressing() != addressing);
        let ipam = ipam.get_or_insert_with(|| Ipam::new(addressing));
        for endpoint in live {
            if !ipam.holds(&endpoint.endpoint_id) {
                // Two records with one address: the first keeps it, the other keeps working as well as it did.
                let _ = ipam.allocate(Some(endpoint.ip), &endpoint.endpoint_id);
            }
        }
        let endpoints = live
            .iter()
            .map(|endpoint| endpoint.endpoint_id.clone())
            .chain(ipam.holders().map(str::to_owned))
            .collect();
        let (plan, ipv6) = namespace::inside(self.host.as_fd(), || {
            let observed = apply::observe(route, &self.config.table, firewall)?;
            *record = observed.recall(std::mem::take(record));
            let desired = Desired {
                prune,
                ..self.desired(Some(addressing), endpoints, record.clone())
            };
            let plan = plan(&observed, &desired)?;
            apply::apply(&plan, route, record, firewall)?;
            Ok((plan, apply::has_ipv6(&Sysctls::open()?)?))
        })?;
        let link = route.link(&LinkId::Name(&self.config.name))?;
        let index = link
            .ok_or_else(|| Error::Taken {
                name: self.config.name.clone(),
            })?
            .index;
        *ready = Some(Ready {
            index,
            addressing,
            ipv6,
        });
        Ok(plan)
    }

    /// Configured, or as the live endpoints have it, or as the bridge that exists has it, or as it was recorded and is
    /// still free, or chosen.
    fn find_addressing(&self, route: &mut Route, record: &Record, live: &[Endpoint]) -> Result<Addressing> {
        let of_live = || {
            live.iter()
                .find_map(|endpoint| addressing(endpoint.gateway, endpoint.prefix))
        };
        if let Some(known) = self.config.addressing().or_else(of_live) {
            return Ok(known);
        }
        let alias = format!("{ALIAS}{}", self.config.network_id);
        let link = route.link(&LinkId::Name(&self.config.name))?;
        let index = link
            .filter(|link| link.alias.as_ref() == Some(&alias))
            .map(|link| link.index);
        let of_link = |address: &Address| match address.address {
            IpAddr::V4(v4) if Some(address.link) == index => addressing(v4, address.prefix),
            _ => None,
        };
        if let Some(known) = route.addresses()?.iter().find_map(of_link) {
            return Ok(known);
        }
        let used = apply::used_networks(route, index)?;
        if let Some(known) = record.addressing.filter(|known| ipam::is_free(known.subnet, &used)) {
            return Ok(known);
        }
        let subnet = ipam::choose(&used)?;
        let gateway = subnet.first();
        Ok(Addressing { subnet, gateway })
    }

    fn desired(&self, addressing: Option<Addressing>, endpoints: BTreeSet<String>, record: Record) -> Desired {
        Desired {
            addressing,
            name: self.config.name.clone(),
            network_id: self.config.network_id.clone(),
            mtu: self.config.mtu,
            forward: self.config.forward,
            masquerade: self.config.ip_masq,
            table: self.config.table.clone(),
            endpoints,
            prune: false,
            record,
        }
    }
}

fn addressing(gateway: Ipv4Addr, prefix: u8) -> Option<Addressing> {
    let subnet = Subnet::containing(gateway, prefix)?;
    Some(Addressing { subnet, gateway })
}
