//! The rules: who may do what in which repositories.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::name::Name;

use super::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// What a token for it has to grant: who pushes also looks what is there.
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

/// Whoever is named may do what is allowed where the name fits. Rules add up; there is none that takes away.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// `anonymous` (everybody), `authenticated` (everybody with a name), `user:NAME`, `group:NAME`.
    pub who: Vec<String>,
    /// `team/*` is one component, `team/**` any number of them, `**` all repositories.
    pub repositories: Vec<String>,
    pub allow: Vec<Access>,
}

#[derive(Debug)]
pub struct Rights {
    rules: Vec<Checked>,
    /// Groups by user.
    groups: HashMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Checked {
    who: Vec<Who>,
    rule: Rule,
}

#[derive(Debug)]
enum Who {
    Anonymous,
    Authenticated,
    User(String),
    Group(String),
}

impl Rights {
    pub fn new(rules: Option<Vec<Rule>>, groups: &BTreeMap<String, Vec<String>>) -> Result<Self, Error> {
        let rules = rules.unwrap_or_else(|| {
            vec![Rule {
                who: vec!["authenticated".to_owned()],
                repositories: vec!["**".to_owned()],
                allow: vec![Access::Pull, Access::Push],
            }]
        });
        let mut by_user: HashMap<String, Vec<String>> = HashMap::new();
        for (group, users) in groups {
            for user in users {
                by_user.entry(user.clone()).or_default().push(group.clone());
            }
        }
        let rules = rules.into_iter().map(check).collect::<Result<_, _>>()?;
        Ok(Self { rules, groups: by_user })
    }

    /// `groups` are those that a token names, beside the configured ones.
    pub fn allow(&self, user: Option<&str>, groups: &[String], repository: &Name, access: Access) -> bool {
        let own = user
            .and_then(|user| self.groups.get(user))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let is = |who: &Who| match who {
            Who::Anonymous => true,
            Who::Authenticated => user.is_some(),
            Who::User(name) => user == Some(name),
            Who::Group(name) => user.is_some() && (own.contains(name) || groups.contains(name)),
        };
        self.rules.iter().any(|Checked { who, rule }| {
            rule.allow.contains(&access)
                && who.iter().any(is)
                && rule
                    .repositories
                    .iter()
                    .any(|pattern| fits(pattern, repository.as_str()))
        })
    }
}

fn check(rule: Rule) -> Result<Checked, Error> {
    let who = rule.who.iter().map(|who| match who.split_once(':') {
        None if who == "anonymous" => Ok(Who::Anonymous),
        None if who == "authenticated" => Ok(Who::Authenticated),
        Some(("user", name)) if !name.is_empty() => Ok(Who::User(name.to_owned())),
        Some(("group", name)) if !name.is_empty() => Ok(Who::Group(name.to_owned())),
        _ => Err(Error::Rule(format!(
            "{who:?} is nobody: anonymous, authenticated, user:NAME and group:NAME are"
        ))),
    });
    let who = who.collect::<Result<_, _>>()?;
    for pattern in &rule.repositories {
        let fine = pattern.split('/').all(|part| {
            part == "**"
                || (!part.is_empty()
                    && !part.contains("**")
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte)))
        });
        if !fine || pattern.matches("**").count() > 2 {
            return Err(Error::Rule(format!(
                "{pattern:?} fits no repository: * stands for a part of a component, ** for components"
            )));
        }
    }
    Ok(Checked { who, rule })
}

fn fits(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    components(&pattern, &name)
}

/// At most two `**` in a pattern, and names are short: this is no way to spend a second.
fn components(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            (0..=name.len()).any(|skip| components(rest, &name[skip..])) && (!rest.is_empty() || !name.is_empty())
        }
        (Some((first, rest)), Some((part, others))) => glob(first, part) && components(rest, others),
        _ => false,
    }
}

/// `*` is any text, in time that grows with the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut rest = rest;
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_components() {
        for (pattern, name) in [
            ("**", "a"),
            ("**", "a/b"),
            ("a/*", "a/b"),
            ("a/**", "a/b/c"),
            ("a-*/x", "a-1/x"),
            ("**/x", "a/b/x"),
            ("**/x", "x"),
            ("*", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", "a/b"),
            ("a/*", "a"),
            ("a/*", "a/b/c"),
            ("a/**", "ab"),
            ("a/**", "a"),
            ("a-*", "b-1"),
            ("a*a", "a"),
            ("**/x", "a/b"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn rules_add_up_by_user_group_and_name() {
        let rule = |who: &str, repository: &str, allow: &[Access]| Rule {
            who: vec![who.to_owned()],
            repositories: vec![repository.to_owned()],
            allow: allow.to_vec(),
        };
        let groups = BTreeMap::from([("dev".to_owned(), vec!["ann".to_owned()])]);
        let rules = vec![
            rule("anonymous", "public/**", &[Access::Pull]),
            rule("group:dev", "dev/**", &[Access::Pull, Access::Push]),
            rule("user:bob", "**", &[Access::Delete]),
        ];
        let rights = Rights::new(Some(rules), &groups).unwrap();
        let allow = |user: Option<&str>, name: &str, access| rights.allow(user, &[], &name.parse().unwrap(), access);
        assert!(allow(None, "public/a", Access::Pull) && !allow(None, "public/a", Access::Push));
        assert!(allow(Some("ann"), "dev/a", Access::Push) && !allow(Some("bob"), "dev/a", Access::Push));
        assert!(allow(Some("bob"), "dev/a", Access::Delete) && !allow(Some("ann"), "dev/a", Access::Delete));
        assert!(rights.allow(
            Some("eve"),
            &["dev".to_owned()],
            &"dev/a".parse().unwrap(),
            Access::Push
        ));
        assert!(!rights.allow(None, &["dev".to_owned()], &"dev/a".parse().unwrap(), Access::Push));
        for bad in [
            rule("ann", "**", &[]),
            rule("user:", "**", &[]),
            rule("anonymous", "A", &[]),
            rule("anonymous", "a//b", &[]),
            rule("anonymous", "", &[]),
        ] {
            assert!(Rights::new(Some(vec![bad.clone()]), &groups).is_err(), "{bad:?}");
        }
    }
}
