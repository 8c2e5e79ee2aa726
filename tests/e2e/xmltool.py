# SPDX-License-Identifier: Apache-2.0
"""Strict XML for the tests: expat into ElementTree elements, with the restricted subset enforced."""

import xml.etree.ElementTree as ET
from xml.parsers import expat

NS_BOSH = "http://jabber.org/protocol/httpbind"
NS_XBOSH = "urn:xmpp:xbosh"
NS_CLIENT = "jabber:client"
NS_STREAMS = "http://etherx.jabber.org/streams"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
NS_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
NS_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
NS_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
NS_STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"
NS_XML = "http://www.w3.org/XML/1998/namespace"
LANG = f"{{{NS_XML}}}lang"

for _prefix, _uri in (("stream", NS_STREAMS), ("xmpp", NS_XBOSH)):
    ET.register_namespace(_prefix, _uri)


class Restricted(Exception):
    """A comment, PI, DTD or entity, which XMPP and BOSH forbid."""


def clark(name):
    return "{" + name.replace(" ", "}", 1) if " " in name else name


class Builder:
    """expat with namespaces, feeding elements. `opened(elem, depth, declared)` and `closed(elem, depth)`
    are called for each element; depth 0 is the root. `declared` maps the prefixes it declares."""

    def __init__(self, opened=None, closed=None, keep=True):
        self.opened, self.closed = opened, closed
        self.keep = keep  # children of the root stay attached to it
        self.root, self.stack, self.text_in_root = None, [], ""
        self._declared = {}
        self.events = 0  # grows with each piece of markup or text
        p = self.parser = expat.ParserCreate(namespace_separator=" ")
        p.buffer_text = True
        p.StartElementHandler, p.EndElementHandler = self._start, self._end
        p.CharacterDataHandler = self._text
        p.StartNamespaceDeclHandler = self._ns
        p.XmlDeclHandler = self._declaration
        for name in ("CommentHandler", "ProcessingInstructionHandler", "StartDoctypeDeclHandler",
                     "EntityDeclHandler", "SkippedEntityHandler"):
            setattr(p, name, self._forbid(name))

    @staticmethod
    def _forbid(name):
        def handler(*args):
            raise Restricted(f"{name}{args}")
        return handler

    def _declaration(self, *_args):
        self.events += 1

    def _ns(self, prefix, uri):
        self._declared[prefix or ""] = uri

    def _start(self, name, attrs):
        self.events += 1
        elem = ET.Element(clark(name), {clark(k): v for k, v in attrs.items()})
        declared, self._declared = self._declared, {}
        if self.stack:
            if self.keep or len(self.stack) > 1:
                self.stack[-1].append(elem)
        else:
            self.root = elem
        self.stack.append(elem)
        if self.opened:
            self.opened(elem, len(self.stack) - 1, declared)

    def _end(self, _name):
        self.events += 1
        elem = self.stack.pop()
        if self.closed:
            self.closed(elem, len(self.stack))

    def _text(self, text):
        self.events += 1
        elem = self.stack[-1]
        if len(self.stack) == 1:
            self.text_in_root += text
        if len(elem):
            elem[-1].tail = (elem[-1].tail or "") + text
        else:
            elem.text = (elem.text or "") + text

    @property
    def depth(self):
        return len(self.stack)


def parse(text):
    """One document, strictly. Raises expat.ExpatError or Restricted."""
    builder = Builder()
    builder.parser.Parse(text, True)
    return builder.root


def element(text):
    """An element for comparison: a string or an element. A string without xmlns is in no namespace."""
    return text if isinstance(text, ET.Element) else parse(text)


def canon(elem):
    """A value that is equal for elements which mean the same: names, attributes, text, order."""
    return (elem.tag, tuple(sorted(elem.attrib.items())), elem.text or "",
            tuple((canon(kid), kid.tail or "") for kid in elem))


def same(a, b):
    return canon(element(a)) == canon(element(b))


def assert_same(got, want):
    got, want = element(got), element(want)
    assert canon(got) == canon(want), \
        f"elements differ\n got: {show(got)}\nwant: {show(want)}"


def show(elem):
    return ET.tostring(elem, encoding="unicode")


def tag(local, ns=NS_CLIENT):
    return f"{{{ns}}}{local}"


def text_of(elem, local, ns=NS_CLIENT):
    kid = elem.find(tag(local, ns))
    return None if kid is None else kid.text or ""


def escape(text):
    return (text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            .replace("'", "&apos;").replace('"', "&quot;"))


def message(text, to="bob@example.com", **attrs):
    """A chat message as a client writes it on BOSH."""
    extra = "".join(f" {k}='{escape(v)}'" for k, v in attrs.items())
    return f"<message xmlns='jabber:client' to='{to}' type='chat'{extra}><body>{escape(text)}</body></message>"
