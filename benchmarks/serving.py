"""Measure a server on this machine beside what `pyrafuse bench` says of the same model and batch.

    python benchmarks/serving.py runs/mine/best.ckpt [--batch 8] [--clients 16] [--seconds 20]

Both get the same images of 640 x 480 pixels; the server's are JPEG files, which it decodes. The clients run on the same
machine and take some of it. Server and bench take turns, so that whatever else the machine does hits both.
"""

import argparse
import http.client
import io
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from pyrafuse.inference.racing import make_pictures


def encode(count: int) -> list[bytes]:
    files = []
    for picture in make_pictures(count):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def load_server(port: int, files: list[bytes], *, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Images answered a second by so many clients at a time, and the milliseconds of each answer."""
    end, taken = time.perf_counter() + seconds, []
    numbers = count()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            start = time.perf_counter()
            connection.request("POST", "/predict", files[next(numbers) % len(files)], {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {said.decode()}")
            taken.append((time.perf_counter() - start) * 1000)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(taken) / (time.perf_counter() - start), taken


def bench(words: list[str], folder: str) -> float:
    """Images a second, by `pyrafuse bench`."""
    told = Path(folder) / "told.json"
    subprocess.run([*words, "--rounds", "10", "--json", told], check=True, capture_output=True)
    (figures,) = json.loads(told.read_text())["figures"]
    return figures["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, the folder of a run, or an exported file")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clients", type=int, help="requests at a time; by default twice the batch")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    clients, files = given.clients or 2 * given.batch, encode(given.batch)
    command = [sys.executable, "-m", "pyrafuse"]
    begun = time.perf_counter()
    serving = [*command, "serve", given.model, "--batch", str(given.batch), "--port", "0"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server, TemporaryDirectory() as folder:
        try:
            assert server.stdout is not None
            port = int(re.search(r"http://[^ ]+:(\d+)", server.stdout.readline()).group(1))  # pyright: ignore[reportOptionalMemberAccess]
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("POST", "/predict", files[0], {"Content-Type": "image/jpeg"})
            connection.getresponse().read()
            print(f"first answer {time.perf_counter() - begun:.1f} s after the command")
            words = [*command, "bench", given.model, "--backends", "eager", "--batch", str(given.batch)]
            shares = []
            for _ in range(given.turns):
                alone = bench(words, folder)
                served, taken = load_server(port, files, clients=clients, seconds=given.seconds)
                shares.append(served / alone)
                print(
                    f"bench {alone:.1f} images/s, served {served:.1f} images/s ({served / alone:.0%}) to {clients} "
                    f"clients, median {statistics.median(taken):.0f} ms, longest {max(taken):.0f} ms"
                )
            print(f"median share {statistics.median(shares):.0%}, batch {given.batch}")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
