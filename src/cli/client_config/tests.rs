//! The exact text for every client.

use super::*;

const PLAIN: &str = "http://10.0.0.5:5000";
const TLS: &str = "https://registry.example.com";

fn upstreams() -> Vec<UpstreamConfig> {
    let mut hub = UpstreamConfig::for_test("docker.io", "https://registry-1.docker.io");
    hub.default = true;
    vec![hub, UpstreamConfig::for_test("corp.example:5443", "https://corp.example:5443")]
}

fn render_with(
    client: Client,
    url: &str,
    ca: Option<&str>,
    upstreams: &[UpstreamConfig],
) -> anyhow::Result<Rendered> {
    let mirror = Mirror::parse(url, ca.map(ToOwned::to_owned)).unwrap();
    render(client, &mirror, &upstreams.iter().collect::<Vec<_>>(), true)
}

fn text(client: Client, url: &str, ca: Option<&str>) -> String {
    to_text(&render_with(client, url, ca, &upstreams()).unwrap().files)
}

#[test]
fn docker_gets_pure_json_and_clear_text_is_declared_insecure() {
    assert_eq!(
        text(Client::Docker, PLAIN, None),
        r#"{
  "insecure-registries": [
    "10.0.0.5:5000"
  ],
  "registry-mirrors": [
    "http://10.0.0.5:5000"
  ]
}
"#
    );
    assert_eq!(
        text(Client::Docker, TLS, None),
        r#"{
  "registry-mirrors": [
    "https://registry.example.com"
  ]
}
"#
    );
    let hints = render_with(Client::Docker, TLS, Some("/ca.pem"), &upstreams()).unwrap().hints;
    assert_eq!(
        hints,
        [
            "merge this into /etc/docker/daemon.json, then: systemctl reload docker",
            "copy /ca.pem to /etc/docker/certs.d/registry.example.com/ca.crt",
            "Docker mirrors docker.io only; what is of corp.example:5443 is pulled by the longer name, such as registry.example.com/corp.example:5443/NAME",
        ]
    );
}

#[test]
fn docker_names_the_registry_in_the_path_where_it_is_not_the_default() {
    let mut upstreams = upstreams();
    upstreams[0].default = false;
    let rendered = render_with(Client::Docker, TLS, None, &upstreams).unwrap();
    let daemon: serde_json::Value = serde_json::from_str(&to_text(&rendered.files)).unwrap();
    assert_eq!(daemon["registry-mirrors"][0], "https://registry.example.com/docker.io");
    let Err(error) = render_with(Client::Docker, TLS, None, &upstreams[1..]) else {
        panic!("there is no docker.io")
    };
    assert!(error.to_string().contains("remedy: pull images of other registries as registry.example.com/"));
}

#[test]
fn podman_and_cri_o_get_a_drop_in_with_one_mirror_a_registry() {
    let expected = r#"# /etc/containers/registries.conf.d/50-tidegate.conf
[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "10.0.0.5:5000/docker.io"
insecure = true

[[registry]]
prefix = "corp.example:5443"
location = "corp.example:5443"

[[registry.mirror]]
location = "10.0.0.5:5000/corp.example:5443"
insecure = true
"#;
    assert_eq!(text(Client::Podman, PLAIN, None), expected);
    assert_eq!(text(Client::CriO, PLAIN, None), expected);
    let tls = text(Client::Podman, TLS, Some("/ca.pem"));
    assert!(tls.contains("location = \"registry.example.com/docker.io\"\ninsecure = false\n"), "{tls}");
}

#[test]
fn containerd_gets_one_file_a_registry_and_a_default() {
    assert_eq!(
        text(Client::Containerd, PLAIN, None),
        r#"# /etc/containerd/certs.d/docker.io/hosts.toml
server = "https://registry-1.docker.io"

[host."http://10.0.0.5:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "2s"

# /etc/containerd/certs.d/corp.example_5443_/hosts.toml
server = "https://corp.example:5443"

[host."http://10.0.0.5:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "2s"

# /etc/containerd/certs.d/_default/hosts.toml
[host."http://10.0.0.5:5000"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "2s"
"#
    );
    let tls = text(Client::Containerd, TLS, Some("/etc/ssl/ca.pem"));
    assert!(tls.ends_with("[host.\"https://registry.example.com\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n  ca = \"/etc/ssl/ca.pem\"\n"), "{tls}");
}

#[test]
fn k3s_gets_every_registry_and_a_star() {
    assert_eq!(
        text(Client::K3s, TLS, Some("/etc/ssl/ca.pem")),
        r#"# /etc/rancher/k3s/registries.yaml
mirrors:
  "docker.io":
    endpoint:
      - "https://registry.example.com"
  "corp.example:5443":
    endpoint:
      - "https://registry.example.com"
  "*":
    endpoint:
      - "https://registry.example.com"
configs:
  "registry.example.com":
    tls:
      ca_file: "/etc/ssl/ca.pem"
"#
    );
    assert!(!text(Client::K3s, PLAIN, None).contains("configs:"));
}

#[test]
fn buildkit_gets_mirrors_with_paths_and_a_table_for_this_server() {
    assert_eq!(
        text(Client::Buildkit, PLAIN, None),
        r#"# /etc/buildkit/buildkitd.toml
[registry."docker.io"]
  mirrors = ["10.0.0.5:5000/docker.io"]

[registry."corp.example:5443"]
  mirrors = ["10.0.0.5:5000/corp.example:5443"]

[registry."10.0.0.5:5000"]
  http = true
"#
    );
    let tls = text(Client::Buildkit, TLS, Some("/ca.pem"));
    assert!(tls.ends_with("[registry.\"registry.example.com\"]\n  ca = [\"/ca.pem\"]\n"), "{tls}");
    assert!(!text(Client::Buildkit, TLS, None).contains("registry.\"registry.example.com\""));
}

#[test]
fn kaniko_gets_arguments_and_docker_hub_by_its_old_name() {
    assert_eq!(
        text(Client::Kaniko, PLAIN, None),
        "--registry-map=index.docker.io=10.0.0.5:5000/docker.io;corp.example:5443=10.0.0.5:5000/corp.example:5443\n\
         --insecure-registry=10.0.0.5:5000\n"
    );
    let tls = text(Client::Kaniko, TLS, Some("/ca.pem"));
    assert!(tls.ends_with("\n--registry-certificate=registry.example.com=/ca.pem\n"), "{tls}");
}

#[test]
fn toml_of_every_client_parses() {
    for client in [Client::Podman, Client::CriO, Client::Containerd, Client::Buildkit] {
        for (url, ca) in [(PLAIN, None), (TLS, None), (TLS, Some("/a \"b\".pem"))] {
            for file in render_with(client, url, ca, &upstreams()).unwrap().files {
                file.content.parse::<toml::Table>().unwrap_or_else(|error| panic!("{client:?}: {error}"));
            }
        }
    }
}

#[test]
fn an_upstream_without_a_host_name_is_reached_by_an_alias_or_by_its_path() {
    let mut corp = UpstreamConfig::for_test("corp", "https://registry.corp.example");
    let rendered = render_with(Client::Podman, TLS, None, std::slice::from_ref(&corp)).unwrap();
    assert_eq!(rendered.files[0].content, "");
    assert!(
        rendered.hints[1].contains("pull its images as registry.example.com/corp/NAME"),
        "{:?}",
        rendered.hints
    );
    corp.aliases.push("registry.corp.example".to_owned());
    let rendered = render_with(Client::Podman, TLS, None, &[corp]).unwrap();
    assert!(rendered.files[0].content.contains("prefix = \"registry.corp.example\""));
    assert!(rendered.files[0].content.contains("location = \"registry.example.com/corp\""));
}

#[test]
fn urls_are_scheme_host_and_port() {
    for good in ["http://a", "https://a:1/", "http://[::1]:5000"] {
        assert!(Mirror::parse(good, None).is_ok(), "{good}");
    }
    for bad in
        ["", "a:5000", "ftp://a", "https://a/path", "https://a?x", "https://u:p@a", "https://a/#x", "//a"]
    {
        assert!(Mirror::parse(bad, None).is_err(), "{bad}");
    }
    assert!(Mirror::parse("http://a", Some("/ca.pem".to_owned())).is_err());
}

#[test]
fn upstreams_are_chosen_by_name_or_alias() {
    let mut upstreams = upstreams();
    upstreams[0].aliases.push("index.docker.io".to_owned());
    let names = |chosen: &[&str]| {
        let chosen: Vec<_> = chosen.iter().map(|&name| name.to_owned()).collect();
        choose(&upstreams, &chosen)
            .map(|found| found.iter().map(|upstream| upstream.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&[]).unwrap(), ["docker.io", "corp.example:5443"]);
    assert_eq!(names(&["index.docker.io"]).unwrap(), ["docker.io"]);
    assert_eq!(
        names(&["ghcr.io"]).unwrap_err().to_string(),
        "there is no upstream \"ghcr.io\"\n    remedy: choose from docker.io, corp.example:5443, or add it to the configuration"
    );
}

#[test]
fn files_that_hold_something_else_are_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let files = render_with(Client::Containerd, PLAIN, None, &upstreams()).unwrap().files;
    let written = write_files(directory.path(), &files, false).unwrap();
    assert_eq!(written.len(), 3);
    assert_eq!(fs::read_to_string(directory.path().join("_default/hosts.toml")).unwrap(), files[2].content);
    // The same again is no change.
    write_files(directory.path(), &files, false).unwrap();
    fs::remove_file(&written[0]).unwrap();
    fs::write(&written[1], "mine").unwrap();
    let error = write_files(directory.path(), &files, false).unwrap_err().to_string();
    assert!(error.contains("is there already") && error.contains("--force"), "{error}");
    assert!(!written[0].exists(), "nothing is written where not all can be");
    write_files(directory.path(), &files, true).unwrap();
    assert_eq!(fs::read_to_string(&written[1]).unwrap(), files[1].content);
}
