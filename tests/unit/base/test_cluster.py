"""A cluster as far as it needs no Ray: how it is divided, and addresses where none is."""

import socket
import sys

import pytest

from pyrafuse.base import cluster
from pyrafuse.base.cluster import connect, divide
from pyrafuse.base.errors import PyrafuseError


@pytest.mark.parametrize(
    ("nodes", "workers", "unit", "divided"),
    [
        ([{"CPU": 2.0}], None, "CPU", (2, 1)),
        ([{"CPU": 16.0}], 2, "CPU", (2, 8)),
        ([{"CPU": 16.0}], 3, "CPU", (3, 5)),
        ([{"CPU": 4.0}, {"CPU": 4.0}], 1, "CPU", (1, 4)),
        ([{"CPU": 5.0}, {"CPU": 3.0}], 4, "CPU", (4, 1)),
        ([{"CPU": 5.0}, {"CPU": 3.0}], 2, "CPU", (2, 3)),
        ([{"CPU": 5.0}, {"CPU": 3.0}], None, "CPU", (8, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], None, "GPU", (2, 8)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}], None, "GPU", (6, 1)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}], 3, "GPU", (3, 5)),
    ],
)
def test_workers_get_as_many_cores_as_fit(nodes, workers, unit, divided):
    assert divide(nodes, workers, unit) == divided


@pytest.mark.parametrize(
    ("nodes", "workers", "unit", "message"),
    [
        (
            [{"CPU": 2.0}, {"CPU": 1.0}],
            4,
            "CPU",
            "room for 3 workers, each with a CPU, and 4 are asked for: give --wor",
        ),
        ([{"CPU": 2.0}], None, "GPU", "room for 0 workers, each with a GPU: give another --device, or another cluster"),
        ([{"memory": 1e9}], 1, "CPU", "room for 0 workers, each with a CPU, and 1 are asked for: give another --devi"),
    ],
)
def test_a_cluster_without_room_is_refused(nodes, workers, unit, message):
    with pytest.raises(PyrafuseError, match=message):
        divide(nodes, workers, unit)


@pytest.fixture
def ray_is_there(monkeypatch):
    class Ray:
        is_initialized = staticmethod(lambda: False)

    monkeypatch.setitem(sys.modules, "ray", Ray)
    for name in cluster.VARIABLES:
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", ":6379", "host:99999"])
def test_what_is_no_address_is_refused(ray_is_there, address):
    with pytest.raises(PyrafuseError, match=f"no Ray cluster answers at {address} .that is no HOST:PORT.: start one"):
        connect(address, print).__enter__()


def test_an_address_that_nobody_answers_at_is_named_at_once(ray_is_there, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(PyrafuseError, match=f"no Ray cluster answers at 127.0.0.1:{port} .Connection refused.: start"):
        connect(None, print).__enter__()
