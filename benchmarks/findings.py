"""Labels and speed of the findings reader against the human codes of Open-i.

    python -m benchmarks.findings --root=../shared/data/openi [--json=findings.json]
                                  [--disagreements=development]

Each Indiana University report carries MeSH codes that a human indexer wrote while reading it, such as
``Opacity/lung/base/left`` (Demner-Fushman et al. 2016). CODES maps them to the CheXpert labels; findings and
impression go through ``label_report``. Uncertain counts as present, because the indexers code much of what
is only suspected; the mean under the other reading is printed too. Reports marked "No Indexing" or without
text are left out.

How to read the table. Both sides get the same parents (pulmonary edema, consolidation, pneumonia,
atelectasis and lung lesion are lung opacities; cardiomegaly is an enlarged cardiomediastinum) and the same
"no finding" (no other label but support devices). Studies sorted by uid alternate between development (its
disagreements were read while the vocabulary was written) and held out (its disagreements were not; only
totals were printed). Labels with fewer than 20 positives (10 in a half) stay out of the macro mean.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from chestx_jax.radiology import LABELS, extract_findings, label_report
from chestx_jax.radiology.findings import read_sentence

_OUTSIDE_LUNG = (
    r"(?!.*/(?:ribs|heart|adipose tissue|mediastinum|pleura|costophrenic angle|paratracheal|breast|sulcus))"
)
CODES: tuple[tuple[str, str], ...] = (
    (
        "cardiomegaly",
        r"Cardiomegaly.*|Cardiac Shadow/.*enlarged.*|Heart (?:Ventricles|Atria)/left/(?:enlarged|prominent)",
    ),
    # borderline and prominent shadows, and those coded obscured, are not enlarged
    ("enlarged cardiomediastinum", r"Mediastinum/(?!lymph nodes).*(?:prominent|enlarged).*"),
    ("lung opacity", rf"(?:Opacity|Density|Airspace Disease|Infiltrate){_OUTSIDE_LUNG}.*"),
    ("lung opacity", r"Consolidation.*|Cicatrix(?!/(?:pleura|costo|cardio|thorax)).*|Lung/.*interstitial.*"),
    (
        "lung opacity",
        r"(?:Markings|Thickening).*interstitial.*|Lung Diseases, Interstitial.*|Pulmonary Fibrosis.*",
    ),
    ("lung lesion", r"Nodule(?!/pleura).*|Mass/(?!breast).*|Cavitation.*"),
    ("lung lesion", rf"(?:Opacity|Density)/lung{_OUTSIDE_LUNG}.*/round.*"),  # the indexers' "nodular"
    ("edema", r"Pulmonary Edema.*|Pulmonary Congestion.*|Heart Failure.*"),
    ("lung opacity", r"Pulmonary Edema.*"),  # congestion and heart failure by themselves are none
    ("consolidation", r"Consolidation.*"),
    ("pneumonia", r"Pneumonia.*"),
    ("atelectasis", r"Pulmonary Atelectasis.*"),
    ("pneumothorax", r"Pneumothorax.*|Hemopneumothorax.*"),
    ("pleural effusion", r"Pleural Effusion.*|Hemopneumothorax.*"),
    ("pleural other", r"Thickening/pleura.*|Cicatrix/pleura.*|Sclerosis/pleura.*|Calcinosis/pleura.*"),
    ("fracture", r"Fractures, Bone.*"),
    # lines, tubes, stimulators, valves, joints, stents; as in the CheXpert labeler no clips, wires, bullets
    (
        "support devices",
        r"Catheters, Indwelling.*|Tube, Inserted.*|Implanted Medical Device.*|Medical Device.*",
    ),
    ("support devices", r"Stents.*|Spinal Fusion.*"),
)
"""(label, pattern of the whole code). A code may feed several labels."""

PARENTS = {
    "cardiomegaly": "enlarged cardiomediastinum",
    "consolidation": "lung opacity",
    "pneumonia": "lung opacity",
    "atelectasis": "lung opacity",
    "lung lesion": "lung opacity",
}

CONCEPTS: tuple[tuple[str, str, str], ...] = (
    ("hyperinflation", "hyperinflation", r"Lung/.*hyperdistention.*"),
    ("low lung volumes", "low lung volumes", r"Lung/.*hypoinflation.*"),
    (
        "scarring",
        "scarring|pleural thickening|fibrosis",
        r"Cicatrix.*|Thickening/pleura.*|Pulmonary Fibrosis.*",
    ),
    ("granuloma", "granuloma|granulomatous disease", r"Calcified Granuloma.*|Granuloma.*"),
    ("emphysema", "emphysema", r"Emphysema.*|Pulmonary Emphysema.*|Bullous Emphysema.*"),
    ("COPD", "chronic obstructive pulmonary disease", r"Pulmonary Disease, Chronic Obstructive.*"),
    ("tortuous aorta", "tortuous aorta", r"Aorta.*/tortuous.*"),
    (
        "atherosclerosis",
        "atherosclerosis",
        r"Atherosclerosis.*|Calcinosis/(?:aorta|blood vessels|coronary).*",
    ),
    (
        "degenerative change",
        "degenerative change",
        r".*/degenerative.*|Osteophyte.*|Spondylosis.*|Arthritis.*|Hyperostosis.*",
    ),
    ("scoliosis", "scoliosis", r"Scoliosis.*"),
    ("hernia", "hernia", r"Hernia.*"),
    (
        "elevated diaphragm",
        "elevated diaphragm|eventration",
        r"Diaphragm/.*elevated.*|Diaphragmatic Eventration.*",
    ),
    (
        "costophrenic blunting",
        "costophrenic blunting",
        r"Costophrenic Angle/.*(?:blunted|obscured).*|Pleura/.*blunted.*",
    ),
    ("central catheter", "central venous catheter|port", r"Catheters, Indwelling.*"),
    ("surgical clips, sternotomy", "surgical clips|sternotomy", r"Surgical Instruments.*|Sutures.*"),
)
"""(row, our concepts, pattern of the codes) for the finer table."""


def read_openi(root: Path) -> list[dict[str, str]]:
    """The indexed studies with text, sorted by uid."""
    with (root / "indiana_reports.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["MeSH"] != "No Indexing"]
    rows = [row | {"text": f"{row['findings']}\n\n{row['impression']}"} for row in rows]
    return sorted((row for row in rows if row["text"].strip()), key=lambda row: int(row["uid"]))


def codes(row: dict[str, str]) -> list[str]:
    return [code.strip() for code in row["MeSH"].split(";")]


def human_labels(row: dict[str, str]) -> set[str]:
    """The labels that the human codes of a study assert, parents and "no finding" included."""
    found = {label for label, pattern in CODES for code in codes(row) if re.fullmatch(pattern, code)}
    found |= {PARENTS[label] for label in found if PARENTS.get(label)}
    return found if found - {"support devices"} else found | {"no finding"}


def our_labels(row: dict[str, str], values: tuple[int, ...] = (1, -1)) -> set[str]:
    return {label for label, value in label_report(row["text"]).items() if value in values}


def our_concepts(row: dict[str, str]) -> set[str]:
    return {f.concept for f in extract_findings(row["text"]) if f.asserted and f.polarity == "present"}


def score(name: str, pairs: Iterable[tuple[bool, bool]]) -> dict[str, float | str | int]:
    """(human, ours) per study to one line of the table."""
    both = human = ours = 0
    for gold, pred in pairs:
        both, human, ours = both + (gold and pred), human + gold, ours + pred
    precision, recall = both / ours if ours else 0.0, both / human if human else 0.0
    f1 = 2 * both / (human + ours) if human + ours else 0.0
    return {
        "label": name,
        "human": human,
        "ours": ours,
        "both": both,
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def label_table(rows: list[dict[str, str]], values: tuple[int, ...] = (1, -1)) -> list[dict]:
    """One line a label; ``values`` are ours that count as present."""
    pairs = [(human_labels(row), our_labels(row, values)) for row in rows]
    return [score(label, [(label in gold, label in pred) for gold, pred in pairs]) for label in LABELS]


def concept_table(rows: list[dict[str, str]]) -> list[dict]:
    ours = [our_concepts(row) for row in rows]
    table = []
    for name, concepts, pattern in CONCEPTS:
        gold = [any(re.fullmatch(pattern, code) for code in codes(row)) for row in rows]
        pred = [bool(found & set(concepts.split("|"))) for found in ours]
        table.append(score(name, zip(gold, pred, strict=True)))
    return table


def macro(table: list[dict], at_least: int = 20) -> tuple[float, int]:
    """Mean F1 over the lines with enough human positives, and their number."""
    kept = [line["f1"] for line in table if line["human"] >= at_least]
    return (sum(kept) / len(kept) if kept else 0.0), len(kept)


def show(title: str, table: list[dict], at_least: int = 20) -> None:
    print(f"\n{title}\n{'':28}{'human':>7}{'ours':>7}{'both':>7}{'prec':>8}{'recall':>8}{'F1':>8}")
    for line in table:
        note = "" if line["human"] >= at_least else f"  (< {at_least}, not in the mean)"
        numbers = (
            f"{line['human']:7}{line['ours']:7}{line['both']:7}{line['precision']:8.3f}{line['recall']:8.3f}"
        )
        print(f"{line['label']:28}{numbers}{line['f1']:8.3f}{note}")
    mean, count = macro(table, at_least)
    print(f"macro F1 over {count}: {mean:.3f}")


def rate(run: Callable[[str], object], texts: list[str], *, seconds: float = 2.0) -> float:
    """Texts a CPU second, best of the passes that fit (the machine may be shared)."""
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.process_time()
        for text in texts:
            run(text)
        best = max(best, len(texts) / (time.process_time() - begin))
    return best


def uncached(text: str) -> object:
    read_sentence.cache_clear()
    return extract_findings(text)


def disagreements(rows: list[dict[str, str]]) -> list[str]:
    lines = []
    for row in rows:
        gold, pred = human_labels(row), our_labels(row)
        if wrong := sorted(f"+{label}" for label in pred - gold) + sorted(
            f"-{label}" for label in gold - pred
        ):
            lines.append(f"{row['uid']} {wrong}\n    {row['MeSH']}\n    {' '.join(row['text'].split())}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/openi"
    )
    parser.add_argument("--json", type=Path, help="also write the tables here")
    parser.add_argument(
        "--disagreements", choices=("development", "held out"), help="list them for this half"
    )
    args = parser.parse_args()
    rows = read_openi(args.root)
    halves = {"development": rows[::2], "held out": rows[1::2]}
    result: dict[str, object] = {}
    for name, part in {"all": rows, **halves}.items():
        table = label_table(part)
        show(f"{name}: {len(part)} studies, CheXpert labels", table, 20 if name == "all" else 10)
        strict = macro(label_table(part, (1,)), 20 if name == "all" else 10)[0]
        print(f"with uncertain as absent: {strict:.3f}")
        result[name] = {
            "studies": len(part),
            "labels": table,
            "macro_f1": macro(table, 20 if name == "all" else 10)[0],
        }
    for name, part in {"all": rows, **halves}.items():
        table = concept_table(part)
        show(f"{name}: {len(part)} studies, finer concepts", table, 20 if name == "all" else 10)
        result[name] |= {"concepts": table}  # type: ignore[operator]
    texts = [row["text"] for row in rows]
    result["texts_per_second_uncached"] = rate(uncached, texts)
    result["texts_per_second_cached"] = rate(extract_findings, texts)
    result["mean_characters"] = sum(map(len, texts)) / len(texts)
    print(f"\nspeed, one core, {len(texts)} reports of {result['mean_characters']:.0f} characters: ", end="")
    print(
        "{texts_per_second_uncached:.0f} texts/s uncached, {texts_per_second_cached:.0f} cached".format(
            **result
        )
    )
    if args.disagreements:
        print("\n" + "\n".join(disagreements(halves[args.disagreements])))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
