//! The outside of a JSON Web Token (RFC 7515, 7519): three parts, and a header that decides nothing.
//!
//! Which algorithm a signature has follows from the key it is checked with, never from the token: `alg` has to agree. A key
//! inside the header (`jwk`, `jku`, `x5c`, `x5u`) and `crit` are refused by name (CVE-2025-24976). The crate jsonwebtoken is
//! not used: it needs aws-lc, which takes minutes of C to build, or the rsa crate with its open advisory; ring is here for TLS.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

const TOKEN_MAX: usize = 16 << 10;
/// The name of the key of own tokens.
pub const OWN: &str = "ferry";

#[derive(Debug, Deserialize)]
pub struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: Option<String>,
    jwk: Option<Box<RawValue>>,
    jku: Option<Box<RawValue>>,
    x5c: Option<Box<RawValue>>,
    x5u: Option<Box<RawValue>>,
    crit: Option<Box<RawValue>>,
}

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub struct Token<'a> {
    pub header: Header,
    /// What is signed.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
    payload: Vec<u8>,
}

/// One name or several.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Audience {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

/// What every token has to say.
#[derive(Debug, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: Audience,
    pub exp: f64,
    #[serde(default)]
    pub nbf: Option<f64>,
}

/// Clocks differ by so many seconds.
const LEEWAY: f64 = 60.0;

impl<'a> Token<'a> {
    pub fn parse(text: &'a str) -> Result<Self, String> {
        if text.len() > TOKEN_MAX {
            return Err("it is too long".to_owned());
        }
        let shape = || "it is no JSON Web Token".to_owned();
        let (signed, signature) = text.rsplit_once('.').ok_or_else(shape)?;
        let (header, payload) = signed.split_once('.').ok_or_else(shape)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| shape());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| shape())?;
        let Header {
            jwk,
            jku,
            x5c,
            x5u,
            crit,
            ..
        } = &header;
        for (name, present) in [("jwk", jwk), ("jku", jku), ("x5c", x5c), ("x5u", x5u), ("crit", crit)] {
            if present.is_some() {
                return Err(format!(
                    "its header has {name}: only keys of the configuration are trusted"
                ));
            }
        }
        Ok(Self {
            header,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// Whether it says that it is of this server. That decides only which key it is checked with.
    pub fn is_own(&self) -> bool {
        self.header.alg == "HS256" && self.header.kid.as_deref() == Some(OWN)
    }

    /// Claims that are not believed before the signature was checked.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.payload).map_err(|error| format!("its claims are not understood: {error}"))
    }

    /// Issuer, audience and times.
    pub fn check(&self, issuer: &str, audience: &str, now: f64) -> Result<(), String> {
        let claims: Claims = self.claims()?;
        if claims.iss != issuer {
            return Err("it has another issuer".to_owned());
        }
        if !claims.aud.has(audience) {
            return Err("it is for another audience".to_owned());
        }
        if claims.exp.is_nan() || claims.exp + LEEWAY <= now {
            return Err("it has expired".to_owned());
        }
        if claims.nbf.is_some_and(|begin| begin.is_nan() || begin - LEEWAY > now) {
            return Err("it is not valid yet".to_owned());
        }
        Ok(())
    }
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
