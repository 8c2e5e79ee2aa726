# SPDX-License-Identifier: Apache-2.0
"""What applies to the endpoint's location, and what does not: no file lies behind it (docs/DIRECTIVES.md)."""

import http.client

import pytest


@pytest.fixture(scope="module")
def server(httpd, stub_server, tmp_path_factory):
    root = tmp_path_factory.mktemp("docroot")
    for directory in (root, *root.parents[:3]):
        directory.chmod(0o755)
    for name in ("http-bind", "closed", "open"):
        (root / name).mkdir()
        (root / name / "index.html").write_text(f"page {name}")
    (root / "http-bind" / ".htaccess").write_text("Require all denied\n")
    (root / "other.html").write_text("page other")
    return httpd(
        children=1, upstreams=[stub_server.upstream()], docroot=root, modules=["alias", "rewrite"],
        directives=f"""
        <Directory {root}>
          AllowOverride All
          Require all granted
        </Directory>
        <Directory {root}/closed>
          Require all denied
        </Directory>
        <Location /closed>
          SetHandler bosh
        </Location>
        <Location /refused>
          SetHandler bosh
          Require all denied
        </Location>
        <Location /upper>
          SetHandler BOSH
          Header set X-Location said
        </Location>
        <Location /off>
          SetHandler bosh
          <If "%{{REQUEST_URI}} =~ m#/off/page#">
            SetHandler default-handler
          </If>
        </Location>
        <Location /rewritten>
          SetHandler bosh
        </Location>
        <Directory {root}/open>
          SetHandler bosh
        </Directory>
        Alias /elsewhere {root}/open
        RewriteEngine On
        RewriteRule ^/rewritten$ /other.html [PT]
        RewriteRule ^/to-bosh$ /upper [PT]
        """)


def get(server, path, method="GET"):
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    conn.request(method, path)
    answer = conn.getresponse()
    text = answer.read().decode()
    conn.close()
    return answer, text


def is_endpoint(found):
    return found[0].status == 200 and "BOSH endpoint" in found[1]


def test_no_directory_has_a_say(server):
    """Neither an .htaccess where a file of that name would be, nor <Directory>."""
    assert is_endpoint(get(server, "/http-bind"))
    assert is_endpoint(get(server, "/http-bind/"))
    assert is_endpoint(get(server, "/closed"))


def test_the_location_has(server):
    server.expect_log("AH01630: .* bosh:/refused")
    assert get(server, "/refused")[0].status == 403
    found = get(server, "/upper")
    assert is_endpoint(found)
    assert found[0].getheader("X-Location") == "said"


def test_a_handler_of_a_directory(server):
    assert is_endpoint(get(server, "/open/"))
    assert is_endpoint(get(server, "/elsewhere/"))


def test_another_handler_after_all_finds_no_file(server):
    assert is_endpoint(get(server, "/off/x"))
    assert get(server, "/off/page")[0].status == 404


def test_rewritten_requests_are_what_they_were_made(server):
    assert get(server, "/rewritten")[1] == "page other"
    assert is_endpoint(get(server, "/to-bosh"))


def test_trace_and_others_are_httpds_own(server):
    answer, text = get(server, "/http-bind", "TRACE")
    assert answer.status == 200 and text.startswith("TRACE /http-bind")
    assert get(server, "/other.html")[1] == "page other"
