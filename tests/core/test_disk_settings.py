"""R8 and the key: who may use a folder, what it is authenticated with, and what is said where that cannot be."""

import os
import stat
import subprocess
import sys
import threading

import pytest
from disk_kit import KEY, Warnings, run

from ibidem import Guard
from ibidem.core.call import Key
from ibidem.stores import keyring
from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("IBIDEM_KEY", raising=False)
    return tmp_path / "config"


def entry(store, **changes):
    return an_entry(snapshot=store.stamps.now(), stored_at=store.now(), ttl=None, **changes)


def use(folder, **options):
    store = Disk(folder, **options)
    store.put(a_key(), entry(store))
    store.mark("pay")
    store.flush()
    return store


def found(folder, **options):
    store = Disk(folder, **options)
    try:
        return store.get(a_key())
    finally:
        store.close()


def modes(folder):
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_0600_in_0700_whatever_the_umask_r8(umask, tmp_path):
    script = """
        import os, sys
        os.umask(int(sys.argv[2]))
        from ibidem.stores.disk import Disk
        from ibidem.testing import a_key, an_entry
        store = Disk(sys.argv[1])
        store.put(a_key(), an_entry(snapshot=store.stamps.now(), stored_at=store.now()))
        store.mark("pay"); store.flush()
        print("done", flush=True); sys.stdin.read()
    """
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "\n".join(line[8:] for line in script.splitlines()),
            tmp_path / "a" / "store",
            str(umask),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "done\n"
        found = {**modes(tmp_path / "a"), **modes(tmp_path / "config")}  # while it is open: the log of SQLite too
        child.stdin.close()
    assert any(path.name == "cache.db-wal" for path in found)
    assert any(path.name == "key" for path in found)
    for path, mode in found.items():
        assert mode == (0o700 if path.is_dir() or not path.exists() and mode == 0o700 else 0o600), path


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused_r8(mode, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    with pytest.raises(PermissionError, match="chmod 700"):
        Disk(tmp_path / "store", key=KEY)
    assert list((tmp_path / "store").iterdir()) == []


def test_a_folder_of_another_user_is_refused_r8(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="another user"):
        Disk(tmp_path / "store", key=KEY)


def test_a_folder_that_was_replaced_by_one_of_another_user_is_not_used_r8(tmp_path):
    store = use(tmp_path / "store", key=KEY)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    store.close()
    with Warnings() as warned:
        assert store.get(a_key()) is None
        assert not store.stamps.shared
    assert len(warned.texts) == 1
    assert list((tmp_path / "store").iterdir()) == []
    store.close()


@pytest.mark.parametrize("path", ["a$b", "a\0b"])
def test_a_path_that_would_be_taken_for_another_is_refused(path, tmp_path):
    with pytest.raises(ValueError):
        Disk(tmp_path / path, key=KEY)


@pytest.mark.parametrize("name", ["a b", "ä", "100%", "a?b#c", "a(1)", "*", "~", "-x", "a'b"])
def test_a_folder_may_have_any_other_name(name, tmp_path):
    use(tmp_path / name, key=KEY).close()
    assert found(tmp_path / name, key=KEY) is not None


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "store").write_text("x")
    with pytest.raises(NotADirectoryError, match="give the name of a folder"):
        Disk(tmp_path / "store", key=KEY)


# -- hostile names ------------------------------------------------------------------------------------------------------

PIECES = [
    "",
    "*",
    ":",
    "a",
    "A",
    "ä",
    "a\u0308",
    "\0",
    "\ud800",
    "..",
    "/",
    "%",
    "_",
    "'",
    '"',
    "\\",
    "1",
    "\U0001f600",
    "x" * 5000,
]


def hostile(count):
    """Different texts, of pieces that somebody might take for more than text."""
    made, n = {}, 0
    while len(made) < count:
        text, rest = "", n
        while rest:
            rest, piece = divmod(rest, len(PIECES))
            text += PIECES[piece]
        made[text or "''"] = None
        n += 1
    return list(made)


def test_10_000_hostile_names_neither_collide_nor_escape_r8(tmp_path):
    store = Disk(tmp_path / "store", key=KEY)
    names = hostile(10_000)
    keys = [Key("named:tool", ("thread", name), b"x") for name in names]
    keys += [Key("named:tool", ("user", name), b"x") for name in names[:500]]
    keys += [Key(f"named:{name}", ("shared",), b"x") for name in names[:500]]
    keys += [Key("named:tool", ("shared",), name.encode("utf-8", "surrogatepass")) for name in names[:500]]
    assert len({store._records.row(key) for key in keys}) == len(keys)
    assert len({store._records.tag(name) for name in names}) == len(names)
    for n, key in enumerate(keys[::40]):
        store.put(key, entry(store, value=n, conversation=key.partition[-1]))
    store.flush()
    store._memory.close()
    assert [store.get(key).value for key in keys[::40]] == list(range(len(keys[::40])))
    assert Guard(store=store).forget(conversation="*") <= 2, "a name was taken for a pattern"
    store.close()
    assert {path.name for path in (tmp_path / "store").iterdir()} <= {"stamps", "open", "results", "marks"}
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


# -- the key ------------------------------------------------------------------------------------------------------------


def test_the_key_is_given_else_in_the_environment_else_in_a_file(tmp_path, monkeypatch, home):
    folder = tmp_path / "store"
    use(folder).close()
    assert (home / "ibidem" / "key").stat().st_size == 32
    assert found(folder) is not None
    monkeypatch.setenv("IBIDEM_KEY", "from the environment")
    assert found(folder) is None
    use(folder).close()
    assert found(folder) is not None
    assert found(folder, key="given, and long enough") is None
    assert found(folder, key=b"from the environment") is not None, "a text and its bytes are one key"


def test_a_guard_passes_its_key_on(tmp_path):
    guard = Guard(store=tmp_path / "store", key=KEY)
    guard.store.put(a_key(), entry(guard.store))
    guard.store.flush()
    assert Guard(store=str(tmp_path / "store"), key=KEY).store is guard.store
    assert Guard(store=tmp_path / "store", key=KEY + "!").store is not guard.store
    guard.close()
    assert found(tmp_path / "store", key=KEY) is not None
    with pytest.raises(TypeError, match="key= goes with the name of a folder"):
        Guard(key=KEY)
    with pytest.raises(TypeError, match="key= goes with the name of a folder"):
        Guard(store=guard.store, key=KEY)


@pytest.mark.parametrize("key", ["", "short", b"15 bytes are it"])
def test_a_short_key_is_refused(key, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="too short"):
        Disk(tmp_path / "store", key=key)
    with pytest.raises(ValueError, match="too short"):
        Disk(tmp_path / "store", key=KEY, encrypt=key)
    monkeypatch.setenv("IBIDEM_KEY", key if isinstance(key, str) else key.decode())
    with pytest.raises(ValueError, match="IBIDEM_KEY is too short"):
        Disk(tmp_path / "store")


@pytest.mark.parametrize("key", [5, ["x" * 20], object()])
def test_a_key_of_another_type_is_refused(key, tmp_path):
    with pytest.raises(TypeError, match="text or bytes"):
        Disk(tmp_path / "store", key=key)


def test_processes_that_make_the_key_at_once_have_one_key(home):
    script = """
        import sys
        from ibidem.stores import keyring
        sys.stdin.readline()
        print(keyring.find(None, print).hex())
    """
    code = "\n".join(line[8:] for line in script.splitlines())
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [None] * 4

    def ask(n):
        answers[n] = children[n].communicate("go\n")[0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1 and len(answers[0]) == 65
    assert [path.name for path in (home / "ibidem").iterdir()] == ["key"], "something was left behind"


def no_key(home):
    (home / "ibidem").mkdir(parents=True)
    return home / "ibidem" / "key"


BROKEN = {
    "others may read it": lambda path: (path.write_bytes(b"x" * 32), path.chmod(0o644)),
    "short": lambda path: (path.write_bytes(b"x" * 31), path.chmod(0o600)),
    "long": lambda path: (path.write_bytes(b"x" * 33), path.chmod(0o600)),
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_key_file_that_cannot_be_trusted_is_not_used_and_one_warning_says_so(how, home, tmp_path):
    BROKEN[how](no_key(home))
    with Warnings() as warned:
        store = use(tmp_path / "store")
        assert store.get(a_key()) is not None
        store.close()
    assert len(warned.texts) == 1 and "no key can be kept" in warned.texts[0]
    assert found(tmp_path / "store") is None


def test_a_key_that_cannot_be_kept_costs_one_warning_r5(home, tmp_path):
    home.write_text("a file in the place of the folder")
    with Warnings() as warned:
        use(tmp_path / "store").close()
    assert len(warned.texts) == 1 and "IBIDEM_KEY" in warned.texts[0]


def test_keys_are_not_told_apart_by_their_length_alone():
    assert keyring.of("x" * 16, "") != keyring.of("x" * 17, "")
    assert len(keyring.of("x" * 1000, "")) == 32


# -- platforms and switches -----------------------------------------------------------------------------------------------


def test_a_platform_without_the_locks_of_posix_is_told_what_to_do(tmp_path):
    script = """
        import sys
        sys.modules["fcntl"] = None
        import ibidem
        ibidem.Guard()
        for use in (lambda: ibidem.Disk(sys.argv[1]), lambda: ibidem.Guard(store=sys.argv[1])):
            try:
                use()
            except NotImplementedError as problem:
                print(problem)
    """
    said = run(script, tmp_path / "store").splitlines()
    assert len(said) == 2 and all("store=ibidem.Memory()" in text for text in said)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("switch", ["off", "memory"])
def test_the_switch_keeps_everything_off_the_disk(switch, tmp_path, monkeypatch):
    monkeypatch.setenv("IBIDEM", switch)
    Guard(store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "options", [{"keep": None}, {"keep": 0}, {"max_bytes": 0}, {"max_bytes": True}, {"max_bytes": 1.5}]
)
def test_what_makes_no_sense_is_refused(options, tmp_path):
    with pytest.raises((ValueError, TypeError)):
        Disk(tmp_path / "store", key=KEY, **options)
