//! Images in files: plain lists, docker-compose files, Kubernetes manifests.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use crate::oci::ImagePattern;

/// Keys whose lists hold containers, wherever in a manifest they stand: pods, templates of pods in every kind of
/// workload, lists of those, and what others define.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Finds all images that a file names, in its order. What it is, its content tells: a list is one whose every line
/// is an image.
///
/// Errors: it is neither, it names no image, or an image is malformed or depends on a variable that is not set.
pub(super) fn find(
    path: &Path,
    text: &str,
    environment: &HashMap<String, String>,
) -> anyhow::Result<Vec<String>> {
    let is_yaml = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml"));
    let images = match read_list(text) {
        Ok(images) if !is_yaml => images,
        Err(error) if !is_yaml && !looks_like_yaml(text) => return Err(error),
        _ => read_yaml(text, environment)?,
    };
    if images.is_empty() {
        bail!(
            "it names no image: it should be a list of images, a docker-compose file or Kubernetes manifests"
        );
    }
    for image in &images {
        image.parse::<ImagePattern>().with_context(|| format!("image \"{image}\""))?;
    }
    Ok(images)
}

/// One image a line; what follows a # is a comment.
fn read_list(text: &str) -> anyhow::Result<Vec<String>> {
    let mut images = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let image = line.split('#').next().unwrap_or_default().trim();
        if !image.is_empty() {
            image.parse::<ImagePattern>().with_context(|| format!("line {number}: \"{image}\""))?;
            images.push(image.to_owned());
        }
    }
    Ok(images)
}

fn looks_like_yaml(text: &str) -> bool {
    text.lines().any(|line| line.contains(": ") || line.ends_with(':') || line.trim_end() == "---")
}

fn read_yaml(text: &str, environment: &HashMap<String, String>) -> anyhow::Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(text).context("it is no valid YAML")?;
    let mut images = Vec::new();
    for document in &documents {
        let services = document["services"].as_hash().filter(|_| document["kind"].is_badvalue());
        match services {
            Some(services) => find_in_services(services, environment, &mut images)?,
            None => find_in_manifest(document, &mut images),
        }
    }
    Ok(images)
}

/// Docker-compose: a service without an image is built, and nowhere to be fetched.
fn find_in_services(
    services: &Hash,
    environment: &HashMap<String, String>,
    images: &mut Vec<String>,
) -> anyhow::Result<()> {
    for (name, service) in services {
        let Some(image) = service["image"].as_str() else { continue };
        let image = interpolate(image, environment)
            .with_context(|| format!("service {}: image \"{image}\"", name.as_str().unwrap_or_default()))?;
        images.push(image);
    }
    Ok(())
}

/// Kubernetes. No recursion: manifests may be nested deeply.
fn find_in_manifest(document: &Yaml, images: &mut Vec<String>) {
    let mut rest = vec![document];
    while let Some(node) = rest.pop() {
        match node {
            Yaml::Array(elements) => rest.extend(elements.iter().rev()),
            Yaml::Hash(entries) => {
                for (key, value) in entries {
                    match key.as_str() {
                        Some(key) if CONTAINERS.contains(&key) => {
                            let containers = value.as_vec().into_iter().flatten();
                            images.extend(
                                containers
                                    .filter_map(|container| container["image"].as_str())
                                    .map(str::to_owned),
                            );
                        }
                        // A volume whose content is an image.
                        Some("image") => images.extend(value["reference"].as_str().map(str::to_owned)),
                        _ => {}
                    }
                }
                let values: Vec<_> = entries.iter().map(|(_, value)| value).collect();
                rest.extend(values.into_iter().rev());
            }
            _ => {}
        }
    }
}

/// Puts variables in place, as docker-compose does: `$NAME`, `${NAME}`, `${NAME-default}` where it is not set and
/// `${NAME:-default}` also where it is empty; `$$` is a dollar sign.
fn interpolate(text: &str, environment: &HashMap<String, String>) -> anyhow::Result<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (expression, after) = match after.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or_else(|| anyhow!("a brace is not closed"))?,
            None => after.split_at(name_length(after)),
        };
        result.push_str(&evaluate(expression, environment)?);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

fn evaluate(expression: &str, environment: &HashMap<String, String>) -> anyhow::Result<String> {
    let (name, operator) = expression.split_at(name_length(expression));
    let value = environment.get(name);
    match operator {
        _ if name.is_empty() => bail!("\"${expression}\" names no variable"),
        "" => value.cloned().ok_or_else(|| anyhow!("the variable {name} is not set")),
        _ => {
            let (default, is_set) = match (operator.strip_prefix(":-"), operator.strip_prefix('-')) {
                (Some(default), _) => (default, value.is_some_and(|value| !value.is_empty())),
                (_, Some(default)) => (default, value.is_some()),
                _ => bail!(
                    "\"${{{expression}}}\" is not understood: write ${{{name}}} or ${{{name}:-default}}"
                ),
            };
            Ok(value.filter(|_| is_set).cloned().unwrap_or_else(|| default.to_owned()))
        }
    }
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let environment =
            HashMap::from([("TAG".to_owned(), "7".to_owned()), ("NO".to_owned(), String::new())]);
        find(Path::new(name), text, &environment).unwrap()
    }

    fn fault(name: &str, text: &str) -> String {
        format!("{:#}", find(Path::new(name), text, &HashMap::new()).unwrap_err())
    }

    #[test]
    fn a_list_has_an_image_a_line() {
        let text =
            "# base\ndocker.io/library/alpine:3\n\n  ghcr.io/a/b:v1.*  # all of v1\r\nregistry.test:5000/c\n";
        let images = ["docker.io/library/alpine:3", "ghcr.io/a/b:v1.*", "registry.test:5000/c"];
        assert_eq!(found("images.txt", text), images);
        assert_eq!(found("-", text), images);
        assert!(fault("images.txt", "alpine:3\nnot an image\n").contains("line 2: \"not an image\""));
        assert!(fault("images.txt", "# nothing\n").contains("names no image"));
    }

    #[test]
    fn a_compose_file_names_an_image_a_service() {
        let text = "\
x-base: &base\n  image: redis:${TAG}\n  restart: always\n\
services:\n  cache:\n    <<: *base\n    image: redis:${TAG}\n  web:\n    image: \"nginx:${WEB:-1.27}${NO:-}\"\n  \
own:\n    build: .\n  db:\n    image: postgres:$TAG\n  same: *base\n";
        let images = ["redis:7", "nginx:1.27", "postgres:7", "redis:7"];
        assert_eq!(found("compose.yaml", text), images);
        assert_eq!(found("-", text), images);
        let unset = "services:\n  web:\n    image: nginx:${VERSION}\n";
        let reason = "service web: image \"nginx:${VERSION}\": the variable VERSION is not set";
        assert!(fault("docker-compose.yml", unset).contains(reason));
        assert!(
            fault("docker-compose.yml", "services:\n  web:\n    image: \"${A?b}\"\n")
                .contains("not understood")
        );
        assert!(fault("docker-compose.yml", "services:\n  web: {}\n").contains("names no image"));
        assert!(fault("docker-compose.yml", "services: [\n").contains("no valid YAML"));
        assert!(fault("docker-compose.yml", "services:\n  web:\n    image: A B\n").contains("image \"A B\""));
    }

    #[test]
    fn manifests_name_images_wherever_there_are_containers() {
        let text = "\
apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {name: a, image: 'a:1'}\n  initContainers:\n  - image: b:1\n  \
ephemeralContainers:\n  - image: c:1\n  volumes:\n  - name: data\n    image: {reference: 'd:1'}\n\
---\n# nothing here\n---\n\
apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          containers:\n          - image: e@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
---\n\
kind: List\nitems:\n- kind: Deployment\n  spec: {template: {spec: {containers: [{image: f:1}, {name: none}]}}}\n\
- kind: Pod\n  spec: {containers: [{image: g:1}]}\n  status: {containerStatuses: [{image: 'not:this'}]}\n";
        let mut images = found("pods.yaml", text);
        images.sort();
        let digest = "e@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(images, ["a:1", "b:1", "c:1", "d:1", digest, "f:1", "g:1"]);
        assert_eq!(found("-", text).len(), 7);
        // One that has a key of this name is no compose file.
        let odd = "kind: X\nservices: {a: {image: 'no:1'}}\nspec: {containers: [{image: 'h:1'}]}\n";
        assert_eq!(found("x.yml", odd), ["h:1"]);
    }
}
