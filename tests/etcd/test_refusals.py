"""URLs that are none, servers that are not there or are something else, a library that is missing: a typed error that says what to do."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time

import pytest

from portfsm.errors import InvalidValue, JournalError, JournalUnreadable
from portfsm.journals import open_journal, read_journal
from portfsm.journals._etcd_url import parse
from portfsm.journals.etcd import EtcdJournal
from tests.witnesses.real import free_port


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("etcd://", "no host"),
        ("etcd:///log", "no host"),
        ("etcd://host", "NAME, which"),
        ("etcd://host/", "NAME, which"),
        ("etcd://host:2379/a/b", "NAME, which"),
        ("etcd://host:2379/" + "x" * 65, "NAME, which"),
        ("etcd://host:2379/lög", "NAME, which"),
        ("etcd://host:0/log", "65535"),
        ("etcd://host:65536/log", "65535"),
        ("etcd://host:http/log", "65535"),
        ("etcd://ho st:1/log", "host"),
        ("etcd://a:1,,b:1/log", "no host"),
        ("etcd://a:1,a:1/log", "twice"),
        ("etcd://a:1,b:2,a:1/log", "twice"),
        ("etcd://[::1:2379/log", "cannot be read"),
        ("etcd://a/log?quota=1", "quota_mib"),
        ("etcd://a/log?quota_mib=", "without a value"),
        ("etcd://a/log?quota_mib=0", "mebibytes"),
        ("etcd://a/log?quota_mib=1.5", "mebibytes"),
        ("etcd://a/log?quota_mib=-1", "mebibytes"),
        ("etcd://a/log?quota_mib=1&quota_mib=2", "twice"),
        ("etcd://a/log?tls=maybe", "yes or no"),
        ("etcd://a/log?tls=no&ca=x", "contradicts"),
        ("etcd://a/log?cert=x", "belong together"),
        ("etcd://a/log#part", "%23"),
        ("etcd://user@a/log", "both a user and a password"),
        ("etcd://:hunter2@a/log", "both a user and a password"),
        ("etcd://me:hunter2@@a/log", "%40"),
        ("etcd://me:hunter2/@a/log", "%2F"),
        ("etcd://me:hunter2?@a/log", "%3F"),
        ("etcd://me:hunter2@a:port/log", "65535"),
        ("etcd://me:hunter2@a", "NAME, which"),
        ("etcd://me:hunter2@a/log?password=x", "option"),
        ("ETCD://me:hunter2@a", "NAME, which"),
        ("etcd:log", "no host"),
    ],
)
@pytest.mark.parametrize("use", [open_journal, read_journal])
def test_a_malformed_url_is_guessed_at_or_shows_the_password(use, url, says):
    with pytest.raises(InvalidValue) as refused:
        use(url)
    assert says in str(refused.value)
    assert "etcd://host:port[,host:port]/NAME" in str(refused.value)
    assert "hunter2" not in str(refused.value) + repr(refused.value.value)


@pytest.mark.parametrize(
    ("url", "hosts", "tls"),
    [
        ("etcd://host/log", ("host:2379",), False),
        ("etcd://h1:1,h2:2/log", ("h1:1", "h2:2"), False),
        ("etcd://[::1]:7,[fe80::2]/log?tls=yes", ("[::1]:7", "[fe80::2]:2379"), True),
        ("etcd://127.0.0.1:1/log?ca=/etc/x", ("127.0.0.1:1",), True),
    ],
)
def test_a_good_url_is_misread(url, hosts, tls):
    place = parse(url)
    assert (place.hosts, place.tls, place.name) == (hosts, tls, "log")


def test_a_password_is_shown_by_what_holds_it():
    journal = open_journal("etcd://me:hunter%2F2@a:1/log?archive=/somewhere&quota_mib=7")
    assert isinstance(journal, EtcdJournal)
    assert (journal.place.user, journal.place.password, journal.place.quota_bytes) == ("me", "hunter/2", 7 << 20)
    assert "hunter" not in repr(journal.place) + journal.path + journal.place.shown


@pytest.mark.parametrize("lease_s", [0, 1.9, -1, float("nan"), float("inf"), 4000, "3", None, True])
def test_a_lease_that_etcd_cannot_keep_is_asked_for(lease_s):
    with pytest.raises(InvalidValue, match="lease_s"):
        EtcdJournal.from_url("etcd://a/log", lease_s=lease_s)


def test_a_cluster_that_is_not_there_is_waited_for_for_ever():
    hosts = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    url = f"etcd://me:hunter2@{','.join(hosts)}/log"
    began = time.monotonic()
    for use in (lambda journal: journal.open("x"), lambda journal: list(journal.read_apart())):
        with pytest.raises(JournalUnreadable) as refused:
            use(EtcdJournal.from_url(url, lease_s=2.0))
        assert all(host in str(refused.value) for host in hosts)
        assert "within 2 s" in str(refused.value)
        assert "refused" in str(refused.value)
        assert "hunter2" not in str(refused.value)
    assert time.monotonic() - began < 6


def test_a_misspelt_name_reads_as_an_empty_log(url):
    with pytest.raises(JournalUnreadable, match="check NAME"):
        list(read_journal(url))
    journal = EtcdJournal.from_url(url)
    journal.open("first")
    journal.close()
    assert list(read_journal(url)) == []


class _Other(http.server.BaseHTTPRequestHandler):
    status, body = 200, b"<html>hello"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.mark.parametrize(
    ("status", "body", "says"), [(200, b"<html>hello", "JSON gateway"), (404, b"not found", "404"), (200, b"[1]", "JSON gateway")]
)
def test_another_server_is_taken_for_etcd(status, body, says):
    handler = type("Other", (_Other,), {"status": status, "body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(JournalError, match=says):
            EtcdJournal.from_url(f"etcd://127.0.0.1:{server.server_port}/log", lease_s=2.0).open("x")
        server.shutdown()


def test_a_missing_library_is_a_mere_import_error():
    program = (
        "import sys; sys.modules['httpx'] = None\n"
        "import portfsm\n"
        "try: portfsm.read_journal('etcd://me:hunter2@a/log')\n"
        "except portfsm.MissingExtra as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "portfsm[etcd]"' in found.stdout
    assert "hunter2" not in found.stdout


def test_a_program_without_etcd_pays_for_it():
    program = "import portfsm, portfsm.journals, sys; print('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
