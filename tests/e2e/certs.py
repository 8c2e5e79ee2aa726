# SPDX-License-Identifier: Apache-2.0
"""Certificates for the tests, made with the openssl command: an authority and what it issues.

    ca = Authority()                                   ca.pem is the file for ca=
    pair = ca.issue("example.com", ["DNS:example.com"])     Pair(cert, key): files
    ca.issue(..., days=-1)                             has expired
    srv_name("example.com")                            a name for `names`: an SRVName
"""

import shutil
import ssl
import subprocess
from collections import namedtuple

from bosh_env import private_dir

Pair = namedtuple("Pair", "cert key")


def srv_name(domain, service="_xmpp-client"):
    return f"otherName:1.3.6.1.5.5.7.8.7;IA5STRING:{service}.{domain}"


def xmpp_addr(domain):
    return f"otherName:1.3.6.1.5.5.7.8.5;UTF8:{domain}"


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def context(pair, **attributes):
    """A server's context. Attributes of ssl.SSLContext may be given."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.cert, pair.key)
    made.set_alpn_protocols(["xmpp-client"])
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


class Authority:
    def __init__(self, name="Test Authority"):
        self.dir = private_dir("ca")
        self.pem, self._key = self.dir / "ca.pem", self.dir / "ca.key"
        self._made = 0
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2,
                "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.pem)

    def issue(self, common_name, names=(), days=2, usage="serverAuth"):
        """A certificate with this CN, and these names as in subjectAltName."""
        self._made += 1
        base = self.dir / f"{self._made}"
        pair = Pair(base.with_suffix(".crt"), base.with_suffix(".key"))
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        lines = [f"extendedKeyUsage={usage}"]
        if names:
            lines.append(f"subjectAltName={','.join(names)}")
        extensions.write_text("\n".join(lines) + "\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                f"/CN={common_name}", "-keyout", pair.key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-CAcreateserial",
                "-days", days, "-extfile", extensions, "-out", pair.cert)
        for path in pair:
            path.chmod(0o644)
        return pair

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)
