"""One training step: mixed precision, gradients over several batches, averaged weights."""

import contextlib
import time

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from steatosis_d2.errors import InputError
from steatosis_d2.modeling.acceleration import cpu_has_bfloat16


class DivergenceError(InputError):
    """The loss is no longer a number: the learning rate is too high, or an image is at fault."""


class TrainLoop(SimpleTrainer):
    """
    Detectron2's ``SimpleTrainer`` with what its users otherwise write themselves.

    Every iteration reseeds torch's generator from the seed and the iteration, so that a resumed
    run draws the proposals that it would have drawn.
    """

    def __init__(self, model, data_loader, optimizer, *, seed, dtype, accumulate, ema_decay):
        """
        Args:
            model (nn.Module): the network; batches are lists of Detectron2's dicts.
            data_loader (iterable): of batches.
            optimizer (Optimizer): of the network.
            seed (int): of the random choices within the network.
            dtype (torch.dtype): of the forward pass; float32, bfloat16, or float16 on a GPU.
            accumulate (int): batches whose mean gradient makes one step.
            ema_decay (float): of the exponential moving average of the weights, a step; 0 keeps
                none.
        """
        super().__init__(model, data_loader, optimizer)
        self.seed = seed
        self.dtype = dtype
        self.accumulate = accumulate
        self.averaged = (
            AveragedModel(model, multi_avg_fn=_ramped_average(ema_decay), use_buffers=True)
            if ema_decay
            else None
        )
        # bfloat16 has float32's range: only float16 needs its losses scaled.
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
        self.last_batch = None

    @property
    def network(self):
        """The network itself, out of what distributes it over processes."""
        distributed = isinstance(self.model, DistributedDataParallel)
        return self.model.module if distributed else self.model

    @property
    def best_network(self):
        """The network to evaluate and to keep: with averaged weights, where there are any."""
        return self.network if self.averaged is None else self.averaged.module

    def run_step(self):
        """One step of the optimizer."""
        self.optimizer.zero_grad()
        data_time = 0.0
        total: dict[str, torch.Tensor] = {}
        for part in range(self.accumulate):
            start = time.perf_counter()
            batch = self.last_batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            with self._synchronise(is_last=part + 1 == self.accumulate):
                losses = self._compute_losses(batch, part)
                self.grad_scaler.scale(sum(losses.values()) / self.accumulate).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach() / self.accumulate
        self._write_metrics(total, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def _synchronise(self, *, is_last):
        """Gradients of several processes are averaged once a step, with the last batch."""
        wait = isinstance(self.model, DistributedDataParallel) and not is_last
        return self.model.no_sync() if wait else contextlib.nullcontext()

    def _compute_losses(self, batch, part):
        # The number of the batch in the stream, so that more processes draw the same as one
        number = (self.iter * self.accumulate + part) * comm.get_world_size() + comm.get_rank()
        torch.manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        device = next(self.network.parameters()).device.type
        try:
            with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
                losses = self.model(batch)
        except FloatingPointError as error:  # Detectron2 looks at the proposals
            raise self._divergence(batch, str(error)) from None
        if not all(torch.isfinite(loss) for loss in losses.values()):
            values = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
            raise self._divergence(batch, values)
        return losses

    def _divergence(self, batch, what):
        images = ", ".join(f"'{record['file_name']}'" for record in batch)
        return DivergenceError(
            f"training diverged at iteration {self.iter} ({what}), on the images {images}"
        )

    def state_dict(self):
        state = super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}
        if self.averaged is not None:
            # The checkpoint's own weights are the averaged ones: those that users want.
            state["trained_weights"] = self.network.state_dict()
            state["n_averaged"] = int(self.averaged.n_averaged)
        return state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        if self.averaged is not None:
            if "trained_weights" not in state_dict:
                raise InputError(
                    "the checkpoint was written without averaged weights; resume it with "
                    "SOLVER.EMA_DECAY 0.0, as it was begun."
                )
            self.network.load_state_dict(state_dict["trained_weights"])
            self.averaged.n_averaged.fill_(state_dict["n_averaged"])


def _ramped_average(decay):
    """
    Exponential moving average whose decay rises to its value, for torch's ``AveragedModel``.

    With a constant decay of 0.998 a network that begins with random weights still has an eighth
    of them in its average after 1,000 steps, and finds little.
    """

    def update(averaged, current, n_averaged):
        n = int(n_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n_averaged)

    return update


def choose_dtype(device):
    """
    Number format of mixed precision.

    Args:
        device (str): ``cpu`` or ``cuda``, with or without a number.

    Returns:
        torch.dtype: bfloat16 where the processor multiplies in it; else float16 on a GPU, and
        float32 on a CPU, which would only emulate the others, more slowly.
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32
