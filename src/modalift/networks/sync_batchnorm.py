"""Batch normalization synchronized across ranks, on any device."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CrossRankBatchNorm(_BatchNorm):
    r"""BatchNorm whose training statistics are those of the batches of all ranks together.

    .. math:: \mu = \frac{1}{n} \sum_r \sum_i x_{ri}, \qquad \sigma^2 = \frac{1}{n} \sum_r \sum_i (x_{ri} - \mu)^2

    with a differentiable sum over ranks r. Each step then equals that of one process with all the clips, also where ranks
    have unequal numbers of clips, or none. (``torch.nn.SyncBatchNorm`` runs on GPUs only.)

    Shapes: ``(B, C, ...)`` to the same, any number of further axes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        axes, shape = [0, *range(2, input.dim())], (1, -1, *[1] * (input.dim() - 2))
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = torch.tensor(float(x.numel() // x.shape[1]), dtype=x.dtype, device=x.device)
        dist.all_reduce(count)
        mean = dist.nn.functional.all_reduce(x.sum(axes)) / count
        centered = x - mean.reshape(shape)
        variance = dist.nn.functional.all_reduce(centered.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * count / (count - 1).clamp_min(1)).to(self.running_var.dtype), momentum)
        y = centered * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.affine:
            y = y * self.weight.reshape(shape) + self.bias.reshape(shape)
        return y.to(input.dtype)


def convert_sync_batchnorm(module: nn.Module) -> None:
    """Replaces every BatchNorm layer inside a module by a synchronized one, in place; weights and names do not change."""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            synced = CrossRankBatchNorm(child.num_features, child.eps, child.momentum, child.affine,
                                        child.track_running_stats)
            synced.weight, synced.bias = child.weight, child.bias
            for key, value in child.named_buffers(recurse=False):
                setattr(synced, key, value)
            synced.train(child.training)
            setattr(module, name, synced)
        else:
            convert_sync_batchnorm(child)
