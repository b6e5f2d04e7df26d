"""Where the port server listens: who can reach the socket, and what is never put in another's place."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from portfsm.contrib import _doorway
from portfsm.contrib.portserver import SocketRefused, unix_socket

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def place(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "s"


def refused(path, word):
    """Both the look beforehand and the attempt say so."""
    for use in (_doorway.check_place, lambda path: unix_socket(path).__enter__()):
        with pytest.raises(SocketRefused, match=word) as error:
            use(path)
        assert isinstance(error.value.path, str)


def left_behind(path):
    """What a server leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


# ---------------------------------------------------------------------- who can connect


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_others_may_connect_for_a_moment(place, umask, monkeypatch):
    """The mode is right as soon as there is a name: nothing that follows `bind` is needed for it."""
    seen = []
    real = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address):
            real(self, address)
            seen.append(stat.S_IMODE(os.lstat(address).st_mode))

    monkeypatch.setattr(_doorway.socket, "socket", Watched)
    before = os.umask(umask)
    try:
        with unix_socket(place):
            assert seen == [0o600 & ~umask]
    finally:
        os.umask(before)


def test_a_socket_stays_when_its_server_has_ended(place):
    with unix_socket(place) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        listener.accept()[0].close()
    assert sorted(os.listdir(place.parent)) == ["s.lock"]


def test_a_socket_that_another_put_there_since_is_removed(place):
    with unix_socket(place):
        place.unlink()
        left_behind(place)
    assert place.exists()


# ---------------------------------------------------------------------- what is there already


def test_what_a_dead_server_left_is_in_the_way(place):
    left_behind(place)
    with unix_socket(place), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_the_place_of_a_living_server_is_taken(place):
    with unix_socket(place):
        refused(place, "served already")
        place.unlink()
        with pytest.raises(SocketRefused, match="holds its lock"), unix_socket(place):
            pass
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(place))
        foreign.listen()
        refused(place, "served already")
        assert place.is_socket()


def test_what_is_no_socket_is_replaced(place):
    target = place.with_name("precious")
    target.write_text("precious")
    for make in (
        lambda: place.symlink_to(target),
        lambda: place.symlink_to("nowhere"),
        lambda: place.write_text("mine"),
        lambda: os.mkfifo(place),
    ):
        make()
        refused(place, "not a socket")
        place.unlink()
    place.mkdir()
    refused(place, "is a directory")
    assert target.read_text() == "precious"
    place.rmdir()
    left_behind(target.with_name("dead"))
    place.symlink_to("dead")
    refused(place, "a link")


def test_a_lock_that_is_a_link_is_followed(place):
    place.with_name("s.lock").symlink_to("precious")
    with pytest.raises(SocketRefused, match="is a link"), unix_socket(place):
        pass
    assert sorted(os.listdir(place.parent)) == ["s.lock"]


@as_root
def test_what_belongs_to_another_user_is_replaced_or_trusted(place):
    left_behind(place)
    os.chown(place, NOBODY, NOBODY)
    refused(place, "another user")
    place.unlink()
    place.with_name("s.lock").touch()
    os.chown(place.with_name("s.lock"), NOBODY, NOBODY)
    with pytest.raises(SocketRefused, match="not a file of your own"), unix_socket(place):
        pass
    os.chown(place.parent, NOBODY, NOBODY)
    refused(place, "belongs to another user")


# ---------------------------------------------------------------------- where it is


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_may_write_to_is_trusted(place, mode):
    """Also one further up."""
    place.parent.chmod(mode)
    refused(place, "chmod go-w")
    inner = place.parent / "inner"
    inner.mkdir(mode=0o700)
    refused(inner / "s", "chmod go-w")
    link = place.parent / "link"
    link.symlink_to(inner)
    refused(link / "s", "chmod go-w")


def test_a_directory_like_tmp_is_refused(place):
    place.parent.chmod(0o1777)
    with unix_socket(place):
        assert place.is_socket()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("", "no path"),
        ("@ports", "abstract"),
        ("a\0b", "no path"),
        ("{}/none/s", "mkdir"),
        ("{}/" + "x" * 200, "107"),
        ("{}/", "directory"),
        ("{}/..", "directory"),
    ],
)
def test_a_place_that_cannot_be_is_a_traceback(place, path, word):
    refused(path.format(place.parent), word)
