//! Tokens of another issuer, checked with keys from a file (JSON Web Key Set, RFC 7517; or one PEM public key is a set of one
//! in most tools' output).
//!
//! Only asymmetric keys: RSA of 2048 to 8192 bits, P-256, P-384, Ed25519. A key has one algorithm, its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;

use super::Error;
use super::jwt::Token;
use super::token::Grant;

/// Another issuer, as configuration files have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens; without, the service.
    pub audience: Option<String>,
    /// A file with its keys.
    pub jwks: PathBuf,
}

#[derive(Debug)]
pub struct Issuer {
    name: String,
    audience: String,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: &'static str,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
        parameters: &'static RsaParameters,
    },
    Point {
        bytes: Vec<u8>,
        algorithm: &'static dyn VerificationAlgorithm,
    },
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Material")
    }
}

#[derive(Debug, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub sub: String,
    #[serde(default)]
    pub groups: Vec<String>,
    /// Present: it decides alone what its holder may do. Absent: the rules do.
    pub access: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<BTreeMap<String, serde_json::Value>>,
}

impl Issuer {
    pub fn read(config: &Config, service: &str) -> Result<Self, Error> {
        let text = fs::read(&config.jwks).map_err(|source| Error::Read {
            path: config.jwks.clone(),
            source,
        })?;
        Ok(Self {
            name: config.issuer.clone(),
            audience: config.audience.clone().unwrap_or_else(|| service.to_owned()),
            keys: parse(&config.jwks, &text)?,
        })
    }

    /// Whether a token says that it is of this issuer.
    pub fn is_of(&self, token: &Token<'_>) -> bool {
        token
            .claims::<super::jwt::Claims>()
            .is_ok_and(|claims| claims.iss == self.name)
    }

    pub fn verify(&self, token: &Token<'_>, now: f64) -> Result<Claims, String> {
        let header = &token.header;
        let fits = |key: &&Key| {
            key.algorithm == header.alg && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut keys = self.keys.iter().filter(fits).peekable();
        if keys.peek().is_none() {
            return Err(format!(
                "no key for its alg {:?} and kid",
                header.alg.chars().take(16).collect::<String>()
            ));
        }
        if !keys.any(|key| key.material.verifies(token)) {
            return Err("its signature is wrong".to_owned());
        }
        token.check(&self.name, &self.audience, now)?;
        token.claims()
    }
}

impl Material {
    fn verifies(&self, token: &Token<'_>) -> bool {
        let verified = match self {
            Self::Rsa { n, e, parameters } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, token.signed, &token.signature)
            }
            Self::Point { bytes, algorithm } => {
                UnparsedPublicKey::new(*algorithm, bytes).verify(token.signed, &token.signature)
            }
        };
        verified.is_ok()
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<Key>, Error> {
    let wrong = |reason: String| Error::Keys {
        path: path.to_owned(),
        reason,
    };
    let set: Set = serde_json::from_slice(text).map_err(|error| wrong(format!("no JSON Web Key Set: {error}")))?;
    let keys: Result<Vec<Key>, String> = set.keys.iter().map(key).collect();
    match keys.map_err(wrong)? {
        keys if keys.is_empty() => Err(wrong("the set has no keys".to_owned())),
        keys => Ok(keys),
    }
}

fn key(fields: &BTreeMap<String, serde_json::Value>) -> Result<Key, String> {
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
    let bytes = |name: &str| {
        let value = text(name).ok_or_else(|| format!("a key has no {name}"))?;
        URL_SAFE_NO_PAD
            .decode(value)
            .map_err(|_| format!("{name} of a key is not base64url"))
    };
    let point = |first: &[u8], parts: &[&str]| {
        let mut point = first.to_vec();
        for part in parts {
            point.extend(bytes(part)?);
        }
        Ok::<_, String>(point)
    };
    let (algorithm, material): (&'static str, Material) = match (text("kty"), text("crv"), text("alg")) {
        (Some("RSA"), _, alg) => {
            let (algorithm, parameters) = rsa(alg.unwrap_or("RS256"))?;
            (
                algorithm,
                Material::Rsa {
                    n: bytes("n")?,
                    e: bytes("e")?,
                    parameters,
                },
            )
        }
        (Some("EC"), Some("P-256"), None | Some("ES256")) => (
            "ES256",
            Material::Point {
                bytes: point(&[4], &["x", "y"])?,
                algorithm: &signature::ECDSA_P256_SHA256_FIXED,
            },
        ),
        (Some("EC"), Some("P-384"), None | Some("ES384")) => (
            "ES384",
            Material::Point {
                bytes: point(&[4], &["x", "y"])?,
                algorithm: &signature::ECDSA_P384_SHA384_FIXED,
            },
        ),
        (Some("OKP"), Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => (
            "EdDSA",
            Material::Point {
                bytes: point(&[], &["x"])?,
                algorithm: &signature::ED25519,
            },
        ),
        (kty, crv, alg) => {
            return Err(format!(
                "a key of kty {kty:?}, crv {crv:?}, alg {alg:?} is not taken: RSA, P-256, P-384 and Ed25519 are"
            ));
        }
    };
    Ok(Key {
        id: text("kid").map(str::to_owned),
        algorithm,
        material,
    })
}

fn rsa(alg: &str) -> Result<(&'static str, &'static RsaParameters), String> {
    Ok(match alg {
        "RS256" => ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => ("RS384", &signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => ("RS512", &signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => ("PS256", &signature::RSA_PSS_2048_8192_SHA256),
        other => return Err(format!("RSA keys are not taken with alg {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::super::jwt::now;
    use super::*;

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap()
    }

    fn issuer() -> Issuer {
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": URL_SAFE_NO_PAD.encode(pair().public_key()) }] });
        Issuer {
            name: "https://id".to_owned(),
            audience: "here".to_owned(),
            keys: parse(Path::new("x"), set.to_string().as_bytes()).unwrap(),
        }
    }

    fn sign(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(pair().sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn verify(header: &Value, claims: &Value) -> Result<Claims, String> {
        let text = sign(header, claims);
        let token = Token::parse(&text)?;
        issuer().verify(&token, now())
    }

    fn claims() -> Value {
        json!({ "iss": "https://id", "aud": ["other", "here"], "sub": "ann", "exp": now() + 100.0, "groups": ["dev"] })
    }

    #[test]
    fn a_good_token_is_taken() {
        let taken = verify(&json!({ "alg": "EdDSA", "kid": "1" }), &claims()).unwrap();
        assert_eq!((taken.sub.as_str(), taken.groups.len(), taken.access), ("ann", 1, None));
    }

    #[test]
    fn attackers_tokens_are_refused() {
        let fine = json!({ "alg": "EdDSA", "kid": "1" });
        for (header, why) in [
            (json!({ "alg": "none" }), "alg"),
            (json!({ "alg": "None", "kid": "1" }), "alg"),
            (json!({ "alg": "HS256", "kid": "1" }), "alg"),
            (json!({ "alg": "EdDSA", "kid": "2" }), "kid"),
            (json!({ "alg": "EdDSA", "jwk": { "kty": "OKP" } }), "jwk"),
            (json!({ "alg": "EdDSA", "jku": "https://evil" }), "jku"),
            (json!({ "alg": "EdDSA", "x5c": [] }), "x5c"),
            (json!({ "alg": "EdDSA", "crit": ["b64"] }), "crit"),
        ] {
            let error = verify(&header, &claims()).unwrap_err();
            assert!(error.contains(why), "{header}: {error}");
        }
        for (claim, value, why) in [
            ("iss", json!("https://other"), "issuer"),
            ("aud", json!("elsewhere"), "audience"),
            ("aud", json!([]), "audience"),
            ("aud", json!(null), "audience"),
            ("exp", json!(now() - 100.0), "expired"),
            ("exp", json!(null), "claims"),
            ("nbf", json!(now() + 1000.0), "not valid yet"),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            let error = verify(&fine, &claims).unwrap_err();
            assert!(error.contains(why), "{claim}: {error}");
        }
        let text = sign(&fine, &claims());
        let unsigned = format!("{}.", text.rsplit_once('.').unwrap().0);
        assert!(issuer().verify(&Token::parse(&unsigned).unwrap(), now()).is_err());
    }

    #[test]
    fn symmetric_and_unknown_keys_are_no_keys() {
        for key in [
            json!({ "kty": "oct", "k": "AAAA" }),
            json!({ "kty": "RSA", "alg": "none", "n": "", "e": "" }),
            json!({ "kty": "EC", "crv": "P-256" }),
            json!({}),
        ] {
            assert!(
                parse(Path::new("x"), json!({ "keys": [key] }).to_string().as_bytes()).is_err(),
                "{key}"
            );
        }
        assert!(parse(Path::new("x"), b"{\"keys\":[]}").is_err());
    }
}
