"""
The endless stream of training images, in which every place has a number.

What stands at a place (which image, augmented how) follows from the seed and the number alone.
So a resumed run goes on at the next number and sees what it would have seen; several processes
share the stream by taking every so-manieth batch, and see together what one would have seen.
"""

import multiprocessing
import random
from collections import Counter

import cv2
import numpy as np
import torch
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from torch.utils.data import DataLoader, Dataset, Sampler

from steatosis_d2.errors import InputError

# What a reader needs before it can read; the script that trains is most of it. The catalog comes
# before what imports Detectron2, since it quiets that.
_PRELOADED = [
    "__main__",
    *(f"steatosis_d2.data.{name}" for name in ("catalog", "mapper", "stream")),
]


class ImageStream(Dataset):
    """Training images by their number in the stream."""

    def __init__(self, records, mapper, *, weights, seed):
        """
        Args:
            records (list[dict]): in Detectron2's data set form.
            mapper (callable): record -> what the network takes; may draw from the global
                generators of ``random`` and numpy.
            weights (ndarray): float, shape (len(records),), how often each is drawn, relative to
                the others.
            seed (int): another seed, another stream.
        """
        self.records = DatasetFromList(records, copy=False)
        self.mapper = mapper
        self.weights = np.asarray(weights, float)
        self.seed = seed
        self._epoch = None

    def __getitem__(self, number):
        epoch, place = divmod(number, len(self.records))
        if self._epoch != epoch:
            self._epoch, self._order = epoch, draw_epoch(self.weights, seed=self.seed, epoch=epoch)
        entropy = np.random.SeedSequence([self.seed, number]).generate_state(2)
        random.seed(int(entropy[0]))
        np.random.seed(entropy[1])  # noqa: NPY002  (what Detectron2's augmentations draw from)
        return self.mapper(self.records[int(self._order[place])])


def draw_epoch(weights, *, seed, epoch):
    """
    The images of one epoch, in random order.

    Each image comes as often as its weight says, rounded up or down at random (systematic
    sampling); with equal weights, exactly once.

    Args:
        weights (ndarray): float, shape (N,), positive.
        seed (int): of the stream.
        epoch (int): counted from 0.

    Returns:
        ndarray: int64, shape (N,), indices of images.

    Examples:
        >>> sorted(draw_epoch(np.ones(4), seed=0, epoch=0).tolist())
        [0, 1, 2, 3]
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(weights))
    expected = weights[shuffled] * len(weights) / weights.sum()
    ticks = np.arange(len(weights)) + generator.random()
    drawn = np.searchsorted(np.cumsum(expected), ticks, side="right")
    # The sum may miss the last tick by a rounding error.
    return generator.permutation(shuffled[np.minimum(drawn, len(weights) - 1)])


class StreamSampler(Sampler):
    """Numbers of the stream, batch by batch, for one of several processes."""

    def __init__(self, batch_size, *, rank, world_size):
        """
        Args:
            batch_size (int): images that one process takes at a time.
            rank (int): which process this is.
            world_size (int): how many there are.
        """
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.first_batch = 0

    def __iter__(self):
        """Numbers of the images of each batch, from ``first_batch`` (of this process) on."""
        batch = self.first_batch * self.world_size + self.rank
        while True:
            yield list(range(batch * self.batch_size, (batch + 1) * self.batch_size))
            batch += self.world_size


def load_records(cfg):
    """
    All training images of a config, and how often each is drawn.

    Args:
        cfg (CfgNode): ``DATASETS.TRAIN``, ``TRAIN_SHARES``, ``GROUP_POWER`` and
            ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` are read.

    Returns:
        tuple: list of records; their weights, float, shape (N,).

    Raises:
        InputError: some of the data sets have a share and others have none; a share is not
            positive; or only empty images are left to leave out.
    """
    shares = _shares_of(cfg)
    records, weights = [], []
    for name in cfg.DATASETS.TRAIN:
        part = get_detection_dataset_dicts(name, filter_empty=False)
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            part = [record for record in part if has_instances(record)]
        if not part:
            raise InputError(
                f"no image of data set '{name}' has an instance; set "
                "DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on empty images."
            )
        part_weights = balance_groups(
            [record.get("group", "") for record in part], power=cfg.DATASETS.GROUP_POWER
        )
        records += part
        weights.append(part_weights * shares.get(name, len(part)))
    if not any(map(has_instances, records)):
        raise InputError(
            f"the data sets of DATASETS.TRAIN ({', '.join(cfg.DATASETS.TRAIN)}) hold "
            f"{len(records)} images and not one outlined object; there is nothing to learn. "
            "Check their annotations."
        )
    return records, np.concatenate(weights)


def _shares_of(cfg):
    """Share of each data set, by name; none where the config's are of other data sets."""
    pairs = cfg.DATASETS.TRAIN_SHARES
    if not all(len(pair) == 2 and pair[1] > 0 for pair in pairs):
        raise InputError(
            f"DATASETS.TRAIN_SHARES is {pairs}; expected pairs of a data set's name and its share, "
            "above 0: [['liver_torino_train', 0.6], ...]."
        )
    shares = {name: share for name, share in pairs if name in cfg.DATASETS.TRAIN}
    lacking = [name for name in cfg.DATASETS.TRAIN if name not in shares]
    if shares and lacking:
        raise InputError(
            f"DATASETS.TRAIN_SHARES gives no share to '{lacking[0]}'; give one to every data set "
            "of DATASETS.TRAIN, or to none."
        )
    return shares


def has_instances(record):
    """Whether an image (Detectron2's record of it) has an instance that is no crowd region."""
    return any(not annotation.get("iscrowd") for annotation in record["annotations"])


def balance_groups(groups, *, power):
    """
    Weights by which rare groups are seen more often.

    Args:
        groups (list[str]): of each image.
        power (float): a group of n images is drawn in proportion to n to this power.

    Returns:
        ndarray: float, shape (len(groups),), adding up to 1.

    Examples:
        >>> balance_groups(["a", "a", "a", "b"], power=0)
        array([0.16666667, 0.16666667, 0.16666667, 0.5       ])
    """
    sizes = Counter(groups)
    weights = np.array([sizes[group] ** (power - 1.0) for group in groups])
    return weights / weights.sum()


def build_stream_loader(stream, sampler, *, num_workers):
    """
    Batches of a stream, read ahead in processes.

    Args:
        stream (ImageStream): what to read.
        sampler (StreamSampler): what numbers, in what batches.
        num_workers (int): processes that read ahead; 0 reads in this one.

    Returns:
        DataLoader: of lists of dicts, without end.
    """
    loader = DataLoader(stream, batch_sampler=sampler, num_workers=num_workers, collate_fn=list)
    return start_readers_cleanly(loader)


def start_readers_cleanly(loader):
    """
    Let the processes of a loader begin without the threads of this one, on every Python.

    Forking a process that has threads (OpenCV's, torch's) can hang the child; until Python 3.13
    it is what loaders do on Linux. From 3.14 on they do as this: a server that has no threads,
    and has imported all that readers need, is forked.

    Args:
        loader (DataLoader): not in use yet; its data set must pickle.

    Returns:
        DataLoader: the same.
    """
    if loader.num_workers == 0:
        return loader
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(_PRELOADED)
        loader.multiprocessing_context = "forkserver"
    else:
        loader.multiprocessing_context = "spawn"  # Windows
    loader.worker_init_fn = _use_one_thread
    return loader


def _use_one_thread(_):
    # Readers run beside the network: threads of their own would only take its cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
