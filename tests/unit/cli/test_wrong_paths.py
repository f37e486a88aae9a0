"""A path that leads nowhere is answered before torch is imported, which takes seconds."""

import json
import os
import subprocess
import sys

CHILD = """
import io, json, sys
from contextlib import redirect_stderr
from pyrafuse.cli.main import main
answers = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with redirect_stderr(said):
        status = main(words)
    answers.append([status, said.getvalue().strip(), "torch" in sys.modules])
print(json.dumps(answers))
"""


def test_wrong_paths_are_told_without_torch(tmp_path):
    (tmp_path / "best.ckpt").write_bytes(b"x")
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "photos").mkdir()
    for age, run in ((9, "old"), (5, "new")):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "last.ckpt").write_bytes(b"x")
        os.utime(tmp_path / "runs" / run / "last.ckpt", (1e9 - age, 1e9 - age))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "last.ckpt").write_bytes(b"x")
    cases = [
        ("train photo", "no such data set: photo; did you mean {here}/photos?"),
        ("train photos --output full", "full holds a run already: choose another --output, or go on with --resume"),
        (
            "train photos --output best.ckpt",
            "cannot write best.ckpt: best.ckpt is a file, and no folder; choose another",
        ),
        ("train photos --resume --output none", "nothing to resume: none/recipe.yaml is not there"),
        ("train photos --recipe none.yaml", "no such file: {here}/none.yaml"),
        ("train photos --model bset.ckpt", "no such checkpoint: bset.ckpt; did you mean best.ckpt?"),
        ("train photos --weights bset.ckpt", "no such checkpoint: bset.ckpt; did you mean best.ckpt?"),
        ("train photos --weights mobilenet_v2", "--weights pyrafuse/mobilenet_v2 gives ImageNet's"),
        ("predict photos photos", "photos is a folder without best.ckpt or last.ckpt; there is no checkpoint in it"),
        ("predict bset.ckpt photos", "no such checkpoint: bset.ckpt; did you mean best.ckpt?"),
        ("predict last.ckpt photos", "no such checkpoint: last.ckpt; did you mean runs/new/last.ckpt?"),
        ("predict empty.ckpt photos", "empty.ckpt is empty; copy it anew, or name another file"),
        ("predict best.ckpt photos --score 1.5", "score must be in 0..1, got 1.5"),
        ("predict best.ckpt photos --limit 0", "limit must be 1 or more, got 0"),
        ("val best.ckpt", "unknown command 'val'; did you mean 'evaluate'? (see pyrafuse evaluate --help)"),
        ("Detect best.ckpt", "unknown command 'Detect'; did you mean 'predict'?"),
        ("predict best.ckpt photo", "no such file or folder: photo; did you mean photos?"),
        ("predict best.ckpt photos/*.jpg", "no file matches 'photos/*.jpg'"),
        ("predict best.ckpt photos --output best.ckpt", "cannot write best.ckpt: best.ckpt is a file, and no folder"),
        ("evaluate bset.ckpt photos", "no such checkpoint: bset.ckpt; did you mean best.ckpt?"),
        ("evaluate best.ckpt photo", "no such data set: photo; did you mean {here}/photos?"),
        ("explain best.ckpt photo", "no such file or folder: photo; did you mean photos?"),
        ("explain best.ckpt photo --gradients", "no such data set: photo; did you mean {here}/photos?"),
        ("import bset.pth -o ours.ckpt", "no such checkpoint: bset.pth"),
        ("data check photo", "no such data set: photo; did you mean {here}/photos?"),
        ("compare photo --necks asff", "no such data set: photo; did you mean {here}/photos?"),
        ("draw none.yaml", "cannot read the graph none.yaml: there is no such file"),
    ]
    words = json.dumps([case.split() for case, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for (case, wanted), (status, said, has_torch) in zip(cases, json.loads(done.stdout), strict=True):
        assert wanted.format(here=tmp_path) in said, case
        assert status == 2, case
        assert not has_torch, case
