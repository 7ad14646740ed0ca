"""The lab does to real sockets what it says: else the faults of the cluster's tests are none."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.fakes.lab import network
from tests.fakes.lab.network import NAMESPACES, Lab, sweep

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-"),
]
PORT = 7000
BLOCK = bytes(1 << 20)


@pytest.fixture
def lab():
    with Lab(["a", "b", "c"]) as lab:
        for host in lab.hosts:
            serve(host, PORT, BLOCK)
        yield lab


def serve(host, port, block):
    """Sends `block` for ever to whoever connects."""
    with host.inside():
        listener = socket.create_server((host.address, port))

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=send, args=(connection,), daemon=True).start()

    def send(connection):
        try:
            while True:
                connection.sendall(block)
        except OSError:
            connection.close()

    threading.Thread(target=accept, daemon=True).start()


def received(client, server, seconds=0.5, wait=0.5):
    """MB/s that `client` gets from `server`. Raises TimeoutError after `wait` without a byte."""
    with client.inside():
        connection = socket.create_connection((server.address, PORT), wait)
    with connection:
        total, buffer, end = 0, bytearray(1 << 20), time.monotonic() + seconds
        while time.monotonic() < end:
            total += connection.recv_into(buffer)
    return total / seconds / 1e6


def drain(connection):
    while connection.recv(1 << 20):
        pass


def test_hosts_reach_each_other_and_nothing_else(lab):
    a, b, _ = lab.hosts
    assert received(a, b) > 1
    with a.inside(), pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", PORT), 0.3)


def test_a_link_is_slowed_each_way_while_it_is_used(lab):
    a, b, c = lab.hosts
    a.shape(up_mbit=80, down_mbit=16)
    assert received(b, a, 1.0) == pytest.approx(10, rel=0.25)
    assert received(a, b, 1.0) == pytest.approx(2, rel=0.35)
    assert received(b, c) > 20
    a.shape(up_mbit=0, down_mbit=0)
    assert received(b, a) > 20


def test_one_way_of_one_pair_is_cut(lab):
    a, b, c = lab.hosts
    a.drop(b)
    with pytest.raises(TimeoutError):
        received(a, b)
    assert received(a, c) > 1
    a.heal()
    assert received(a, b) > 1


def test_loss_slows_but_does_not_stop(lab):
    a, b, _ = lab.hosts
    a.drop(percent=5)
    assert received(a, b, 1.0, wait=20) > 0


def test_a_pulled_cable_tells_nobody(lab):
    a, b, c = lab.hosts
    with b.inside():
        connection = socket.create_connection((a.address, PORT), 0.5)
    a.link(up=False)
    with pytest.raises(TimeoutError):
        drain(connection)
    assert received(b, c) > 1
    lab.heal()
    connection.settimeout(10)
    assert connection.recv(1)
    connection.close()


def test_connections_are_led_through_a_forwarder(lab):
    a, b, _ = lab.hosts
    serve(a, PORT + 1, b"\1" * 1000)
    a.lead(PORT, PORT + 1)
    with b.inside(), socket.create_connection((a.address, PORT), 2) as connection:
        assert connection.recv(1) == b"\1"
    a.heal()
    with b.inside(), socket.create_connection((a.address, PORT), 2) as connection:
        assert connection.recv(1) == b"\0"


@pytest.mark.parametrize(("delay", "flip_after", "flipped"), [(0.2, 0, 0), (0.0, 1000, 10)])
def test_the_forwarder_delays_and_spoils(lab, delay, flip_after, flipped):
    a, b, _ = lab.hosts
    command = [sys.executable, "-m", "tests.fakes.lab.forwarder"]
    command += [f"{a.address}:{PORT + 1}", f"{a.address}:{PORT}", str(delay), str(flip_after)]
    with a.inside():
        forwarder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with forwarder:
        assert forwarder.stdout.readline()
        a.lead(PORT, PORT + 1)
        with b.inside(), socket.create_connection((a.address, PORT), 5) as connection:
            began, data = time.monotonic(), b""
            while len(data) < 10_500:
                data += connection.recv(10_500 - len(data))
            assert time.monotonic() - began >= delay
        assert data.count(b"\1") == flipped
        forwarder.stdin.close()
        assert forwarder.wait(10) == 0


def test_processes_of_a_host_are_found_and_killed(lab):
    a, b, _ = lab.hosts
    processes = []
    for host in (a, b):
        with host.inside():
            processes.append(subprocess.Popen(["sleep", "60"]))
    assert a.pids() == [processes[0].pid]
    a.kill()
    assert processes[0].wait(5) == -signal.SIGKILL
    assert processes[1].poll() is None
    b.kill()
    processes[1].wait(5)


def test_the_next_lab_removes_what_a_killed_run_left():
    code = (
        "from tests.fakes.lab.network import Lab; import subprocess, sys\n"
        "lab = Lab(['a']).__enter__()\n"
        "with lab.hosts[0].inside(): child = subprocess.Popen(['sleep', '60'])\n"
        "print(lab.name, child.pid, flush=True); sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        name, child = run.stdout.readline().split()
        sweep()
        assert list(NAMESPACES.glob(f"{name}.*")), "a run that lives was swept away"
        run.kill()
    assert list(NAMESPACES.glob(f"{name}.*"))
    sweep()
    assert not list(NAMESPACES.glob(f"{name}.*"))
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}") or network._is_zombie(int(child))


def test_nothing_is_left_of_a_lab():
    with Lab(["a"]) as lab, lab.hosts[0].inside():
        process = subprocess.Popen(["sleep", "60"])
    assert process.wait(5) == -signal.SIGKILL
    assert not list(NAMESPACES.glob(f"{lab.name}.*"))
