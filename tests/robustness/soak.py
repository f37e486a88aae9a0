"""A server under 64 clients at a time: `python tests/robustness/soak.py --minutes 5`.

Clients send good images, damaged ones, wrong options, bodies that drip, end early or are too large, and URLs. Each
answer is compared: objects with those that the same detector finds here, refusals with the status that belongs to them.
A listener counts who comes to the URLs that were sent. At the end the server gets SIGTERM while requests are at work.
"""

import argparse
import base64
import http.client
import io
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model

TOLERANCE_PX, TOLERANCE_SCORE = 0.1, 0.01
"""How far an answer may be from the same detector's here, scores in relation: other batches sum in another order."""

MAX_SECONDS = 5

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: image/png\r\n"


@dataclass
class Log:
    """What the clients saw.

    Attributes:
        statuses: Answers by kind of request and status.
        wrong: Sentences about answers that are not as they should be.
        latencies: Seconds of each good request that was answered.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, status: int, fault: str = "", seconds: float | None = None) -> None:
        with self.lock:
            self.statuses[kind, status] += 1
            if fault:
                self.wrong.append(f"{kind}: {fault}")
            if seconds is not None:
                self.latencies.append(seconds)


def make_material(folder: Path) -> tuple[Path, list[tuple[bytes, list[dict[str, Any]]]]]:
    """A small checkpoint that finds up to ten objects an image, and images with the objects in each."""
    torch.manual_seed(0)
    detector = create_model("yolov3_small", num_classes=3, backbone={"width": 0.25}, postprocess={"max_detections": 10})
    preprocessing = changed(detector.card.preprocessing, size=(96, 96))
    detector.card = changed(
        detector.card, names=("cat", "dog", "cow"), category_ids=(0, 1, 2), preprocessing=preprocessing
    )
    path = folder / "soak.ckpt"
    save(detector, path)
    detector, chance, images = load(path), np.random.default_rng(0), []
    for number in range(8):
        pixels = chance.integers(0, 255, (40 + 9 * number, 60 + 7 * number, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        (found,) = detector.predict([pixels], score=0)
        images.append((stream.getvalue(), found.to_dict()["objects"]))
    assert all(objects for _, objects in images)
    return path, images


def start_server(path: Path) -> tuple[subprocess.Popen[str], int]:
    """The server, and its port."""
    words = ["serve", str(path), "--port", "0", "--score", "0", "--max-seconds", str(MAX_SECONDS)]
    words += ["--device", "cpu", "--concurrency", "128"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pyrafuse", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, int(found[1])
    raise SystemExit("the server did not start")


class Clients:
    """What one client does again and again: a request of a kind drawn at random."""

    def __init__(self, port: int, images: list[tuple[bytes, list[dict[str, Any]]]], trap: int, log: Log) -> None:
        self.port, self.images, self.trap, self.log = port, images, trap, log
        self.until = 0.0
        kinds: list[tuple[int, Callable[[Random], None]]] = [
            (60, self.good), (12, self.damaged), (8, self.wrong_option), (5, self.url), (3, self.too_large),
            (3, self.too_many_pixels), (3, self.ends_early), (3, self.drips), (3, self.elsewhere),
        ]  # fmt: skip
        self.kinds = [each for weight, each in kinds for _ in range(weight)]

    def run(self, number: int) -> None:
        chance = Random(number)
        while time.monotonic() < self.until:
            kind = chance.choice(self.kinds)
            try:
                kind(chance)
            except (OSError, http.client.HTTPException) as error:
                self.log.note(kind.__name__, 0, f"{type(error).__name__}: {error}")

    def ask(
        self, body: Any, kind: str, path: str = "/predict", method: str = "POST", **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind, **headers})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text)
        finally:
            connection.close()

    def good(self, chance: Random) -> None:
        image, objects = chance.choice(self.images)
        started = time.monotonic()
        if chance.random() < 0.5:
            status, told = self.ask(image, "image/png")
        else:
            body = json.dumps({"image": base64.b64encode(image).decode()})
            status, told = self.ask(body, "application/json")
        seconds = time.monotonic() - started
        fault = ("" if status in (503, 504) else f"{status} {told}") if status != 200 else differ(told, objects)
        self.log.note("good", status, fault, seconds if status == 200 else None)

    def refused(self, name: str, wanted: set[int], status: int, told: Any) -> None:
        is_told = isinstance(told, dict) and isinstance(told.get("error"), str) and len(told["error"]) < 2000
        self.log.note(name, status, "" if status in wanted | {503, 504} and is_told else f"{status} {told}")

    def damaged(self, chance: Random) -> None:
        image = bytearray(chance.choice(self.images)[0])
        del image[chance.randrange(8, 60) :]
        self.refused("damaged", {400, 415}, *self.ask(bytes(image), "image/png"))

    def wrong_option(self, chance: Random) -> None:
        path = chance.choice(("?score=2", "?nms_iou=x", "?classes=cow7", "?max_detections=0", "?model=b", "?strange=1"))
        self.refused("wrong_option", {400, 404}, *self.ask(self.images[0][0], "image/png", f"/predict{path}"))

    def url(self, chance: Random) -> None:
        text = chance.choice((f"http://127.0.0.1:{self.trap}/a.png", "file:///etc/passwd", f"//127.0.0.1:{self.trap}/"))
        self.refused("url", {400, 415}, *self.ask(json.dumps({"image": text}), "application/json"))

    def too_large(self, chance: Random) -> None:
        """A body of 30 MB, declared or in chunks; the server may close the connection before it has all."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            is_declared = chance.random() < 0.5
            length = b"Content-Length: 30000000" if is_declared else b"Transfer-Encoding: chunked"
            connection.sendall(HEAD + length + b"\r\n\r\n")
            piece = bytes(1_000_000)
            try:
                for _ in range(1 if is_declared else 30):
                    connection.sendall(piece if is_declared else b"f4240\r\n" + piece + b"\r\n")
                answer = connection.recv(4096)
            except OSError:
                answer = b"HTTP/1.1 413"  # it was closed while this was still sending
        status = int(answer.split(b" ")[1]) if answer else 413
        self.log.note("too_large", status, "" if status in (413, 503, 408) else repr(answer[:200]))

    def too_many_pixels(self, _: Random) -> None:
        self.refused("too_many_pixels", {413}, *self.ask(BOMB, "image/png"))

    def ends_early(self, _: Random) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(HEAD + b"Content-Length: 999\r\n\r\nabc")
        self.log.note("ends_early", 0)

    def drips(self, chance: Random) -> None:
        """A byte every 50 ms: some bodies end in time, others are given up."""
        image, objects = self.images[0]
        pace = len(image) if chance.random() < 0.3 else 1
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(HEAD + f"Content-Length: {len(image)}\r\n\r\n".encode())
            end = time.monotonic() + 2 * MAX_SECONDS
            connection.settimeout(0.05)
            answer = b""
            while not answer and time.monotonic() < end:
                try:
                    connection.sendall(image[:pace])
                    image = image[pace:]
                    answer = connection.recv(1 << 20)
                except TimeoutError:
                    continue
                except OSError:
                    break
            connection.settimeout(2 * MAX_SECONDS)
            with suppress(ConnectionResetError):  # bytes were still on their way when the server closed
                while answer and (piece := connection.recv(1 << 20)):
                    answer += piece
        status = int(answer.split(b" ")[1]) if answer else 0
        fault = "" if status in (200, 408, 503, 504) else repr(answer[:200])
        if status == 200:
            told = json.loads(answer.partition(b"\r\n\r\n")[2])
            fault = differ(told, objects)
        self.log.note("drips", status, fault)

    def elsewhere(self, chance: Random) -> None:
        path, method = chance.choice(
            (("/nothing", "GET"), ("/predict", "GET"), ("/../../etc/passwd", "GET"), ("/health", "GET"))
        )
        status, told = self.ask(None, "text/plain", path, method)
        wanted = 200 if path == "/health" else 405 if path == "/predict" else 404
        self.log.note("elsewhere", status, "" if status == wanted else f"{path}: {status} {told}")


def differ(told: Any, objects: list[dict[str, Any]]) -> str:
    """In what an answer differs from ``objects``; empty if in nothing. Objects of nearly one score may swap."""
    found = told.get("objects") if isinstance(told, dict) else None
    if not isinstance(found, list) or len(found) != len(objects):
        return f"{len(found) if isinstance(found, list) else told} objects instead of {len(objects)}"
    least = objects[-1]["score"] * (1 + TOLERANCE_SCORE)  # below it another object may be the last that is kept
    absent = [ours for ours in objects if ours["score"] > least and not any(_are_one(ours, each) for each in found)]
    return f"{absent[0]} is not in {found}" if absent else ""


def _are_one(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    far = max(abs(a - b) for a, b in zip(ours["box_xyxy"], theirs["box_xyxy"], strict=True))
    is_scored_alike = abs(ours["score"] - theirs["score"]) <= TOLERANCE_SCORE * ours["score"]
    return ours["label"] == theirs["label"] and far <= TOLERANCE_PX and is_scored_alike


def _bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(stream, "PNG")
    return stream.getvalue()


BOMB = _bomb()
"""A PNG of few bytes and 144 million pixels."""


def resident_mb(process: subprocess.Popen[str]) -> float:
    """Memory of the server."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def stop_while_at_work(process: subprocess.Popen[str], clients: Clients) -> tuple[str, bool]:
    """Send SIGTERM while 16 requests are at work: what became of them, and whether each that had begun was answered."""
    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(clients.ask(clients.images[0][0], "image/png")[0])
        except (OSError, http.client.HTTPException):
            answers.append(0)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    while not answers:  # the others have arrived, too
        time.sleep(0.001)
    at_work = len(threads) - len(answers)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    status, count = process.wait(60), answers.count(200)
    told = (
        f"SIGTERM with {at_work} of {len(threads)} requests at work: {count} answered with 200; the server ended with "
        f"status {status} after {time.monotonic() - started:.1f} s"
    )
    return told, count == len(threads) and status == 0


def main() -> int:
    """Run the clients, and print figures; the exit status is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    given = parser.parse_args()
    log, memory = Log(), []
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as trap:
        visits: list[Any] = []
        threading.Thread(target=lambda: visits.append(trap.accept()), daemon=True).start()
        path, images = make_material(Path(folder))
        process, port = start_server(path)
        try:
            clients = Clients(port, images, trap.getsockname()[1], log)
            begin = time.monotonic()
            clients.until = begin + 60 * given.minutes
            threads = [threading.Thread(target=clients.run, args=(number,)) for number in range(given.clients)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.5)
                memory.append((time.monotonic() - begin, resident_mb(process)))
            told, is_graceful = stop_while_at_work(process, clients)
        finally:
            process.kill()
    share = min(60.0, 12 * given.minutes)  # a minute of five
    first = statistics.median(mb for at, mb in memory if share / 2 <= at <= 1.5 * share)
    last = statistics.median(mb for at, mb in memory if at >= 60 * given.minutes - share / 2)
    latencies = np.array(log.latencies) * 1000
    print(f"{sum(log.statuses.values())} requests of {given.clients} clients in {given.minutes:g} minutes:")
    for (kind, status), count in sorted(log.statuses.items()):
        print(f"  {kind}: {count} {f'answered with {status}' if status else 'without an answer'}")
    print(f"{len(log.wrong)} wrong answers" + "".join(f"\n  {text[:300]}" for text in log.wrong[:10]))
    print("good requests: " + ", ".join(f"p{p} {np.percentile(latencies, p):.0f} ms" for p in (50, 90, 99)))
    print(
        f"resident memory: {first:.0f} MB about minute 1, {last:.0f} MB at the end ({100 * (last / first - 1):+.1f} %)"
    )
    print(f"{len(visits)} visits to the URLs that were sent")
    print(told)
    is_leaking = last > 1.05 * first
    return int(bool(log.wrong or visits or is_leaking or not is_graceful))


if __name__ == "__main__":
    raise SystemExit(main())
