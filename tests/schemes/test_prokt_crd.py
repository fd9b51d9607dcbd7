"""ProKT's two steps and CRD's memory, beyond what every scheme promises."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.losses import contrastive_representation
from modalift.modalities import Batch
from modalift.schemes import Progress, count_across_ranks, observe_frozen, total
from ports import free_port


def net(view: str) -> networks.Recognizer:
    torch.manual_seed(len(view))
    if view == "pose":
        return networks.build("tcn", classes=4, view="pose", channels=9, frames=4, dropout=0.0)
    return networks.build("small", classes=4, view=view, frames=4, size=32, width=8, dropout=0.0)


def batch(n: int = 5) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {"depth": 2000 + 500 * torch.rand(n, 1, 4, 32, 32, generator=g), "pose": torch.rand(n, 9, 4, 1, 1, generator=g)}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def made(name: str, **settings):
    return schemes.build(name, {"student": net("depth"), "teacher": net("pose")}, settings).train()


def test_prokt_takes_its_two_steps_in_turn():
    scheme = made("prokt", consistency_weight=0.4)
    assert [u.name for u in scheme.updates()] == ["teacher", "student"]
    first = scheme(batch(), Progress(update="teacher"))
    assert {k: w for k, (w, _) in first.items()} == {"ce/teacher": 0.6, "kd/student>teacher": 0.4}
    second = scheme(batch(), Progress(update="student"))
    assert {k: w for k, (w, _) in second.items()} == {"ce/student": 0.0, "kd/teacher>student": 1.0}
    p_t = torch.softmax(scheme.teacher(batch().clips["pose"]), 1)
    assert torch.allclose(p_t, torch.full_like(p_t, 0.25)), "without an opinion at first"
    z = scheme.student(batch().clips["depth"])
    expected = F.kl_div(torch.log_softmax(z, 1), p_t.detach(), reduction="batchmean")
    torch.testing.assert_close(second["kd/teacher>student"][1], expected)
    assert list(scheme.students) == ["student"]


def statistics(network):
    return {k: b.clone() for k, b in network.named_buffers() if "running" in k or k.endswith("tracked")}


def test_prokts_statistics_move_with_the_network_that_learns_alone():
    scheme, given = made("prokt"), batch()
    for learner, other in (("teacher", "student"), ("student", "teacher")):
        before, held = statistics(scheme.roles[other]), statistics(scheme.roles[learner])
        scheme(given, Progress(update=learner))
        after = statistics(scheme.roles[other])
        assert before
        assert all(torch.equal(after[k], v) for k, v in before.items())
        moved = statistics(scheme.roles[learner])
        assert all(moved[k] == v + 1 for k, v in held.items() if k.endswith("tracked")), "once"
        assert any(not torch.equal(moved[k], v) for k, v in held.items() if k.endswith("mean"))
    total(scheme(given, Progress())).backward()  # both updates in one graph


def test_prokt_observes_the_other_network_in_training_mode():
    scheme, given = made("prokt"), batch()
    seen = observe_frozen(scheme.student, given)
    torch.testing.assert_close(seen.logits, scheme.student(given.clips["depth"]).detach())
    assert not seen.logits.requires_grad


def test_a_new_teacher_begins_without_an_opinion_and_a_trained_one_keeps_its_own(tmp_path):
    old = net("pose")
    old.train()(batch().clips["pose"])
    for teacher, zero_init, zero in ((net("pose"), None, True), (net("pose"), False, False), (old, None, False),
                                 (net("pose").eval(), None, False), (old, True, True)):
        settings = {} if zero_init is None else {"zero_init": zero_init}
        scheme = schemes.build("prokt", {"student": net("depth"), "teacher": teacher}, settings)
        assert bool((scheme.teacher.head.fc.weight == 0).all()) == zero
        (note,) = scheme.notes
        assert ("is set to zero" in note) == zero


def test_clips_of_all_are_counted_where_clips_are_compared():
    given = batch()
    given.present["pose"][[0, 3]] = False
    for name, settings in (("crd", {"negatives": 4}), ("distill", {"loss": "relational"}), ("mgcam_dkd", {})):
        weight, raw = made(name, **settings)(given, Progress())["batch_clips/teacher>student"]
        assert (weight, raw.item()) == (0.0, 3.0)
    assert "batch_clips/teacher>student" not in made("distill")(given, Progress())


def _count(rank, port, out):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = count_across_ranks(torch.zeros(1 + 3 * rank, 2))
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


def test_the_count_is_that_of_all_processes(tmp_path):
    mp.spawn(_count, (free_port(), str(tmp_path / "n.pt")), nprocs=2)
    assert torch.load(tmp_path / "n.pt") == 5


def test_crd_remembers_what_it_saw_and_only_that():
    scheme, given = made("crd", negatives=7, dim=16), batch()
    scheme.init_memory(20)
    before = scheme.memory_s.clone(), scheme.memory_t.clone()
    terms = scheme(given, Progress())
    assert torch.equal(scheme.memory_s, before[0]), "a step moves the memory, looking does not"
    scheme.after_step(given)
    for memory, old in zip((scheme.memory_s, scheme.memory_t), before, strict=True):
        assert torch.equal(memory[5:], old[5:])
        assert not torch.equal(memory[:5], old[:5])
        torch.testing.assert_close(memory.norm(dim=1), torch.ones(20))
    assert terms["crd/teacher>student"][1] > 0
    assert (scheme.log_z != 0).all()
    kept = scheme.log_z.clone()
    scheme(given, Progress(step=1))
    assert torch.equal(scheme.log_z, kept), "the constants are those of the first batch"


def test_crd_compares_with_its_own_row_and_others_rows():
    scheme, given = made("crd", negatives=6, dim=8), batch()
    scheme.init_memory(20)
    v = F.normalize(torch.randn(5, 8), dim=1)
    scheme.log_z[:] = 1.0
    value = scheme.contrast(v, scheme.memory_t, given.index, 0, 3)
    offsets = torch.randint(1, 20, (6,), generator=torch.Generator().manual_seed(6))
    rows = (given.index[:, None] + offsets) % 20
    assert not (rows == given.index[:, None]).any()
    own = (v * scheme.memory_t[given.index]).sum(1) / 0.07 - 1.0
    others = (v[:, None] * scheme.memory_t[rows]).sum(2) / 0.07 - 1.0
    torch.testing.assert_close(value, contrastive_representation(own, others, 20, per_sample=True))


def test_settings_that_make_no_sense_are_told():
    wrongs = [("prokt", {"consistency_weight": 1.0}), ("prokt", {"kd_temperature": 0.0}),
              ("crd", {"contrast_temperature": 0.0}), ("crd", {"dim": 0})]
    for name, wrong in wrongs:
        with pytest.raises(ModaliftError, match=next(iter(wrong))):
            made(name, **wrong)
