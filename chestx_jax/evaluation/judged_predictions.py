"""Judged records (another's outputs with a judge's findings) to predictions files, one a model.

    python -m chestx_jax.evaluation.judged_predictions JUDGED.jsonl.gz OUT

writes OUT/MODEL.jsonl for `launch.evaluate --predictions`.
"""

import json
import sys
from pathlib import Path

from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.evaluation.records import RecordError, text_field


def judged_predictions(judged: Path, out: Path) -> dict[str, Path]:
    """The files by model; rows are {"id", "prediction"} in the order of the records.

    Raises:
      RecordError: a record without id, model or pred, or a sample that a model answers twice.
    """
    by_model: dict[str, dict[str, str]] = {}
    for record in read_judged(judged):
        place = f"{judged}: record {record['id']!r}"
        own = by_model.setdefault(record["model"], {})
        if record["id"] in own:
            raise RecordError(f"{place}: model {record['model']!r} answers it twice")
        own[record["id"]] = text_field(record, "pred", place)
    out.mkdir(parents=True, exist_ok=True)
    files = {model: out / f"{model.replace('/', '-')}.jsonl" for model in by_model}
    for model, rows in by_model.items():
        lines = (
            json.dumps({"id": identity, "prediction": text}, ensure_ascii=False)
            for identity, text in rows.items()
        )
        files[model].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


if __name__ == "__main__":
    for path in judged_predictions(Path(sys.argv[1]), Path(sys.argv[2])).values():
        print(path)
