# SPDX-License-Identifier: Apache-2.0
"""Finding the XMPP server: checklist section 19, U-001 to U-012, U-020 to U-026, U-039."""

import itertools
import json
import random
import re
import socket
import time

import pytest
import xmltool as X
from bosh_env import free_port, wait_for
from certs import Authority, context
from client import TB, auth, new_body
from nameserver import REFUSED, SERVFAIL, NameServer
from stub import StubServer

REMOTE = "remote-connection-failed"
TIMEOUT = 4  # seconds: the servers' timeout=
number = itertools.count(1)


@pytest.fixture(scope="module")
def ns():
    made = NameServer()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def server(httpd, ns, ca):
    """Any domain below dns.example, as its SRV records say, and some with lines of their own. One child: one cache."""
    return httpd(children=1, threads=64, log_level="info bosh:debug", directives=f"""
        BoshResolver {ns.address}
        BoshAllowDomain *.dns.example only.example bücher.example xn--mller-kva.example zoë.example
        """, upstreams=[
            f"* srv tls=optional timeout={TIMEOUT}s ca={ca.pem}",
            f"strict-direct.example srv timeout={TIMEOUT}s ca={ca.pem}",
            f"strict-starttls.example srv timeout={TIMEOUT}s ca={ca.pem}",
            f"direct.example srv tls=direct timeout={TIMEOUT}s ca={ca.pem}",
            f"plain.example srv tls=off timeout={TIMEOUT}s",
            f"named.example host.named.example:{NAMED_PORT} tls=off timeout={TIMEOUT}s",
            f"late.example host.late.example:{NAMED_PORT} tls=off timeout={TIMEOUT}s"])


NAMED_PORT = free_port()


@pytest.fixture
def domain():
    """One that no cache has heard of."""
    return f"d{next(number)}.dns.example"


@pytest.fixture(scope="module")
def second_server():
    made = StubServer()
    yield made
    made.stop()


@pytest.fixture
def second(second_server):
    second_server.reset()
    return second_server


@pytest.fixture(scope="module")
def named_server():
    made = StubServer(port=NAMED_PORT)
    yield made
    made.stop()


@pytest.fixture
def named(named_server):
    named_server.reset()
    return named_server


class BlackHole:
    """An address that does not answer: its backlog is full, so what comes is dropped."""

    def __init__(self, host="127.0.0.1", port=0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.fillers = []
        for _ in range(4):
            filler = socket.socket(family)
            filler.setblocking(False)
            filler.connect_ex((host, self.port))
            self.fillers.append(filler)

    def close(self):
        for s in [self.listener, *self.fillers]:
            s.close()


@pytest.fixture
def hole():
    made = BlackHole()
    yield made
    made.close()


@pytest.fixture
def hole6():
    made = BlackHole("::1")
    yield made
    made.close()


def closed_port():
    return free_port()


def place(ns, domain, stub, priority=10, weight=0, name=None, service="_xmpp-client", addresses=("127.0.0.1",), ttl=60):
    """A record for this stub, and its host."""
    host = name or f"h{next(number)}.{domain}"
    ns.srv(f"{service}._tcp.{domain}", priority, weight, stub.port, host, ttl)
    for address in addresses:
        ns.add(host, "AAAA" if ":" in address else "A", address, ttl)
    return host


def connected(client, stub, to, **attrs):
    session, upstream = client.start(stub, to=to, **attrs)
    assert upstream.headers[-1]["attrs"]["to"] == to
    return session, upstream


def failed(server, client, to, reason, wait=20):
    """No stream: the client is told, and the log says why, in one line. Returns the seconds that took."""
    before = len(server.log_lines())
    server.expect_log(r"BH201: no stream to the XMPP server")
    start = time.monotonic()
    exchange = client.new_async(to=to, wait=wait)
    answer = exchange.answer(wait + 5)
    if answer.attr("type") is None:
        answer = client.session(exchange).next()
    TB(answer, REMOTE)
    took = time.monotonic() - start

    def told():
        return [line for line in server.log_lines()[before:]
                if re.search(r"stream to the XMPP server|\] \S+ at .*: ", line) and re.search(reason, line)]
    wait_for(told, 5, f"the reason in the log: {reason}")
    return took


# ---- SRV ----

@pytest.mark.rows("U-001")
@pytest.mark.parametrize("written, ascii_form", [("bücher.example", "xn--bcher-kva.example"),
                                                 ("müller.example", "xn--mller-kva.example"),
                                                 ("xn--mller-kva.example", "xn--mller-kva.example"),
                                                 ("ONLY.Example", "only.example")])
def test_U_001_a_labels_are_asked_for(ns, client, stub, written, ascii_form):
    if not ns.asked(f"_xmpp-client._tcp.{ascii_form}"):
        place(ns, ascii_form, stub)
    session, upstream = client.start(stub, to=written)
    assert upstream.headers[0]["attrs"]["to"] == written.lower()
    assert ns.asked(f"_xmpp-client._tcp.{ascii_form}", "SRV") == 1
    session.terminate()


@pytest.mark.valgrind
@pytest.mark.rows("U-002")
def test_U_002_the_next_priority_only_after_all_of_the_first_failed(ns, client, stub, second, domain):
    for _ in range(3):
        ns.srv(f"_xmpp-client._tcp.{domain}", 10, 10, closed_port(), f"dead.{domain}")
    ns.add(f"dead.{domain}", "A", "127.0.0.1")
    place(ns, domain, second, priority=20)
    place(ns, domain, stub, priority=30)
    connected(client, second, domain)
    assert stub.new_connections() == 0


@pytest.mark.rows("U-002")
def test_U_002_within_a_priority_by_weight(ns, client, stub, second, domain):
    place(ns, domain, stub, weight=1)
    place(ns, domain, second, weight=65000)
    for _ in range(6):
        connected(client, second, domain)[0].terminate()
    assert stub.new_connections() == 0  # once in 10000 runs it is


@pytest.mark.rows("U-003")
def test_U_003_no_service_means_no_fallback(ns, server, client, domain):
    ns.srv(f"_xmpp-client._tcp.{domain}", 0, 0, 0, ".")
    ns.add(domain, "A", "127.0.0.1")
    failed(server, client, domain, r"\[s\S+ resolve\].*no such service")
    assert ns.asked(domain) == 0


@pytest.mark.rows("U-004")
def test_U_004_the_next_target_and_the_next_address(ns, client, stub, domain):
    ns.srv(f"_xmpp-client._tcp.{domain}", 1, 0, closed_port(), f"dead.{domain}")
    ns.add(f"dead.{domain}", "A", "127.0.0.1")
    ns.add(f"dead.{domain}", "AAAA", "::1")
    place(ns, domain, stub, priority=2, addresses=["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    connected(client, stub, domain)


@pytest.mark.rows("U-004")
def test_U_004_more_addresses_than_are_tried_at_once(ns, client, stub, domain):
    """Those that nobody answers at are at most four at a time; the last one is reached all the same."""
    dead = [f"127.0.0.{n}" for n in range(10, 16)]
    holes = [BlackHole(host, stub.port) for host in dead]
    try:
        place(ns, domain, stub, addresses=[*dead, "127.0.0.1"])
        connected(client, stub, domain)
    finally:
        for hole in holes:
            hole.close()


@pytest.mark.rows("U-005")
def test_U_005_records_whose_targets_fail_are_not_fallen_back_from(ns, server, client, domain):
    ns.srv(f"_xmpp-client._tcp.{domain}", 1, 0, closed_port(), f"dead.{domain}")
    ns.add(f"dead.{domain}", "A", "127.0.0.1")
    ns.add(domain, "A", "127.0.0.1")
    failed(server, client, domain, r"\[s\S+ connect\] \S+ at 127.0.0.1:\d+: .*Connection refused")
    assert ns.asked(domain) == 0


@pytest.fixture
def at_5222():
    """A stub at port 5222 of an address of this machine that nobody uses."""
    for _ in range(20):
        host = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        try:
            made = StubServer(host, 5222)
            break
        except OSError:
            continue
    yield made
    made.stop()


@pytest.mark.rows("U-006")
def test_U_006_without_records_the_domain_itself(ns, client, at_5222, domain):
    ns.add(domain, "A", at_5222.host)
    connected(client, at_5222, domain)
    assert ns.asked(f"_xmpp-client._tcp.{domain}", "SRV") == 1


@pytest.mark.rows("U-007")
def test_U_007_a_configured_host_needs_no_records(ns, client, named):
    ns.add("host.named.example", "A", "127.0.0.1", ttl=1)
    session, _ = connected(client, named, "named.example")
    assert ns.asked("host.named.example", "A") == 1
    assert not [q for q in ns.questions if q[2] == "SRV" and "named.example" in q[1]]
    session.terminate()


@pytest.mark.rows("U-008")
def test_U_008_ipv6_that_does_not_answer_costs_little(ns, client, hole6, domain):
    alive = StubServer(port=hole6.port)
    try:
        place(ns, domain, alive, addresses=["::1", "127.0.0.1"])
        start = time.monotonic()
        connected(client, alive, domain)
        assert time.monotonic() - start < TIMEOUT - 0.5  # 0.3 s, and not all the time there is
    finally:
        alive.stop()


@pytest.mark.rows("U-008")
def test_U_008_ipv6_first_when_both_answer(ns, client, domain):
    six = StubServer("::1")
    four = StubServer(port=six.port)
    try:
        place(ns, domain, six, addresses=["127.0.0.1", "::1"])
        connected(client, six, domain)
        assert four.new_connections() == 0
    finally:
        six.stop()
        four.stop()


@pytest.mark.rows("U-008")
def test_U_008_an_answer_about_ipv6_that_does_not_come_costs_little(ns, client, stub, domain):
    host = place(ns, domain, stub)
    ns.fault(host, qtype="AAAA", drop=True)
    start = time.monotonic()
    connected(client, stub, domain)
    assert time.monotonic() - start < TIMEOUT - 0.5  # 0.3 s, and not all the time there is


@pytest.mark.rows("U-009")
def test_U_009_a_target_is_a_host_and_may_be_an_alias(ns, client, stub, domain):
    host = place(ns, domain, stub, addresses=[])
    ns.add(host, "CNAME", f"real.{domain}")
    ns.add(f"real.{domain}", "A", "127.0.0.1")
    connected(client, stub, domain)
    assert ns.asked(f"_xmpp-client._tcp.{host}") == 0


@pytest.mark.rows("U-009")
def test_U_009_aliases_that_go_round(ns, server, client, domain):
    ns.srv(f"_xmpp-client._tcp.{domain}", 1, 0, 5222, f"a.{domain}")
    ns.add(f"a.{domain}", "CNAME", f"b.{domain}")
    ns.add(f"b.{domain}", "CNAME", f"a.{domain}")
    failed(server, client, domain, "no address")


@pytest.mark.rows("U-010")
def test_U_010_answers_are_kept_for_their_ttl(ns, client, stub, domain):
    host = place(ns, domain, stub, ttl=3)
    for _ in range(3):
        connected(client, stub, domain)[0].terminate()
    assert ns.asked(f"_xmpp-client._tcp.{domain}") == 1 and ns.asked(host, "A") == 1

    def asked_again():
        connected(client, stub, domain)[0].terminate()
        return ns.asked(f"_xmpp-client._tcp.{domain}") == 2 and ns.asked(host, "A") == 2
    wait_for(asked_again, 20, "the records are looked up again", interval=0.2)


@pytest.mark.rows("U-010")
def test_U_010_many_wait_for_one_answer(ns, client, stub, domain):
    place(ns, domain, stub)
    ns.fault(f"_xmpp-client._tcp.{domain}", delay=1.0)
    under_way = [client.new_async(to=domain, wait=20) for _ in range(10)]
    for exchange in under_way:
        client.session(exchange)
    for _ in under_way:
        stub.accept()
    assert ns.asked(f"_xmpp-client._tcp.{domain}") == 1


@pytest.mark.rows("U-010")
def test_U_010_a_dead_resolver_harms_nobody_else(ns, server, client, stub, domain):
    place(ns, domain, stub)
    session, upstream = connected(client, stub, domain)
    server.expect_log("BH201")
    waiting = []
    for n in range(30):
        ns.fault(f"_xmpp-client._tcp.dead{n}.{domain}", drop=True)
        waiting.append(client.new_async(to=f"dead{n}.{domain}", wait=20))
    slowest = 0
    for n in range(20):
        start = time.monotonic()
        session.send_next(X.message(f"{n}"))
        upstream.wait_bodies(1)
        slowest = max(slowest, time.monotonic() - start)
    connected(client, stub, domain)  # and new ones, by what is known
    assert slowest < TIMEOUT - 1
    assert not waiting[-1].done()
    for exchange in waiting:
        TB(exchange.answer(TIMEOUT + 10), REMOTE)


@pytest.mark.rows("U-010")
def test_U_010_time_outs_of_dns_end_in_time(ns, server, client, domain):
    ns.fault(f"_xmpp-client._tcp.{domain}", drop=True)
    took = failed(server, client, domain, r"\[s\S+ resolve\].*no answer from the name servers in time")
    assert TIMEOUT - 0.5 < took < TIMEOUT + 15


@pytest.mark.rows("U-011")
@pytest.mark.parametrize("service", ["_xmpp-client", "_xmpps-client"])
@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED])
def test_U_011_a_failure_is_not_taken_for_an_empty_answer(ns, server, client, domain, service, rcode):
    ns.fault(f"{service}._tcp.{domain}", rcode=rcode)
    ns.add(domain, "A", "127.0.0.1")
    failed(server, client, domain, r"\[s\S+ resolve\].*the SRV records cannot be looked up: the name servers fail")
    assert ns.asked(domain) == 0


@pytest.mark.rows("U-012")
def test_U_012_all_targets_black_holed(ns, server, client, hole, domain):
    ns.add(f"hole.{domain}", "A", "127.0.0.1")
    for priority in range(3):
        ns.srv(f"_xmpp-client._tcp.{domain}", priority, 0, hole.port, f"hole.{domain}")
    took = failed(server, client, domain, r"\[s\S+ connect\] \S+ at 127.0.0.1:\d+: .*in time")
    assert TIMEOUT - 1.5 < took < TIMEOUT + 15


@pytest.mark.rows("U-012")
def test_U_012_the_client_hears_of_it_while_it_waits(httpd, hole):
    server = httpd(children=1, upstreams=[f"example.com 127.0.0.1:{hole.port} timeout=60s"])
    client = server.client()
    server.expect_log("BH201")
    TB(client.new_async(wait=6).answer(30), REMOTE)  # and not an empty answer when the wait is over
    client.close()


# ---- direct TLS ----

@pytest.mark.rows("U-020", "U-021", "U-022", "U-023")
@pytest.mark.parametrize("first", ["_xmpps-client", "_xmpp-client"])
def test_U_020_both_services_by_priority(ns, client, stub, second, ca, domain, first):
    secure = context(ca.issue("x", [f"DNS:{domain}"]))
    stub.script.tls, stub.script.tls_context = "direct", secure
    place(ns, domain, stub, priority=5 if first == "_xmpps-client" else 10, service="_xmpps-client")
    place(ns, domain, second, priority=10 if first == "_xmpps-client" else 5)
    chosen, other = (stub, second) if first == "_xmpps-client" else (second, stub)
    session, upstream = connected(client, chosen, domain)
    assert other.new_connections() == 0
    assert (upstream.tls is not None) == (first == "_xmpps-client")
    if upstream.tls:
        assert upstream.sni == domain and upstream.tls.selected_alpn_protocol() == "xmpp-client"
    session.terminate()


@pytest.mark.rows("U-001", "U-022", "U-043")
def test_U_022_an_international_domain_is_asked_for_and_certified_as_a_labels(ns, client, stub, ca):
    to = "zoë.example"
    ascii_form = to.encode("idna").decode()
    stub.script.tls, stub.script.tls_context = "direct", context(ca.issue("x", [f"DNS:{ascii_form}"]))
    place(ns, ascii_form, stub, service="_xmpps-client")
    session, upstream = connected(client, stub, to)
    assert upstream.sni == ascii_form
    session.terminate()


@pytest.mark.rows("U-021")
def test_U_021_without_a_way_to_tls_the_other_service_is_tried(ns, client, stub, second, domain):
    """The first target does not speak TLS; the next one does what its record says."""
    place(ns, domain, stub, priority=1, service="_xmpps-client")
    place(ns, domain, second, priority=2)
    connected(client, second, domain)
    assert stub.accept() is not None


@pytest.mark.rows("U-022", "U-025", "U-043")
@pytest.mark.parametrize("service, mode", [("_xmpps-client", "direct"), ("_xmpp-client", "starttls")])
def test_U_025_a_certificate_for_the_target_alone_is_refused(ns, server, client, stub, ca, service, mode):
    to = f"strict-{mode}.example"
    host = place(ns, to, stub, service=service)
    stub.script.tls, stub.script.tls_context = mode, context(ca.issue(host, [f"DNS:{host}"]))
    server.expect_log("BH201")
    exchange = client.new_async(auth("alice", "sesame"), to=to, wait=20)
    upstream = stub.accept()
    TB(exchange.answer(), REMOTE)
    upstream.wait_closed()
    assert b"<auth" not in upstream.received and b"sesame" not in upstream.received
    assert upstream.sni == to and upstream.shaken is None
    wait_for(lambda: any(f"certificate is not for {to}" in line for line in server.log_lines()), 5, "the reason")


@pytest.mark.rows("U-026")
def test_U_026_no_direct_tls_means_the_other_service(ns, client, stub, domain):
    ns.srv(f"_xmpps-client._tcp.{domain}", 0, 0, 0, ".")
    place(ns, domain, stub)
    connected(client, stub, domain)


@pytest.mark.rows("U-026")
def test_U_026_no_direct_tls_is_not_fallen_back_from(ns, server, client, domain):
    ns.srv(f"_xmpps-client._tcp.{domain}", 0, 0, 0, ".")
    ns.add(domain, "A", "127.0.0.1")
    failed(server, client, domain, "no such service")
    assert ns.asked(domain) == 0


@pytest.mark.rows("U-020")
def test_U_020_what_the_policy_forbids_is_not_asked_for(ns, server, client, stub, second, ca):
    stub.script.tls, stub.script.tls_context = "direct", context(ca.issue("x", ["DNS:direct.example"]))
    place(ns, "direct.example", stub, priority=20, service="_xmpps-client")
    place(ns, "direct.example", second, priority=10)
    connected(client, stub, "direct.example")[0].terminate()
    assert ns.asked("_xmpp-client._tcp.direct.example") == 0
    place(ns, "plain.example", second, priority=20)
    connected(client, second, "plain.example")
    assert ns.asked("_xmpps-client._tcp.plain.example") == 0


# ---- name servers as they are ----

@pytest.mark.rows("U-010")
@pytest.mark.parametrize("fault", [{"drop": 1}, {"delay": 1.0}, {"truncate": True}])
def test_faults_that_a_second_question_gets_over(ns, client, stub, domain, fault):
    host = place(ns, domain, stub)
    for name in (f"_xmpp-client._tcp.{domain}", host):
        ns.fault(name, **fault)
    connected(client, stub, domain)
    if "truncate" in fault:
        assert ns.asked(f"_xmpp-client._tcp.{domain}", "SRV", "tcp") == 1 and ns.asked(host, "A", "tcp") == 1


GARBAGE = {"nothing": lambda q: b"", "short": lambda q: q[:7], "noise": lambda q: random.randbytes(80),
           "half a record": lambda q: q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:] + b"\xc0\x0c\0\x21\0\1\0\0\0\x3c\0\xff\0\1",
           "a pointer to itself": lambda q: q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:] +
           b"\xc0\x0c\0\x21\0\1\0\0\0\x3c\0\x08\0\1\0\1\x14\x66" + (0xc000 + len(q) + 18).to_bytes(2, "big"),
           "another question": lambda q: bytes([q[0] ^ 1]) + q[1:2] + b"\x81\x80" + q[4:]}


@pytest.mark.rows("U-010")
def test_garbage_is_no_answer(ns, server, client, stub, domain):
    server.expect_log(r"BH201: .* (cannot be looked up|no answer from the name servers)")
    under_way = []
    for kind, raw in GARBAGE.items():
        to = f"{kind.replace(' ', '-')}.{domain}"
        ns.fault(f"_xmpp-client._tcp.{to}", raw=raw)
        ns.fault(f"_xmpps-client._tcp.{to}", raw=raw)
        ns.add(to, "A", "127.0.0.1")
        under_way.append((to, client.new_async(to=to, wait=20)))
    for to, exchange in under_way:
        TB(exchange.answer(TIMEOUT + 10), REMOTE)
        assert ns.asked(to) == 0
    place(ns, domain, stub)
    connected(client, stub, domain)


def test_more_records_than_fit(ns, client, stub, domain):
    """Forty of them, by TCP; whichever are kept, one that works is found."""
    for _ in range(40):
        place(ns, domain, stub, name=f"same.{domain}", addresses=[])
    ns.add(f"same.{domain}", "A", "127.0.0.1")
    connected(client, stub, domain)
    assert ns.asked(f"_xmpp-client._tcp.{domain}", "SRV", "tcp") == 1


@pytest.mark.parametrize("record", [(10, 0, 5222, "has space.example"), (10, 0, 0, "host.example"), (10, 0, 5222, "a\nb.example")])
def test_records_that_name_no_place_do_not_count(ns, client, stub, domain, record):
    ns.add(f"_xmpp-client._tcp.{domain}", "SRV", record)
    place(ns, domain, stub, priority=20)
    connected(client, stub, domain)


# ---- any domain of a list ----

def test_star_serves_the_list_and_nothing_else(ns, client, stub):
    for to in ("dns.example", "xdns.example", "other.example", "*", "*.dns.example.org", "a.only.example", "*.dns.example",
               "x\\.dns.example", "a@x.dns.example", "x y.dns.example", "x/.dns.example"):  # those are no hosts' names
        before = len(ns.questions)
        TB(client.post(new_body(to=to)).answer(), "host-unknown")
        assert len(ns.questions) == before
    place(ns, "a.b.c.dns.example", stub)
    connected(client, stub, "a.b.c.dns.example")


def test_star_with_hosts_and_a_line_that_wins(httpd, stub, second):
    server = httpd(children=1, upstreams=[f"* {stub.address}", f"mine.example {second.address}"],
                   directives="BoshAllowDomain *\n")
    client = server.client()
    connected(client, stub, "whatever.example")
    connected(client, second, "mine.example")
    client.close()


def test_the_sum_of_failures_names_a_domain(ns, httpd):
    """A line for any domain has one ration of warnings for all; the sum says whose the last one was."""
    server = httpd(children=1, upstreams=["* srv"], directives=f"BoshResolver {ns.address}\nBoshAllowDomain *\n")
    server.expect_log("BH201: .*no such service")
    client = server.client()
    for n in range(3):
        ns.srv(f"_xmpp-client._tcp.sum{n}.example", 0, 0, 0, ".")
        TB(client.new_async(to=f"sum{n}.example").answer(), REMOTE)
    wait_for(lambda: any(re.search(r"BH202: \*: 2 more .*: sum2.example: its SRV records say", line)
                         for line in server.log_lines()), 20, "the sum")
    client.close()


# ---- several targets ----

@pytest.mark.parametrize("lines", [["example.com 127.0.0.1:{dead} {first} {second}"],
                                   ["example.com 127.0.0.1:{dead}", "EXAMPLE.com {first}", "example.com {second}"]])
def test_targets_are_tried_in_order(httpd, stub, second, lines):
    dead = closed_port()
    server = httpd(children=1, upstreams=[line.format(dead=dead, first=stub.address, second=second.address)
                                          for line in lines])
    client = server.client()
    for _ in range(2):
        connected(client, stub, "example.com")
    down(stub)
    connected(client, second, "example.com")
    stub.listen()
    # Three failures make it be left alone; it was one.
    connected(client, stub, "example.com")
    assert second.new_connections() == 0
    client.close()


def test_tls_that_fails_leads_to_the_next_target(httpd, stub, second):
    """The first one has no STARTTLS to offer; each line's words are its own."""
    server = httpd(children=1, upstreams=[f"example.com {stub.address} tls=starttls verify=off",
                                          f"example.com {second.address} tls=off"])
    client = server.client()
    connected(client, second, "example.com")
    first = stub.accept()
    first.wait_end()
    first.wait_closed()
    assert b"<auth" not in first.received
    client.close()


def test_a_silent_server_leads_to_the_next_target(httpd, stub, second):
    stub.script.auto = False
    server = httpd(children=1, upstreams=[f"example.com {stub.address} tls=direct verify=off timeout=6s",
                                          f"example.com {second.address} tls=off"])
    client = server.client()
    connected(client, second, "example.com")
    client.close()


def down(stub):
    stub.refuse()

    def refused():
        with socket.socket() as s:
            return s.connect_ex((stub.host, stub.port)) != 0
    wait_for(refused, 5, "nobody listens")


def connects(server):
    """How many connections the only child has tried to make."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(b"GET /bosh-status?format=json HTTP/1.0\r\nHost: localhost\r\n\r\n")
        text = b""
        while data := s.recv(65536):
            text += data
    return json.loads(text.split(b"\r\n\r\n", 1)[1])["child"]["connects"]


STATUS = '<Location "/bosh-status">\nSetHandler bosh-status\n</Location>\n'


@pytest.mark.rows("U-039")
def test_U_039_no_storm_on_a_dead_server(httpd, stub):
    """Hundreds of clients, a server that is down: a few connections; when it is back, they all get in."""
    down(stub)
    server = httpd(children=1, threads=64, directives=STATUS, upstreams=[stub.upstream()])
    server.expect_log("BH201")
    client = server.client()
    for _ in range(10):
        under_way = [client.new_async() for _ in range(30)]
        for exchange in under_way:
            TB(exchange.answer(), REMOTE)
    tried = connects(server)
    # Those of the first moment, before any has failed, and one each time that the pause is over.
    assert tried < 100, tried
    assert any("left alone" in line for line in server.log_lines())
    stub.listen()
    client.close()

    def back():
        answer = client.new_async().answer()
        return answer.attr("type") is None
    wait_for(back, 60, "the server is found to be back", interval=0.2)
    client.close()


# ---- names in host:port ----

@pytest.mark.rows("U-007", "U-010")
def test_a_host_that_does_not_exist_at_start(ns, server, client, named):
    ns.fault("host.late.example", rcode=SERVFAIL)
    failed(server, client, "late.example", r"\[s\S+ resolve\].*the name cannot be looked up")
    ns.remove("host.late.example")
    ns.add("host.late.example", "A", "127.0.0.1", ttl=1)

    def found():
        server.expect_log("BH201|BH202")
        return client.new_async(to="late.example").answer().attr("type") is None
    wait_for(found, 40, "the name is looked up again", interval=0.5)
    assert named.new_connections() >= 1


def test_a_restart_while_a_name_is_looked_up(ns, httpd, stub):
    server = httpd(children=2, directives=f"BoshResolver {ns.address}\n",
                   upstreams=[f"example.com slow.dns.example:{stub.port} tls=off"])
    ns.add("slow.dns.example", "A", "127.0.0.1")
    ns.fault("slow.dns.example", delay=1.5)
    client = server.client()
    exchange = client.new_async(wait=20)
    wait_for(lambda: ns.asked("slow.dns.example"), 5, "the name is looked up")
    server.graceful()
    session = client.session(exchange, timeout=20)
    upstream = stub.accept()
    upstream.wait_header()
    session.authenticate()
    session.terminate()
    client.close()


def test_a_crash_while_a_name_is_looked_up(ns, httpd, stub):
    """Nothing of the session was lost: another child looks the name up."""
    server = httpd(children=2, directives=f"BoshResolver {ns.address}\n",
                   upstreams=[f"example.com slower.dns.example:{stub.port} tls=off"])
    ns.add("slower.dns.example", "A", "127.0.0.1")
    ns.fault("slower.dns.example", drop=True)
    client = server.client()
    other, child = server.children()
    exchange = server.taken_by(child, lambda: client.new_async(wait=20))
    wait_for(lambda: ns.asked("slower.dns.example"), 5, "the name is looked up")
    server.kill_child(child)
    exchange.closed(10)
    ns.remove("slower.dns.example")
    ns.add("slower.dns.example", "A", "127.0.0.1")
    upstream = stub.accept(10)
    upstream.wait_header()
    assert server.owner_of(upstream.peer_port) not in (None, child)
    client.close()


def test_localhost_needs_no_name_server(httpd, stub):
    server = httpd(children=1, directives=f"BoshResolver 127.0.0.1:{closed_port()}\n",
                   upstreams=[f"example.com localhost:{stub.port}"])
    client = server.client()
    for _ in range(5):  # its IPv6 address, where nobody listens, does no harm
        connected(client, stub, "example.com")
    client.close()
