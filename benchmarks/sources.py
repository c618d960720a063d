"""Peak memory and rate of reading a MIMIC-CXR-JPG collection of half a million rows, made up in its layout.

    python benchmarks/sources.py [--studies=400000] [--tmp=DIR] [--json=FILE]

Writes gzipped metadata, split and label tables, and every image and report file, as links to a few files: about
1.3 million directory entries. One study in a thousand lacks its report, one in a thousand an image. Then a fresh
process reads it all with the reader that `launch.build_bench --source=mimic_cxr` uses. Linux only (VmHWM).
Ends with an error when the peak is 1 GiB or more, or the counts are not those that were made.
"""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags
from PIL import Image

from chestx_jax.data.sources import Rejected, Request, read_studies
from chestx_jax.data.sources.label_columns import COLUMNS
from chestx_jax.data.sources.mimic_cxr import LABELLERS, METADATA, SPLIT

LIMIT = 1.0  # GiB
LINKS = 30_000  # to one file; file systems allow 65,000
STUDIES_A_PATIENT = 3

_STUDIES = flags.DEFINE_integer("studies", 400_000, "How many studies to make up.", lower_bound=1000)
_TMP = flags.DEFINE_string("tmp", None, "Where to make the temporary directory.")
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")
_CHILD = flags.DEFINE_string("child", None, "Used by the program itself: the directory to read.")


class Links:
    """Links to one content, a fresh file after every LINKS of them."""

    def __init__(self, directory: Path, content: bytes):
        self.directory, self.content, self.made = directory, content, 0

    def link(self, path: str) -> None:
        if self.made % LINKS == 0:
            self.target = self.directory / f"target{self.made}_{id(self)}"
            self.target.write_bytes(self.content)
        os.link(self.target, path)
        self.made += 1


def write(root: Path, studies: int) -> None:
    """The layout, 1.6 views a study."""
    rng = random.Random(0)
    Image.new("L", (8, 8)).save(root / "one.jpg")
    pictures = Links(root, (root / "one.jpg").read_bytes())
    texts = [Links(root, text.encode()) for text in reports(rng)]
    with (
        gzip.open(root / f"{METADATA}.gz", "wt", newline="") as metadata,
        gzip.open(root / f"{SPLIT}.gz", "wt", newline="") as split,
        gzip.open(root / f"{LABELLERS[0]}.gz", "wt", newline="") as labels,
    ):
        tables = csv.writer(metadata), csv.writer(split), csv.writer(labels)
        tables[0].writerow(
            ["dicom_id", "subject_id", "study_id", "Procedure", "ViewPosition", "Rows", "Columns"]
        )
        tables[1].writerow(["dicom_id", "study_id", "subject_id", "split"])
        tables[2].writerow(["subject_id", "study_id", *COLUMNS])
        for number in range(studies):
            patient, study = str(10_000_000 + number // STUDIES_A_PATIENT * 61), str(50_000_000 + number)
            part = ("test", "validate", *["train"] * 98)[number // STUDIES_A_PATIENT % 100]
            tables[2].writerow(
                [patient, study, *rng.choices(["", "0.0", "1.0", "-1.0"], [12, 2, 3, 1], k=14)]
            )
            folder = f"{root}/files/p{patient[:2]}/p{patient}/s{study}"
            os.makedirs(folder)
            for view in ("PA", "LATERAL") if rng.random() < 0.6 else ("AP",):
                dicom = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
                tables[0].writerow([dicom, patient, study, "CHEST (PA AND LAT)", view, 3056, 2544])
                tables[1].writerow([dicom, study, patient, part])
                if number % 1000 != 1 or view == "LATERAL":
                    pictures.link(f"{folder}/{dicom}.jpg")
            if number % 1000:
                texts[number % len(texts)].link(f"{folder}.txt")


def reports(rng: random.Random) -> Iterator[str]:
    """Reports of about the length of the real ones, some 700 characters."""
    sentences = (
        "The cardiac silhouette is moderately enlarged.",
        "There is no focal consolidation, pleural effusion or pneumothorax.",
        "Patchy opacities at the left lung base may represent atelectasis.",
        "A right internal jugular catheter ends in the mid superior vena cava.",
        "Mild pulmonary edema has improved.",
    )
    for _ in range(50):
        findings = "\n ".join(rng.choices(sentences, k=8))
        yield (
            "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n"
            " INDICATION:  ___ year old with cough  // ?pneumonia\n \n COMPARISON:  ___\n \n"
            f" FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {rng.choice(sentences)}\n"
        )


def measure(root: Path) -> dict[str, float]:
    """Reads everything in this process."""
    rejected: list[Rejected] = []
    began, first, counts = time.monotonic(), 0.0, {"studies": 0, "images": 0}
    request = Request(root, root, studies=0, seed=0, image_size=0)
    for study in read_studies("mimic_cxr", request, rejected.append):
        first = first or time.monotonic() - began
        counts["studies"] += 1
        counts["images"] += len(study.images)
    seconds = time.monotonic() - began
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**20
    rejected_reports = sum(record.reason.startswith("no report") for record in rejected)
    return {
        **counts,
        "rejected": len(rejected),
        "without_report": rejected_reports,
        "first_study_seconds": first,
        "seconds": seconds,
        "studies_per_second": counts["studies"] / seconds,
        "peak_gib": peak,
    }


def main(_: list[str]) -> None:
    if _CHILD.value:
        print(json.dumps(measure(Path(_CHILD.value))))
        return
    with tempfile.TemporaryDirectory(dir=_TMP.value) as directory:
        began = time.monotonic()
        write(Path(directory), _STUDIES.value)
        print(f"{_STUDIES.value} studies made in {time.monotonic() - began:.0f} s")
        line = [sys.executable, __file__, f"--child={directory}"]
        figures = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(
        f"{figures['studies']} studies, {figures['images']} images, {figures['rejected']} records rejected\n"
        f"{figures['seconds']:.0f} s, {figures['studies_per_second']:.0f} studies/s, first study after "
        f"{figures['first_study_seconds']:.1f} s, peak {figures['peak_gib']:.2f} GiB"
    )
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")
    if figures["without_report"] != -(-_STUDIES.value // 1000):
        sys.exit(f"{figures['without_report']} studies were found to lack their report, one in 1,000 does")
    if figures["peak_gib"] >= LIMIT:
        sys.exit(f"the peak is {figures['peak_gib']:.2f} GiB, the limit {LIMIT} GiB")


if __name__ == "__main__":
    app.run(main)
