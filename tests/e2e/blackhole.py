# SPDX-License-Identifier: Apache-2.0
"""An address on this host where nothing is ever answered: the kernel drops what comes for a full backlog."""

import select
import socket


class BlackHole:
    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._fillers = []
        while not self._full():
            assert len(self._fillers) < 100, "the backlog does not fill up"

    def _full(self):
        """Whether one connection more stays on its way."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self.port))
        self._fillers.append(sock)
        return not select.select([], [sock], [], 0.3)[1]

    def close(self):
        for sock in (self._listener, *self._fillers):
            sock.close()
