//! `/token`, as docker's and containerd's clients ask, and as attackers do.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_registry::Access;
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::site::{Answer, Site, rule, user_line};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

async fn post(site: &Site, form: &str) -> Answer {
    site.send(Method::POST, "/token", &[FORM], form.to_owned()).await
}

/// What a token says that it allows: `name:action,action` for each repository.
fn granted(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let token = answer.json();
    assert_eq!(token["token"], token["access_token"]);
    let payload = token["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let lifetime = claims["exp"].as_f64().unwrap() - claims["iat"].as_f64().unwrap();
    assert_eq!(token["expires_in"].as_f64(), Some(lifetime));
    let access = claims["access"].as_array().unwrap().iter();
    let grants = access.map(|grant| {
        let actions = grant["actions"].as_array().unwrap().iter();
        let actions: Vec<&str> = actions.map(|action| action.as_str().unwrap()).collect();
        format!("{}:{}", grant["name"].as_str().unwrap(), actions.join(","))
    });
    grants.collect()
}

fn bearer(answer: &Answer) -> String {
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

#[tokio::test]
async fn the_form_of_oauth2_takes_a_password_and_gives_what_is_asked_for_and_allowed() {
    let site = Site::with_rights();
    // As containerd sends it: scopes in one field, separated by spaces.
    let form = "client_id=containerd-client&grant_type=password&password=secret&service=ferry-registry&username=rw";
    let scopes = "repository%3Ateam%2Fa%3Apull%2Cpush%2Cdelete+repository%3Aelsewhere%2Fx%3Apull";
    let answer = post(&site, &format!("{form}&scope={scopes}")).await;
    assert_eq!(granted(&answer), ["team/a:pull,push"]);
    let push = |token: String| {
        let site = &site;
        async move {
            let headers = [("authorization", token.as_str())];
            let path = "/v2/team/a/blobs/uploads/";
            site.send(Method::POST, path, &headers, "").await.status
        }
    };
    assert_eq!(push(bearer(&answer)).await, StatusCode::ACCEPTED);
    // Docker asks for one that lasts as well, and is content without.
    let offline = post(
        &site,
        &format!("{form}&access_type=offline&scope=repository:team/a:pull"),
    )
    .await;
    assert_eq!(granted(&offline), ["team/a:pull"]);
    assert_eq!(offline.json()["refresh_token"], Value::Null);
    assert_eq!(push(bearer(&offline)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_no_right_password_gets_no_token() {
    let site = Site::with_rights();
    let wrong = post(&site, "grant_type=password&username=rw&password=wrong").await;
    assert_eq!(
        (wrong.status, wrong.code()),
        (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".to_owned())
    );
    assert!(
        wrong
            .header("www-authenticate")
            .starts_with("Bearer realm=\"http://here:5000/token\"")
    );
    for form in [
        // There are no refresh tokens, so nobody has one.
        "grant_type=refresh_token&refresh_token=x&service=ferry-registry&client_id=docker",
        "grant_type=client_credentials",
        "grant_type=password&username=rw",
        "username=rw&password=secret",
        "",
    ] {
        let refused = post(&site, form).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "UNSUPPORTED".to_owned()),
            "{form}"
        );
        assert!(String::from_utf8_lossy(&refused.body).contains("grant_type"), "{form}");
    }
    let json = site
        .send(Method::POST, "/token", &[("content-type", "application/json")], "{}")
        .await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = post(&site, &"x".repeat(100_000)).await;
    assert_eq!(
        (large.status, large.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID".to_owned())
    );
    for method in [Method::PUT, Method::DELETE, Method::HEAD] {
        let other = site.send(method, "/token", &[], "").await;
        assert_eq!(
            (other.status, other.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, "GET, POST")
        );
    }
    // A token is for a user and a password, not for a token.
    let token = site.token("rw", "repository:team/a:pull").await;
    let again = site
        .send(
            Method::GET,
            "/token?scope=repository:team/a:push",
            &[("authorization", &token)],
            "",
        )
        .await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_form_that_does_not_come_is_not_waited_for() {
    let site = Site::with_rights();
    let begun = stream::iter([Ok::<_, std::io::Error>("grant_type=pass")]).chain(stream::pending());
    let answer = site
        .send(Method::POST, "/token", &[FORM], Body::from_stream(begun))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_has_at_most_the_rights_of_its_user_in_what_it_was_asked_for() {
    let site = Site::with_rights();
    let get = async |user: &str, query: &str| {
        let basic = Site::basic(user);
        let headers = [("authorization", basic.as_str())];
        let headers = if user.is_empty() { &[][..] } else { &headers[..] };
        let path = format!("/token?account={user}&service=ferry-registry&{query}");
        granted(&site.send(Method::GET, &path, headers, "").await)
    };
    let none: [&str; 0] = [];
    assert_eq!(
        get("rw", "scope=repository:team/a:pull,push").await,
        ["team/a:pull,push"]
    );
    assert_eq!(get("rw", "scope=repository:team/a:*").await, ["team/a:pull,push"]);
    assert_eq!(get("ro", "scope=repository:team/a:*").await, ["team/a:pull"]);
    assert_eq!(get("ro", "scope=repository:team/a:push").await, none);
    assert_eq!(get("other", "scope=repository:team/a:pull,push").await, none);
    assert_eq!(get("", "scope=repository:team/a:pull").await, none);
    assert_eq!(get("rw", "").await, none);
    // A mount asks for two, in fields of their own.
    let two = "scope=repository:team/a:pull,push&scope=repository:team/b:pull";
    assert_eq!(get("rw", two).await, ["team/a:pull,push", "team/b:pull"]);
    for scope in [
        "repository:..%2fteam/a:pull",
        "repository:team/a/../b:pull",
        "repository:TEAM/a:pull",
        "repository:team/*:pull",
        "repository:**:pull",
        "repository::pull",
        "repository:team/a:",
        "repository(plugin):team/a:pull",
        "registry:catalog:*",
        "team/a:pull",
        ":::",
        "%00%ff",
    ] {
        assert_eq!(get("rw", &format!("scope={scope}")).await, none, "{scope}");
    }
    let many: String = (0..1000)
        .map(|number| format!("&scope=repository:team/a{number}:pull"))
        .collect();
    assert_eq!(get("rw", &many[1..]).await.len(), 64);
}

#[tokio::test]
async fn a_token_is_good_for_its_repository_and_as_long_as_its_user_has_the_right() {
    let site = Site::with_rights();
    let mine = Site::basic("rw");
    let blob = site.blob_as("team/a", b"secret", &mine).await;
    site.blob_as("team/b", b"secret", &mine).await;
    let token = site.token("rw", "repository:team/a:pull,push").await;
    let headers = [("authorization", token.as_str())];
    let status = async |site: &Site, path: &str| site.send(Method::GET, path, &headers, "").await.status;
    let (here, there) = (format!("/v2/team/a/blobs/{blob}"), format!("/v2/team/b/blobs/{blob}"));
    assert_eq!(status(&site, &here).await, StatusCode::OK);
    assert_eq!(status(&site, &there).await, StatusCode::UNAUTHORIZED);
    // Nor by way of a mount: it becomes an upload.
    let mount = format!("/v2/team/a/blobs/uploads/?mount={blob}&from=team/b");
    assert_eq!(
        site.send(Method::POST, &mount, &headers, "").await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        site.send(Method::GET, "/v2/_catalog", &headers, "").await.json(),
        json!({ "repositories": ["team/a"] })
    );
    // GHSA-c9p4-xwr9-rfhx: what was taken from a user is taken from the tokens they hold.
    let other = Site::with_rules(vec![rule("group:readers", "team/**", &[Access::Pull])]);
    assert_eq!(status(&other, &here).await, StatusCode::UNAUTHORIZED);
    let readers = site.token("ro", "repository:team/a:pull").await;
    let read = other.send(Method::GET, &here, &[("authorization", &readers)], "").await;
    assert_eq!(read.code(), "BLOB_UNKNOWN");
}

/// GHSA-c9p4-xwr9-rfhx: a group that somebody has left, whatever they hold from before.
#[tokio::test]
async fn ghsa_c9p4_xwr9_rfhx_rights_of_a_group_end_with_it() {
    let rules = || vec![rule("group:readers", "team/**", &[Access::Pull])];
    let before = Site::with_users(&["ro"], &["ro"], rules());
    let token = before.token("ro", "repository:team/a:pull").await;
    let basic = Site::basic("ro");
    let status = async |site: &Site, shown: &str| {
        let headers = [("authorization", shown)];
        site.send(Method::GET, "/v2/team/a/tags/list", &headers, "")
            .await
            .status
    };
    assert_eq!(status(&before, &token).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&before, &basic).await, StatusCode::NOT_FOUND);
    let after = Site::with_users(&["ro"], &[], rules());
    assert_eq!(status(&after, &token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&after, &basic).await, StatusCode::FORBIDDEN);
    let again = after.token("ro", "repository:team/a:pull").await;
    assert_eq!(status(&after, &again).await, StatusCode::UNAUTHORIZED);
}

/// GHSA-c9p4-xwr9-rfhx: a user who is removed, or gets another password, while the server runs.
#[tokio::test]
async fn ghsa_c9p4_xwr9_rfhx_tokens_end_with_the_password_they_were_given_for() {
    let everybody = || vec![rule("authenticated", "team/**", &[Access::Pull])];
    let another = format!("rw:{}\n", bcrypt::hash("another", 4).unwrap());
    for (users, gone) in [(String::new(), true), (another, false)] {
        let site = Site::with_users(&["ro", "rw"], &[], everybody());
        let (mine, theirs) = (
            site.token("rw", "repository:team/a:pull").await,
            site.token("ro", "repository:team/a:pull").await,
        );
        let basic = Site::basic("rw");
        let status = async |shown: &str| {
            let headers = [("authorization", shown)];
            site.send(Method::GET, "/v2/team/a/tags/list", &headers, "")
                .await
                .status
        };
        for shown in [&mine, &theirs, &basic] {
            assert_eq!(status(shown).await, StatusCode::NOT_FOUND);
        }
        // Its time tells one file from the other.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        site.set_users(&(user_line("ro") + &users));
        let changed = std::time::Instant::now();
        while status(&mine).await != StatusCode::UNAUTHORIZED {
            assert!(changed.elapsed().as_secs() < 5, "gone {gone}: the token is still taken");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(status(&basic).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&theirs).await, StatusCode::NOT_FOUND, "others keep theirs");
    }
}

/// CVE-2025-24976, and the older ways to make a token oneself.
#[tokio::test]
async fn tokens_that_somebody_made_are_refused_at_every_path() {
    let site = Site::with_rights();
    site.blob_as("team/a", b"secret", &Site::basic("rw")).await;
    let real = site.token("rw", "repository:team/a:pull").await;
    let real = real.strip_prefix("Bearer ").unwrap();
    let signature = real.rsplit('.').next().unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let access = json!([{ "type": "repository", "name": "team/a", "actions": ["pull", "push", "delete"] }]);
    let claims = json!({ "iss": "ferry-registry", "aud": "ferry-registry", "sub": "rw", "exp": 9_999_999_999_u64, "access": access });
    let jwk = json!({ "kty": "oct", "k": "AAAA" });
    let headers = [
        json!({ "alg": "none" }),
        json!({ "alg": "none", "kid": "ferry" }),
        json!({ "alg": "HS256", "kid": "ferry" }),
        json!({ "alg": "HS256", "kid": "ferry", "jwk": jwk }),
        json!({ "alg": "HS256", "kid": "ferry", "jku": "http://attacker/keys" }),
        json!({ "alg": "ES256", "kid": "ferry", "x5c": ["AAAA"] }),
        json!({ "alg": "hs256", "kid": "ferry" }),
        json!({ "alg": "RS256" }),
    ];
    let mut tokens: Vec<String> = vec![
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        format!("{real}x"),
        real[1..].to_owned(),
    ];
    for header in headers {
        for signature in ["", signature] {
            tokens.push(format!("{}.{}.{signature}", encode(&header), encode(&claims)));
        }
    }
    for token in tokens {
        let authorization = format!("Bearer {token}");
        for path in ["/v2/", "/v2/_catalog", "/v2/team/a/tags/list"] {
            let answer = site
                .send(Method::GET, path, &[("authorization", &authorization)], "")
                .await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
            assert!(answer.header("www-authenticate").starts_with("Bearer "), "{token}");
        }
    }
}
