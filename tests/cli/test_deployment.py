"""From clips to a prediction of the deployed network."""

from __future__ import annotations

import json


def test_the_main_job_from_clips_to_an_answer(modalift, recipe_file, tiny, tmp_path):
    recipe = recipe_file(optim={"epochs": 3})
    code, said, _ = modalift("check", tiny, "--json")
    assert code == 0
    assert json.loads(said)
    code, said, _ = modalift("explain", recipe, "--json")
    assert json.loads(said)["networks"][0]["deployed"] is True
    assert modalift("train", recipe)[0] == 0
    run = tmp_path / "run"
    code, said, _ = modalift("eval", run, "--json")
    assert set(json.loads(said)) == {"student"}
    assert (run / "report.html").is_file()
    bundle = tmp_path / "x.modalift"
    assert modalift("ship", run, "-o", bundle)[0] == 0
    code, said, _ = modalift("predict", bundle, tiny / "c00_depth.npz", "--json")
    assert code == 0
    shown = json.loads(said)
    assert shown[0]["label"].startswith("move")
    code, said, _ = modalift("export", bundle, "-o", tmp_path / "x.onnx", "--json")
    assert code == 0, said
    assert json.loads(said)["difference"] < 1e-4
    other = tmp_path / "other"
    assert modalift("train", recipe, "run.seed=1", f"run.dir={other}")[0] == 0
    assert modalift("eval", other)[0] == 0
    code, said, _ = modalift("compare", run, other, "--out", tmp_path / "c.html", "--json")
    assert code == 0
    assert json.loads(said)["rows"][1]["against_first"]["n"] == 6
    assert "http://" not in (tmp_path / "c.html").read_text().replace("http://www.w3.org", "")
    assert "https://" not in (tmp_path / "c.html").read_text()


def test_a_bundle_holds_no_path_of_this_machine(modalift, recipe_file, tmp_path, tiny):
    modalift("train", recipe_file(optim={"epochs": 1}))
    modalift("ship", tmp_path / "run", "-o", tmp_path / "x.modalift")
    assert str(tiny).encode() not in (tmp_path / "x.modalift").read_bytes()


def test_files_that_are_no_bundles(wrong, tmp_path, tiny):
    import pickle

    (tmp_path / "pickle.modalift").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty.modalift").write_bytes(b"")
    for name in ("pickle", "empty", "missing"):
        assert f"{name}.modalift" in wrong("predict", tmp_path / f"{name}.modalift", tiny / "c00_depth.npz").replace("\n", "")
