"""`biodedup import-templates`: templates of millions of people from a file, straight into the record."""

import os
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from service.cli.client import GalleryOption
from service.cli.failures import EXIT_STOPPED
from service.cli.record import open_record
from service.cli.show import console, plain, table
from service.errors import DiskSpaceShort, PackMismatch
from service.import_source import MadeNames, NameFile, Names, TemplateFile
from service.import_space import PAGE_BYTES, SpaceNeeded, on_postgresql, space_needed
from service.importing import TemplateImport
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from service.store.sql_store import SqlStore

_SAMPLED_NAMES = 1000

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.npy",
        help="Templates: float32 (n, D), a row each, of L2 norm 1.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model-id",
        help="Model that made the templates, as `biodedup models verify PACK` says where they were made.",
        show_default=False,
    ),
]
IdsOption = Annotated[
    Path | None,
    typer.Option(
        "--ids",
        help="CSV file with a line for each row: subject_id, and if wanted encounter_id, captured_at.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--prefix", help="Begins the ids that are made from row numbers. Default: from the templates."),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Check the files, show the plan, and write nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Begin without asking.")]


def import_templates(
    file: FileArgument,
    *,
    model_id: ModelOption,
    gallery: GalleryOption = "default",
    ids: IdsOption = None,
    prefix: PrefixOption = None,
    plan: PlanOption = False,
    yes: YesOption = False,
) -> None:
    """Import templates that the same model made elsewhere, millions of them, straight into the record.

    NOBODY IS COMPARED: each person is recorded as NOT_COMPARED. New enrolments are compared with them from then on, and
    `biodedup gallery sweep` finds the duplicates among them.

    The service must be stopped, unless the record is in PostgreSQL. The disk space that the record and the index need
    is stated and checked, and every row is checked, before the first is written. Stopped with Ctrl-C or killed, the
    same command goes on where it was: nobody is imported twice.

    Without --ids each row is a person of its own, called by --prefix and the number of the row.

    Example: biodedup import-templates people.npy --model-id "$MODEL" --gallery camp --ids people.csv --plan

    Exit codes: 0 imported (or planned), 1 refused (file, model, disk space, a service is running), 2 wrong usage, 130
    stopped with Ctrl-C.
    """
    settings = load_settings(os.environ)
    templates = TemplateFile(file)
    made = MadeNames(f"{templates.digest()[:12]}-" if prefix is None else prefix)
    names: Names = made if ids is None else NameFile(ids, made)
    with open_record(settings) as record:
        work = _prepare(settings, record, gallery, model_id, (templates, names))
        was_done = work.state().done == work.total
        if not was_done:
            needed = _space_needed(work, templates.dimension, names, record.page_bytes())
            _show_plan(settings, gallery, work, needed)
            if not plan and not yes:
                typer.confirm("Begin?", abort=True)
        try:
            _run(work, is_plan=plan or was_done)
        except KeyboardInterrupt:
            console().print("Stopped. Run the same command again to go on.")
            raise typer.Exit(EXIT_STOPPED) from None
        if was_done:
            console().print(f"All {work.total:,} rows of this file were imported before: nothing is left to do.")
        elif not plan:
            _show_result(gallery, work)


def _run(work: TemplateImport, *, is_plan: bool) -> None:
    done = work.state().done
    with _progress_bar() as bar:
        checking = bar.add_task("checking", total=work.total)
        work.check(lambda row: bar.update(checking, completed=row))
        if not is_plan:
            importing = bar.add_task("importing", total=work.total, completed=done)
            work.run(lambda row: bar.update(importing, completed=row))


def _prepare(
    settings: Settings, record: "SqlStore", gallery_id: str, model_id: str, source: tuple[TemplateFile, Names]
) -> TemplateImport:
    """Raises GalleryNotFound, ModelPackError, TemplatesInvalid."""
    from service.face.extractor import template_model_id  # noqa: PLC0415  (onnxruntime takes a second to import)
    from service.face.model_packs import verify_pack  # noqa: PLC0415  (onnxruntime takes a second to import)

    with record.reading() as reading:
        gallery = reading.gallery(gallery_id)
    pack = verify_pack(settings.models_dir, gallery.pack_id)
    if model_id != template_model_id(pack):
        raise PackMismatch(
            f"the gallery is for templates of {template_model_id(pack)}, these are said to be of {model_id}: "
            "templates of two models cannot be compared"
        )
    dimension = pack.manifest.dimension
    return TemplateImport(record, gallery, *source, model_id=model_id, dimension=dimension)


def _show_plan(settings: Settings, gallery_id: str, work: TemplateImport, needed: SpaceNeeded) -> None:
    """Print what is to be done and what it takes. Raises DiskSpaceShort."""
    from service.app import local_folder  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

    folder = local_folder(settings)
    here, where = needed.total, ""
    if folder is None:
        # the process that owns this folder keeps the files of the index there, beside the database server
        folder, here, where = settings.var_dir, needed.index, " on the database server, not checked"
    free = shutil.disk_usage(_existing(folder)).free
    rows = [
        ["rows in the file", f"{work.total:,}"],
        ["imported before", f"{work.state().done:,}"],
        ["disk for the record", f"about {_size(needed.record)}{where}"],
        ["disk for the index", f"about {_size(needed.index)}"],
        ["free", f"{_size(free)} in {plain(folder)}"],
    ]
    console().print(table(f"Import into {plain(gallery_id)}", ["what", "plan"], rows))
    if here > free:
        raise DiskSpaceShort(f"the import needs about {_size(here)} of disk, {_size(free)} are free")


def _existing(folder: Path) -> Path:
    """Return the folder, or the one above it where it is still to be made."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _space_needed(work: TemplateImport, dimension: int, names: Names, page_bytes: int | None) -> SpaceNeeded:
    """Return what the rest of the import needs; without a size of pages, on a database server."""
    done = work.state().done
    lengths = [
        (len(name.subject_id), len(name.encounter_id)) for name in islice(names.after(done), _SAMPLED_NAMES)
    ] or [(0, 0)]  # the file of names became shorter: the import will say so
    needed = space_needed(
        work.total - done,
        dimension,
        subject_id_chars=max(subject for subject, _ in lengths),
        encounter_id_chars=max(encounter for _, encounter in lengths),
        page_bytes=page_bytes or PAGE_BYTES,
    )
    return needed if page_bytes else on_postgresql(needed)


def _show_result(gallery_id: str, work: TemplateImport) -> None:
    state = work.state()
    known = state.done - state.added
    out = console()
    out.print(
        f"{state.added:,} of {state.done:,} rows were imported"
        f"{f', {known:,} were there before or are of people who were erased since' if known else ''}. "
        "NOBODY WAS COMPARED: each person is recorded as NOT_COMPARED."
    )
    out.print(
        "Next: `biodedup serve` fills the index, and compares every new enrolment with these people; then "
        f"`biodedup gallery sweep {plain(gallery_id)}` finds the duplicates among them."
    )


def _size(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.0f} MB"


class _RateColumn(ProgressColumn):
    """Rows a second, lately."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
