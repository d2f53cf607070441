//! Private keys in files, as OpenSSH and OpenSSL write them, and signatures by them.

use std::io::Read as _;
use std::path::Path;

use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};

use super::wire::{digits, number, string, take, take_count};
use crate::failure::io_text;

/// The most bytes of a file.
const MOST: u64 = 100 << 10;
/// Flags of a request for a signature.
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;

/// A key, and what others know it by.
#[derive(Debug)]
pub struct Key {
    pub public: Vec<u8>,
    pub comment: String,
    signer: Signer,
}

#[derive(Debug)]
enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Debug)]
struct Curve {
    name: &'static str,
    algorithm: &'static EcdsaSigningAlgorithm,
    /// As DER has it in a key's algorithm.
    oid: &'static [u8],
}

const P256: Curve = Curve {
    name: "nistp256",
    algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING,
    oid: &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
};
const P384: Curve = Curve {
    name: "nistp384",
    algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING,
    oid: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
};
const CURVES: [&Curve; 2] = [&P256, &P384];
/// `ecPublicKey`
const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

const NO_KEY: &str = "ssh: no key found";
const ENCRYPTED: &str =
    "ssh: this private key is passphrase protected: add it to an agent with ssh-add, and give --ssh ID";
const OTHER: &str = "only Ed25519, RSA of 2048 to 4096 bits, and ECDSA of 256 and 384 bits can be read from files: \
                     add it to an agent with ssh-add, and give --ssh ID";

impl Key {
    /// Reads a file that the user calls `name`; errors in buildx's words, where it has some.
    pub fn read(path: &Path, name: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path);
        let read = file.and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        read.map_err(|error| format!("failed to read {name}: {}", io_text(&error)))?;
        let signer = parse(&bytes).map_err(|why| format!("failed to parse {name}: {why}"))?;
        Ok(Self {
            public: signer.public(),
            comment: name.to_owned(),
            signer,
        })
    }

    /// The signature with the name of its kind; `None` for one that is not made, SHA-1's say.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (kind, signature) = match &self.signer {
            Signer::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Signer::Ecdsa(curve, pair) => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                let mut signature = Vec::new();
                number(&mut signature, r);
                number(&mut signature, s);
                (format!("ecdsa-sha2-{}", curve.name), signature)
            }
            Signer::Rsa(pair) => {
                let (kind, padding) = match flags {
                    flags if flags & SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signature).ok()?;
                (kind.to_owned(), signature)
            }
        };
        let mut out = Vec::new();
        string(&mut out, kind.as_bytes());
        string(&mut out, &signature);
        Some(out)
    }
}

impl Signer {
    fn public(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ed25519(pair) => {
                string(&mut out, b"ssh-ed25519");
                string(&mut out, pair.public_key().as_ref());
            }
            Self::Ecdsa(curve, pair) => {
                string(&mut out, format!("ecdsa-sha2-{}", curve.name).as_bytes());
                string(&mut out, curve.name.as_bytes());
                string(&mut out, pair.public_key().as_ref());
            }
            Self::Rsa(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                string(&mut out, b"ssh-rsa");
                number(&mut out, &parts.e);
                number(&mut out, &parts.n);
            }
        }
        out
    }
}

fn parse(bytes: &[u8]) -> Result<Signer, String> {
    let file = pem::parse(bytes).map_err(|_| NO_KEY)?;
    let der = file.contents();
    if file.tag() == "ENCRYPTED PRIVATE KEY" || file.headers().get("Proc-Type").is_some() {
        return Err(ENCRYPTED.to_owned());
    }
    let signer = match file.tag() {
        "OPENSSH PRIVATE KEY" => return openssh(der),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok().map(Signer::Rsa),
        "EC PRIVATE KEY" => CURVES.iter().find_map(|curve| ecdsa(curve, &wrapped(curve, der))),
        "PRIVATE KEY" => {
            let ed25519 = || {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                    .ok()
                    .map(Signer::Ed25519)
            };
            let rsa = || RsaKeyPair::from_pkcs8(der).ok().map(Signer::Rsa);
            let other = || CURVES.iter().find_map(|curve| ecdsa(curve, der));
            ed25519().or_else(rsa).or_else(other)
        }
        _ => return Err(NO_KEY.to_owned()),
    };
    signer.ok_or_else(|| OTHER.to_owned())
}

/// OpenSSH's own format: a public key, and a private part, which has the public one again.
fn openssh(bytes: &[u8]) -> Result<Signer, String> {
    let malformed = || "ssh: the key is malformed".to_owned();
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0").ok_or_else(malformed)?;
    let (cipher, _kdf, _options) = (take(&mut rest), take(&mut rest), take(&mut rest));
    if cipher.ok_or_else(malformed)? != b"none" {
        return Err(ENCRYPTED.to_owned());
    }
    let (count, _public) = (take_count(&mut rest), take(&mut rest));
    let mut private = take(&mut rest).filter(|_| count == Some(1)).ok_or_else(malformed)?;
    let (one, other) = (take_count(&mut private), take_count(&mut private));
    let kind = take(&mut private).filter(|_| one == other).ok_or_else(malformed)?;
    let signer = match kind {
        b"ssh-ed25519" => ed25519(private),
        b"ssh-rsa" => rsa(private),
        b"ecdsa-sha2-nistp256" => on_curve(&P256, private),
        b"ecdsa-sha2-nistp384" => on_curve(&P384, private),
        _ => None,
    };
    signer.ok_or_else(|| OTHER.to_owned())
}

/// The public key, and the seed with the public key after it.
fn ed25519(mut rest: &[u8]) -> Option<Signer> {
    let (public, private) = (take(&mut rest)?, take(&mut rest)?);
    let seed = private.strip_suffix(public)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
    pair.ok().map(Signer::Ed25519)
}

/// The curve's name, the public point, and the secret number, whose zeros in front were left out.
fn on_curve(curve: &'static Curve, mut rest: &[u8]) -> Option<Signer> {
    let (_name, public, private) = (take(&mut rest)?, take(&mut rest)?, digits(take(&mut rest)?));
    // The point is two numbers, after a byte that says so.
    let zeros = (public.len() / 2).checked_sub(private.len())?;
    let private = [&vec![0; zeros], private].concat();
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &private, public, &random);
    pair.ok().map(|pair| Signer::Ecdsa(curve, pair))
}

/// Of PKCS #8.
fn ecdsa(curve: &'static Curve, der: &[u8]) -> Option<Signer> {
    let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm, der, &SystemRandom::new());
    pair.ok().map(|pair| Signer::Ecdsa(curve, pair))
}

/// An `ECPrivateKey` as PKCS #8 has it.
fn wrapped(curve: &Curve, key: &[u8]) -> Vec<u8> {
    const INTEGER: u8 = 0x02;
    const OCTETS: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let parts = [
        element(INTEGER, &[0]),
        element(SEQUENCE, &[&EC[..], curve.oid].concat()),
        element(OCTETS, key),
    ];
    element(SEQUENCE, &parts.concat())
}

/// DER of no more than 65535 bytes; of more there is none that would be read.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = match length {
        [0, low @ ..0x80] => vec![tag, low],
        [0, low] => vec![tag, 0x81, low],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

/// Modulus, exponents, and primes; OpenSSH leaves two numbers out that follow from the others.
fn rsa(mut rest: &[u8]) -> Option<Signer> {
    let mut next = || take(&mut rest).map(digits);
    let (n, e, d, q_inv, p, q) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let remainder = |prime: &[u8]| {
        let prime = BigUint::from_bytes_be(prime);
        (prime > BigUint::from(1_u8)).then(|| (BigUint::from_bytes_be(d) % (prime - 1_u8)).to_bytes_be())
    };
    let (d_p, d_q) = (remainder(p)?, remainder(q)?);
    let parts = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: q_inv,
    };
    RsaKeyPair::from_components(&parts).ok().map(Signer::Rsa)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in 256 numbers begins with a zero, which is not written.
    #[test]
    fn a_secret_number_may_be_short() {
        // The public point of 1 is the curve's base.
        let base = b"\x04\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96\
            \x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";
        let mut written = Vec::new();
        string(&mut written, b"nistp256");
        string(&mut written, base);
        number(&mut written, &[1]);
        let Some(Signer::Ecdsa(_, pair)) = on_curve(&P256, &written) else {
            panic!("it is a key")
        };
        assert_eq!(pair.public_key().as_ref(), base);
        for cut in 0..written.len() {
            assert!(on_curve(&P256, &written[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for bytes in [
            &b""[..],
            b"-----BEGIN",
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(parse(bytes).unwrap_err(), NO_KEY);
        }
        for cut in 0..60 {
            let bytes = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01\0\0\0\x00\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
            assert!(openssh(&bytes[..cut.min(bytes.len())]).is_err(), "{cut}");
        }
    }
}
