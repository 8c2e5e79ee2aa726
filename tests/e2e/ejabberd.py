# SPDX-License-Identifier: Apache-2.0
"""A private ejabberd on 127.0.0.1: the second real XMPP server for the end-to-end tests.

It runs without Erlang's distribution, so that there is no node name to clash with another one's, no cookie and
no epmd. The users are those of prosody.Prosody, and so are the hosts.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys

from bosh_env import KEEP, WITH_US, free_port, private_dir, wait_for
from prosody import Prosody

CONFIG = """
hosts: [ "{host}", "{anon}" ]
loglevel: info
{certs}
auth_method: [ mnesia ]
host_config:
  "{anon}":
    auth_method: [ anonymous ]
    anonymous_protocol: sasl_anon
    allow_multiple_connections: true
s2s_access: none
registration_timeout: infinity
listen:
  -
    port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    access: all
    max_stanza_size: 1048576
    {starttls}
{more}
modules:
  mod_roster: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_carboncopy: {{}}
  mod_offline: {{}}
  mod_stream_mgmt: {{}}
  mod_muc:
    host: "{rooms}"
{modules}
"""

# Listeners for more than the plain port: direct TLS, and the PROXY protocol in front of each kind.
LISTENER = """  -
    port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    access: all
    max_stanza_size: 1048576
    {options}
"""


class Ejabberd:
    HOST, ANON_HOST, ROOMS = Prosody.HOST, Prosody.ANON_HOST, Prosody.ROOMS
    PASSWORDS = Prosody.PASSWORDS
    umask = -1

    def __init__(self, modules="", pair=None):
        """pair: a certificate (certs.Pair): TLS is required at port, and there is direct TLS at tls_port.
        proxy_port is `port` with the PROXY protocol before it; proxy_tls_port, with a pair, is tls_port with it.
        modules: lines for `modules:`."""
        self.port, self.proxy_port = free_port(), free_port()
        self.pair = pair
        self.tls_port, self.proxy_tls_port = (free_port(), free_port()) if pair else (None, None)
        self.user = "ejabberd" if os.getuid() == 0 else None
        self.dir = private_dir("ejabberd", self.user)
        self.modules = modules
        self.process = None

    def upstreams(self, options="tls=off"):
        """Lines for BoshUpstream."""
        return [f"{domain} 127.0.0.1:{self.port} {options}" for domain in (self.HOST, self.ANON_HOST)]

    def config(self):
        starttls = "starttls_required: true" if self.pair else ""
        more = LISTENER.format(port=self.proxy_port, options=f"use_proxy_protocol: true\n    {starttls}")
        certs = ""
        if self.pair:
            both = self.dir / "both.pem"
            both.write_text("".join(path.read_text() for path in self.pair))
            certs = f'certfiles: [ "{both}" ]'
            more += LISTENER.format(port=self.tls_port, options="tls: true")
            more += LISTENER.format(port=self.proxy_tls_port, options="tls: true\n    use_proxy_protocol: true")
        return CONFIG.format(host=self.HOST, anon=self.ANON_HOST, rooms=self.ROOMS, port=self.port, certs=certs,
                             starttls=starttls, more=more, modules=self.modules)

    def start(self):
        self.conf = self.dir / "ejabberd.yml"
        self.conf.write_text(self.config())
        spool, logs = self.dir / "spool", self.dir / "logs"
        for path in (spool, logs):
            path.mkdir()
        options = {}
        if self.user:
            for path in [self.dir, *self.dir.rglob("*")]:
                shutil.chown(path, self.user)
            options = {"user": self.user, "group": self.user, "extra_groups": []}
        ready = self.dir / "ready"
        register = "".join(f'ok = ejabberd_auth:try_register(<<"{name}">>, <<"{self.HOST}">>, <<"{password}">>), '
                           for name, password in self.PASSWORDS.items())
        environment = dict(os.environ, HOME=str(self.dir), EJABBERD_CONFIG_PATH=str(self.conf), ERL_CRASH_DUMP_BYTES="0",
                           EJABBERD_LOG_PATH=str(logs / "ejabberd.log"), CONTRIB_MODULES_PATH=str(self.dir / "contrib"),
                           CONTRIB_MODULES_CONF_DIR=str(self.dir / "contrib"), ERL_CRASH_DUMP=str(logs / "crash"))
        environment.pop("ERL_LIBS", None)
        self.out = open(self.dir / "output.log", "wb")
        libraries = sorted(self._libraries())
        assert libraries, "ejabberd is not installed: run make deps"
        self.process = subprocess.Popen(
            [*WITH_US, "erl", "-noinput", "-pa", *libraries, "-mnesia", "dir", f'"{spool}"', "-s", "ejabberd", "-eval",
             f'{register}ok = file:write_file("{ready}", <<>>)'],
            cwd=self.dir, env=environment, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out,
            start_new_session=True, umask=self.umask, **options)
        try:
            wait_for(lambda: self._ready(ready), 60, "ejabberd listens")
        except AssertionError as err:
            self.stop()
            raise AssertionError(f"{err}\n{self.log()[-4000:]}") from None
        return self

    @staticmethod
    def _libraries():
        """ejabberd's code and what Debian puts beside it."""
        for top in ("/usr/lib", "/usr/share"):
            for found in subprocess.run(["find", top, "-maxdepth", "4", "-path", "*/ejabberd-*/ebin", "-type", "d"],
                                        capture_output=True, text=True, check=False).stdout.split():
                yield found

    def _ready(self, mark):
        assert self.process.poll() is None, f"ejabberd ended with {self.process.returncode}\n{self.log()[-4000:]}"
        if not mark.exists():
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def log(self):
        files = [self.dir / "output.log", *sorted((self.dir / "logs").glob("*.log"))]
        return "".join(p.read_text(errors="replace") for p in files if p.exists())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.out.close()
        if KEEP:
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
