//! Image references as github.com/distribution/reference reads them, as far as messages and requests need it.

/// `docker.io/library/busybox:latest@sha256:…`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With its domain: `docker.io/library/busybox`.
    pub name: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// With domain, tag and digest.
    pub fn full(&self) -> String {
        let mut text = self.name.clone();
        text.extend(self.tag.iter().flat_map(|tag| [":", tag]));
        text.extend(self.digest.iter().flat_map(|digest| ["@", digest]));
        text
    }

    /// `docker.io`, or a host with its port.
    pub fn domain(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> &str {
        let name = self.name.strip_prefix("docker.io/").unwrap_or(&self.name);
        if name.len() < self.name.len() {
            name.strip_prefix("library/").unwrap_or(name)
        } else {
            name
        }
    }

    /// `busybox:latest`; the tag is filled in where there is neither tag nor digest.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name().to_owned();
        match (&self.tag, &self.digest) {
            (None, None) => text.push_str(":latest"),
            (tag, _) => text.extend(tag.iter().flat_map(|tag| [":", tag])),
        }
        text.extend(self.digest.iter().flat_map(|digest| ["@", digest]));
        text
    }
}

const INVALID: &str = "invalid reference format";

/// The error is docker's reason.
pub fn parse(text: &str) -> Result<Reference, String> {
    if text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("{INVALID}: cannot specify 64-byte hexadecimal strings"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err(INVALID.into()),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let (domain, remainder) = match path.split_once('/') {
        Some((domain, remainder))
            if domain.contains(['.', ':']) || domain == "localhost" || domain.to_lowercase() != domain =>
        {
            (
                if domain == "index.docker.io" {
                    "docker.io"
                } else {
                    domain
                },
                remainder.to_owned(),
            )
        }
        _ if path.contains('/') => ("docker.io", path.to_owned()),
        _ => ("docker.io", format!("library/{path}")),
    };
    if remainder.to_lowercase() != remainder {
        return Err(format!("{INVALID}: repository name ({remainder}) must be lowercase"));
    }
    let component = |part: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || "._-".contains(c))
    };
    let tag_is_valid = |tag: &String| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
    };
    if !remainder.split('/').all(component) || !tag.as_ref().is_none_or(tag_is_valid) {
        return Err(INVALID.into());
    }
    Ok(Reference {
        name: format!("{domain}/{remainder}"),
        tag,
        digest,
    })
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_as_docker_reads_them() {
        for (text, name, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox:latest"),
            ("a/b:1", "docker.io/a/b", "a/b:1"),
            ("127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y", "127.0.0.1:5000/x/y:z"),
            ("localhost/x", "localhost/x", "localhost/x:latest"),
            ("docker.io/library/x:t", "docker.io/library/x", "x:t"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(
                (reference.name.as_str(), reference.familiar().as_str()),
                (name, familiar)
            );
        }
        for (text, reason) in [
            ("", "invalid reference format"),
            (
                "UPPER",
                "invalid reference format: repository name (library/UPPER) must be lowercase",
            ),
            ("a:b:c d", "invalid reference format"),
            ("x@sha256:12", "invalid reference format"),
        ] {
            assert_eq!(parse(text).unwrap_err(), reason);
        }
    }
}
