"""The demo does its whole job, only smaller, and says where everything lies."""

import json

from minivdm import demo
from minivdm.data.io import read_video
from minivdm.training.checkpoint import list_checkpoints


def test_the_demo_draws_trains_stops_resumes_and_draws(tmp_path, capsys):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "old.txt").write_text("of the last time")
    demo.main(out, steps=2, stop_at=1, sampling_steps=1)
    names = {"text", "run", "loss.png", "samples_minutes.gif", "samples_shipped.gif", "contact_sheet.png"}
    assert {path.name for path in out.iterdir()} == names
    films = sorted((out / "text").glob("*.gif"))
    assert len(films) == len(demo.SENTENCES) == len(list((out / "text").glob("*.mp4")))
    assert read_video(films[0]).frames.shape == (17, 256, 256, 3)
    assert [path.name for path in list_checkpoints(out / "run")] == ["step-00000001", "step-00000002"]
    steps = [json.loads(line)["step"] for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2], "as in a run of two steps that was never stopped"
    said = capsys.readouterr().out
    assert all(f"{number}. " in said for number in range(1, 5)) and all(str(film) in said for film in films)
    assert all(f"{out / name}" in said for name in names)
