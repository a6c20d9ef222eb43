//! Upstreams that want to know who asks: TLS by a private authority with a password, and tokens.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::child::{command, run, run_text};
use crate::clients::Program;
use crate::fixtures::{Fixtures, Kind};
use crate::registry::{Access, Registry, Writes};
use crate::stage::{Stage, new_directory};
use crate::token_server::{PASSWORD, TokenServer, USERNAME};
use crate::tools;

/// Certificates that a test makes for itself.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(directory: &Path) -> Self {
        let authority_key = KeyPair::generate().expect("make a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no name is valid");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key).expect("sign the authority's certificate");
        let issuer = Issuer::new(parameters, authority_key);
        let key = KeyPair::generate().expect("make a key");
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .and_then(|parameters| parameters.signed_by(&key, &issuer))
            .expect("sign the server's certificate");
        let write = |name: &str, pem: String| {
            let path = directory.join(name);
            fs::write(&path, pem).expect("write a certificate");
            path
        };
        Self {
            authority: write("authority.pem", authority.pem()),
            certificate: write("certificate.pem", certificate.pem()),
            key: write("key.pem", key.serialize_pem()),
        }
    }
}

/// Docker Hub behind TLS and a password, the other registry behind tokens.
fn guarded_stage(tokens: &TokenServer) -> Stage {
    let directory = new_directory();
    let path = directory.path();
    let password_file = path.join("password");
    fs::write(&password_file, format!("{PASSWORD}\n")).expect("write the password");
    let Certificates { authority, certificate, key } = Certificates::make(path);
    let htpasswd = path.join("htpasswd");
    run(command("htpasswd").arg("-Bbc").arg(&htpasswd).args([USERNAME, PASSWORD]));
    let start = |name: &str, access: &Access| {
        let own = path.join(name);
        fs::create_dir(&own).expect("create the directory of a registry");
        Registry::start(&own, &Fixtures::storage(), Writes::Denied, access)
    };
    let by_password = start("password-registry", &Access::Password { htpasswd, certificate, key });
    let by_token = start("token-registry", &tokens.access(path));
    let credentials = format!("username = \"{USERNAME}\"\npassword_file = {password_file:?}");
    let upstreams = vec![
        format!(
            "name = \"docker.io\"\ndefault = true\nlibrary_prefix = true\nendpoints = [\"https://{}\"]\n\
             ca_file = {authority:?}\n{credentials}",
            by_password.address
        ),
        format!(
            "name = \"ghcr.io\"\nendpoints = [\"http://{}\"]\ntrusted_hosts = [\"{}\"]\n{credentials}",
            by_token.address, tokens.address
        ),
    ];
    Stage::with(directory, vec![by_password, by_token], upstreams)
}

#[test]
fn these_upstreams_refuse_who_knows_no_password_and_has_no_token() {
    let mut needed = tools::of_upstream();
    needed.extend(["htpasswd", "curl"]);
    if !tools::present(&needed) {
        return;
    }
    let image = &Fixtures::shared().images(&[Kind::Platform])[0];
    let tokens = TokenServer::start();
    let stage = guarded_stage(&tokens);
    let credentials = format!("{USERNAME}:{PASSWORD}");
    let repository = "library/tidegate-platforms";
    let manifest = format!("/v2/{repository}/manifests/{}", image.digest);

    let by_password = format!("https://{}{manifest}", stage.registries[0].address);
    assert_eq!(curl_status(&["--insecure", &by_password]), "401");
    assert_eq!(curl_status(&["--insecure", "--user", &credentials, &by_password]), "200");

    let by_token = format!("http://{}{manifest}", stage.registries[1].address);
    let realm =
        format!("http://{}/token?service=tests.registry&scope=repository:{repository}:pull", tokens.address);
    assert_eq!(curl_status(&[&by_token]), "401");
    assert_eq!(curl_status(&[&realm]), "401");
    let answer = run(command("curl").args(["--silent", "--fail", "--user", &credentials, &realm]));
    let answer: Value = serde_json::from_slice(&answer).expect("a token comes in JSON");
    let token = answer["token"].as_str().expect("there is a token");
    assert_eq!(curl_status(&["--header", &format!("Authorization: Bearer {token}"), &by_token]), "200");
    let elsewhere = by_token.replace("platforms", "layers");
    assert_eq!(curl_status(&["--header", &format!("Authorization: Bearer {token}"), &elsewhere]), "401");
}

/// The status that curl is answered with.
fn curl_status(arguments: &[&str]) -> String {
    let accept = "Accept: application/vnd.oci.image.index.v1+json";
    let mut curl = command("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--header", accept]);
    run_text(curl.args(arguments))
}

fn play(program: Program) {
    let mut needed = tools::of_upstream();
    needed.push("htpasswd");
    if tools::present(&needed) && tools::present(program.tools()) {
        let images = Fixtures::shared().images(&[Kind::Platform, Kind::Layers]);
        let tokens = TokenServer::start();
        guarded_stage(&tokens).play(program, &images);
        let (given, refused) = tokens.counts();
        if program == Program::Docker {
            assert_eq!(given, 0, "docker pulls from Docker Hub alone, which wants a password");
        } else {
            assert_eq!(given, 1, "one token serves all requests for one repository");
        }
        assert_eq!(refused, 0, "tokens were asked for without the password");
    }
}

#[test]
fn podman_pulls_from_upstreams_that_want_passwords_and_tokens() {
    play(Program::Podman);
}

#[test]
fn buildah_pulls_from_upstreams_that_want_passwords_and_tokens() {
    play(Program::Buildah);
}

#[test]
fn skopeo_copies_from_upstreams_that_want_passwords_and_tokens() {
    play(Program::Skopeo);
}

#[test]
fn docker_pulls_from_upstreams_that_want_passwords() {
    play(Program::Docker);
}

#[test]
fn containerd_pulls_from_upstreams_that_want_passwords_and_tokens() {
    play(Program::Containerd);
}
