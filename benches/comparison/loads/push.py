"""Clients that push images, and others that pull meanwhile: `python3 -m comparison.loads.push ORDER`, JSON in and out.

One process a client: what is pushed is made and hashed before the clock starts, so that the server is what is measured.
"""

import hashlib
import http.client
import json
import multiprocessing
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from ..processes import run_load

# What is made at once of a layer, and the largest layer of what is pulled meanwhile.
BLOCK = 1 << 20

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Order:
    """What is to be pushed, and by how many."""

    port: int
    repository: str
    headers: dict[str, str]
    clients: int
    images: int
    layers: int
    layer_bytes: int
    pullers: int


@dataclass(frozen=True)
class Pushed:
    """What came of it."""

    # From the first request to the last answer.
    seconds: float
    # One for each image.
    image_seconds: list[float]
    pulls: int


def push(order: Order) -> Pushed:
    """Has another process push, so that this one's threads and memory do not count."""
    output, _ = run_load([sys.executable, "-m", "comparison.loads.push", json.dumps(asdict(order))])
    return Pushed(**json.loads(output))


def main() -> None:
    """Follows the order."""
    order = Order(**json.loads(sys.argv[1]))
    gate = multiprocessing.Barrier(order.clients + 1)
    over = multiprocessing.Event()
    results: multiprocessing.Queue = multiprocessing.Queue()
    pushers = [multiprocessing.Process(target=push_images, args=(order, number, gate, results))
               for number in range(order.clients)]
    # What is pulled meanwhile.
    small = {"images": 1, "layer_bytes": min(BLOCK, order.layer_bytes)}
    seed = images_of(Order(**{**asdict(order), **small}), -1)[0]
    push_image(http.client.HTTPConnection("127.0.0.1", order.port, timeout=300), order, seed, "seed")
    pullers = [multiprocessing.Process(target=pull_images, args=(order, seed, over, results))
               for _ in range(order.pullers)]
    for process in pushers + pullers:
        process.start()
    gate.wait()
    began = time.monotonic()
    image_seconds = [seconds for _ in pushers for seconds in results.get()]
    seconds = time.monotonic() - began
    over.set()
    pulls = sum(results.get() for _ in pullers)
    for process in pushers + pullers:
        process.join()
    print(json.dumps(asdict(Pushed(seconds, image_seconds, pulls))))


def images_of(order: Order, client: int) -> list[list[tuple[str, bytes]]]:
    """The layers of one client's images, each with its digest."""
    source = random.Random(f"{client} {os.getpid()}")
    return [[layer(source, order.layer_bytes) for _ in range(order.layers)] for _ in range(order.images)]


def layer(source: random.Random, size_bytes: int) -> tuple[str, bytes]:
    """Bytes that no other layer has."""
    content = b"".join(source.randbytes(min(BLOCK, size_bytes - start)) for start in range(0, size_bytes, BLOCK))
    return digest_of(content), content


def digest_of(content: bytes) -> str:
    """The name of content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def push_images(order: Order, client: int, gate, results) -> None:
    """One client: a connection, and one image after the other."""
    images = images_of(order, client)
    connection = http.client.HTTPConnection("127.0.0.1", order.port, timeout=300)
    seconds = []
    gate.wait()
    for number, layers in enumerate(images):
        began = time.monotonic()
        push_image(connection, order, layers, f"{client}-{number}")
        seconds.append(time.monotonic() - began)
    results.put(seconds)


def push_image(connection, order: Order, layers: list[tuple[str, bytes]], tag: str) -> None:
    """Pushes as containerd does: HEAD, POST and one PUT for each blob, then the manifest."""
    config = json.dumps({"tag": tag, "layers": [digest for digest, _ in layers]}).encode()
    blobs = [(digest_of(config), config), *layers]
    for digest, content in blobs:
        push_blob(connection, order, digest, content)
    listed = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(content)}
              for digest, content in blobs]
    listed[0]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": listed[0],
                           "layers": listed[1:]}).encode()
    ask(connection, order, "PUT", f"/v2/{order.repository}/manifests/{tag}", manifest, 201, MANIFEST)


def push_blob(connection, order: Order, digest: str, content: bytes) -> None:
    """Pushes one blob."""
    ask(connection, order, "HEAD", f"/v2/{order.repository}/blobs/{digest}", None, 404)
    answer = ask(connection, order, "POST", f"/v2/{order.repository}/blobs/uploads/", None, 202)
    location = urlsplit(answer.headers["Location"])
    query = f"{location.query}&" if location.query else ""
    ask(connection, order, "PUT", f"{location.path}?{query}digest={digest}", content, 201)


def pull_images(order: Order, layers: list[tuple[str, bytes]], over, results) -> None:
    """One client that pulls an image again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", order.port, timeout=300)
    pulls = 0
    while not over.is_set():
        ask(connection, order, "GET", f"/v2/{order.repository}/manifests/seed", None, 200)
        for digest, _ in layers:
            ask(connection, order, "GET", f"/v2/{order.repository}/blobs/{digest}", None, 200)
        pulls += 1
    results.put(pulls)


def ask(connection, order: Order, method: str, path: str, body: bytes | None, expected: int,
        media_type: str = "application/octet-stream"):
    """One request, whose answer is read to its end."""
    headers = {**order.headers, "Accept": MANIFEST}
    if body is not None:
        headers["Content-Type"] = media_type
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != expected:
        raise SystemExit(f"{method} {path}: {answer.status}, not {expected}: {text[:500]!r}")
    return answer


if __name__ == "__main__":
    main()
