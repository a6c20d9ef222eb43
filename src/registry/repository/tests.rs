//! Numbers in comments are those of the client compatibility checklist.

use super::table::Entry;
use super::*;

/// Docker Hub as the default, and three more.
fn entries() -> Vec<Entry> {
    let entry = |name: &str, aliases: &[&str]| Entry {
        name: name.into(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        default: false,
        library_prefix: false,
        allow: vec!["*".to_owned()],
        deny: vec![],
    };
    let hub_aliases = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub"];
    vec![
        Entry { default: true, library_prefix: true, ..entry("docker.io", &hub_aliases) },
        entry("ghcr.io", &[]),
        entry("gcr.io", &[]),
        entry("Reg.Corp:5000", &["corp:443", "corp"]),
    ]
}

fn spell<'a>(ns: &'a str, prefix: &'a str, name: &'a str) -> Spelling<'a> {
    let optional = |text: &'a str| (!text.is_empty()).then_some(text);
    Spelling {
        ns: optional(ns),
        prefix: optional(prefix),
        name,
        own_hosts: &["cache.corp:5000", "localhost:443"],
    }
}

fn resolve(table: &NameTable, ns: &str, prefix: &str, name: &str) -> String {
    match table.resolve(&spell(ns, prefix, name)) {
        Ok(meaning) => meaning.id.to_string(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn every_spelling_of_a_name_means_one_repository() {
    let table = NameTable::new(entries());
    for (ns, prefix, name, expected) in [
        // 54, 55: aliases, any case, default ports.
        ("docker.io", "", "library/alpine", "docker.io/library/alpine"),
        ("index.docker.io", "", "library/alpine", "docker.io/library/alpine"),
        ("registry-1.docker.io", "", "library/alpine", "docker.io/library/alpine"),
        ("Registry.Hub.Docker.COM", "", "library/alpine", "docker.io/library/alpine"),
        ("docker.io:443", "", "a/b", "docker.io/a/b"),
        ("ghcr.io:80", "", "a/b", "ghcr.io/a/b"),
        ("reg.corp:5000", "", "a/b", "Reg.Corp:5000/a/b"),
        ("", "", "reg.corp:5000/a/b", "Reg.Corp:5000/a/b"),
        ("CORP", "", "a", "Reg.Corp:5000/a"),
        // 60, 61: the default, and `library/` only there.
        ("", "", "alpine", "docker.io/library/alpine"),
        ("", "", "a/b", "docker.io/a/b"),
        ("docker.io", "", "alpine", "docker.io/library/alpine"),
        ("", "", "docker.io/alpine", "docker.io/library/alpine"),
        ("", "", "docker.io/library/alpine", "docker.io/library/alpine"),
        ("", "", "ghcr.io/alpine", "ghcr.io/alpine"),
        ("ghcr.io", "", "alpine", "ghcr.io/alpine"),
        ("", "", "docker.io", "docker.io/library/docker.io"),
        // 62, 67: a host or alias in front.
        ("", "", "Docker.io/a/b", "docker.io/a/b"),
        ("", "", "hub/alpine", "docker.io/library/alpine"),
        ("", "docker.io", "alpine", "docker.io/library/alpine"),
        ("", "GHCR.io:443", "a/b", "ghcr.io/a/b"),
        ("", "corp", "a.b/c", "Reg.Corp:5000/a.b/c"),
        // 58: agreeing is stripped once, disagreeing lets the path win.
        ("docker.io", "", "docker.io/library/alpine", "docker.io/library/alpine"),
        ("registry-1.docker.io", "", "docker.io/alpine", "docker.io/library/alpine"),
        ("docker.io", "", "docker.io/docker.io/a", "docker.io/docker.io/a"),
        ("docker.io", "docker.io", "docker.io/a", "docker.io/docker.io/a"),
        ("docker.io", "", "ghcr.io/a/b", "ghcr.io/a/b"),
        ("docker.io", "ghcr.io", "a/b", "ghcr.io/a/b"),
        ("quay.io", "", "ghcr.io/a/b", "ghcr.io/a/b"),
        ("docker.io", "", "hub/a", "docker.io/library/a"),
        ("ghcr.io", "", "hub/a", "ghcr.io/hub/a"),
        // A namespace with a dot, where the registry is told.
        ("gcr.io", "", "google.com/cloudsdktool/cloud-sdk", "gcr.io/google.com/cloudsdktool/cloud-sdk"),
        ("", "", "gcr.io/google.com/cloudsdktool/cloud-sdk", "gcr.io/google.com/cloudsdktool/cloud-sdk"),
        // 57: this server's own name says nothing.
        ("cache.corp:5000", "", "alpine", "docker.io/library/alpine"),
        ("Localhost", "", "ghcr.io/a", "ghcr.io/a"),
    ] {
        assert_eq!(resolve(&table, ns, prefix, name), expected, "{ns} {prefix} {name}");
    }
}

#[test]
fn registries_that_are_not_configured_are_errors() {
    // 56
    let table = NameTable::new(entries());
    for (ns, prefix, name, unknown) in [
        ("quay.io", "", "a/b", "quay.io"),
        ("quay.io", "", "quay.io/a/b", "quay.io"),
        ("169.254.169.254", "", "a", "169.254.169.254"),
        ("cache.corp", "", "a", "cache.corp"),
        ("docker.io:5000", "", "a", "docker.io:5000"),
        ("", "quay.io", "a/b", "quay.io"),
        ("docker.io", "quay.io", "a/b", "quay.io"),
        ("", "", "quay.io/a/b", "quay.io"),
        ("", "", "localhost/a", "localhost"),
        ("", "", "quay:5000/a", "quay:5000"),
        ("a\r\nb", "", "a", "of that name"),
    ] {
        let expected = format!("UnknownRegistry({unknown:?})");
        assert_eq!(resolve(&table, ns, prefix, name), expected, "{ns} {prefix} {name}");
    }
    let none = NameTable::new(entries().split_off(1));
    assert_eq!(resolve(&none, "", "", "alpine"), "NoDefaultRegistry");
    assert_eq!(resolve(&none, "", "", "ghcr.io/alpine"), "ghcr.io/alpine");
}

#[test]
fn only_names_that_say_their_registry_are_explicit() {
    let table = NameTable::new(entries());
    for (ns, prefix, name, explicit) in [
        ("", "", "alpine", false),
        ("cache.corp:5000", "", "alpine", false),
        ("docker.io", "", "alpine", true),
        ("", "docker.io", "alpine", true),
        ("", "", "docker.io/alpine", true),
    ] {
        assert_eq!(
            table.resolve(&spell(ns, prefix, name)).unwrap().explicit,
            explicit,
            "{ns} {prefix} {name}"
        );
    }
}

#[test]
fn names_that_break_the_grammar_upstream_are_invalid() {
    let table = NameTable::new(entries());
    let (long, short) = ("a".repeat(248), "a".repeat(247));
    // 66: with `library/` in front it is one byte too long.
    for name in [long.as_str(), "docker.io/A", "docker.io//a", ""] {
        assert!(resolve(&table, "", "", name).starts_with("NameInvalid"), "{name}");
    }
    assert_eq!(resolve(&table, "", "", &short), format!("docker.io/library/{short}"));
}

#[test]
fn rules_decide_which_repositories_are_pulled() {
    let mut entries = entries();
    entries[0].deny = vec!["nginx".into(), "evil/*".into(), "library/redis".into()];
    entries[1].allow = vec!["acme/*".into(), "x".into()];
    entries[2].allow = vec![];
    let table = NameTable::new(entries);
    for (name, allowed) in [
        ("alpine", true),
        ("nginx", false),
        ("library/nginx", false),
        ("docker.io/redis", false),
        ("acme/nginx", true),
        ("evil/a/b", false),
        ("ghcr.io/acme/a/b", true),
        ("ghcr.io/x", true),
        ("ghcr.io/y", false),
        ("gcr.io/a", false),
    ] {
        let found = table.resolve(&spell("", "", name));
        assert_eq!(found.is_ok(), allowed, "{name}");
        assert!(found.is_ok() || matches!(found, Err(RegistryError::Excluded(_))), "{name}");
    }
}

#[test]
fn names_of_the_catalogue_are_read_back() {
    let table = NameTable::new(entries());
    for (name, spelled) in [
        ("alpine", "docker.io/library/alpine"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
        ("reg.corp:5000/a", "corp/a"),
        ("gcr.io/google.com/a", "gcr.io/google.com/a"),
    ] {
        let id = table.resolve(&spell("", "", name)).unwrap().id;
        assert_eq!(table.client_name(&id), spelled);
        assert_eq!(table.resolve(&spell("", "", spelled)).unwrap().id, id);
        assert_eq!(table.read_client_name(spelled), Some(id));
    }
}

#[test]
fn whatever_is_resolved_can_be_spelled_again() {
    const PARTS: [&str; 12] = [
        "docker.io",
        "hub",
        "ghcr.io",
        "quay.io",
        "localhost",
        "corp",
        "a",
        "b.c",
        "library",
        "reg.corp:5000",
        "A",
        "",
    ];
    let table = NameTable::new(entries());
    bolero::check!().with_type::<(Option<u8>, Option<u8>, Vec<u8>)>().for_each(|(ns, prefix, name)| {
        let part = |place: &u8| PARTS[usize::from(*place) % PARTS.len()];
        let name = name.iter().map(part).collect::<Vec<_>>().join("/");
        let (ns, prefix) = (ns.as_ref().map(part), prefix.as_ref().map(part));
        let spelling = Spelling { ns, prefix, name: &name, own_hosts: &["localhost"] };
        if let Ok(meaning) = table.resolve(&spelling) {
            let spelled = table.client_name(&meaning.id);
            let again = table.resolve(&spell("", "", &spelled)).unwrap();
            assert_eq!((again.id, again.upstream), (meaning.id, meaning.upstream));
        }
    });
}
