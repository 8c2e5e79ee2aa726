# SPDX-License-Identifier: Apache-2.0
"""A private Prosody 0.12 on 127.0.0.1: a real XMPP server for the end-to-end tests."""

import base64
import hashlib
import hmac
import os
import shutil
import signal
import socket
import subprocess
import sys

from bosh_env import KEEP, WITH_US, free_port, private_dir, wait_for

CONFIG = """
run_as_root = false
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
log = {{ debug = "{dir}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_direct_tls_ports = {{ {tls_port} }}
s2s_ports = {{ }}
http_ports = {{ {http_port} }}
https_ports = {{ }}
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "presence", "message", "iq", {modules} }}
modules_disabled = {{ "s2s"{no_tls} }}
c2s_require_encryption = {encrypted}
s2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_bosh_secure = true
authentication = "internal_plain"
storage = "internal"
limits = {{ }}

{ssl}
VirtualHost "{host}"
VirtualHost "{anon}"
    authentication = "anonymous"
Component "{rooms}" "muc"
    restrict_room_creation = false
"""


class Prosody:
    HOST, ANON_HOST, ROOMS = "localhost", "anon.localhost", "rooms.localhost"
    PASSWORDS = {"alice": "alice-secret", "bob": "bob-secret"}

    def __init__(self, modules=(), pair=None):
        """pair: a certificate (certs.Pair): TLS is required, and there is direct TLS at tls_port."""
        self.port, self.http_port = free_port(), free_port()
        self.pair, self.tls_port = pair, free_port() if pair else None
        self.user = "prosody" if os.getuid() == 0 else None
        self.dir = private_dir("prosody", self.user)
        self.modules = ", ".join(f'"{m}"' for m in (*modules, *(["tls"] if pair else [])))
        self.process = None

    def upstreams(self, options="tls=off"):
        """Lines for BoshUpstream."""
        return [f"{domain} 127.0.0.1:{self.port} {options}" for domain in (self.HOST, self.ANON_HOST)]

    def config(self, ssl):
        return CONFIG.format(dir=self.dir, port=self.port, http_port=self.http_port, host=self.HOST,
                             anon=self.ANON_HOST, rooms=self.ROOMS, modules=self.modules, ssl=ssl,
                             tls_port=self.tls_port or "", no_tls="" if self.pair else ', "tls"',
                             encrypted="true" if self.pair else "false")

    def start(self):
        accounts = self.dir / "data" / self.HOST.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True)
        for name, password in self.PASSWORDS.items():
            (accounts / f"{name}.dat").write_text(f'return {{ ["password"] = "{password}"; }};\n')
        ssl = ""
        if self.pair:
            for path in self.pair:
                shutil.copy(path, self.dir)
            ssl = f'ssl = {{ certificate = "{self.dir}/{self.pair.cert.name}", ' \
                  f'key = "{self.dir}/{self.pair.key.name}" }}\n'
        conf = self.dir / "prosody.cfg.lua"
        conf.write_text(self.config(ssl))
        options = {}
        if self.user:
            for path in [self.dir, *self.dir.rglob("*")]:
                shutil.chown(path, self.user, self.user)
            options = {"user": self.user, "group": self.user, "extra_groups": []}
        self.out = open(self.dir / "output.log", "wb")
        self.process = subprocess.Popen([*WITH_US, "prosody", "-F", "--config", conf], cwd=self.dir,
                                        stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out,
                                        start_new_session=True, **options)
        try:
            wait_for(self._ready, 20, "prosody listens")
        except AssertionError as err:
            self.stop()
            raise AssertionError(f"{err}\n{self.log()}") from None
        return self

    def _ready(self):
        assert self.process.poll() is None, f"prosody ended with {self.process.returncode}\n{self.log()}"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def log(self):
        return "".join(p.read_text(errors="replace") for p in (self.dir / "output.log", self.dir / "prosody.log")
                       if p.exists())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.close()
        if KEEP:
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


class Scram:
    """The client's side of SCRAM-SHA-1 (RFC 5802), enough for a test."""

    def __init__(self, user, password, nonce="rOprNGfwEbeRWgbNEkqO"):
        self.bare = f"n={user},r={nonce}"
        self.password = password.encode()

    def first(self):
        return base64.b64encode(f"n,,{self.bare}".encode()).decode()

    def final(self, challenge):
        server_first = base64.b64decode(challenge).decode()
        fields = dict(f.split("=", 1) for f in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha1", self.password, base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha1")
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self.bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha1(client_key).digest(), signed, "sha1")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha1"), signed, "sha1")
        return base64.b64encode(f"{without_proof},p={base64.b64encode(proof).decode()}".encode()).decode()

    def verify(self, success):
        """The server knows the password too."""
        fields = dict(f.split("=", 1) for f in base64.b64decode(success).decode().split(","))
        return base64.b64decode(fields["v"]) == self.server_signature
