//! Whose a repository is: every name belongs to one upstream, or to this registry itself.

use std::sync::Arc;

use crate::failure::{Answer, Code, Failure};
use crate::name::{Invalid, Name};
use crate::upstream::Upstream;

const DOCKER: &str = "docker.io";

/// Upstreams and what they are of.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// By the registry's host, which is the first component of a name here, and `ns` in requests of containerd.
    pub named: Vec<(Name, Arc<dyn Upstream>)>,
    /// Of every name that is no other's.
    pub whole: Option<Arc<dyn Upstream>>,
    /// Repositories at and below these are no upstream's.
    pub own: Vec<Name>,
}

/// Where a repository is elsewhere.
#[derive(Clone, Debug)]
pub struct Remote {
    pub name: Name,
    pub upstream: Arc<dyn Upstream>,
}

impl Places {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.whole.is_none()
    }

    /// What a repository is called in storage, and where else it is. `space` is the registry of which the client wants it, if it
    /// says so.
    ///
    /// Without `space`: below a host, that host's; one of [`own`](Self::own), ours; else the whole's; else, if there is docker.io
    /// and the name does not begin with a host, Docker's: its clients leave that name out.
    pub(crate) fn of(&self, name: Name, space: Option<&str>) -> Answer<(Name, Option<Remote>)> {
        if self.is_empty() {
            return Ok((name, None));
        }
        // With one upstream for everything the client's idea of it does not matter.
        if let Some(space) = space.filter(|_| !self.named.is_empty()) {
            return match self.named(space) {
                Some((host, upstream)) => Self::below(host, name.as_str(), upstream),
                None => Err(Failure::new(
                    Code::NameUnknown,
                    format!("this registry is no cache of {space:.100}, of which {name} was asked for"),
                )),
            };
        }
        let (first, rest) = name.as_str().split_once('/').unwrap_or((name.as_str(), ""));
        if let Some((host, upstream)) = self.named(first).filter(|_| !rest.is_empty()) {
            return Self::below(host, rest, upstream);
        }
        if self.own.iter().any(|own| is_below(&name, own)) {
            return Ok((name, None));
        }
        if let Some(upstream) = &self.whole {
            let remote = Remote {
                name: name.clone(),
                upstream: upstream.clone(),
            };
            return Ok((name, Some(remote)));
        }
        match self.named(DOCKER) {
            Some((host, upstream)) if !first.contains('.') => Self::below(host, name.as_str(), upstream),
            _ => Ok((name, None)),
        }
    }

    fn named(&self, host: &str) -> Option<(&Name, &Arc<dyn Upstream>)> {
        let found = self.named.iter().find(|(known, _)| known.as_str() == host);
        found.map(|(name, upstream)| (name, upstream))
    }

    fn below(host: &Name, rest: &str, upstream: &Arc<dyn Upstream>) -> Answer<(Name, Option<Remote>)> {
        // Docker's own images have a component that people leave out.
        let rest = match host.as_str() == DOCKER && !rest.contains('/') {
            true => format!("library/{rest}"),
            false => rest.to_owned(),
        };
        let invalid = |_: Invalid| Box::<Failure>::from(Invalid::Name);
        let name = format!("{host}/{rest}").parse().map_err(invalid)?;
        let remote = Remote {
            name: rest.parse().map_err(invalid)?,
            upstream: upstream.clone(),
        };
        Ok((name, Some(remote)))
    }
}

fn is_below(name: &Name, parent: &Name) -> bool {
    let rest = name.as_str().strip_prefix(parent.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use ferry_image::Digest;

    use super::*;
    use crate::backend::Incoming;
    use crate::manifest::Descriptor;
    use crate::name::{Reference, Tag};
    use crate::upstream::{Asked, Fetched};

    #[derive(Debug)]
    struct Nobody(&'static str);

    impl Upstream for Nobody {
        fn shown(&self) -> &str {
            self.0
        }
        fn digest<'a>(&'a self, _: &'a Name, _: &'a Tag) -> Asked<'a, Digest> {
            Box::pin(async { Ok(None) })
        }
        fn manifest<'a>(&'a self, _: &'a Name, _: &'a Reference) -> Asked<'a, Fetched> {
            Box::pin(async { Ok(None) })
        }
        fn size<'a>(&'a self, _: &'a Name, _: &'a Digest) -> Asked<'a, u64> {
            Box::pin(async { Ok(None) })
        }
        fn blob<'a>(&'a self, _: &'a Name, _: &'a Digest) -> Asked<'a, (u64, Incoming)> {
            Box::pin(async { Ok(None) })
        }
        fn tags<'a>(&'a self, _: &'a Name) -> Asked<'a, Vec<String>> {
            Box::pin(async { Ok(None) })
        }
        fn referrers<'a>(&'a self, _: &'a Name, _: &'a Digest) -> Asked<'a, Vec<Descriptor>> {
            Box::pin(async { Ok(None) })
        }
    }

    fn places(named: &[&'static str], whole: bool, own: &[&str]) -> Places {
        let nobody = |name| Arc::new(Nobody(name)) as Arc<dyn Upstream>;
        Places {
            named: named
                .iter()
                .map(|name| (name.parse().unwrap(), nobody(*name)))
                .collect(),
            whole: whole.then(|| nobody("whole")),
            own: own.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    /// `<name in storage> <upstream>/<name there>`
    fn shown(places: &Places, name: &str, space: Option<&str>) -> String {
        match places.of(name.parse().unwrap(), space) {
            Err(failure) => format!("{:?}", failure.code),
            Ok((name, None)) => format!("{name} own"),
            Ok((name, Some(remote))) => format!("{name} {}/{}", remote.upstream.shown(), remote.name),
        }
    }

    #[test]
    fn a_name_belongs_to_one_upstream_or_to_nobody() {
        let hub = places(&["docker.io", "quay.io"], false, &["team"]);
        let both = places(&["quay.io"], true, &["team/own"]);
        for (places, name, space, expected) in [
            (
                &hub,
                "docker.io/library/x",
                None,
                "docker.io/library/x docker.io/library/x",
            ),
            (&hub, "docker.io/x", None, "docker.io/library/x docker.io/library/x"),
            (&hub, "library/x", None, "docker.io/library/x docker.io/library/x"),
            (&hub, "x", None, "docker.io/library/x docker.io/library/x"),
            (&hub, "user/x", Some("docker.io"), "docker.io/user/x docker.io/user/x"),
            (&hub, "a/b", Some("quay.io"), "quay.io/a/b quay.io/a/b"),
            (&hub, "team/x", Some("quay.io"), "quay.io/team/x quay.io/team/x"),
            (&hub, "a/b", Some("ghcr.io"), "NameUnknown"),
            (&hub, "team", None, "team own"),
            (&hub, "team/x", None, "team/x own"),
            (&hub, "teams/x", None, "docker.io/teams/x docker.io/teams/x"),
            (&hub, "ghcr.io/a/b", None, "ghcr.io/a/b own"),
            (&both, "quay.io/a", None, "quay.io/a quay.io/a"),
            (&both, "a/b", None, "a/b whole/a/b"),
            (&both, "team/own/x", None, "team/own/x own"),
            (&both, "a", Some("docker.io"), "NameUnknown"),
            (&places(&[], true, &[]), "a", Some("docker.io"), "a whole/a"),
            (&places(&[], false, &[]), "a", Some("docker.io"), "a own"),
        ] {
            assert_eq!(shown(places, name, space), expected, "{name} {space:?}");
        }
        let long = "a/".repeat(126);
        assert_eq!(shown(&hub, long.trim_end_matches('/'), None), "NameInvalid");
    }
}
