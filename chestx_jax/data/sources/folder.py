"""Any collection as a folder: `reports.csv[.gz]`, whose columns the user names, and images below the folder.

Fields and the columns they are read from, as `--column=FIELD=COLUMN`; without it a field is read from the
column of its own name, if there is one:

  study       id of the examination; the rows of one study belong together     required
  image       path of an image relative to the folder; several separated by ";"    required
  report      whole report, split into sections by their headings     one of these three
  findings, impression      the sections                              is required
  patient, split, prior     patient id; train, validation or test; id of the study before it

A study with one row an image takes its text from its first row. Labels are read from columns that are named
as the labels of the schema ("Pleural Effusion": 1, 0, -1 or blank); without any, from the report's text by
`chestx_jax.radiology.label_report`. With `prior`, progressions are read from the two reports
(`change.progression`). The table is streamed: only image paths and the studies named as priors are held.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from chestx_jax.data.schema import LABELS, NO_FINDING, Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.change import progression
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.label_columns import labels_of, settled
from chestx_jax.data.sources.report_sections import findings_and_impression
from chestx_jax.data.sources.tables import columns_of, find_tables, rows, told_already
from chestx_jax.radiology import label_report

TABLE = "reports.csv"
FIELDS = ("study", "image", "report", "findings", "impression", "patient", "split", "prior")
_TEXTS = ("report", "findings", "impression")


def read(root: Path, columns: Mapping[str, str], *, reject: Reject) -> Iterator[Study]:
    """Every study with a text and an image, in the table's order.

    Args:
      columns: field -> column, as above.

    Rejected: a missing or unreadable image; a study without image or text, or with an unknown label value; a
    prior that is not there.

    Raises:
      SourceError: no table, an unknown field, or a column that is not there.
    """
    (table,) = find_tables("folder", root, [root], [TABLE])
    header = columns_of(table)
    if unknown := [field for field in columns if field not in FIELDS]:
        raise SourceError(f"column of unknown field {', '.join(unknown)}; fields: {', '.join(FIELDS)}")
    named = {**{field: field for field in FIELDS if field in header}, **columns}
    for field in ("study", "image"):
        if field not in named:
            raise SourceError(f"{table}: no column {field!r}; name it: --column={field}=COLUMN")
    if not any(field in named for field in _TEXTS):
        raise SourceError(f"{table}: no column of {', '.join(_TEXTS)}; name one: --column=report=COLUMN")
    labels = tuple(name for name in header if name.lower() in (*LABELS, NO_FINDING))
    rows(table, (*named.values(), *labels), reject)  # a missing column is told before the first study
    return _Folder(root, table, named, labels).studies(reject)


class _Folder:
    """One table and how to read it. `named`: field -> column; `labels`: the label columns."""

    def __init__(self, root: Path, table: Path, named: Mapping[str, str], labels: tuple[str, ...]):
        self.root, self.table, self.named, self.labels = root, table, named, labels

    def studies(self, reject: Reject) -> Iterator[Study]:
        images, priors = self._images()
        earlier: dict[str, Study] = {}
        if priors:
            for row in self._first_rows(told_already):
                if self._value(row, "study") in priors:
                    study = self._study(row, images, told_already)
                    if study is not None:
                        earlier[study.id] = study
        for row in self._first_rows(reject):
            study = self._study(row, images, reject)
            prior = self._value(row, "prior")
            if study is None:
                continue
            if prior and prior not in earlier:
                reject(Rejected(f"{self.table.name}: study {study.id}", f"no usable prior study {prior}"))
            if prior in earlier:
                changes = progression(study.report, earlier[prior].report)
                study = replace(study, prior=earlier[prior], progression=changes)
            yield study

    def _images(self) -> tuple[dict[str, str], set[str]]:
        """study -> its images separated by ";", and the studies named as priors."""
        images: dict[str, list[str]] = defaultdict(list)
        priors: set[str] = set()
        for row in rows(self.table, tuple(self.named.values()), told_already):
            images[self._value(row, "study")].append(self._value(row, "image"))
            priors.add(self._value(row, "prior"))
        return {study: ";".join(paths) for study, paths in images.items()}, priors - {""}

    def _first_rows(self, reject: Reject) -> Iterator[dict[str, str]]:
        seen: set[str] = set()
        for row in rows(self.table, (*self.named.values(), *self.labels), reject):
            study = self._value(row, "study")
            if study not in seen:
                seen.add(study)
                yield row

    def _value(self, row: Mapping[str, str], field: str) -> str:
        return row[self.named[field]] if field in self.named else ""

    def _study(self, row: Mapping[str, str], images: Mapping[str, str], reject: Reject) -> Study | None:
        name = self._value(row, "study")
        record = f"{self.table.name}: study {name}"
        findings, impression = self._value(row, "findings"), self._value(row, "impression")
        if not (findings or impression) and (text := self._value(row, "report")):
            findings, impression = findings_and_impression(text)
            if not (findings or impression):
                findings = text
        if not name or not (findings or impression):
            reject(Rejected(record, "no text" if name else "no study id"))
            return None
        paths = [self.root / path.strip() for path in images[name].split(";") if path.strip()]
        usables = usable(self.table.name, paths, reject)
        if not usables:
            reject(Rejected(record, "no image"))
            return None
        study = Study(
            id=name,
            source="folder",
            images=usables,
            findings=findings,
            impression=impression,
            patient=self._value(row, "patient") or None,
            split=self._value(row, "split") or None,
        )
        try:
            labels = labels_of({column: row[column] for column in self.labels})
        except ValueError as error:
            reject(Rejected(record, str(error)))
            return None
        return replace(study, labels=labels or settled(label_report(study.report)))
