"""Batch norm with ReLU as one module, and its synchronisation over processes."""

from typing import cast

from torch import Tensor, nn

from attunet.ops import batch_norm_relu


class BatchNormReLU(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with its state and initialisation, and a ReLU; `attunet.ops.batch_norm_relu` computes both."""

    backend = "auto"  # or another name that `batch_norm_relu` takes
    synchronized = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) and set negative values to 0."""
        if self.training:
            cast(Tensor, self.num_batches_tracked).add_(1)
        return batch_norm_relu(
            x, self.weight, self.bias, cast(Tensor, self.running_mean), cast(Tensor, self.running_var),
            training=self.training, momentum=cast(float, self.momentum), eps=self.eps,
            synchronized=self.synchronized, backend=self.backend,
        )  # fmt: skip


def synchronize_batch_norms(network: nn.Module) -> None:
    """Make every batch norm normalise over the slices of all processes, in place; parameters and buffers stay."""
    for module in list(network.modules()):
        if isinstance(module, BatchNormReLU):
            module.synchronized = True
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(
                child, BatchNormReLU | nn.SyncBatchNorm
            ):
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
