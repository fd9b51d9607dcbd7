"""``small``: a narrow temporal-shift ResNet-8 with an order-aware head, for a CPU or an embedded camera; can stream."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modalift.errors import ModaliftError
from modalift.networks.heads import CausalHead, OrderedHead
from modalift.networks.recognizer import Recognizer
from modalift.networks.registry import network
from modalift.networks.resnet import Layout, ResNet
from modalift.networks.shift import ShiftDiv
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Share


class Streaming(Recognizer):
    """A causal Recognizer, which also takes a clip frame by frame.

    Example:
        >>> import torch, modalift.networks as networks
        >>> net = networks.build("small", classes=4, view="depth", size=16, causal=True).eval()
        >>> clip, state = torch.randint(0, 4000, (1, 1, 5, 16, 16)), None
        >>> for frame in clip.split(1, dim=2):
        ...     logits, state = net.step(frame, state)
        >>> torch.allclose(logits, net(clip), atol=1e-5)
        True
    """

    streams = True

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits after one more frame ``(B, C, 1, H, W)`` (or several), and the state for the next.

        The state is a flat tuple of tensors of fixed shapes. Zeros of these shapes are the state before the first frame,
        so that an exported step can start from zeros.
        """
        if frame.dim() != 5 or frame.shape[1] != self.channels:
            raise ModaliftError(f"network '{self.view}' takes frames (B, {self.channels}, 1, H, W), "
                                f"not {tuple(frame.shape)}")
        assert isinstance(self.backbone, ResNet)
        assert isinstance(self.head, CausalHead)
        own = self.prepare.state_size
        motion, trunk, head = (None, None, None) if state is None else (state[:own], state[own:-2], state[-2:])
        x, motion = self.prepare.stream(frame, motion)
        x, _, trunk = self.backbone.stream(x, state=trunk, return_state=True)
        if self.neck is not None:
            x = self.neck(x)
        logits, head = self.head.stream(x, head)
        return logits, (*motion, *trunk, *head)


@network("small", papers="Modalift's own", clip=(3, 16, 56))
def small(spec: NetworkSpec, *, width: Count = 16, blocks: Count = 1, dropout: Share = 0.3, bins: Count = 4, grid: Count = 1,
          shift_div: ShiftDiv = 8, causal: bool = False) -> Recognizer:
    """A temporal-shift ResNet-8 of 16, 32 and 64 channels with an order-aware head, for clips of 48 to 64 pixels.

    Use it with ``motion="clip"`` (``motion="running"`` if it streams): motion channels speed up learning greatly. For clips
    of 48 pixels use ``grid=6`` if a file of 4 MB is acceptable: of the designs in ``benchmarks/results/small.md`` that cost
    about as much as the defaults, none was more accurate on held-out subjects (an eighth more multiply-accumulates than
    with ``grid=1``). ``grid=3`` has a third of its parameters and part of the gain; ``width=32, grid=3`` was more accurate
    still, for four times the multiply-accumulates.

    Args:
        width: channels of the stem; stages have 1, 2 and 4 times that.
        blocks: residual blocks in each stage (1 is a ResNet-8, 2 a ResNet-14).
        dropout: dropout probability before the classifier.
        bins: time bins of the head.
        grid: the head pools each frame to ``grid`` x ``grid`` means.
        shift_div: the inverse of the share of channels that comes from each neighboring frame.
        causal: frames are mixed with past ones only, so that :meth:`Recognizer.step` takes one frame at a time; the head
            then uses the last ``frames`` frames, however long the stream is.

    Raises:
        ModaliftError: ``causal`` with ``motion="clip"``, which needs future frames.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("small", classes=10, view="thermal", size=48, motion="running", causal=True)
        >>> net.streams, net.last_stage
        (True, 'layer3')
    """
    if causal and spec.motion == "clip":
        raise ModaliftError("network 'small': causal=true with motion='clip', which needs future frames - "
                            "set motion='running'")
    layout = Layout((blocks,) * 3, small_stem=True)
    trunk = ResNet(spec.prepared_channels, layout, width, "residual", shift_div, causal)
    if causal:
        return Streaming(spec, trunk, CausalHead(trunk.channels, spec.classes, spec.frames, bins, dropout, grid=grid))
    return Recognizer(spec, trunk, OrderedHead(trunk.channels, spec.classes, bins, dropout, grid=grid))
