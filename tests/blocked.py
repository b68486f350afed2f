"""Runs a command with no way out to the network, and says what it used.

Every Python process of the command, notebook kernels included, finds a `sitecustomize` that refuses connections to any
address but this machine's own (kernels and their clients talk over loopback).
"""

import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

GUARD = """
import ipaddress, socket

def _refuse_far(address):
    host = address[0] if isinstance(address, tuple) else None
    try:
        near = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    if not near:
        raise OSError(f"the network is blocked in tests: {host}")

def _guarded(method):
    def call(self, *args):
        _refuse_far(args[-1])
        return method(self, *args)
    return call

def _lookup(host, *args, _original=socket.getaddrinfo, **options):
    _refuse_far((host.decode() if isinstance(host, bytes) else host,))
    return _original(host, *args, **options)

class BlockedSocket(socket.socket):
    connect = _guarded(socket.socket.connect)
    connect_ex = _guarded(socket.socket.connect_ex)
    sendto = _guarded(socket.socket.sendto)

socket.socket = BlockedSocket
socket.getaddrinfo = _lookup
"""


@dataclass(frozen=True)
class Used:
    """Exit status, what was printed, CPU seconds and the largest resident memory of one process, in bytes."""

    status: int
    printed: str
    cpu_seconds: float
    memory: int


def run(command: list[str], cwd: Path, workbook: Path, timeout_s: float = 1800) -> Used:
    """Runs `python -m command…` in `cwd` with the network blocked; killed after `timeout_s`."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as printed:
        (Path(folder) / "sitecustomize.py").write_text(GUARD)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "MINIVDM_WORKBOOK": str(workbook), "PYTHONUTF8": "1"}
        env["OMP_NUM_THREADS"] = "1"  # so that CPU seconds are work, and not threads that wait for each other
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=cwd, env=env, stdout=printed, stderr=subprocess.STDOUT
        )
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)  # its own use and that of the kernels it waited for
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss // 1024
    return Used(process.returncode, text, usage.ru_utime + usage.ru_stime, kilobytes * 1024)
