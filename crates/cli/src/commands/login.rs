//! Credentials: shown to a registry once, then kept in `config.json` or by its helper.

use std::io::{self, Read as _};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use ferry_api::registry::{AuthConfig, Authenticated};
use ferry_distribution::Credentials;
use ferry_distribution::config::{self, ConfigFile, HelperOptions};

use crate::{
    commands::Call,
    failure::{Failure, Result},
    flags::{Arity, Spec},
    session::ask,
};

pub const SPEC: Spec = Spec {
    name: "login",
    synopsis: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    short: "Authenticate to a registry",
    arity: Arity::AtMost(1),
    flags: "\
-p, --password string | Password or Personal Access Token (PAT)
--password-stdin | Take the Password or Personal Access Token (PAT) from stdin
-u, --username string | Username",
    ..Spec::EMPTY
};

pub const LOGOUT: Spec = Spec {
    name: "logout",
    synopsis: "[SERVER]",
    about: "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    short: "Log out from a registry",
    arity: Arity::AtMost(1),
    ..Spec::EMPTY
};

/// Docker Hub.
const HUB: &str = "docker.io";
/// The most of a password that is read from stdin.
const PASSWORD_MAX: u64 = 64 << 10;

pub async fn run(mut call: Call<'_>) -> Result<u8> {
    let (username, mut password) = (
        call.matches.text("username").to_owned(),
        call.matches.text("password").to_owned(),
    );
    let from_stdin = call.matches.switch("password-stdin");
    let given = |name| call.matches.is_set(name);
    if given("password") && from_stdin {
        return Err(Failure::new(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    for name in ["username", "password"] {
        if given(name) && call.matches.text(name).is_empty() {
            return Err(Failure::new(format!("{name} is empty")));
        }
    }
    if from_stdin && username.is_empty() {
        return Err(Failure::new(
            "the --password-stdin option requires --username to be set",
        ));
    }
    if !password.is_empty() {
        call.ui
            .error_line("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if from_stdin {
        password = read_password()?;
    }
    let typed = call.matches.arguments.first().map_or("", String::as_str).to_owned();
    let domain = match typed.as_str() {
        "" => HUB,
        typed => config::domain(typed),
    };
    let mut kept = file(&call)?;
    if username.is_empty() && password.is_empty() {
        let known = credentials(&kept, domain).await?;
        if let Some(name) = user(&known) {
            call.ui.line(&format!(
                "Authenticating with existing credentials... [Username: {name}]"
            ));
            call.ui
                .line("\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n");
            match show(&call, domain, &known).await {
                Ok(answer) => return keep(&mut call, &mut kept, domain, known, answer).await,
                Err(failure) => call
                    .ui
                    .error_line(&format!("Login did not succeed, error: {}", failure.message)),
            }
        }
    }
    let username = match username.is_empty() {
        true => ask::line(call.ui, "Username: ").await?,
        false => username,
    };
    let password = match password.is_empty() {
        true => ask::secret(call.ui, "Password: ").await?,
        false => password,
    };
    for (name, value) in [("username", &username), ("password", &password)] {
        if value.is_empty() {
            return Err(Failure::new(format!("Error: {name} required")));
        }
    }
    let credentials = Credentials::basic(&username, &password);
    let answer = show(&call, domain, &credentials).await?;
    keep(&mut call, &mut kept, domain, credentials, answer).await
}

pub async fn logout(call: Call<'_>) -> Result<u8> {
    let typed = call.matches.arguments.first().map_or("", String::as_str);
    let domain = match typed {
        "" => HUB,
        typed => config::domain(typed),
    };
    let mut kept = file(&call)?;
    call.ui
        .line(&format!("Removing login credentials for {}", config::key(domain)));
    let had = kept.erase(domain, &HelperOptions::default()).await.map_err(unkept)?;
    if had {
        kept.save().map_err(unkept)?;
    }
    Ok(0)
}

/// The value of `X-Registry-Auth` for a registry.
pub async fn registry_auth(call: &mut Call<'_>, domain: &str) -> Result<String> {
    let found = credentials(&file(call)?, domain).await?;
    let text = serde_json::to_vec(&auth(domain, &found)).map_err(|error| Failure::new(error.to_string()))?;
    Ok(URL_SAFE.encode(text))
}

/// What is kept for a registry.
pub async fn stored(call: &Call<'_>, domain: &str) -> Result<Credentials> {
    credentials(&file(call)?, domain).await
}

async fn credentials(kept: &ConfigFile, domain: &str) -> Result<Credentials> {
    kept.credentials(domain, &HelperOptions::default())
        .await
        .map_err(unkept)
}

fn file(call: &Call<'_>) -> Result<ConfigFile> {
    ConfigFile::load(&path(call)).map_err(unkept)
}

fn path(call: &Call<'_>) -> PathBuf {
    call.config_directory().join("config.json")
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unkept(error: ferry_distribution::Error) -> Failure {
    Failure::new(ferry_kit::error::chain(&error))
}

fn user(credentials: &Credentials) -> Option<&str> {
    match credentials {
        Credentials::Basic { username, .. } | Credentials::Identity { username, .. } => Some(username),
        _ => None,
    }
}

fn auth(domain: &str, credentials: &Credentials) -> AuthConfig {
    let mut auth = AuthConfig::default();
    match credentials {
        Credentials::Anonymous => return auth,
        Credentials::Basic { username, password } => {
            auth.username.clone_from(username);
            auth.password.clone_from(password);
        }
        Credentials::Identity { username, token } => {
            auth.username.clone_from(username);
            auth.identitytoken.clone_from(token);
        }
        Credentials::Registry { token } => auth.registrytoken.clone_from(token),
    }
    config::key(domain).clone_into(&mut auth.serveraddress);
    auth
}

async fn show(call: &Call<'_>, domain: &str, credentials: &Credentials) -> Result<Authenticated> {
    Ok(call.client.post_json("/auth", &auth(domain, credentials)).await?)
}

/// Keeps what the registry took, or the token it gave in its place.
async fn keep(
    call: &mut Call<'_>,
    kept: &mut ConfigFile,
    domain: &str,
    mut credentials: Credentials,
    answer: Authenticated,
) -> Result<u8> {
    if let (false, Some(username)) = (answer.identity_token.is_empty(), user(&credentials)) {
        credentials = Credentials::Identity {
            username: username.to_owned(),
            token: answer.identity_token,
        };
    }
    let before = kept.clone();
    kept.store(domain, &credentials, &HelperOptions::default())
        .await
        .map_err(unkept)?;
    if *kept != before {
        kept.save().map_err(unkept)?;
        if kept.is_plain(domain) && matches!(credentials, Credentials::Basic { .. }) {
            call.ui.error_line(&format!(
                "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
                 warning. See\nhttps://docs.docker.com/go/credential-store/\n",
                path(call).display()
            ));
        }
    }
    if !answer.status.is_empty() {
        call.ui.line(&answer.status);
    }
    Ok(0)
}

/// All of stdin, without the end of the line.
fn read_password() -> Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(PASSWORD_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("read the password: {}", ferry_kit::error::io_text(&error))))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
