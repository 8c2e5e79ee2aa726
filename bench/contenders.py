# SPDX-License-Identifier: Apache-2.0
"""What `make bench` compares: connection managers, and the servers behind them without one.

A contender is started for each of its runs, in a directory and on ports of its own, in the foreground, and
stopped by its process id. It says where clients connect (port), with which options of bosh-load (load), and
which processes count as the manager's (processes).
"""

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bosh_env import (BIND_PATH, HARMLESS, WITH_US, Httpd, free_port, is_problem, private_dir, proc_ppid,  # noqa: E402
                      wait_for)

FLOOR = ROOT / "build" / "bench" / "mod_floor.so"

# What Debian enables with a fresh apache2, and its settings as far as they touch a request.
DEBIAN_MODULES = ("access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user autoindex "
                  "deflate dir env filter mime negotiation reqtimeout setenvif status").split()
DEBIAN_CONF = """
Timeout 300
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 5
HostnameLookups Off
AccessFileName .htaccess
ServerTokens OS
ServerSignature On
TraceEnable Off
TypesConfig /etc/mime.types
DirectoryIndex index.html
RequestReadTimeout header=20-40,minrate=500
RequestReadTimeout body=10,minrate=500
AddOutputFilterByType DEFLATE text/html text/plain text/xml text/css text/javascript application/javascript
BrowserMatch "Mozilla/2" nokeepalive
BrowserMatch "MSIE 4\\.0b2;" nokeepalive downgrade-1.0 force-response-1.0
BrowserMatch "RealPlayer 4\\.0" force-response-1.0
BrowserMatch "Java/1\\.0" force-response-1.0
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
<Directory />
    Options FollowSymLinks
    AllowOverride None
    Require all denied
</Directory>
<FilesMatch "^\\.ht">
    Require all denied
</FilesMatch>
"""


def family(pid):
    """A process and all that descend from it."""
    parents = {int(p): proc_ppid(p) for p in os.listdir("/proc") if p.isdigit()}
    found, fresh = set(), {pid}
    while fresh:
        found |= fresh
        fresh = {p for p, parent in parents.items() if parent in fresh} - found
    return sorted(found)


class Apache(Httpd):
    """httpd as Debian configures it, with the event MPM. lines: for the Location of the endpoint. edit: a function that has
    the last word on the text of the configuration."""

    def __init__(self, lines, modules=(), directives="", children=2, threads=128, factor=400, addresses=("127.0.0.1",), edit=str):
        super().__init__(children=children, threads=threads, name="bench")
        self.lines, self.more, self.directives = lines, modules, directives
        self.factor, self.addresses, self.edit = factor, addresses, edit

    def config(self):
        libexec = subprocess.run(["apxs", "-q", "LIBEXECDIR"], check=True, capture_output=True,
                                 text=True).stdout.strip()
        out = [f"ServerRoot {self.dir}", f"DefaultRuntimeDir {self.dir}", f"PidFile {self.dir}/httpd.pid",
               "ServerName localhost", *(f"Listen {a}:{self.port}" for a in self.addresses)]
        loaded = [m if isinstance(m, tuple) else (m, f"{libexec}/mod_{m}.so")
                  for m in ("mpm_event", *DEBIAN_MODULES, *self.more)]
        out += [f"LoadModule {name}_module {path}" for name, path in loaded]
        if os.getuid() == 0:
            user = pwd.getpwnam("www-data")
            out += ["User www-data", f"Group {grp.getgrgid(user.pw_gid).gr_name}"]
        n, t = self.children_wanted, self.threads
        out += [f"ServerLimit {2 * n}", f"ThreadLimit {t}", f"StartServers {n}", f"ThreadsPerChild {t}",
                f"MinSpareThreads {n * t}", f"MaxSpareThreads {n * t}", f"MaxRequestWorkers {n * t}",
                f"AsyncRequestWorkerFactor {self.factor}", "ListenBacklog 4096", DEBIAN_CONF,
                f"LogLevel warn\nErrorLog {self.error_log}", f"CustomLog {self.access_log} combined",
                f"DocumentRoot {self.docroot}",
                f"<Directory {self.docroot}>\n  Options Indexes FollowSymLinks\n  AllowOverride None\n"
                "  Require all granted\n</Directory>",
                f'<Location "{BIND_PATH}">\n{self.lines}\n</Location>', self.directives]
        return self.edit("\n".join(out) + "\n")


class Contender:
    """name: as it is called in the table. over: what it stands in front of (class), whose cost is another row.
    base: the server alone, whose cost has to be taken off (class)."""

    name = title = version = ""
    base = None
    over = None
    program = None  # that has to be installed
    ours = False    # what goes wrong there makes the run fail
    children = 2

    def __init__(self, sessions=1000, children=None, threads=128, addresses=("127.0.0.1",)):
        self.sessions, self.addresses, self.threads = sessions, addresses, threads
        self.children = children or self.children

    def start(self, load_ports):
        """load_ports: where the sinks of the load generators listen."""
        raise NotImplementedError

    def stop(self):
        raise NotImplementedError

    def processes(self):
        raise NotImplementedError


def domain_of(i):
    """The domain of load generator i: each has a sink of its own."""
    return f"d{i}.example.com"


class ModBosh(Contender):
    name, title = "mod_bosh", "mod_bosh"
    ours = True

    def options_of(self, i):
        return {"domain": domain_of(i)}

    def start(self, load_ports):
        upstreams = "\n".join(f"BoshUpstream {domain_of(i)} 127.0.0.1:{port}" for i, port in enumerate(load_ports))
        module = Path(os.environ.get("BOSH_MODULE") or ROOT / "build" / "mod_bosh.so")
        self.httpd = Apache("SetHandler bosh", [("bosh", module)], children=self.children, threads=self.threads,
                            addresses=self.addresses, factor=self.factor(), edit=self.edit,
                            directives=f"{upstreams}\nBoshMaxSessions {max(10000, self.sessions * 5 // 4)}\n"
                                       "BoshMaxWait 60\n<Location /bosh-status>\n  SetHandler bosh-status\n</Location>")
        self.httpd.start()
        self.port = self.httpd.port

    def edit(self, text):
        return text

    def factor(self):
        """So that no child takes many more connections than its share, by which it would run out of files."""
        return max(20, self.sessions * 23 // 20 // self.children // self.threads + 1)

    def status(self):
        """The counters of /bosh-status."""
        with socket.create_connection((self.addresses[0], self.port), 30) as s:
            s.sendall(b"GET /bosh-status?format=json HTTP/1.0\r\n\r\n")
            data = b""
            while piece := s.recv(65536):
                data += piece
        return json.loads(data.partition(b"\r\n\r\n")[2])

    def stop(self):
        self.httpd.stop()
        self.problems = [line for line in self.httpd.log_lines()
                         if is_problem(line) and not any(p.search(line) for p in HARMLESS)]
        self.httpd.cleanup()

    def processes(self):
        return family(self.httpd.process.pid)


class Floor(ModBosh):
    """The trivial handler."""

    name, title = "floor", "trivial handler"

    def start(self, load_ports):
        self.httpd = Apache("SetHandler floor", [("floor", FLOOR)], children=self.children, edit=self.edit)
        self.httpd.start()
        self.port = self.httpd.port


class Server(Contender):
    """An XMPP server with BOSH of its own: a process, its configuration in a directory."""

    user = None
    tcp = False

    def options_of(self, i):
        return {"domain": "localhost", "server": self.c2s_port, **({"tcp": True} if self.tcp else {})}

    def configure(self):
        raise NotImplementedError

    def prepare(self):
        self.c2s_port, self.http_port = free_port(), free_port()
        self.port = self.c2s_port if self.tcp else self.http_port
        user = self.user if self.user and os.getuid() == 0 else None
        self.dir = private_dir(self.name, user)
        command, env = self.configure()
        options = {}
        if user:
            for path in [self.dir, *self.dir.rglob("*")]:
                shutil.chown(path, user, user)
            options = {"user": user, "group": user, "extra_groups": []}
        self.out = open(self.dir / "output.log", "wb")
        self.process = subprocess.Popen([*WITH_US, *command], cwd=self.dir, env={**os.environ, **env},
                                        stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out,
                                        start_new_session=True, **options)
        try:
            wait_for(lambda: all(map(self.listens, (self.c2s_port, self.http_port))), 60, f"{self.name} listens")
        except AssertionError as err:
            said = (self.dir / "output.log").read_text(errors="replace")
            self.stop()
            raise SystemExit(f"{err}\n{said[-3000:]}") from None

    def start(self, load_ports):
        self.prepare()

    def listens(self, port):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.out.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def processes(self):
        return family(self.process.pid)


PROSODY = """
run_as_root = false
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
log = {{ warn = "{dir}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
c2s_direct_tls_ports = {{ }}
s2s_ports = {{ }}
http_ports = {{ {http} }}
https_ports = {{ }}
http_default_host = "localhost"
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "presence", "message", "iq", "bosh" }}
modules_disabled = {{ "s2s", "tls" }}
c2s_require_encryption = false
s2s_require_encryption = false
allow_unencrypted_plain_auth = true
consider_bosh_secure = true
storage = "memory"
authentication = "anonymous"
limits = {{ }}
VirtualHost "localhost"
"""


class ProsodyTcp(Server):
    name, title, user, program = "prosody-tcp", "Prosody, plain TCP", "prosody", "prosody"
    tcp = True

    def configure(self):
        (self.dir / "data").mkdir()
        conf = self.dir / "prosody.cfg.lua"
        conf.write_text(PROSODY.format(dir=self.dir, c2s=self.c2s_port, http=self.http_port))
        return ["prosody", "-F", "--config", str(conf)], {}


class Prosody(ProsodyTcp):
    name, title = "prosody", "Prosody's BOSH"
    tcp, base = False, ProsodyTcp


EJABBERD = """
loglevel: warning
hosts:
  - localhost
listen:
  -
    port: {c2s}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: false
    max_stanza_size: 262144
  -
    port: {http}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /http-bind: mod_bosh
auth_method: anonymous
anonymous_protocol: sasl_anon
allow_multiple_connections: true
modules:
  mod_bosh: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
"""


class EjabberdTcp(Server):
    name, title, user, program = "ejabberd-tcp", "ejabberd, plain TCP", "ejabberd", "ejabberdctl"
    tcp = True

    def configure(self):
        (self.dir / "ejabberd.yml").write_text(EJABBERD.format(c2s=self.c2s_port, http=self.http_port))
        libs = next(Path("/usr/lib").glob("*/ebin/ejabberd.app"), None) or \
            next(Path("/usr/lib").glob("*/ejabberd*/ebin/ejabberd.app"))
        # One node that no other finds: no name, so no port mapper either.
        return ["erl", "+K", "true", "+P", "250000", "+Q", "65536", "-noinput", "-pa", str(libs.parent),
                "-mnesia", "dir", f'"{self.dir}/mnesia"', "-s", "ejabberd"], {
            "HOME": str(self.dir), "ERL_LIBS": str(libs.parents[1]), "EJABBERD_CONFIG_PATH": f"{self.dir}/ejabberd.yml",
            "EJABBERD_LOG_PATH": f"{self.dir}/ejabberd.log", "ERL_CRASH_DUMP": "/dev/null"}


class Ejabberd(EjabberdTcp):
    name, title = "ejabberd", "ejabberd's BOSH"
    tcp, base = False, EjabberdTcp


NGINX = """
worker_processes 2;
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
daemon off;
user www-data;
events {{ worker_connections 19900; }}
http {{
    access_log {dir}/access.log;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_requests 1000000000;
    upstream server {{ server 127.0.0.1:{upstream}; keepalive 1000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /http-bind {{
            proxy_pass http://server/http-bind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_buffering off;
            proxy_read_timeout 120s;
        }}
    }}
}}
"""


class Nginx(Contender):
    name, title, program = "nginx", "nginx in front of Prosody's", "nginx"
    over = Prosody

    def options_of(self, i):
        return self.server.options_of(i)

    def start(self, load_ports):
        self.server = Prosody()
        self.server.start(())
        self.port, self.dir = free_port(), private_dir("nginx")
        conf = self.dir / "nginx.conf"
        conf.write_text(NGINX.format(dir=self.dir, port=self.port, upstream=self.server.http_port))
        self.out = open(self.dir / "output.log", "wb")
        self.process = subprocess.Popen([*WITH_US, "nginx", "-c", str(conf), "-p", str(self.dir), "-e",
                                         str(self.dir / "error.log")], stdin=subprocess.DEVNULL, stdout=self.out,
                                        stderr=self.out, start_new_session=True)
        wait_for(self.ready, 10, "nginx listens")

    ready = lambda self: Server.listens(self, self.port)  # noqa: E731

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.out.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        self.server.stop()

    def processes(self):
        return family(self.process.pid)


class Proxy(Contender):
    """A held request occupies a thread here."""

    name, title, program = "mod_proxy", "mod_proxy in front of Prosody's", "prosody"
    over = Prosody

    def options_of(self, i):
        return self.server.options_of(i)

    def start(self, load_ports):
        self.server = Prosody()
        self.server.start(())
        threads = max(64, self.sessions * 5 // 8)
        self.httpd = Apache(f"ProxyPass http://127.0.0.1:{self.server.http_port}{BIND_PATH} timeout=120",
                            ["proxy", "proxy_http"], children=2, threads=threads)
        self.httpd.start()
        self.port = self.httpd.port

    def stop(self):
        self.httpd.stop()
        self.httpd.cleanup()
        self.server.stop()

    def processes(self):
        return family(self.httpd.process.pid)


ALL = {c.name: c for c in (ModBosh, Floor, Ejabberd, EjabberdTcp, Prosody, ProsodyTcp, Nginx, Proxy)}


def missing(name):
    """What a contender lacks on this system; None: nothing."""
    program = ALL[name].program if name in ALL else None
    return program if program and not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") else None


def versions():
    """What is compared here, for the record."""
    def said(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()[0] if done.returncode == 0 else "?"
    packages = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "apache2-bin", "prosody", "ejabberd",
                               "nginx", "erlang-base"], capture_output=True, text=True).stdout
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "kernel": said("uname", "-sr"),
            "commit": said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
            "packages": dict(line.split(" ", 1) for line in packages.splitlines())}


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "?")
    kb = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{os.cpu_count()} x {model}, {kb >> 20} GB"
