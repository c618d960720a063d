"""Serial radiographs of the same patients with clinical notes: temporal pairs.

Layout: `metadata.csv` (patientid, order, file, view, clinical_notes, .., one row a film; the columns of
Cohen et al., arXiv 2006.11988, "COVID-19 Image Data Collection"), `pairs.csv` (patientid, prior_file,
current_file, days_between, same_view), and the films at the paths of the column file.

The notes are no reports. They tell the patient's history along with what the film shows, and some are one
text for all films of a patient. So a film's findings are only those sentences of its note that stand in no
other note of the patient and do not speak of another examination (CT, laboratory tests). What the film shows
(labels) and how it differs from the film before it (progression) are read from these sentences by
`chestx_jax.radiology`; see `change.progression`. A film whose note has no sentence of its own keeps its place
in the pairs, but gives no question.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected
from chestx_jax.data.sources.change import progression
from chestx_jax.data.sources.image_files import problem_of
from chestx_jax.data.sources.label_columns import settled
from chestx_jax.data.sources.tables import find_tables, rows
from chestx_jax.radiology import label_report

METADATA, PAIRS = "metadata.csv", "pairs.csv"
_FILM_COLUMNS = ("patientid", "offset_days", "file", "view", "clinical_notes", "license")
_SENTENCE = re.compile(r"(?<=[.;])\s+")
_ELSEWHERE = re.compile(r"\b(CT|HRCT|MRI|PCR|tomograph\w*|ultraso\w*|tested|laborator\w*)\b")


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every film, with the one before it where `pairs.csv` names one.

    Rejected: a film whose image is missing or unreadable, a file listed twice, and a pair with an unknown or
    rejected film.

    Raises:
      SourceError: a table or a column is missing.
    """
    metadata, pairs = find_tables("serial", root, [root], [METADATA, PAIRS])
    films = rows(metadata, _FILM_COLUMNS, reject)
    return _studies(root, films, rows(pairs, ("prior_file", "current_file", "days_between"), reject), reject)


def _studies(
    root: Path, films: Iterator[dict[str, str]], pairs: Iterator[dict[str, str]], reject: Reject
) -> Iterator[Study]:
    by_patient: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in films:
        by_patient[row["patientid"]].append(row)
    studies: dict[str, Study] = {}
    for patient in by_patient.values():
        for row, findings in zip(
            patient, own_sentences([row["clinical_notes"] for row in patient]), strict=True
        ):
            record = f"{METADATA}: {row['file']}"
            if row["file"] in studies:
                reject(Rejected(record, "this file was listed before"))
            elif reason := problem_of(root / row["file"]):
                reject(Rejected(record, reason))
            else:
                studies[row["file"]] = _film(root, row, findings)
    priors = _priors(pairs, studies, reject)
    for file, study in studies.items():
        yield _follow_up(study, *priors[file]) if file in priors else study


def own_sentences(notes: list[str]) -> list[str]:
    """Of each note of one patient, the sentences that no other note has and that are about a radiograph."""
    sentences = [[part.strip() for part in _SENTENCE.split(note) if part.strip()] for note in notes]
    shared = Counter(part for note in sentences for part in dict.fromkeys(note))
    return [
        " ".join(part for part in note if shared[part] == 1 and not _ELSEWHERE.search(part))
        for note in sentences
    ]


def _film(root: Path, row: Mapping[str, str], findings: str) -> Study:
    return Study(
        id=Path(row["file"]).stem,
        source="serial",
        images=(root / row["file"],),
        findings=findings,
        patient=row["patientid"],
        labels=settled(label_report(findings)),
        extra={"view": row["view"], "license": row["license"], "clinical_notes": row["clinical_notes"]},
    )


def _priors(
    pairs: Iterator[dict[str, str]], studies: Mapping[str, Study], reject: Reject
) -> dict[str, tuple[Study, str]]:
    """file -> the study of the film before it and the days between the two."""
    priors: dict[str, tuple[Study, str]] = {}
    for row in pairs:
        record = f"{PAIRS}: {row['prior_file']}, {row['current_file']}"
        missing = [row[name] for name in ("prior_file", "current_file") if row[name] not in studies]
        if missing:
            reject(Rejected(record, f"no usable film {', '.join(missing)} in {METADATA}"))
        elif row["current_file"] in priors:
            reject(Rejected(record, "the current film has another prior"))
        elif studies[row["prior_file"]].patient != studies[row["current_file"]].patient:
            reject(Rejected(record, "films of two patients"))
        else:
            priors[row["current_file"]] = (studies[row["prior_file"]], row["days_between"])
    return priors


def _follow_up(study: Study, prior: Study, days: str) -> Study:
    changes = progression(study.findings, prior.findings) if study.findings else {}
    extra = {**study.extra, "days_since_prior": days}
    return replace(study, prior=prior, progression=changes, extra=extra)
