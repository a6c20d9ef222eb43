//! Tests of loading as a whole: exact faults, precedence, redaction, reload, the example file.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::keys::KEYS;
use super::scalar::Item;
use super::*;

/// A directory with `text` as its `tidegate.toml`.
fn directory_with(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(DEFAULT_FILE), text).unwrap();
    directory
}

fn sources(directory: &Path, variables: &[(&str, &str)]) -> Sources {
    let environment =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Sources { directory: directory.to_owned(), environment, ..Sources::default() }
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    Config::load(&sources(directory_with(text).path(), variables))
}

/// The text of all faults; the temporary directory's name is cut out.
fn faults_of(text: &str, variables: &[(&str, &str)]) -> String {
    let directory = directory_with(text);
    let faults =
        Config::load(&sources(directory.path(), variables)).expect_err("the configuration is faulty");
    faults.to_string().replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn without_a_file_the_built_in_defaults_apply() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = Config::load(&sources(directory.path(), &[])).unwrap();
    assert_eq!(loaded.file, None);
    let config = loaded.config;
    assert_eq!(config.server.listen, ["127.0.0.1:5000".parse().unwrap()]);
    assert_eq!(config.server.admin_listen, "127.0.0.1:5001".parse().unwrap());
    assert_eq!(config.server.tls, None);
    assert!(config.server.idle_timeout >= Duration::from_secs(90), "clients keep connections for 90 s");
    assert_eq!(config.storage.max_size_bytes, 50 << 30);
    assert_eq!(config.site_name, "default");
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "docker.io",
            "ghcr.io",
            "quay.io",
            "registry.k8s.io",
            "gcr.io",
            "mcr.microsoft.com",
            "public.ecr.aws"
        ]
    );
    let hub = &config.upstreams[0];
    assert!(hub.default && hub.library_prefix);
    assert_eq!(hub.endpoints, ["https://registry-1.docker.io"]);
    assert_eq!(hub.aliases, ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"]);
    assert_eq!(hub.credentials, [Credentials::Anonymous]);
    assert_eq!(hub.freshness.stale_if_error, Duration::from_hours(30 * 24));
    assert!(
        hub.timeouts.connect + hub.timeouts.first_byte < Duration::from_secs(30),
        "containerd waits for 30 s"
    );
    assert!(config.upstreams[1..].iter().all(|other| !other.default && !other.library_prefix));
}

#[test]
fn a_configuration_for_tests_uses_free_ports_and_no_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_test(directory.path());
    assert_eq!(config.server.listen[0].port(), 0);
    assert_eq!(config.storage.path, directory.path().join("data"));
    assert!(config.upstreams.is_empty());
    let upstream = UpstreamConfig::for_test("corp.example", "http://127.0.0.1:9");
    assert_eq!(upstream.endpoints, ["http://127.0.0.1:9/"]);
}

#[test]
fn every_fault_of_every_source_is_reported_at_once() {
    let text = r#"
[server]
listen = ["127.0.0.1:5000", "localhost:5000"]
idle_timeout = 90
max_conections = 5

[storage]
max_size = "10"
object_store = { url = "ftp://bucket", region = "eu" }

[metadata]
url = "mysql://user:hunter2@host/db"

[loging]
level = "info"

[[upstream]]
name = "docker.io"
default = "yes"
endpoints = []

[[upstream]]
endpoints = ["registry.example.com"]
allow = ["Library/*"]
"#;
    let variables = [("TIDEGATE_STORAGE__MAX_SISE", "1GiB"), ("TIDEGATE_TOKEN", "x"), ("HOME", "/root")];
    assert_eq!(
        faults_of(text, &variables),
        r#"tidegate.toml:3:29: server.listen: "localhost:5000" is not an address with a port
    remedy: write an IP address and a port, such as "127.0.0.1:5000"; names are not looked up
tidegate.toml:4:16: server.idle_timeout: expected a string, found an integer
    remedy: write a number and a unit such as "30s"
tidegate.toml:5:1: server.max_conections: unknown key
    remedy: did you mean max_connections (the most connections at once)?
tidegate.toml:8:12: storage.max_size: "10" has no unit
    remedy: write a number and a unit, such as "10GiB" or "500MB"
tidegate.toml:9:24: storage.object_store.url: "ftp://bucket" does not name an object store
    remedy: write "s3://BUCKET/PREFIX", "gs://BUCKET/PREFIX" or "az://CONTAINER/PREFIX"; PREFIX may be left out
tidegate.toml:12:1: metadata.url: that is not the URL of a PostgreSQL database
    remedy: write "postgres://USER:PASSWORD@HOST:PORT/DATABASE", with percent codes for / and @ in the password; a file, named by metadata.url_file, keeps it out of the configuration
tidegate.toml:14:2: loging: unknown section
    remedy: did you mean [logging]?
tidegate.toml:19:11: upstream[0].default: expected a boolean, found a string
    remedy: write true or false
tidegate.toml:20:1: upstream[0].endpoints: there is no endpoint
    remedy: write at least one URL, or leave the key out for https:// and the name
tidegate.toml:22:1: upstream[1].name: the upstream has no name
    remedy: add name, such as name = "docker.io"
tidegate.toml:23:14: upstream[1].endpoints: "registry.example.com" does not begin with https:// or http://
    remedy: write "https://registry.example.com"
tidegate.toml:24:10: upstream[1].allow: "Library/*" holds 'L', which no repository name holds
    remedy: write a repository name in which * stands for any text, such as "library/*"
environment TIDEGATE_STORAGE__MAX_SISE: unknown variable
    remedy: did you mean TIDEGATE_STORAGE__MAX_SIZE?"#
    );
}

#[test]
fn each_single_fault_has_its_place_and_remedy() {
    for (text, expected) in [
        (
            "[server]\nlisten = [\"a\"",
            "tidegate.toml:2:14: invalid TOML: unclosed array, expected `]`\n    remedy: correct the syntax at this place",
        ),
        (
            "[storage]\npath = \"a\"\npath = \"b\"",
            "tidegate.toml:3:1: invalid TOML: duplicate key\n    remedy: correct the syntax at this place",
        ),
        (
            "listen = [\"127.0.0.1:1\"]",
            "tidegate.toml:1:1: listen: this key does not stand at the top\n    remedy: move it below [server]",
        ),
        (
            "server = 3",
            "tidegate.toml:1:1: server: server is a section\n    remedy: write [server] and its keys below",
        ),
        (
            "[upstream]\nname = \"a\"",
            "tidegate.toml:1:2: upstream: upstreams are a list of tables\n    remedy: write [[upstream]], with two brackets",
        ),
        (
            "upstream = []",
            "tidegate.toml: upstream: there is no upstream\n    remedy: add one, or leave the key out for the built-in list",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:1\"",
            "tidegate.toml:2:10: server.listen: expected an array, found a string\n    remedy: write a list in brackets, each element an address such as \"127.0.0.1:5000\"",
        ),
        (
            "[server]\nlisten = []",
            "tidegate.toml:2:1: server.listen: there is no address to listen on\n    remedy: write at least one, such as \"127.0.0.1:5000\"",
        ),
        (
            "[server]\nlisten = [\"0.0.0.0:7\", \"127.0.0.1:7\"]",
            "tidegate.toml:2:1: server.listen: 127.0.0.1:7 and 0.0.0.0:7 are the same port of one address\n    remedy: remove one, or change its port",
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:5001\"]",
            "tidegate.toml:2:1: server.listen: 127.0.0.1:5001 is taken by server.listen 127.0.0.1:5001\n    remedy: give the two different ports",
        ),
        (
            "[server]\ntls = \"cert.pem\"",
            "tidegate.toml:2:1: server.tls: server.tls is a table\n    remedy: write tls = { certificate = \"…\", private_key = \"…\" }",
        ),
        (
            "[server]\nmax_connections = 0",
            "tidegate.toml:2:19: server.max_connections: 0 is out of range\n    remedy: write a whole number from 1 to 4294967295",
        ),
        (
            "[logging]\nformat = \"xml\"",
            "tidegate.toml:2:10: logging.format: \"xml\" is not a choice here\n    remedy: write \"text\" or \"json\"",
        ),
        (
            "[storage]\nusername = \"x\"",
            "tidegate.toml:2:1: storage.username: unknown key\n    remedy: it is a key of upstream",
        ),
        (
            "[storage]\npath = \"tidegate.toml\"",
            "tidegate.toml:2:1: storage.path: \"tidegate.toml\" is not a directory\n    remedy: name a directory; it is made if it does not exist",
        ),
        (
            "[events]\nurl = 3",
            "tidegate.toml:2:7: events.url: not supported by this version\n    remedy: remove it: events stay in the process",
        ),
    ] {
        assert_eq!(faults_of(text, &[]), expected, "{text}");
    }
}

#[test]
fn faults_of_upstreams_have_their_place_and_remedy() {
    for (keys, expected) in [
        (
            "password = \"hunter2\"\npassword_file = \"tidegate.toml\"\nusername = \"u\"",
            "tidegate.toml:3:1: upstream[0].password: password and password_file are both given\n    remedy: remove one of them",
        ),
        (
            "username = \"u\"",
            "tidegate.toml:3:1: upstream[0].username: username is given without a password\n    remedy: add password_file or password",
        ),
        (
            "password = \"hunter2\"",
            "tidegate.toml:3:1: upstream[0].password: password is given without username\n    remedy: add username",
        ),
        (
            "username = \"u\"\npassword = \"hunter2\"\ncredential_helper = \"ecr-login\"",
            "tidegate.toml:5:1: upstream[0].credential_helper: the helper knows user and password, and they are given too\n    remedy: remove it, or remove username, password and password_file",
        ),
        (
            "ca_file = \"none.pem\"",
            "tidegate.toml:3:1: upstream[0].ca_file: \"none.pem\" cannot be read: No such file or directory (os error 2)\n    remedy: name a readable file; relative paths begin at the working directory",
        ),
        (
            "ca_file = \"tidegate.toml\"",
            "tidegate.toml:3:1: upstream[0].ca_file: \"tidegate.toml\" holds no certificate\n    remedy: write certificates in PEM into it",
        ),
        (
            "allow = []",
            "tidegate.toml:3:1: upstream[0].allow: nothing may be pulled\n    remedy: write at least one glob, such as \"*\"",
        ),
        (
            "aliases = [\"a.io\"]",
            "tidegate.toml:3:1: upstream[0].aliases: \"a.io\" stands twice\n    remedy: remove one of them",
        ),
        (
            "[[upstream]]\nname = \"b.io\"\naliases = [\"a.io\"]",
            "tidegate.toml:5:1: upstream[1].aliases: \"a.io\" is already a name of upstream[0]\n    remedy: remove one of them",
        ),
        (
            "[[upstream]]\nname = \"a.io\"",
            "tidegate.toml:4:1: upstream[1].name: \"a.io\" is already a name of upstream[0]\n    remedy: remove one of them",
        ),
        (
            "default = true\n[[upstream]]\nname = \"b.io\"\ndefault = true",
            "tidegate.toml:6:1: upstream[1].default: upstream[0] is the default already\n    remedy: mark one upstream only",
        ),
        (
            "first_byte_timeout = \"0s\"",
            "tidegate.toml:3:22: upstream[0].first_byte_timeout: \"0s\" is too small\n    remedy: write at least \"1ms\"",
        ),
    ] {
        assert_eq!(faults_of(&format!("[[upstream]]\nname = \"a.io\"\n{keys}"), &[]), expected, "{keys}");
    }
}

#[test]
fn several_credentials_are_given_by_file_and_never_print() {
    let text = "[[upstream]]\nname = \"a.io\"\ncredentials = [\n  { username = \"one\", password = \"hunter2\" },\n  \
                { username = \"two\", password_file = \"secret\" },\n]";
    let directory = directory_with(text);
    fs::write(directory.path().join("secret"), "hunter3\n").unwrap();
    let loaded = Config::load(&sources(directory.path(), &[])).unwrap();
    let path = directory.path().join("secret");
    let one = Credentials::Password { username: "one".to_owned(), password: Secret::new("hunter2") };
    let two = Credentials::PasswordFile { username: "two".to_owned(), path };
    assert_eq!(loaded.config.upstreams[0].credentials, [one, two]);
    let shown = loaded.settings.to_toml();
    assert!(
        shown.contains(
            r#"credentials = [
    { username = "one", password = "[redacted]" },  # file tidegate.toml:4
    { username = "two", password_file = "secret" },  # file tidegate.toml:5
]
"#
        ),
        "{shown}"
    );
    let entries = loaded.settings.entries();
    let entry = entries.iter().find(|entry| entry.key == "upstream[0].credentials[0].password").unwrap();
    assert_eq!((&entry.value, &*entry.origin), (&"[redacted]".into(), "file tidegate.toml:4"));
    assert!(!format!("{loaded:?}{entries:?}{shown}").contains("hunter"));
    // What is shown can be loaded, and a change is seen.
    let again = Config::load(&Sources {
        file: Some(write_beside(directory.path(), &shown)),
        ..sources(directory.path(), &[])
    });
    let again = again.unwrap().settings;
    assert_eq!(again.to_toml().lines().count(), shown.lines().count());
    assert_eq!(loaded.settings.difference(&again).live, ["upstream.a.io"], "the password is another");
}

fn write_beside(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("shown.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn faults_of_several_credentials_have_their_place_and_remedy() {
    for (keys, expected) in [
        (
            "username = \"u\"\npassword = \"hunter2\"\ncredentials = [{ username = \"v\", password = \"hunter3\" }]",
            "tidegate.toml:3:1: upstream[0].username: username and credentials are both given\n    remedy: move this user into credentials, or remove credentials\n\
             tidegate.toml:4:1: upstream[0].password: password and credentials are both given\n    remedy: move this user into credentials, or remove credentials",
        ),
        (
            "credentials = [\n{ username = \"v\" },\n{ password = \"hunter3\" },\n{ },\n{ username = \"w\", password_file = \"none\" }]",
            "tidegate.toml:4:3: upstream[0].credentials[0].username: username is given without a password\n    remedy: add password_file or password\n\
             tidegate.toml:5:3: upstream[0].credentials[1].password: password is given without username\n    remedy: add username\n\
             tidegate.toml:6:1: upstream[0].credentials[2].username: the user has no name\n    remedy: add username and password_file\n\
             tidegate.toml:7:19: upstream[0].credentials[3].password_file: \"none\" cannot be read: No such file or directory (os error 2)\n    remedy: name a readable file; relative paths begin at the working directory",
        ),
        (
            "credentials = [{ user = \"v\", password = \"hunter3\" }]",
            "tidegate.toml:3:18: upstream[0].credentials[0].user: unknown key\n    remedy: did you mean username (user name, one of several used in turn)?\n\
             tidegate.toml:3:30: upstream[0].credentials[0].password: password is given without username\n    remedy: add username",
        ),
        (
            "credentials = []",
            "tidegate.toml:3:1: upstream[0].credentials: credentials is a list of tables\n    remedy: write credentials = [{ username = \"…\", password_file = \"…\" }], each user a table, or remove it",
        ),
        (
            "credentials = \"me\"",
            "tidegate.toml:3:1: upstream[0].credentials: credentials is a list of tables\n    remedy: write credentials = [{ username = \"…\", password_file = \"…\" }], each user a table, or remove it",
        ),
        (
            "credentials = [\"me\"]",
            "tidegate.toml:3:16: upstream[0].credentials[0]: each upstream.credentials is a table\n    remedy: write [[upstream.credentials]] and its keys below",
        ),
    ] {
        let faults = faults_of(&format!("[[upstream]]\nname = \"a.io\"\n{keys}"), &[]);
        assert_eq!(faults, expected, "{keys}");
    }
    let variables = [("TIDEGATE_UPSTREAM__DOCKER_IO__CREDENTIALS", "me")];
    assert_eq!(
        faults_of("", &variables),
        "environment TIDEGATE_UPSTREAM__DOCKER_IO__CREDENTIALS: upstream: several credentials cannot be set by variables
    remedy: write credentials in the configuration file; USERNAME and PASSWORD_FILE set a single one"
    );
}

#[test]
fn a_certificate_without_its_key_is_a_fault() {
    let text = "[server.tls]\ncertificate = \"none.pem\"";
    assert_eq!(
        faults_of(text, &[]),
        "tidegate.toml:2:1: server.tls.certificate: certificate is given without private_key
    remedy: add server.tls.private_key, or remove server.tls for clear text
tidegate.toml:2:1: server.tls.certificate: \"none.pem\" cannot be read: No such file or directory (os error 2)
    remedy: name a readable file; relative paths begin at the working directory"
    );
}

#[test]
fn the_token_of_the_admin_api_comes_from_one_place_and_never_prints() {
    let directory = directory_with("[server]\nadmin_token_file = \"token\"");
    fs::write(directory.path().join("token"), "a-token-of-a-file\n").unwrap();
    let loaded = Config::load(&sources(directory.path(), &[])).unwrap();
    assert_eq!(loaded.config.server.admin_token, Some(Secret::new("a-token-of-a-file")));
    let variables = [("TIDEGATE_SERVER__ADMIN_TOKEN", "a-token-of-a-variable")];
    let of_variable = load("", &variables).unwrap();
    assert_eq!(of_variable.config.server.admin_token, Some(Secret::new("a-token-of-a-variable")));
    for shown in [of_variable.settings.to_toml(), format!("{of_variable:?}"), format!("{loaded:?}")] {
        assert!(!shown.contains("a-token-of"), "{shown}");
    }
    for (text, fault) in [
        (
            "[server]\nadmin_token = \"short\"",
            "tidegate.toml:2:1: server.admin_token: the token is too short",
        ),
        ("[server]\nadmin_token_file = \"no\"", "server.admin_token_file: \"no\" cannot be read"),
        (
            "[server]\nadmin_token = \"0123456789abcdef\"\nadmin_token_file = \"no\"",
            "admin_token and admin_token_file are both given",
        ),
    ] {
        let faults = faults_of(text, &[]);
        assert!(faults.contains(fault) && faults.lines().count() == 2, "{faults}");
    }
}

#[test]
fn the_password_of_the_first_administrator_comes_from_one_place_and_never_prints() {
    let directory =
        directory_with("[auth]\nadministrator_password_file = \"password\"\ntoken_lifetime = \"1h\"");
    fs::write(directory.path().join("password"), "a password of a file\r\n").unwrap();
    let loaded = Config::load(&sources(directory.path(), &[])).unwrap();
    assert_eq!(loaded.config.auth.administrator_password, Some(Secret::new("a password of a file")));
    assert_eq!(loaded.config.auth.token_lifetime, Duration::from_hours(1));
    let variables = [("TIDEGATE_AUTH__ADMINISTRATOR_PASSWORD", "a password of a variable")];
    let of_variable = load("", &variables).unwrap();
    assert_eq!(of_variable.config.auth.administrator_password, Some(Secret::new("a password of a variable")));
    for shown in [of_variable.settings.to_toml(), format!("{of_variable:?}"), format!("{loaded:?}")] {
        assert!(!shown.contains("a password of"), "{shown}");
    }
    for (keys, fault) in [
        (
            "administrator_password = \"short\"",
            "tidegate.toml:2:1: auth.administrator_password: the password is too short or too long",
        ),
        ("administrator_password_file = \"no\"", "auth.administrator_password_file: \"no\" cannot be read"),
        (
            "administrator_password = \"0123456789abcdef\"\nadministrator_password_file = \"no\"",
            "administrator_password and administrator_password_file are both given",
        ),
        ("token_lifetime = \"61m\"", "tidegate.toml:2:1: auth.token_lifetime: that is too long"),
        ("token_lifetime = \"59s\"", "auth.token_lifetime: \"59s\" is too small"),
    ] {
        let faults = faults_of(&format!("[auth]\n{keys}"), &[]);
        assert!(faults.contains(fault) && faults.lines().count() == 2, "{faults}");
    }
}

#[test]
fn files_of_tls_are_read_and_checked() {
    let directory =
        directory_with("[server]\ntls = { certificate = \"cert.pem\", private_key = \"key.pem\" }");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls = Config::load(&sources(directory.path(), &[])).unwrap().config.server.tls.unwrap();
    assert_eq!(tls.certificate, directory.path().join("cert.pem"));
    fs::write(directory.path().join("key.pem"), made.cert.pem()).unwrap();
    let faults = Config::load(&sources(directory.path(), &[])).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults}");
    assert!(faults.to_string().contains("holds no private key"), "{faults}");
}

#[test]
fn a_named_file_must_exist_and_be_text() {
    let directory = tempfile::tempdir().unwrap();
    let mut sources = sources(directory.path(), &[]);
    sources.file = Some("other.toml".into());
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "other.toml: the file cannot be read: No such file or directory (os error 2)\n    remedy: name an existing, readable file with --config"
    );
    fs::write(directory.path().join("other.toml"), [0xff, 0xfe]).unwrap();
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "other.toml: the file is not UTF-8\n    remedy: save it in UTF-8"
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = directory_with(
        "[server]\nlisten = [\"127.0.0.1:1\"]\nadmin_listen = \"127.0.0.1:2\"\n[storage]\nmax_size = \"1GiB\"",
    );
    let variables = [
        ("TIDEGATE_SERVER__LISTEN", "127.0.0.1:3, [::1]:3"),
        ("TIDEGATE_SERVER__ADMIN_LISTEN", "127.0.0.1:4"),
        ("TIDEGATE_STORAGE__MAX_SIZE", "20GiB"),
        ("TIDEGATE_UPSTREAM__DOCKER_IO__USERNAME", "me"),
        ("TIDEGATE_UPSTREAM__DOCKER_IO__PASSWORD", "hunter2"),
        ("TIDEGATE_UPSTREAM__1__DENY", "evil/*,bad/*"),
        ("TIDEGATE_UPSTREAM__7__NAME", "corp.example:5000"),
        ("TIDEGATE_UPSTREAM__7__ENDPOINTS", "http://127.0.0.1:5000"),
        ("TIDEGATE_PORT_5000_TCP_ADDR", "10.0.0.1"),
    ];
    let mut sources = sources(directory.path(), &variables);
    sources.flags.admin_listen = Some("127.0.0.1:5".to_owned());
    let Loaded { config, settings, .. } = Config::load(&sources).unwrap();
    assert_eq!(config.server.listen, ["127.0.0.1:3".parse().unwrap(), "[::1]:3".parse().unwrap()]);
    assert_eq!(config.server.admin_listen, "127.0.0.1:5".parse().unwrap());
    assert_eq!(config.storage.max_size_bytes, 20 << 30);
    let credentials = Credentials::Password { username: "me".to_owned(), password: Secret::new("hunter2") };
    assert_eq!(config.upstreams[0].credentials, [credentials]);
    assert_eq!(config.upstreams[1].deny, ["evil/*", "bad/*"]);
    assert_eq!((config.upstreams.len(), config.upstreams[7].name.as_str()), (8, "corp.example:5000"));
    let origin = |key: &str| settings.entries().into_iter().find(|entry| entry.key == key).unwrap().origin;
    assert_eq!(origin("server.listen"), "environment TIDEGATE_SERVER__LISTEN");
    assert_eq!(origin("server.admin_listen"), "flag --admin-listen");
    assert_eq!(origin("storage.path"), "default");
}

#[test]
fn faults_of_variables_name_the_nearest() {
    for (variable, value, expected) in [
        (
            "TIDEGATE_STORAGE_MAX_SIZE",
            "1GiB",
            "environment TIDEGATE_STORAGE_MAX_SIZE: unknown variable\n    remedy: did you mean TIDEGATE_STORAGE__MAX_SIZE?",
        ),
        (
            "TIDEGATE_STORAGE__MAX_SIZE",
            "1",
            "environment TIDEGATE_STORAGE__MAX_SIZE: storage.max_size: \"1\" has no unit\n    remedy: write a number and a unit, such as \"10GiB\" or \"500MB\"",
        ),
        (
            "TIDEGATE_UPSTREAM__DOKER_IO__USERNAME",
            "me",
            "environment TIDEGATE_UPSTREAM__DOKER_IO__USERNAME: upstream: there is no upstream DOKER_IO\n    remedy: did you mean DOCKER_IO?",
        ),
        (
            "TIDEGATE_UPSTREAM__9__NAME",
            "a.io",
            "environment TIDEGATE_UPSTREAM__9__NAME: upstream: there is no upstream number 9\n    remedy: the numbers go from 0; 7 adds one",
        ),
        (
            "TIDEGATE_UPSTREAM__DOCKER_IO__PASWORD",
            "hunter2",
            "environment TIDEGATE_UPSTREAM__DOCKER_IO__PASWORD: upstream: unknown variable\n    remedy: did you mean TIDEGATE_UPSTREAM__DOCKER_IO__PASSWORD?",
        ),
        (
            "TIDEGATE_UPSTREAM__NAME",
            "a.io",
            "environment TIDEGATE_UPSTREAM__NAME: upstream: the variable names no upstream\n    remedy: write TIDEGATE_UPSTREAM__<NAME>__<KEY>, such as TIDEGATE_UPSTREAM__DOCKER_IO__USERNAME",
        ),
    ] {
        assert_eq!(faults_of("", &[(variable, value)]), expected);
    }
}

#[test]
fn an_entry_of_a_known_registry_keeps_what_it_leaves_out() {
    let config = load("[[upstream]]\nname = \"docker.io\"\nfresh_for = \"5m\"", &[]).unwrap().config;
    let [hub] = &config.upstreams[..] else { panic!("one upstream replaces the list") };
    assert!(hub.default && hub.library_prefix);
    assert_eq!(hub.endpoints, ["https://registry-1.docker.io"]);
    assert_eq!(hub.freshness.fresh_for, Duration::from_mins(5));
    // What another entry claims is that entry's.
    let text = "[[upstream]]\nname = \"docker.io\"\n[[upstream]]\nname = \"index.docker.io\"\ndefault = true";
    let config = load(text, &[]).unwrap().config;
    assert!(!config.upstreams[0].default && config.upstreams[1].default);
    assert_eq!(config.upstreams[0].aliases, ["registry-1.docker.io", "registry.hub.docker.com"]);
    // Others speak TLS to the host of their name.
    let config = load("[[upstream]]\nname = \"corp.example:5000\"", &[]).unwrap().config;
    assert_eq!(config.upstreams[0].endpoints, ["https://corp.example:5000"]);
    assert!(!config.upstreams[0].default);
}

#[test]
fn secrets_never_print() {
    let text = "[[upstream]]\nname = \"a.io\"\nusername = \"me\"\npassword = \"hunter2\"";
    let loaded = load(text, &[]).unwrap();
    let shown = loaded.settings.to_toml();
    assert!(shown.contains("password = \"[redacted]\"  # file tidegate.toml:4\n"), "{shown}");
    let json = serde_json::to_string(&loaded.settings.entries()).unwrap();
    for text in [&shown, &json, &format!("{loaded:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Faults quote values, but not these; the TOML parser's own report would quote the line.
    for bad in [
        "[[upstream]]\nname = \"a.io\"\npassword = [\"hunter2\"]",
        "[[upstream]]\nname = \"a.io\"\npassword = \"hunter2",
        "[[upstream]]\nname = \"a.io\"\nendpoints = [\"https://me:hunter2@a.io\"]",
        "[events]\nurl = \"redis://:hunter2@host\"",
    ] {
        let faults = faults_of(bad, &[]);
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

#[test]
fn what_is_shown_is_exact_and_can_be_loaded_again() {
    let text = "[server]\nlisten = [\"127.0.0.1:7\"]\n[[upstream]]\nname = \"corp\"\nendpoints = [\"http://127.0.0.1:9/base/\"]\nallow = [\"a/*\"]";
    let shown = load(text, &[("TIDEGATE_LOGGING__LEVEL", "debug")]).unwrap().settings.to_toml();
    assert_eq!(
        shown,
        r#"[server]
listen = ["127.0.0.1:7"]  # file tidegate.toml:2
admin_listen = "127.0.0.1:5001"  # default
# admin_token is not set: what callers of the admin API have to show
# admin_token_file is not set: file that holds the token, read anew on SIGHUP
# external_url is not set: the URL that clients use, where a proxy in front hides it
max_connections = 4096  # default
header_timeout = "30s"  # default
idle_timeout = "2m"  # default
write_timeout = "5m"  # default
drain_timeout = "1m"  # default

# [server.tls]
# certificate is not set: PEM file: the certificate and its chain
# private_key is not set: PEM file: the private key

[auth]
# administrator_password is not set: password of the first account, admin, when it is created
# administrator_password_file is not set: file that holds that password
token_lifetime = "5m"  # default

[storage]
path = "data"  # default
max_size = "50GiB"  # default
min_free = "2%"  # default
memory = "64MiB"  # default
scrub_every = "7d"  # default
scrub_rate = "16MiB"  # default
collection_grace = "1d"  # default

[storage.object_store]
# url is not set: where hosted blobs are kept
# endpoint is not set: where the store's API is, where the URL does not say
# region is not set: region of the bucket (S3)
# access_key_id is not set: name of the access key (S3)
# secret_access_key is not set: secret of the access key (S3)
# secret_access_key_file is not set: file that holds that secret
# service_account_file is not set: JSON file of the service account (Google)
# account_name is not set: name of the storage account (Azure)
# account_key is not set: key of the storage account (Azure)
# account_key_file is not set: file that holds that key
options = []  # default
# ca_file is not set: PEM file with further certificate authorities
confirm = "size"  # default
redirect = false  # default

[metadata]
# url is not set: PostgreSQL database of the catalogue, shared by all nodes
# url_file is not set: file that holds that URL
max_connections = 16  # default

[logging]
format = "text"  # default
level = "debug"  # environment TIDEGATE_LOGGING__LEVEL

[site]
name = "default"  # default
offline = false  # default
platforms = []  # default
bundle_keys = []  # default

[[upstream]]
name = "corp"  # file tidegate.toml:4
endpoints = ["http://127.0.0.1:9/base"]  # file tidegate.toml:5
aliases = []  # default
default = false  # default
library_prefix = false  # default
# offline is not set: whether no packet may leave for it; else [site] says
# platforms is not set: platforms that its images are to be complete for
prefetch = "off"  # default
# username is not set: user name towards the registry
# password is not set: password or token of that user
# password_file is not set: file that holds the password, read anew when it changes
# credential_helper is not set: docker-credential-… program that knows user and password
# ca_file is not set: PEM file with further certificate authorities
trusted_hosts = []  # default
allow = ["a/*"]  # file tidegate.toml:6
deny = []  # default
fresh_for = "1m"  # default
stale_while_revalidate = "1m"  # default
stale_if_error = "30d"  # default
negative_for = "10s"  # default
keep_deleted = "30d"  # default
pin_deleted = false  # default
connect_timeout = "5s"  # default
first_byte_timeout = "20s"  # default
silence_timeout = "30s"  # default
miss_timeout = "4s"  # default
max_concurrent_requests = 64  # default
# credentials is not set: several users, used in turn
"#
    );
    assert_eq!(load(&shown, &[]).unwrap().settings.to_toml().lines().count(), shown.lines().count());
}

#[test]
fn a_reload_knows_what_has_to_wait() {
    let before = load("[[upstream]]\nname = \"a.io\"\n[[upstream]]\nname = \"b.io\"", &[]).unwrap().settings;
    let text = "[server]\nlisten = [\"127.0.0.1:7\"]\n[storage]\nmax_size = \"1GiB\"\n[logging]\nlevel = \"debug\"\n\
                [[upstream]]\nname = \"b.io\"\nfresh_for = \"2m\"\n[[upstream]]\nname = \"c.io\"";
    let after = load(text, &[]).unwrap().settings;
    assert!(before.difference(&before).is_empty());
    let difference = before.difference(&after);
    assert_eq!(difference.restart, ["server.listen"]);
    assert_eq!(
        difference.live,
        ["storage.max_size", "logging.level", "upstream.a.io", "upstream.b.io", "upstream.c.io"]
    );
    let swapped = load("[[upstream]]\nname = \"b.io\"\n[[upstream]]\nname = \"a.io\"", &[]).unwrap().settings;
    assert_eq!(before.difference(&swapped).live, ["upstream"]);
}

#[test]
fn turning_tls_on_waits_for_a_restart_and_new_files_do_not() {
    let directory = directory_with("");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
        fs::write(directory.path().join(name), &text).unwrap();
        fs::write(directory.path().join(format!("new-{name}")), &text).unwrap();
    }
    let with = |prefix: &str| {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| format!("{prefix}{name}"));
        let variables = [
            ("TIDEGATE_SERVER__TLS__CERTIFICATE", &*certificate),
            ("TIDEGATE_SERVER__TLS__PRIVATE_KEY", &*key),
        ];
        Config::load(&sources(directory.path(), &variables)).unwrap().settings
    };
    let plain = Config::load(&sources(directory.path(), &[])).unwrap().settings;
    let keys = ["server.tls.certificate", "server.tls.private_key"];
    assert_eq!(plain.difference(&with("")).restart, keys);
    assert_eq!(with("").difference(&with("new-")).live, keys);
}

/// The example file with its commented keys and sections brought to life, except those whose name
/// `is_left_out`.
fn uncommented(is_left_out: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for line in include_str!("../../config/tidegate.toml").lines() {
        let candidate = line.strip_prefix("# ").unwrap_or(line);
        let name = candidate.split(" = ").next().unwrap_or_default();
        let is_key = candidate.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if (is_key && !is_left_out(candidate)) || candidate.starts_with('[') {
            text.push_str(candidate);
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_example_file_names_exactly_the_known_keys() {
    let text = uncommented(|_| false);
    let document: toml::Table = text.parse().expect("the example is valid TOML");
    let mut named = Vec::new();
    for (section, value) in &document {
        let table = value.as_table().or_else(|| value[0].as_table()).unwrap();
        for (name, value) in table {
            match value.as_table() {
                Some(inner) => named.extend(inner.keys().map(|key| format!("{section}.{name}.{key}"))),
                None if value.as_array().is_some_and(|list| list.iter().any(toml::Value::is_table)) => {
                    let tables = value.as_array().unwrap().iter().filter_map(|element| element.as_table());
                    let keys: BTreeSet<_> = tables.flat_map(|table| table.keys()).collect();
                    named.extend(keys.iter().map(|key| format!("{section}.{name}.{key}")));
                }
                None => named.push(format!("{section}.{name}")),
            }
        }
    }
    let supported = KEYS.iter().filter(|key| !matches!(key.item, Item::Unsupported(_)));
    let mut known: Vec<_> = supported.map(keys::Key::path).collect();
    named.sort();
    known.sort();
    assert_eq!(named, known);
}

#[test]
fn the_example_file_is_valid_and_shows_the_defaults() {
    let as_it_is = load(include_str!("../../config/tidegate.toml"), &[]).unwrap();
    let defaults = load("", &[]).unwrap();
    assert!(as_it_is.settings.difference(&defaults.settings).is_empty());
    // Two ways to give a password and a time are shown; only one of each may be in effect.
    let directory = directory_with(&uncommented(|line| {
        let name = line.split(" = ").next().unwrap_or_default();
        let is_second_url = line.starts_with("url = \"postgres");
        is_second_url
            || [
                "access_key_id",
                "account_key",
                "account_key_file",
                "account_name",
                "admin_token",
                "administrator_password",
                "credential_helper",
                "credentials",
                "daily",
                "password",
                "secret_access_key",
                "secret_access_key_file",
                "service_account_file",
            ]
            .contains(&name)
    }));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [
        ("cert.pem", made.cert.pem()),
        ("corp-ca.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("docker-hub-token", "secret\n".to_owned()),
        ("admin-token", "0123456789abcdef\n".to_owned()),
        ("administrator-password", "0123456789abcdef\n".to_owned()),
        ("database-url", "postgres://tidegate@db.example.com/tidegate\n".to_owned()),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let full = Config::load(&sources(directory.path(), &[])).unwrap();
    let values = |settings: &Settings| {
        let entries = settings.entries().into_iter();
        entries.map(|entry| (entry.key, entry.value)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (full, defaults) = (values(&full.settings), values(&defaults.settings));
    let examples = [
        "admin_token_file",
        "administrator_password_file",
        "external_url",
        "certificate",
        "private_key",
        "upstream[0].offline",
        "upstream[0].platforms",
        "username",
        "password_file",
        "ca_file",
        "trusted_hosts",
        "storage.object_store.url",
        "storage.object_store.endpoint",
        "storage.object_store.region",
        "storage.object_store.options",
        "metadata.url_file",
    ];
    for (key, value) in full {
        if key.starts_with("warm[0].") {
            continue;
        }
        let is_example = examples.iter().any(|name| key == *name || key.ends_with(&format!(".{name}")));
        assert_eq!(defaults.get(&key) != Some(&value), is_example, "{key} = {value}");
    }
}

#[test]
fn the_promised_configuration_loads_as_it_is_written() {
    let text = r#"
[server]
listen = ["127.0.0.1:5000"]
admin_listen = "127.0.0.1:5001"
[storage]
path = "data"
max_size = "50GiB"
[metadata]
[events]
[site]
name = "default"
[[upstream]]
name = "docker.io"
endpoints = ["https://registry-1.docker.io"]
aliases = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"]
default = true
library_prefix = true
allow = ["*"]
deny = []
fresh_for = "1m"
stale_while_revalidate = "1m"
stale_if_error = "30d"
negative_for = "10s"
"#;
    let config = load(text, &[]).unwrap().config;
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.upstreams[0], load("", &[]).unwrap().config.upstreams[0]);
}

#[test]
fn where_hosted_content_is_kept_is_read_whole() {
    let text = r#"
[storage]
object_store = { url = "s3://bucket/prefix", endpoint = "http://127.0.0.1:9", region = "eu", access_key_id = "id", secret_access_key = "hunter2", options = ["Virtual_Hosted_Style_Request = true"], confirm = "content", redirect = true }
[metadata]
url = "postgres://user:hunter3@host/db"
"#;
    let loaded = load(text, &[]).unwrap();
    let store = loaded.config.storage.object_store.unwrap();
    assert!(store.reads_back && store.redirects);
    assert_eq!(store.store.url, "s3://bucket/prefix");
    let options: Vec<_> =
        store.store.options.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(
        options,
        [
            ("region", "eu"),
            ("access_key_id", "id"),
            ("allow_http", "true"),
            ("endpoint", "http://127.0.0.1:9"),
            ("secret_access_key", "hunter2"),
            ("virtual_hosted_style_request", "true"),
        ]
    );
    assert_eq!(loaded.config.database.unwrap().url.expose(), "postgres://user:hunter3@host/db");
    let shown = loaded.settings.to_toml();
    assert!(!shown.contains("hunter") && !shown.contains("Virtual"), "{shown}");
}

#[test]
fn a_store_that_is_told_half_or_too_much_says_what_is_wrong() {
    for (text, expected) in [
        (
            "[storage.object_store]\nregion = \"eu\"",
            "tidegate.toml:2:1: storage.object_store.region: there is no url that it belongs to\n    remedy: add storage.object_store.url, or remove storage.object_store: blobs are then kept under storage.path",
        ),
        (
            "[storage.object_store]\nurl = \"gs://bucket\"\nregion = \"eu\"",
            "tidegate.toml:3:1: storage.object_store.region: it is for stores whose url begins with s3://\n    remedy: remove it",
        ),
        (
            "[storage.object_store]\nurl = \"gs://bucket\"\noptions = [\"hidden\"]",
            "tidegate.toml:3:1: storage.object_store.options: an option has no name\n    remedy: write each as \"NAME=VALUE\"",
        ),
        (
            "[storage.object_store]\nurl = \"az://container\"\naccount_key = \"hidden\"\naccount_key_file = \"none\"",
            "tidegate.toml:3:1: storage.object_store.account_key: account_key and account_key_file are both given\n    remedy: remove one of them",
        ),
        (
            "[storage]\nobject_store = \"s3://bucket\"",
            "tidegate.toml:2:1: storage.object_store: storage.object_store is a table\n    remedy: write object_store = { url = \"…\", endpoint = \"…\", region = \"…\", access_key_id = \"…\", secret_access_key = \"…\", secret_access_key_file = \"…\", service_account_file = \"…\", account_name = \"…\", account_key = \"…\", account_key_file = \"…\", options = \"…\", ca_file = \"…\", confirm = \"…\", redirect = \"…\" }",
        ),
    ] {
        assert_eq!(faults_of(text, &[]), expected, "{text}");
    }
}
