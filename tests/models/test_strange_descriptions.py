"""A sealed file whose description fits no network: one line with the file's name."""

from __future__ import annotations

import pytest

import modalift
from modalift import networks
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.models import container, model_of


@pytest.mark.parametrize(("change", "message"), [
    (lambda held: held["network"].update(view=["depth"]), "its network cannot be rebuilt"),
    (lambda held: held.update(framings={}), "has no framing for its view"),
    (lambda held: held["network"].update(frames="4x"), "network.frames = '4x'"),
])
def test_it_is_told_with_the_file(tmp_path, change, message):
    net = networks.build("small", classes=3, view="depth", modality_name="depth", frames=4, size=16)
    file = model_of(net, {"depth": Framing(frames=4, size=16)}, "abc").save(tmp_path / "a.modalift")
    held = container.read(file)
    change(held.document)
    file.unlink()
    container.write(file, held.tensors, held.document)
    with pytest.raises(ModaliftError, match=rf"a\.modalift: .*{message}"):
        modalift.load(file)
