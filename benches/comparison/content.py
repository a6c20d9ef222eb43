"""The files that every server serves: a registry laid out as static files.

The paths below `root` are the paths of the URLs, so that a static file server answers like a registry.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "bench/app"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# The size of the manifest: annotations fill it up.
MANIFEST_BYTES = 4 * KIB


@dataclass(frozen=True)
class Item:
    """One file of the registry."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Content:
    """The registry: blobs of four sizes, and a manifest that lists them."""

    root: Path
    huge: Item
    large: Item
    medium: Item
    small: Item
    manifest: Item
    tag: Item

    def items(self) -> list[Item]:
        """Everything, in the order in which a client pulls it."""
        return [self.tag, self.manifest, self.small, self.medium, self.large, self.huge]


def write(root: Path) -> Content:
    """Writes the files: the same bytes in every run."""
    blobs = root / "v2" / REPOSITORY / "blobs"
    manifests = root / "v2" / REPOSITORY / "manifests"
    blobs.mkdir(parents=True)
    manifests.mkdir()
    source = random.Random(1)
    huge, large, medium, small = (write_blob(blobs, size, source)
                                  for size in (GIB, 128 * MIB, MIB, 4 * KIB))
    body = manifest_of([small, medium, large, huge])
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    for name in (digest, TAG):
        (manifests / name).write_bytes(body)
    path = f"/v2/{REPOSITORY}/manifests/"
    return Content(root, huge, large, medium, small, Item(path + digest, digest, len(body)),
                   Item(path + TAG, digest, len(body)))


def write_blob(directory: Path, size_bytes: int, source: random.Random) -> Item:
    """Writes one blob of bytes that do not compress."""
    hasher, part = hashlib.sha256(), directory / "part"
    with part.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            block = source.randbytes(min(MIB, size_bytes - start))
            hasher.update(block)
            file.write(block)
    digest = "sha256:" + hasher.hexdigest()
    part.rename(directory / digest)
    return Item(f"/v2/{REPOSITORY}/blobs/{digest}", digest, size_bytes)


def manifest_of(blobs: list[Item]) -> bytes:
    """An image manifest that lists the blobs, filled up to the wanted size."""
    layer_type = "application/vnd.oci.image.layer.v1.tar"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(blobs[0], "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(blob, layer_type) for blob in blobs],
        "annotations": {"filler": ""},
    }
    missing = MANIFEST_BYTES - len(json.dumps(manifest))
    manifest["annotations"] = {"filler": "x" * missing}
    return json.dumps(manifest).encode()


def descriptor(blob: Item, media_type: str) -> dict[str, object]:
    """A blob as a manifest lists it."""
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes}
