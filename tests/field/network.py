"""Hosts on one machine: network namespaces with addresses of their own on two Ethernets, whose cables can be pulled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.field.needs import need
from tests.support.daemons import Daemon

LANS: Final = ("inner", "outer")  # nodes and lookupds; everybody
_STATE: Final = {True: "3", False: "0"}  # of a bridge's port: forwarding, disabled


class Network:
    """The hosts, by name. Packets of a port that is cut vanish; its host sees its cable in."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._switch = f"{name}-switch"

    def setup(self, hosts: dict[str, dict[str, str]]) -> None:
        """Make every host of ``hosts``: by name, then its address on each Ethernet that it is on."""
        self._ip("netns", "add", self._switch)
        for lan in LANS:
            self._ip("-n", self._switch, "link", "add", lan, "type", "bridge", "stp_state", "0")
            self._ip("-n", self._switch, "link", "set", lan, "up")
        for host, addresses in hosts.items():
            self._ip("netns", "add", self.namespace(host))
            self._ip("-n", self.namespace(host), "link", "set", "lo", "up")
            for lan, address in addresses.items():
                self._plug(host, lan, address)

    def _plug(self, host: str, lan: str, address: str) -> None:
        port, namespace = _port(host, lan), self.namespace(host)
        self._ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", lan, "netns", namespace)
        self._ip("-n", self._switch, "link", "set", port, "master", lan, "up")
        self._ip("-n", namespace, "address", "add", f"{address}/24", "dev", lan)
        self._ip("-n", namespace, "link", "set", lan, "up")

    def namespace(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._name}-{host}"

    def connect(self, host: str, lan: str, *, connected: bool) -> None:
        """Cut a host off an Ethernet, or let it back on."""
        command = f"link set dev {_port(host, lan)} state {_STATE[connected]}".split()
        subprocess.run([need("bridge"), "-n", self._switch, *command], check=True)

    def on(self, host: str, *command: str | Path) -> list[str]:
        """Return the command that runs ``command`` on a host."""
        return [need("ip"), "netns", "exec", self.namespace(host), *map(str, command)]

    def get(self, host: str, url: str, *options: str) -> bytes:
        """Ask for a URL from a host, with curl and its options; an OSError if nobody answers."""
        command = self.on(host, need("curl"), "--silent", "--fail", "--max-time", "2", *options, url)
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise OSError(f"curl: {done.returncode}")
        return done.stdout

    def _ip(self, *words: str) -> None:
        done = subprocess.run([need("ip"), *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def network(hosts: dict[str, dict[str, str]]) -> Iterator[Network]:
    """Make the hosts, or skip where that is not permitted. They go in every case: a shell waits for the tests' end."""
    name = f"pynsqd-{os.getpid()}"
    namespaces = [f"{name}-{host}" for host in ("switch", *hosts)]
    script = 'ip=$1; shift; read -r _; for n; do "$ip" netns delete "$n"; done'
    remover = subprocess.Popen(
        ["sh", "-c", script, "sh", need("ip"), *namespaces],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        network = Network(name)
        try:
            network.setup(hosts)
        except PermissionError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield network
    finally:
        remover.communicate()


def _port(host: str, lan: str) -> str:
    return f"{host}-{lan}"  # at most 15 characters


class HostDaemon(Daemon):
    """One of ours on a host of its own, with the default ports."""

    def __init__(self, network: Network, host: str, server: str, *flags: str, data_path: Path) -> None:
        tcp, http = ("4150", "4151") if server == "nsqd" else ("4160", "4161")
        own = f"--tcp-address=0.0.0.0:{tcp}", f"--http-address=0.0.0.0:{http}"
        super().__init__(server, *own, *flags, data_path=data_path)
        self._network = network
        self._host = host

    def command(self) -> list[str]:
        """Return the program as it is run on its host."""
        return self._network.on(self._host, *super().command())
