//! The binary from outside: exit codes, messages, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the binary in `directory` with an environment of its own.
fn tidegate(directory: &Path, args: &[&str]) -> Output {
    tidegate_with(directory, args, &[])
}

fn tidegate_with(directory: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn config_check_reports_every_fault_and_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[storage]\nmax_sise = \"1GiB\"\n[server]\nidle_timeout = \"soon\"\n";
    fs::write(directory.path().join("faulty.toml"), file).unwrap();
    let variables = [("TIDEGATE_LOGGING__LEVEL", "inof")];
    let output = tidegate_with(directory.path(), &["config", "check", "--config", "faulty.toml"], &variables);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        r#"faulty.toml:2:1: storage.max_sise: unknown key
    remedy: did you mean max_size (byte budget of cached blobs)?
faulty.toml:4:16: server.idle_timeout: "soon" is not a duration
    remedy: write numbers with the units ms, s, m, h, d or w, such as "30s", "7d" or "1h30m"
environment TIDEGATE_LOGGING__LEVEL: logging.level: "inof" is not a log level
    remedy: write error, warn, info, debug or trace, or levels by module such as "info,tidegate::upstream=debug"
error: 3 faults in the configuration
"#
    );
    // The server refuses such a configuration with the same words.
    let served = tidegate_with(directory.path(), &["--config", "faulty.toml"], &variables);
    assert_eq!((served.status.code(), stderr(&served)), (Some(2), stderr(&output)));
}

#[test]
fn config_check_speaks_json() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("tidegate.toml"), "[storage]\nmax_size = 5\n").unwrap();
    let output = tidegate(directory.path(), &["config", "check", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["valid"], false);
    let fault = &report["faults"][0];
    assert_eq!(fault["file"], "tidegate.toml");
    assert_eq!((&fault["line"], &fault["column"]), (&2.into(), &12.into()));
    assert_eq!(fault["key"], "storage.max_size");
    assert_eq!(fault["reason"], "expected a string, found an integer");
}

#[test]
fn a_valid_configuration_exits_0() {
    let directory = tempfile::tempdir().unwrap();
    let output = tidegate(directory.path(), &["config", "check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "there is no file, and the defaults are valid\n");
    fs::write(directory.path().join("tidegate.toml"), "").unwrap();
    let output = tidegate(directory.path(), &["config", "check"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "tidegate.toml is valid\n"));
}

#[test]
fn config_show_names_origins_and_hides_secrets() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("tidegate.toml"), "[site]\nname = \"berlin\"\n").unwrap();
    let variables = [
        ("TIDEGATE_STORAGE__MAX_SIZE", "20GiB"),
        ("TIDEGATE_UPSTREAM__DOCKER_IO__USERNAME", "me"),
        ("TIDEGATE_UPSTREAM__DOCKER_IO__PASSWORD", "hunter2"),
    ];
    let output = tidegate_with(directory.path(), &["config", "show"], &variables);
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "name = \"berlin\"  # file tidegate.toml:2",
        "max_size = \"20GiB\"  # environment TIDEGATE_STORAGE__MAX_SIZE",
        "memory = \"64MiB\"  # default",
        "password = \"[redacted]\"  # environment TIDEGATE_UPSTREAM__DOCKER_IO__PASSWORD",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hunter2"));
    let json = tidegate_with(directory.path(), &["config", "show", "--output", "json"], &variables);
    let entries: Vec<serde_json::Value> = serde_json::from_str(stdout(&json)).unwrap();
    assert!(
        entries.iter().any(|entry| entry["key"] == "upstream[0].password" && entry["value"] == "[redacted]")
    );
}

#[test]
fn wrong_usage_exits_2_and_suggests() {
    let directory = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["srve"][..], "a similar subcommand exists: 'serve'"),
        (&["config"], "Usage: tidegate config <COMMAND>"),
        (&["serve", "--lisen", "x"], "a similar argument exists: '--listen'"),
        (&["client-config", "dokcer", "--url", "http://a"], "a similar value exists: 'docker'"),
        (&["client-config", "docker"], "--url <URL>"),
        (&["client-config", "docker", "--url", "a:5000"], "remedy: give scheme, host and port"),
        (
            &["client-config", "docker", "--url", "http://a", "--upstream", "x.io"],
            "there is no upstream \"x.io\"",
        ),
        (
            &["--listen", "nonsense"],
            "flag --listen: server.listen: \"nonsense\" is not an address with a port",
        ),
        (&["config", "show", "--config", "none.toml"], "none.toml: the file cannot be read"),
    ] {
        let output = tidegate(directory.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn help_has_examples_and_goes_to_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["config", "check", "--help"],
        &["config", "show", "--help"],
        &["client-config", "--help"],
        &["help", "client-config"],
    ] {
        let output = tidegate(directory.path(), args);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
        assert!(stdout(&output).contains("Example:\n  tidegate "), "{args:?}: {}", stdout(&output));
    }
    let version = tidegate(directory.path(), &["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(stdout(&version), concat!("tidegate ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn client_config_prints_only_what_the_client_reads() {
    let directory = tempfile::tempdir().unwrap();
    let url = ["--url", "http://127.0.0.1:5000"];
    let docker = tidegate(directory.path(), &[&["client-config", "docker"], &url[..]].concat());
    let daemon: serde_json::Value = serde_json::from_str(stdout(&docker)).unwrap();
    assert_eq!(daemon["registry-mirrors"][0], "http://127.0.0.1:5000");
    assert!(stderr(&docker).contains("systemctl reload docker"));
    let podman = tidegate(directory.path(), &[&["client-config", "podman"], &url[..]].concat());
    let registries: toml::Table = stdout(&podman).parse().unwrap();
    assert_eq!(registries["registry"].as_array().unwrap().len(), 7, "the built-in list");
    let one =
        tidegate(directory.path(), &[&["client-config", "k3s", "--upstream", "quay.io"], &url[..]].concat());
    assert_eq!(
        stdout(&one),
        "# /etc/rancher/k3s/registries.yaml\nmirrors:\n  \"quay.io\":\n    endpoint:\n      - \"http://127.0.0.1:5000\"\n"
    );
    let json = tidegate(
        directory.path(),
        &[&["client-config", "containerd", "--output", "json"], &url[..]].concat(),
    );
    let report: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(report["files"][0]["path"], "/etc/containerd/certs.d/docker.io/hosts.toml");
}

#[test]
fn client_config_writes_the_tree_that_containerd_reads() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("tidegate.toml"), "[[upstream]]\nname = \"ghcr.io\"\n").unwrap();
    let args = ["client-config", "containerd", "--url", "https://p.example", "--output-dir", "certs.d"];
    let output = tidegate(directory.path(), &args);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "certs.d/ghcr.io/hosts.toml\ncerts.d/_default/hosts.toml\n");
    let hosts = fs::read_to_string(directory.path().join("certs.d/ghcr.io/hosts.toml")).unwrap();
    assert!(hosts.starts_with("server = \"https://ghcr.io\"\n"), "{hosts}");
    fs::write(directory.path().join("certs.d/_default/hosts.toml"), "mine").unwrap();
    let again = tidegate(directory.path(), &args);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("remedy: merge it by hand, or replace it with --force"),
        "{}",
        stderr(&again)
    );
}

#[test]
fn key_create_makes_a_pair_that_only_its_owner_reads_and_overwrites_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let output = tidegate(directory.path(), &["key", "create", "--output", "bundle.key"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let private = directory.path().join("bundle.key");
    let public = fs::read_to_string(directory.path().join("bundle.key.pub")).unwrap();
    assert_eq!(stdout(&output), public);
    assert!(public.starts_with("ed25519:") && public.len() == "ed25519:".len() + 45, "{public}");
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = fs::read_to_string(&private).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{pem}");
    let again = tidegate(directory.path(), &["key", "create", "--output", "bundle.key"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(stderr(&again), "error: bundle.key exists already: choose another name, or move it away\n");
    assert_eq!(fs::read_to_string(&private).unwrap(), pem);
}
