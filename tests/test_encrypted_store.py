"""Nothing of a face is left readable, wherever the record is; a wrong or missing key stops the start."""

import base64
import hashlib
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from service.agreement import Agreement, Disclosure, Terms
from service.domain import CaseKind, EncounterStatus, Enrolment
from service.encrypted_store import key_store_url, open_encrypted
from service.erasure_ledger import ErasureLedger
from service.errors import BiodedupError, KeysMissing, MasterKeyUnusable, StoreUnavailable, Undecipherable
from service.keys.sources import MasterKeySource
from service.store import encrypting
from service.store.rows import to_bytes
from service.store.sql_store import SqlStore
from tests import postgres
from tests.key_sources import PIN, TOKEN, new_pkcs11_address, new_transit_address
from tests.records import record_of
from tests.store.building import (
    FACTS,
    SQL_KINDS,
    START,
    candidate_of,
    embedding_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
)

IMAGE = b"\xff\xd8 a planted photograph " * 900
PLANTED_FACTS = replace(FACTS, site="planted site", operator_ref="planted operator", labels=(("of", "planted value"),))
PEOPLE = 30
PLANTED_WORDS = {"words": b"planted words"}


@pytest.fixture(params=SQL_KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a record in the folder, or on a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/var/biodedup.sqlite"
    return postgres.fresh_database(is_migrated=False)


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


def plant(store: SqlStore) -> None:
    """Enrol people, of whom each row says something that can be looked for."""
    store.create_gallery(new_gallery())
    first: Enrolment | None = None
    for number in range(PEOPLE):
        name = f"planted-{number}"
        found = [candidate_of(first)] if first is not None and number % 3 == 0 else []
        template = new_template(name, sample=IMAGE + name.encode())
        enrolment = new_enrolment(
            name,
            templates=[template],
            candidates=found,
            cases=[CaseKind.DUPLICATE] if found else [],
            facts=PLANTED_FACTS,
            key=f"key-{number}",
        )
        enrolled = enrol(store, enrolment)
        first = first or enrolled


def plant_words(store: SqlStore) -> None:
    """Make an agreement: what was written before there was encryption has none."""
    terms = Terms("client:x", "y", "planted words", Disclosure.FULL, START, START + timedelta(days=1), 1)
    store.agreements.add(Agreement("a" * 32, "camp", terms, "client:z", START))


def traces() -> dict[str, bytes]:
    """What must be found nowhere."""
    found = {"image": IMAGE[:40]}
    for number in range(PEOPLE):
        name = f"planted-{number}"
        embedding = to_bytes(embedding_of(name))
        found |= {f"template {number}": embedding[:24], f"end of template {number}": embedding[-24:]}
        found[f"digest {number}"] = hashlib.sha256(name.encode()).hexdigest().encode()
    return {
        **found,
        "site": b"planted site",
        "operator": b"planted operator",
        "label": b"planted value",
        **PLANTED_WORDS,
    }


def found_in(var: Path, url: str) -> set[str]:
    """Return which traces are anywhere in the folder, or in a copy of all tables of the server."""
    haystack = [path.read_bytes() for path in var.rglob("*") if path.is_file()] if var.exists() else []
    if url.startswith("postgresql"):
        haystack += [tables_of(url), dump_of(url), *files_of(url)]
    # pg_dump writes bytes in hexadecimal digits
    return {
        name
        for name, trace in traces().items()
        if any(trace in data or trace.hex().encode() in data for data in haystack)
    }


def files_of(url: str) -> list[bytes]:
    """Return the files of a database on the tests' own server, where dead rows lie until they are overwritten."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None
    folder = Path(url.partition("host=")[2]) / "data" / "base" / str(row[0])
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]


def dump_of(url: str) -> bytes:
    """Return what `pg_dump` writes."""
    pg_dump = postgres.programs() / "pg_dump"
    return subprocess.run([str(pg_dump), "-d", url], check=True, timeout=60, stdout=subprocess.PIPE).stdout


def tables_of(url: str) -> bytes:
    """Return every table as PostgreSQL copies it out in its binary form."""
    parts: list[bytes] = []
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            with connection.cursor().copy(f"COPY {name} TO STDOUT (FORMAT binary)") as copy:
                parts += [bytes(data) for data in copy]
    return b"".join(parts)


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Return what the files hold that matter: SQLite makes its shared memory anew whenever it looks."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.endswith(("-shm", "-wal"))}


def test_nothing_of_a_face_is_in_a_file_or_a_dump(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        plant(store)
        plant_words(store)

    assert found_in(var, url) == set()


def test_the_search_for_traces_finds_what_is_not_encrypted(url: str, var: Path) -> None:
    with closing(SqlStore(url)) as store:
        store.migrate()
        plant(store)
        plant_words(store)

    assert found_in(var, url) == set(traces())


def test_what_an_earlier_version_wrote_is_encrypted_and_leaves_nothing(url: str, var: Path) -> None:
    with closing(SqlStore(url)) as plain:
        plain.migrate()
        plant(plain)
        before = read_all(plain)

    with record_of(var, url) as store:
        assert read_all(store) == before
        assert found_in(var, url) == set()

    with record_of(var, url) as store:
        assert read_all(store) == before
        with store.writing("camp") as tx:
            assert tx.set_encounter_status("e-planted-3", EncounterStatus.WITHDRAWN).facts.site is None
        with store.writing("camp") as tx:
            tx.erase_subject("s-planted-4")
        enrol(store, new_enrolment("again", "s-planted-5"))
    assert found_in(var, url) == set()


def test_what_lies_in_free_pages_of_an_earlier_version_goes_too(tmp_path: Path) -> None:
    var = tmp_path / "var"
    url = f"sqlite:///{var}/biodedup.sqlite"
    with closing(SqlStore(url)) as plain:
        plain.migrate()
        plant(plain)
    with closing(sqlite3.connect(var / "biodedup.sqlite")) as connection:
        # as a tool leaves it that deletes rows and does not overwrite them
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("DELETE FROM samples")
        connection.commit()
    assert "image" in found_in(var, url)

    with record_of(var, url):
        assert found_in(var, url) == set()


def read_all(store: SqlStore) -> object:
    """Return all that the record says of its people."""
    with store.reading() as reading:
        references = [
            (each.reference_id, each.subject_id, each.encounter_id, to_bytes(each.embedding))
            for each in reading.references_after("camp", 0, 10**9, 10**6)
        ]
        samples = reading.samples_after("camp", ("opencv-zoo", "other"), 0, 10**9, 10**6)
        earlier = reading.earlier_request("camp", "key-7", None, new_gallery().created_at.replace(year=2000))
    encounters = store.encounters("camp", None, None, 1000).items
    return references, [(each.reference_id, each.sample) for each in samples], encounters, earlier


def test_an_encryption_that_is_stopped_goes_on_where_it_was(
    url: str, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypting, "SUBJECTS_PER_BLOCK", 4)
    with closing(SqlStore(url)) as plain:
        plain.migrate()
        plant(plain)
        before = read_all(plain)

    def stop(done: int, _total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(var, url, progress=stop)
    told: list[tuple[int, int]] = []
    with ExitStack() as held:
        store = opened(var, url, held, progress=lambda *each: told.append(each))
        assert read_all(store) == before
    assert told[0] == (0, PEOPLE - 8)
    assert found_in(var, url) == set()


def test_a_purge_that_was_stopped_is_done_at_the_next_start(
    url: str, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqlStore(url)) as plain:
        plain.migrate()
        plant(plain)
    purge = encrypting.purge
    with monkeypatch.context() as stopped:
        stopped.setattr("service.store.sql_store.purge", lambda _engine: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            opened(var, url)
    purged = []

    def count(engine: Engine) -> None:
        purged.append(1)
        purge(engine)

    monkeypatch.setattr("service.store.sql_store.purge", count)

    for _ in range(2):
        with record_of(var, url):
            pass

    assert purged == [1]
    assert found_in(var, url) == set()


def opened(
    var: Path,
    url: str,
    held: ExitStack | None = None,
    *,
    source: MasterKeySource | None = None,
    progress: object = None,
) -> SqlStore:
    """Open the record as a start does; without `held` it is closed again."""
    with ExitStack() as own:
        return open_encrypted(
            url,
            key_store_url(None, var),
            (source or MasterKeySource()).opener(var),
            held or own,
            ledger=ErasureLedger(var / "ledger"),
            **({"on_progress": progress} if progress else {}),  # type: ignore[arg-type]  # a function like it
        )[0]


def drawn() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def right_and_wrong(kind: str) -> tuple[MasterKeySource, MasterKeySource]:
    """Return a source, and one of its kind that holds another key, or none."""
    if kind == "env":
        return MasterKeySource("env", drawn()), MasterKeySource("env", drawn())
    if kind == "pkcs11":
        first, second = (MasterKeySource(new_pkcs11_address(), pin=PIN) for _ in range(2))
        return first, second
    if kind == "transit":
        first, second = (MasterKeySource(new_transit_address(), token=TOKEN) for _ in range(2))
        return first, second
    return MasterKeySource(), MasterKeySource("file:var/another.key")


@pytest.mark.parametrize("kind", ["file", "env", "pkcs11", "transit"])
def test_with_another_or_no_master_key_nothing_starts_and_nothing_is_overwritten(kind: str, tmp_path: Path) -> None:
    var = tmp_path / "var"
    url = f"sqlite:///{var}/biodedup.sqlite"
    right, wrong = right_and_wrong(kind)
    with ExitStack() as held:
        plant(opened(var, url, held, source=right))
    before = bytes_in(tmp_path)

    for _ in range(2):
        with pytest.raises(MasterKeyUnusable, match="nothing was written"):
            opened(var, url, source=wrong)

    assert bytes_in(tmp_path) == before
    with ExitStack() as held:
        assert len(opened(var, url, held, source=right).encounters("camp", None, None, 100).items) == PEOPLE


def test_a_missing_or_changed_master_key_file_is_not_made_anew(tmp_path: Path) -> None:
    var = tmp_path / "var"
    with record_of(var) as store:
        plant(store)
    key = (var / "master.key").read_bytes()
    (var / "master.key").unlink()
    before = bytes_in(tmp_path)
    with pytest.raises(MasterKeyUnusable, match="restore the file"), record_of(var):
        pass
    assert bytes_in(tmp_path) == before

    for other in (secrets.token_bytes(32), key[:-1]):
        (var / "master.key").write_bytes(other)
        (var / "master.key").chmod(0o600)
        with pytest.raises(MasterKeyUnusable), record_of(var):
            pass
        assert (var / "master.key").read_bytes() == other


def test_a_missing_key_store_is_not_made_anew(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        plant(store)
    shutil.move(var / "keys", var / "lost")
    before = bytes_in(var)

    for _ in range(2):
        with pytest.raises(KeysMissing, match="restore it"), record_of(var, url):
            pass

    assert bytes_in(var) == before
    shutil.move(var / "lost", var / "keys")
    with record_of(var, url) as store:
        assert len(store.encounters("camp", None, None, 100).items) == PEOPLE


def test_another_record_s_key_store_is_refused(url: str, var: Path, tmp_path: Path) -> None:
    with record_of(var, url) as store:
        plant(store)
    with record_of(tmp_path / "other"):
        pass
    shutil.copytree(tmp_path / "other" / "keys", var / "keys", dirs_exist_ok=True)

    with pytest.raises(KeysMissing, match="another record"), record_of(var, url):
        pass


def test_an_older_backup_of_the_key_store_is_refused_while_people_came_since(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        plant(store)
    shutil.copytree(var / "keys", var / "backup")
    with record_of(var, url) as store:
        enrol(store, new_enrolment("since"))
    shutil.rmtree(var / "keys")
    shutil.move(var / "backup", var / "keys")

    with pytest.raises(KeysMissing, match="newest backup"), record_of(var, url):
        pass


@pytest.mark.parametrize("lost", ["s-0", "s-2", "s-6", "s-last"])
def test_a_key_store_that_lacks_a_part_of_a_gallery_is_refused(url: str, var: Path, lost: str) -> None:
    with record_of(var, url) as store:
        for gallery_id in ("camp", "village"):
            store.create_gallery(replace(new_gallery(), gallery_id=gallery_id))
        for number in range(7):
            enrol(store, new_enrolment(f"{number}"))
        for name, subject_id in (("first", "s-first"), ("last", "s-last"), ("again", "s-first")):
            with store.writing("village") as writing:
                writing.insert_enrolment(new_enrolment(name, subject_id))
        with store._reading() as connection:
            key_id = connection.exec_driver_sql(f"SELECT key_id FROM subjects WHERE subject_id = '{lost}'").scalar_one()
    with closing(sqlite3.connect(var / "keys" / "keys.sqlite")) as connection:
        assert connection.execute("DELETE FROM subject_keys WHERE key_id = ?", (key_id,)).rowcount == 1
        connection.commit()

    with pytest.raises(KeysMissing, match="newest backup"), record_of(var, url):
        pass


def test_the_key_store_is_not_put_into_the_record(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/one.sqlite"
    ledger = ErasureLedger(tmp_path / "ledger")

    with pytest.raises(KeysMissing, match="another database"), ExitStack() as held:
        open_encrypted(url, url, MasterKeySource().opener(tmp_path), held, ledger=ledger)

    assert list(tmp_path.iterdir()) == [tmp_path / "ledger"]
    assert list((tmp_path / "ledger").iterdir()) == []


@pytest.mark.parametrize("column", ["templates.embedding", "samples.image", "encounters.sealed_facts"])
def test_values_that_were_moved_to_another_row_do_not_open(column: str, tmp_path: Path) -> None:
    with record_of(tmp_path / "var") as store:
        plant(store)
        # another encounter of the same subject, under the same key
        enrol(store, new_enrolment("planted-0b", "s-planted-0", templates=[new_template("b", sample=IMAGE)]))
    (table, name), key = column.split("."), "reference_id" if column.startswith("templates") else "encounter_id"
    with closing(sqlite3.connect(tmp_path / "var" / "biodedup.sqlite")) as connection:
        chosen = f"SELECT {key}, {name} FROM {table} WHERE encounter_id IN ('e-planted-0', 'e-planted-0b')"
        (first, one), (second, other) = connection.execute(chosen).fetchall()
        for row, value in ((first, other), (second, one)):
            connection.execute(f"UPDATE {table} SET {name} = ? WHERE {key} = ?", (value, row))
        connection.commit()

    with pytest.raises(Undecipherable), record_of(tmp_path / "var") as store:
        read_all(store)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE templates SET embedding = (SELECT other.embedding FROM templates AS other WHERE"
        " other.encounter_id = templates.encounter_id AND other.position = 1 - templates.position)",
        "UPDATE templates SET pack_id = 'buffalo_s'",
        "UPDATE samples SET image = (SELECT other.image FROM samples AS other WHERE"
        " other.encounter_id = samples.encounter_id AND other.position = 1 - samples.position)",
    ],
    ids=["template of the other position", "template of another pack", "image of the other position"],
)
def test_values_are_bound_to_their_place_within_an_encounter(change: str, tmp_path: Path) -> None:
    both = [new_template("left", 0, IMAGE + b"left"), new_template("right", 1, IMAGE + b"right")]
    with record_of(tmp_path / "var") as store:
        store.create_gallery(new_gallery())
        enrol(store, new_enrolment("both", templates=both))
    with closing(sqlite3.connect(tmp_path / "var" / "biodedup.sqlite")) as connection:
        assert connection.execute(change).rowcount == 2
        connection.commit()

    with pytest.raises(Undecipherable), record_of(tmp_path / "var") as store:
        read_all(store)


def test_a_process_without_keys_neither_reads_nor_writes_an_encrypted_record(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        plant(store)
    with closing(SqlStore(url)) as plain:
        with pytest.raises(StoreUnavailable, match="no keys"):
            enrol(plain, new_enrolment("late"))
        with pytest.raises(BiodedupError, match="no keys"), plain.reading() as reading:
            reading.probes_after("camp", 0, 10**9, 10)
        with pytest.raises(BiodedupError, match="no keys"):
            plain.encounter("camp", "e-planted-1")


@pytest.fixture
def erased_key(url: str, var: Path) -> Iterator[tuple[SqlStore, str]]:
    with record_of(var, url) as store:
        plant(store)
        with store._reading() as connection:
            key_id = connection.exec_driver_sql(
                "SELECT key_id FROM subjects WHERE subject_id = 's-planted-2'"
            ).scalar_one()
        yield store, key_id


def test_an_erasure_destroys_the_key_and_leaves_no_note_of_it(erased_key: tuple[SqlStore, str], var: Path) -> None:
    store, key_id = erased_key
    with store.writing("camp") as tx:
        tx.erase_subject("s-planted-2")

    assert keys_in(var, key_id) == ([], [key_id])
    with store._reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM key_destructions").scalar_one() == 0
    enrol(store, new_enrolment("anew", "s-planted-2"))
    with store._reading() as connection:
        again = connection.exec_driver_sql("SELECT key_id FROM subjects WHERE subject_id = 's-planted-2'").scalar_one()
    assert again != key_id


def test_a_key_whose_destruction_was_interrupted_is_destroyed_at_the_next_start(
    erased_key: tuple[SqlStore, str], var: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key_id = erased_key
    with monkeypatch.context() as stopped:
        stopped.setattr(store, "destroy_keys", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), store.writing("camp") as tx:
            tx.erase_subject("s-planted-2")
    assert keys_in(var, key_id) == ([key_id], [])

    with record_of(var, url):
        pass

    assert keys_in(var, key_id) == ([], [key_id])


def keys_in(var: Path, key_id: str) -> tuple[list[str], list[str]]:
    """Return the id where its key is in the key store, and where it is known to be destroyed."""
    with closing(sqlite3.connect(var / "keys" / "keys.sqlite")) as connection:
        found = [
            [row[0] for row in connection.execute(f"SELECT key_id FROM {table} WHERE key_id = ?", (key_id,))]
            for table in ("subject_keys", "destroyed_keys")
        ]
    return found[0], found[1]


def test_the_wrapped_key_of_an_erased_subject_is_in_no_byte_of_the_key_store(
    erased_key: tuple[SqlStore, str], var: Path
) -> None:
    store, key_id = erased_key
    with closing(sqlite3.connect(var / "keys" / "keys.sqlite")) as connection:
        (wrapped,) = connection.execute("SELECT wrapped FROM subject_keys WHERE key_id = ?", (key_id,)).fetchone()
    in_files = [wrapped in path.read_bytes() for path in (var / "keys").iterdir()]
    assert any(in_files)

    with store.writing("camp") as tx:
        tx.erase_subject("s-planted-2")

    assert not any(wrapped in path.read_bytes() for path in (var / "keys").iterdir())


def test_the_key_store_is_for_its_owner_only(tmp_path: Path) -> None:
    with record_of(tmp_path / "var"):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "var" / "keys").iterdir()}

    assert set(modes.values()) == {0o600}
    assert (tmp_path / "var" / "keys").stat().st_mode & 0o777 == 0o700
