//! Chain ids: the identity of a layer together with all below it (OCI image-spec, config.md, "Layer ChainID").

use crate::Digest;

/// The chain id of a whole stack of unpacked layers, lowest first; `None` for no layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |below, diff_id| above(&below, diff_id)))
}

/// The chain id of each layer of a stack, lowest first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(
            chain
                .last()
                .map_or_else(|| diff_id.clone(), |below| above(below, diff_id)),
        );
    }
    chain
}

fn above(below: &Digest, diff_id: &Digest) -> Digest {
    Digest::of(format!("{below} {diff_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_hashes_the_chain_below_and_the_layer() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::of);
        let ab = Digest::of(format!("{a} {b}"));
        let abc = Digest::of(format!("{ab} {c}"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        assert_eq!(chain_id(&[a.clone(), b.clone(), c.clone()]), Some(abc.clone()));
        assert_eq!(chain_ids(&[a.clone(), b, c]), [a, ab, abc]);
    }

    /// The third value of opencontainers/image-spec's `identity/chainid_test.go` is checked through its definition
    /// above.
    #[test]
    fn the_order_of_layers_matters() {
        let [a, b] = ["a", "b"].map(Digest::of);
        assert_ne!(chain_id(&[a.clone(), b.clone()]), chain_id(&[b, a]));
    }
}
