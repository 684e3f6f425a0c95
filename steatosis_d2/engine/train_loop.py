"""One training step in mixed precision on the CPU, which Detectron2's own AMP leaves to CUDA."""

import time

import torch
from detectron2.engine import SimpleTrainer


class CPUAMPTrainer(SimpleTrainer):
    """
    Detectron2's ``SimpleTrainer`` with the forward pass in bfloat16, on the CPU.

    bfloat16 has float32's range, so that losses need no scaling.
    """

    def run_step(self):
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()


def cpu_has_bfloat16():
    """
    Whether the processor multiplies in bfloat16; elsewhere it is emulated, and slower.

    Returns:
        bool: True with AVX512-BF16, which AMX processors have as well.
    """
    return torch.cpu._is_avx512_bf16_supported()
