"""The language-model miner against a scripted server: stages, repair, quarantine, resume, dry run."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chestx_jax.data.mining import MiningError, estimate_llm, mine_llm
from chestx_jax.data.mining.stages import Prompts, request
from chestx_jax.data.schema import Sample
from chestx_jax.llm import Endpoint, EndpointError
from tests.data.mining_samples import single, temporal
from tests.llm.server import Say, ScriptedServer

pytest.importorskip("openai")
ROOT = Path(__file__).resolve().parents[2]
PLAN = {"plan": [{"option": "A", "look_at": "the pleural margins", "why": "air collects there"}]}
EVIDENCE = {"evidence": [{"option": "A", "observation": "no pneumothorax", "status": "absent"}]}
JOINT = {"comparison": [{"area": "pleura", "reference": "small", "new": "large", "change": "worse"}]}
GOOD = [
    "One of four findings has to be found.",
    "No pneumothorax is seen, so option A does not fit.",
    "There is a small pleural effusion on the left, which is option B.",
    "The answer is B, pleural effusion.",
]
LEAKING = [*GOOD[:2], "The report mentions a small left pleural effusion.", GOOD[3]]
WRONG = [
    "One of four findings has to be found.",
    "There is a large pneumothorax.",
    "The answer is A, pneumothorax.",
]


def stage_of(body: dict[str, Any]) -> str:
    text = body["messages"][-1]["content"]
    marks = {
        "plan": "Write a plan",
        "evidence": "Carry out the plan",
        "joint": "Compare the two images",
        "refine": "Write the reasoning of",
        "repair": "Write the reasoning again",
    }
    return next(stage for stage, mark in marks.items() if mark in text)


def answers(refine: Any = None, repair: Any = None) -> Callable[[int, dict[str, Any]], Say]:
    said = {
        "plan": PLAN,
        "evidence": EVIDENCE,
        "joint": JOINT,
        "refine": {"steps": refine or GOOD},
        "repair": {"steps": repair or GOOD},
    }
    return lambda _, body: Say(json.dumps(said[stage_of(body)]))


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedServer(script).running())


def endpoint(server: ScriptedServer, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "tiny", **({"timeout": 60.0, "max_retries": 1, "first_wait": 0.01} | changes))


def stages(server: ScriptedServer) -> Counter[str]:
    return Counter(stage_of(body) for body in server.bodies)


def test_three_stages_give_verified_steps_and_every_output_is_kept(serve, tmp_path: Path) -> None:
    server = serve(answers())
    (mined,) = mine_llm([single()], endpoint(server), tmp_path)
    assert mined.status == "mined" and list(mined.sample.reason_steps) == GOOD
    assert stages(server) == {"plan": 1, "evidence": 1, "refine": 1}
    (file,) = (tmp_path / "samples").rglob("*.json")
    record = json.loads(file.read_text())
    assert record["outputs"] == {"plan": PLAN, "evidence": EVIDENCE, "refine": {"steps": GOOD}}
    assert record["prompts"]["version"] == "1" and record["model"] == "tiny"


def test_each_stage_is_told_what_it_needs_and_no_more(serve, tmp_path: Path) -> None:
    server = serve(answers())
    list(mine_llm([single()], endpoint(server), tmp_path))
    texts = {stage_of(body): body["messages"][-1]["content"] for body in server.bodies}
    report = single().report
    assert report not in texts["plan"] and "The right answer" not in texts["plan"]
    assert report in texts["evidence"] and "the pleural margins" in texts["evidence"]
    assert "The right answer" not in texts["evidence"]
    assert report not in texts["refine"] and "B) pleural effusion" in texts["refine"]
    assert not any(re.search(r"\$\w", text) for text in texts.values())


def test_equal_questions_share_one_plan(serve, tmp_path: Path) -> None:
    server = serve(answers())
    samples = [
        single(id=f"s{i}", report=f"Small left pleural effusion. No pneumothorax. {i}.") for i in range(5)
    ]
    assert [m.sample.id for m in mine_llm(samples, endpoint(server), tmp_path)] == [s.id for s in samples]
    assert stages(server) == {"plan": 1, "evidence": 5, "refine": 1}  # equal evidence, equal refining


def test_temporal_samples_are_compared_and_refined(serve, tmp_path: Path) -> None:
    steps = [
        "The two images are compared for pleural effusion.",
        "The reference image shows a small pleural effusion.",
        "The new image shows a large pleural effusion.",
        "The answer is B, pleural effusion is worsening.",
    ]
    server = serve(answers(refine=steps))
    (mined,) = mine_llm([temporal()], endpoint(server), tmp_path)
    assert mined.status == "mined" and stages(server) == {"joint": 1, "refine": 1}
    text = server.bodies[0]["messages"][-1]["content"]
    assert temporal().report in text and temporal().extra["prior_report"] in text


def test_a_sample_that_fails_is_repaired_once(serve, tmp_path: Path) -> None:
    server = serve(answers(refine=LEAKING))
    (mined,) = mine_llm([single()], endpoint(server), tmp_path)
    assert mined.status == "repaired" and list(mined.sample.reason_steps) == GOOD
    assert mined.first is not None and any("leak" in reason for reason in mined.first.reasons)
    repair = next(b for b in server.bodies if stage_of(b) == "repair")["messages"][-1]["content"]
    assert "leak: the report" in repair and "3. The report mentions" in repair


def test_what_repair_cannot_mend_is_quarantined_with_its_reasons(serve, tmp_path: Path) -> None:
    server = serve(answers(refine=WRONG, repair=WRONG))
    (mined,) = mine_llm([single()], endpoint(server), tmp_path)
    assert mined.status == "quarantined" and stages(server)["repair"] == 1
    assert "step 2: contradicted by the report: present pneumothorax" in mined.reasons
    assert "conclusion does not name the answer" in mined.reasons
    (file,) = (tmp_path / "samples").rglob("*.json")
    assert json.loads(file.read_text())["status"] == "quarantined"


def test_a_stage_without_a_valid_answer_quarantines_its_sample_alone(serve, tmp_path: Path) -> None:
    good = answers()

    def script(number: int, body: dict[str, Any]) -> Say:
        broken = stage_of(body) == "evidence" and "STUDY 1" in body["messages"][-1]["content"]
        return Say('{"evidence": "none"}') if broken else good(number, body)

    samples = [single(id=f"s{i}", report=f"Small left pleural effusion. STUDY {i}.") for i in range(3)]
    mined = list(mine_llm(samples, endpoint(serve(script)), tmp_path))
    assert [m.status for m in mined] == ["mined", "quarantined", "mined"]
    assert mined[1].reasons == ("evidence: breaks the schema",) and not mined[1].sample.reason_steps


@pytest.mark.parametrize("dies_at", [2, 7, 11])
def test_a_killed_run_goes_on_and_pays_for_nothing_twice(serve, tmp_path: Path, dies_at: int) -> None:
    samples = [single(id=f"s{i}", report=f"Small left pleural effusion. STUDY {i}.") for i in range(4)]
    refined = {"evidence": [{**EVIDENCE["evidence"][0], "option": "X"}]}

    def script(number: int, body: dict[str, Any]) -> Say:
        text = body["messages"][-1]["content"]
        if stage_of(body) == "evidence":  # each its own, so that each refining is its own request
            study = re.search(r"STUDY (\d)", text)
            assert study is not None
            return Say(json.dumps(refined).replace("X", f"A{study[1]}"))
        return answers(refine=LEAKING)(number, body)

    def dying(number: int, body: dict[str, Any]) -> Say:
        return Say(status=401, body="{}") if number >= dies_at else script(number, body)

    first = serve(dying)
    settings = {"concurrency": 1, "max_retries": 0}
    with pytest.raises(EndpointError):
        list(mine_llm(samples, endpoint(first, **settings), tmp_path))
    second = ScriptedServer(script)
    with second.running():
        port = Endpoint(second.url, "tiny", timeout=60.0, **settings)
        moved = tmp_path / "moved"
        whole = list(mine_llm(samples, port, moved))
    total = len(second.bodies)
    assert all(m.status == "repaired" for m in whole)
    # the same address, now well: only what was not answered is asked
    paid = [json.dumps(body["messages"]) for body in first.bodies[:dies_at]]
    first.script = script
    begin = len(first.bodies)
    again = list(mine_llm(samples, endpoint(first, **settings), tmp_path))
    asked = [json.dumps(body["messages"]) for body in first.bodies[begin:]]
    assert [m.sample for m in again] == [m.sample for m in whole]
    assert not set(paid) & set(asked) and len(paid) + len(asked) == total
    begin = len(first.bodies)
    assert [m.sample for m in mine_llm(samples, endpoint(first, **settings), tmp_path)] == [
        m.sample for m in whole
    ]
    assert len(first.bodies) == begin


KILLED = """
import sys
from pathlib import Path
from chestx_jax.data.mining import mine_llm
from chestx_jax.data.schema import Sample
from chestx_jax.llm import Endpoint
from tests.data.test_mining_llm import studies
list(mine_llm(studies(6), Endpoint(sys.argv[1], "tiny", concurrency=2), Path(sys.argv[2])))
"""


def studies(count: int) -> list[Sample]:
    return [single(id=f"s{i}", report=f"Small left pleural effusion. STUDY {i}.") for i in range(count)]


def test_a_process_that_is_killed_loses_only_what_was_under_way(serve, tmp_path: Path) -> None:
    good = answers()

    def slow(number: int, body: dict[str, Any]) -> Say:
        return replace(good(number, body), seconds=0.05)

    server = serve(slow)
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(tmp_path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(server.bodies) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    time.sleep(0.2)  # what was under way is answered to nobody
    (tmp_path / "answers" / "zz").mkdir()  # and rubbish in the folder harms nothing
    mined = list(mine_llm(studies(6), endpoint(server, concurrency=2), tmp_path))
    assert [m.status for m in mined] == ["mined"] * 6
    asked = Counter(json.dumps(body["messages"]) for body in server.bodies)
    assert len(asked) == 1 + 6 + 1 and sum(asked.values()) - len(asked) <= 2


def test_a_dry_run_sends_nothing_and_knows_what_is_paid(serve, tmp_path: Path) -> None:
    samples = [single(id=f"s{i}", report=f"Small left pleural effusion. STUDY {i}.") for i in range(3)]
    server = serve(answers(refine=LEAKING))
    before = estimate_llm(samples, endpoint(server), tmp_path)
    assert not server.bodies and before.samples == 3
    assert before.calls == 1 + 3 + 3 and before.answered == 2 and before.most_repairs == 3
    assert before.cost(2.0, 10.0) == pytest.approx(
        (2 * before.prompt_tokens + 10 * before.completion_tokens) / 1e6
    )
    assert before.cost(2.0, 10.0, repairs=True) > before.cost(2.0, 10.0)
    assert "7 calls" in before.summary(2.0, 10.0)
    list(mine_llm(samples, endpoint(server), tmp_path))
    after = estimate_llm(samples, endpoint(server), tmp_path)
    assert after.calls == after.most_repairs == 0 and after.cost(2.0, 10.0, repairs=True) == 0


def test_edited_prompts_are_new_requests_and_show_in_the_record(serve, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    packaged = Prompts.read()
    for name, text in packaged.texts.items():
        (own / f"{name}.txt").write_text(text.template)
    (own / "version.txt").write_text("mine-2\n")
    edited = Prompts.read(own)
    assert edited.version == "mine-2" and edited.digest != packaged.digest
    (own / "plan.txt").write_text("Think about $question and $weather")
    with pytest.raises(MiningError, match=r"prompt 'plan'.*weather.*\$question"):
        request("plan", single(), {}, Prompts.read(own))
    (own / "plan.txt").unlink()
    with pytest.raises(MiningError, match=r"plan\.txt is missing"):
        Prompts.read(own)


def test_samples_that_cannot_be_mined_are_named() -> None:
    prompts = Prompts.read()
    with pytest.raises(MiningError, match=r"'s1'.*'report'"):
        request("evidence", single(id="s1", report=" "), {"plan": PLAN}, prompts)
    with pytest.raises(MiningError, match="'prior_report'"):
        request("joint", temporal(extra={"label": "edema"}), {}, prompts)
