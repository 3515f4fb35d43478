"""Imported people are found, verified, erased and swept like enrolled ones; what cannot be imported leaves no half."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.app import build
from service.domain import FacePolicy, JobState, OutcomeKind
from service.errors import EncounterExists, PackMismatch, SubjectNotFound, TemplatesInvalid
from service.import_request import ImportState
from service.import_source import MadeNames, NameFile, TemplateFile
from service.importing import BLOCK_ROWS, TemplateImport
from service.store.sql_store import SqlStore
from tests.api.live import fake_settings
from tests.fake_embedder import PACK_ID, FakeEmbedder, fake_packs
from tests.importing import MODEL_ID, import_of, saved, unit_rows
from tests.records import record_of
from tests.sweeping import case_pairs, crowd_of, sweep_through
from tests.synthetic import PersonEmbedder, sample_of
from tests.world import GALLERY, START, World

TWO_BLOCKS = 2 * BLOCK_ROWS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite", lambda: START)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def world(store: SqlStore) -> World:
    return World(store)


def template_of(person: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return PersonEmbedder().extract(sample_of(person, 0), FacePolicy.REFUSE).embedding


def test_an_imported_person_is_found_verified_and_erased(world: World, store: SqlStore, tmp_path: Path) -> None:
    rows = unit_rows(TWO_BLOCKS + 7)
    rows[TWO_BLOCKS + 3] = template_of(1)
    assert import_of(store, saved(tmp_path / "t.npy", rows)).run() == ImportState(len(rows), len(rows))
    name = f"p-{TWO_BLOCKS + 3:09}"

    assert [each.subject_id for each in world.identify(1).decision.candidates] == [name]
    assert world.verification.verify_subject(GALLERY, sample_of(1, 5), name).matched
    assert world.enrol(1, 2).outcome is not OutcomeKind.UNIQUE
    world.erasure.erase_subject(GALLERY, name)
    assert name not in {each.subject_id for each in world.identify(1).decision.candidates}


def test_a_service_that_follows_the_log_finds_who_was_imported_beside_it(
    world: World, store: SqlStore, tmp_path: Path
) -> None:
    world.enrol(7)
    rows = unit_rows(BLOCK_ROWS + 7)
    rows[BLOCK_ROWS + 3] = template_of(1)
    import_of(store, saved(tmp_path / "t.npy", rows)).run()
    assert world.enrol(1, 2).outcome is not OutcomeKind.UNIQUE
    assert world.matcher.state(GALLERY).in_step


def test_a_sweep_compares_the_imported_people(world: World, store: SqlStore, tmp_path: Path) -> None:
    crowd = crowd_of(700, planted=20)
    names = tmp_path / "names.csv"
    names.write_text("subject_id\n" + "\n".join(crowd.subjects))
    path = saved(tmp_path / "t.npy", crowd.rows)
    import_of(store, path, NameFile(names, MadeNames("p-"))).run()
    swept = sweep_through(world)
    assert swept.state is JobState.DONE
    assert set(case_pairs(store)) == crowd.pairs(swept.threshold) != set()


def test_a_service_searches_what_was_imported_before_its_start(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var")
    build(settings, packs=fake_packs()).close()  # makes the record and its gallery
    rows = unit_rows(3000, FakeEmbedder.dimension)
    rows[2500] = FakeEmbedder().extract(b"anna/1", FacePolicy.REFUSE).embedding
    file = TemplateFile(saved(tmp_path / "t.npy", rows))
    with record_of(tmp_path / "var") as store:
        with store.reading() as reading:
            gallery = reading.gallery("default")
        TemplateImport(
            store, gallery, file, MadeNames("p-"), model_id=FakeEmbedder.model_id, dimension=FakeEmbedder.dimension
        ).run()

    service = build(settings, packs=fake_packs())

    found = service.identification.identify("default", b"anna/2")
    assert (found.searched.gallery_size, found.searched.complete) == (3000, True)
    assert [each.subject_id for each in found.decision.candidates] == ["p-000002500"]
    assert service.index_care.verify("default").is_same
    assert service.store.encounter("default", "p-000000000").templates[0].pack_id == PACK_ID
    service.close()


def test_a_bad_row_is_found_before_anything_is_written(world: World, store: SqlStore, tmp_path: Path) -> None:
    rows = unit_rows(5000)
    rows[4321] = 0
    work = import_of(store, saved(tmp_path / "t.npy", rows))
    with pytest.raises(TemplatesInvalid, match="row 4321 "):
        work.check()
    assert world.gallery().last_seq == 0


def test_a_row_that_goes_bad_stops_the_import_before_its_block(world: World, store: SqlStore, tmp_path: Path) -> None:
    rows = unit_rows(TWO_BLOCKS)
    work = import_of(store, saved(tmp_path / "t.npy", rows))
    work.check()
    rows[BLOCK_ROWS + 3] = 0
    saved(tmp_path / "t.npy", rows)
    with pytest.raises(TemplatesInvalid, match=f"row {BLOCK_ROWS + 3} "):
        work.run()
    assert work.state() == ImportState(BLOCK_ROWS, BLOCK_ROWS)
    assert world.gallery().template_count == BLOCK_ROWS


def test_a_file_of_names_that_becomes_shorter_stops_the_import_with_a_word(
    world: World, store: SqlStore, tmp_path: Path
) -> None:
    names = tmp_path / "names.csv"
    lines = ["subject_id", *(f"s-{row}" for row in range(TWO_BLOCKS))]
    names.write_text("\n".join(lines))
    path = saved(tmp_path / "t.npy", unit_rows(TWO_BLOCKS))
    for left in (TWO_BLOCKS - 3, BLOCK_ROWS):
        names.write_text("\n".join(lines))
        work = import_of(store, path, NameFile(names, MadeNames("p-")))
        names.write_text("\n".join(lines[: 1 + left]))
        with pytest.raises(TemplatesInvalid, match=f"shorter .* row {left}"):
            work.run()
    assert world.gallery().template_count == BLOCK_ROWS


@pytest.mark.parametrize("stopped", [True, False])
def test_a_file_of_which_any_row_changed_is_refused_once_its_import_began(
    world: World, store: SqlStore, tmp_path: Path, *, stopped: bool
) -> None:
    rows = unit_rows(5000, 16)
    path = saved(tmp_path / "t.npy", rows)
    file = TemplateFile(path)
    with suppress(KeyboardInterrupt):
        import_of(store, path).run(stop_at(BLOCK_ROWS if stopped else None))
    rows[[1, 4998]] = rows[[4998, 1]]
    corrected = saved(tmp_path / "t.npy", rows)
    assert TemplateFile(corrected).digest() == file.digest()  # these rows are not among the sampled

    work = import_of(store, corrected)
    with pytest.raises(EncounterExists, match="some of the file are others now"):
        work.run()
    assert world.gallery().template_count == (BLOCK_ROWS if stopped else 5000)


def stop_at(rows: int | None) -> Callable[[int], None]:
    def report(done: int) -> None:
        if done == rows:
            raise KeyboardInterrupt

    return report


@pytest.mark.usefixtures("world")
def test_the_same_file_under_another_name_is_not_imported_again(store: SqlStore, tmp_path: Path) -> None:
    rows = unit_rows(30)
    import_of(store, saved(tmp_path / "t.npy", rows)).run()
    again = import_of(store, saved(tmp_path / "copy.npy", rows))
    assert again.state() == ImportState(30, 30)


def test_a_file_that_grew_brings_only_its_new_rows(world: World, store: SqlStore, tmp_path: Path) -> None:
    rows = unit_rows(40)
    import_of(store, saved(tmp_path / "t.npy", rows[:30])).run()
    assert import_of(store, saved(tmp_path / "t.npy", rows)).run() == ImportState(40, 10)
    assert world.gallery().template_count == 40


def test_other_templates_under_known_names_are_refused(world: World, store: SqlStore, tmp_path: Path) -> None:
    import_of(store, saved(tmp_path / "t.npy", unit_rows(30))).run()
    with pytest.raises(EncounterExists, match="row 0"):
        import_of(store, saved(tmp_path / "t.npy", unit_rows(30, seed=6))).run()
    assert world.gallery().template_count == 30


def test_who_was_erased_is_not_brought_back_by_the_same_file(world: World, store: SqlStore, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.npy", unit_rows(30))
    import_of(store, path).run()
    world.erasure.erase_subject(GALLERY, "p-000000004")
    assert import_of(store, path).run() == ImportState(30, 30)
    assert world.gallery().template_count == 29


def test_who_is_erased_between_two_rows_is_not_brought_back_by_the_second(
    world: World, store: SqlStore, tmp_path: Path
) -> None:
    names = tmp_path / "names.csv"
    people = ["ann" if row in {3, 1400} else f"s-{row}" for row in range(3 * BLOCK_ROWS)]
    names.write_text("\n".join(["subject_id", *people]))
    path = saved(tmp_path / "t.npy", unit_rows(len(people)))
    with pytest.raises(KeyboardInterrupt):
        import_of(store, path, NameFile(names, MadeNames("p-"))).run(stop_at(BLOCK_ROWS))
    world.erasure.erase_subject(GALLERY, "ann")

    again = import_of(store, path, NameFile(names, MadeNames("p-")))

    assert again.run() == ImportState(len(people), len(people) - 1)
    with pytest.raises(SubjectNotFound):
        store.subject(GALLERY, "ann")
    assert world.gallery().template_count == len(people) - 2


def test_two_processes_with_one_file_share_the_work(world: World, store: SqlStore, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.npy", unit_rows(4 * BLOCK_ROWS))
    other = import_of(store, path)
    blocks: list[int] = []

    def stop(done: int) -> None:
        if done == 3 * BLOCK_ROWS:
            raise KeyboardInterrupt

    def overtake(done: int) -> None:
        blocks.append(done)
        if done == BLOCK_ROWS:
            with pytest.raises(KeyboardInterrupt):
                other.run(stop)

    assert import_of(store, path).run(overtake) == ImportState(4 * BLOCK_ROWS, 4 * BLOCK_ROWS)
    # the second block was the other's, and the third: found out when it came to write
    assert blocks == [BLOCK_ROWS, 3 * BLOCK_ROWS, 4 * BLOCK_ROWS]
    with store.reading() as reading:
        held = reading.references_after(GALLERY, 0, 10**9, 10 * BLOCK_ROWS)
    assert [each.subject_id for each in held] == [f"p-{row:09}" for row in range(4 * BLOCK_ROWS)]
    counts = store.gallery_counts(GALLERY)
    assert (counts.subjects, counts.templates) == (4 * BLOCK_ROWS, 4 * BLOCK_ROWS)
    assert world.gallery().last_seq == 4 * BLOCK_ROWS


def test_templates_of_another_model_or_dimension_are_refused(world: World, store: SqlStore, tmp_path: Path) -> None:
    world.enrol(1)
    path = saved(tmp_path / "t.npy", unit_rows(3))
    with pytest.raises(PackMismatch, match=MODEL_ID):
        import_of(store, path, model_id="synthetic-2")
    with pytest.raises(TemplatesInvalid, match="128 dimensions"):
        TemplateImport(store, world.gallery(), TemplateFile(path), MadeNames("p"), model_id=MODEL_ID, dimension=512)


@pytest.mark.usefixtures("world")
def test_names_and_times_of_the_file_are_kept(store: SqlStore, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("captured_at,subject_id,encounter_id\n2026-01-02T03:04:05Z,ann,visit-1\n,ann,\n")
    path = saved(tmp_path / "t.npy", unit_rows(2))
    import_of(store, path, NameFile(names, MadeNames("p-"))).run()
    assert store.subject(GALLERY, "ann").encounter_ids == ("visit-1", "p-000000001")
    first, second = store.encounters(GALLERY, "ann", None, 10).items
    assert first.facts.captured_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert second.facts.captured_at is None
