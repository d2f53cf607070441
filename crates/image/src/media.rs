//! Media types of image content, and what a type says about it.

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
pub const OCI_FOREIGN_LAYER_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
pub const OCI_FOREIGN_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
/// The two bytes `{}`: the configuration of an artifact that has none.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
pub const DOCKER_FOREIGN_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// Schema 1, which nothing serves any more and Docker refuses since 26.
pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub const DOCKER_MANIFEST_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// An annotation of BuildKit's: this entry of an index is no image, but about one.
pub const ATTESTATION_TYPE: &str = "vnd.docker.reference.type";
/// What it says of attestations.
pub const ATTESTATION: &str = "attestation-manifest";
/// The digest of the manifest that it is about.
pub const ATTESTATION_SUBJECT: &str = "vnd.docker.reference.digest";

/// What a client asks a registry for, best first.
pub const ACCEPT_MANIFESTS: [&str; 4] = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Manifest,
    Index,
    Config,
    Layer {
        compression: Compression,
        /// Not to be pushed; its content may have to be fetched elsewhere.
        foreign: bool,
    },
    /// A manifest of schema 1.
    Obsolete,
    /// Attestations, signatures and whatever else an artifact holds.
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
}

impl Kind {
    /// Parameters (`; charset=utf-8`) do not matter, nor does case.
    pub fn of(media_type: &str) -> Self {
        let essence = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let layer = |compression, foreign| Self::Layer { compression, foreign };
        match essence.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => Self::Manifest,
            OCI_INDEX | DOCKER_INDEX => Self::Index,
            OCI_CONFIG | DOCKER_CONFIG => Self::Config,
            OCI_LAYER | DOCKER_LAYER => layer(Compression::None, false),
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => layer(Compression::Gzip, false),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => layer(Compression::Zstd, false),
            OCI_FOREIGN_LAYER | DOCKER_FOREIGN_LAYER => layer(Compression::None, true),
            OCI_FOREIGN_LAYER_GZIP | DOCKER_FOREIGN_LAYER_GZIP => layer(Compression::Gzip, true),
            OCI_FOREIGN_LAYER_ZSTD => layer(Compression::Zstd, true),
            DOCKER_MANIFEST_V1 | DOCKER_MANIFEST_V1_SIGNED => Self::Obsolete,
            _ => Self::Other,
        }
    }
}

impl Compression {
    /// From the first bytes of a stream (four are enough), whatever its media type says: RFC 1952 section 2.3.1, RFC
    /// 8878 sections 3.1.1
    /// and 3.1.2 (a zstd stream may begin with a skippable frame).
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The OCI media type of a layer so compressed.
    pub const fn oci_layer(self) -> &'static str {
        match self {
            Self::None => OCI_LAYER,
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_say_what_they_hold() {
        assert_eq!(Kind::of(OCI_INDEX), Kind::Index);
        assert_eq!(
            Kind::of("application/vnd.oci.image.manifest.v1+JSON; charset=utf-8"),
            Kind::Manifest
        );
        assert_eq!(
            Kind::of(DOCKER_LAYER_GZIP),
            Kind::Layer {
                compression: Compression::Gzip,
                foreign: false
            }
        );
        assert_eq!(
            Kind::of(OCI_FOREIGN_LAYER_ZSTD),
            Kind::Layer {
                compression: Compression::Zstd,
                foreign: true
            }
        );
        assert_eq!(Kind::of(DOCKER_MANIFEST_V1_SIGNED), Kind::Obsolete);
        for other in ["", "application/json", OCI_EMPTY, "application/vnd.in-toto+json"] {
            assert_eq!(Kind::of(other), Kind::Other);
        }
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(
                Kind::of(compression.oci_layer()),
                Kind::Layer {
                    compression,
                    foreign: false
                }
            );
        }
    }

    #[test]
    fn compression_shows_in_the_first_bytes() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x53, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(Compression::detect(b""), Compression::None);
        assert_eq!(Compression::detect(b"./etc"), Compression::None);
    }
}
