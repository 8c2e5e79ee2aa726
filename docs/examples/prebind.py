#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a BOSH session for a page to attach to, and prints it as JSON; docs/PREBIND.md says what for.

    PREBIND_PASSWORD=... prebind.py http://127.0.0.1/http-bind alice@example.com

Logs in with SASL PLAIN, so the address should be on this host, or https.
"""

import base64
import json
import os
import secrets
import sys
import urllib.request
import xml.etree.ElementTree as ET
from xml.sax.saxutils import quoteattr

BIND, XBOSH = "http://jabber.org/protocol/httpbind", "urn:xmpp:xbosh"
SASL, RESOURCE = "urn:ietf:params:xml:ns:xmpp-sasl", "urn:ietf:params:xml:ns:xmpp-bind"


class Session:
    def __init__(self, url, domain):
        self.url, self.sid, self.rid = url, None, secrets.randbelow(2**31) + 1
        answer = self.request(f"to={quoteattr(domain)} wait='10' hold='1' ver='1.11' xml:lang='en' xmpp:version='1.0'")
        self.sid = answer.get("sid")

    def request(self, attributes="", payload=""):
        """Sends a request; its answer."""
        sid = f"sid={quoteattr(self.sid)} " if self.sid else ""
        body = f"<body xmlns='{BIND}' xmlns:xmpp='{XBOSH}' rid='{self.rid}' {sid}{attributes}>{payload}</body>"
        self.rid += 1
        request = urllib.request.Request(self.url, body.encode(), {"Content-Type": "text/xml; charset=utf-8"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = ET.fromstring(response.read())
        if answer.get("type") == "terminate":
            raise RuntimeError(f"the session ended: {answer.get('condition')}")
        return answer

    def until(self, tag, answer):
        """The element, from this answer or a later one."""
        while (found := answer.find(f".//{tag}")) is None:
            if answer.find(f"{{{SASL}}}failure") is not None:
                raise RuntimeError("the server refused the login")
            answer = self.request()
        return found


def prebind(url, address, password):
    user, domain = address.split("@")
    session = Session(url, domain)
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    session.until(f"{{{SASL}}}success", session.request("", f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>"))
    session.until(f"{{{RESOURCE}}}bind", session.request(f"to={quoteattr(domain)} xmpp:restart='true'"))
    resource = f"page-{secrets.token_hex(4)}"
    iq = f"<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='{RESOURCE}'><resource>{resource}</resource></bind></iq>"
    jid = session.until(f"{{{RESOURCE}}}jid", session.request("", iq)).text
    return {"jid": jid, "sid": session.sid, "rid": session.rid}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(json.dumps(prebind(sys.argv[1], sys.argv[2], os.environ["PREBIND_PASSWORD"])))
