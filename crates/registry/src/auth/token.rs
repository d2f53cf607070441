//! Own tokens: signed and checked by this server alone, with a key that never leaves it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::name::Name;

use super::jwt::{OWN, Token, now};
use super::rights::Access;

const ISSUER: &str = "ferry-registry";
/// Scopes that are looked at.
const SCOPES: usize = 64;

/// What a token allows (distribution's token specification, `access`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub actions: Vec<String>,
}

impl Grant {
    pub fn allows(&self, repository: &Name, access: Access) -> bool {
        self.kind == "repository"
            && self.name == repository.as_str()
            && self
                .actions
                .iter()
                .any(|action| action == access.text() || action == "*")
    }

    /// Only what may be; `None` when that is nothing.
    pub fn filter(&self, may: impl Fn(Access) -> bool) -> Option<Self> {
        let asked = |access: Access| {
            self.actions
                .iter()
                .any(|action| action == access.text() || action == "*")
        };
        let all = [Access::Pull, Access::Push, Access::Delete];
        let actions: Vec<String> = all
            .into_iter()
            .filter(|access| asked(*access) && may(*access))
            .map(|access| access.text().to_owned())
            .collect();
        (!actions.is_empty()).then(|| Self {
            actions,
            ..self.clone()
        })
    }
}

/// `repository:<name>:<action>,<action>`; others are left out.
pub fn parse_scopes<'a>(scopes: impl Iterator<Item = &'a str>) -> Vec<Grant> {
    let grants = scopes.take(SCOPES).filter_map(|scope| {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        Some(Grant {
            kind: "repository".to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    });
    grants.collect()
}

#[derive(Debug)]
pub struct Signer {
    key: hmac::Key,
    service: String,
    seconds: u64,
}

#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Empty for anonymous.
    pub sub: String,
    pub access: Vec<Grant>,
    /// [`Signer::stamp`] of the user's password when it was made.
    #[serde(default)]
    pub stamp: String,
}

impl Signer {
    pub fn new(secret: &[u8; 32], service: String, seconds: u64) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            service,
            seconds,
        }
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// Another one when a user has another password, of which it says nothing.
    pub fn stamp(&self, user: &str, hash: &str) -> String {
        let tag = hmac::sign(&self.key, format!("stamp\0{user}\0{hash}").as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
    }

    /// The answer to a token request.
    pub fn sign(&self, user: Option<&str>, stamp: &str, access: &[Grant]) -> Value {
        // Whole seconds: some clients read nothing else.
        let issued = now().floor();
        let claims = json!({
            "iss": ISSUER,
            "aud": self.service,
            "sub": user.unwrap_or_default(),
            "iat": issued,
            "nbf": issued,
            "exp": issued + std::time::Duration::from_secs(self.seconds).as_secs_f64(),
            "access": access,
            "stamp": stamp,
        });
        let header = json!({ "typ": "JWT", "alg": "HS256", "kid": OWN });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        let token = format!("{signed}.{signature}");
        json!({ "token": token, "access_token": token, "expires_in": self.seconds, "issued_at": rfc3339(issued) })
    }

    pub fn verify(&self, token: &Token<'_>, now: f64) -> Result<Claims, String> {
        // In time that does not depend on where they differ.
        hmac::verify(&self.key, token.signed, &token.signature).map_err(|_| "its signature is wrong")?;
        token.check(ISSUER, &self.service, now)?;
        token.claims()
    }
}

fn rfc3339(seconds: f64) -> String {
    let time = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let timestamp = jiff::Timestamp::try_from(std::time::UNIX_EPOCH + time).unwrap_or_default();
    timestamp.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&[7; 32], "here".to_owned(), 300)
    }

    fn sign(signer: &Signer) -> String {
        let access = parse_scopes(["repository:a/b:pull,push", "registry:catalog:*"].into_iter());
        signer.sign(Some("ann"), "", &access)["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn verify(signer: &Signer, text: &str, at: f64) -> Result<Claims, String> {
        signer.verify(&Token::parse(text)?, at)
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let signer = signer();
        let token = sign(&signer);
        let claims = verify(&signer, &token, now()).unwrap();
        assert_eq!(claims.sub, "ann");
        let name: Name = "a/b".parse().unwrap();
        assert!(claims.access[0].allows(&name, Access::Push) && !claims.access[0].allows(&name, Access::Delete));
        assert_eq!(claims.access.len(), 1);
        assert!(verify(&signer, &token, now() + 400.0).unwrap_err().contains("expired"));
        assert!(
            verify(&signer, &token, now() - 400.0)
                .unwrap_err()
                .contains("not valid yet")
        );
    }

    #[test]
    fn tokens_of_others_and_changed_ones_are_refused() {
        let signer = signer();
        let token = sign(&signer);
        let other_key = Signer::new(&[8; 32], "here".to_owned(), 300);
        assert!(verify(&other_key, &token, now()).unwrap_err().contains("signature"));
        let other_service = Signer::new(&[7; 32], "there".to_owned(), 300);
        assert!(verify(&other_service, &token, now()).unwrap_err().contains("audience"));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD
            .encode(r#"{"iss":"ferry-registry","aud":"here","sub":"root","exp":9999999999,"access":[]}"#);
        assert!(verify(&signer, &format!("{}.{claims}.{}", parts[0], parts[2]), now()).is_err());
        assert!(verify(&signer, &format!("{}.{}.", parts[0], parts[1]), now()).is_err());
        for text in ["", ".", "..", "a.b.c", "....", &"x".repeat(100_000)] {
            assert!(Token::parse(text).is_err(), "{text:.20}");
        }
        assert!(
            Grant {
                kind: "repository".into(),
                name: "a".into(),
                actions: vec!["push".into()]
            }
            .filter(|access| access == Access::Pull)
            .is_none()
        );
    }
}
