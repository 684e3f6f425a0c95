"""
One set of instances from those of overlapping tiles.

Neighbouring tiles see the strip between them twice. What lies there is taken from the tile that
sees it best; what no tile sees whole is put together from its parts; and of what two tiles still
see differently, the larger view is kept. Nothing is lost, and nothing is counted twice.

The work is near-linear in the number of instances: each is compared only with those of other
tiles that meet its box, and is held only until the last tile that sees its place has come.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import shapely

from steatosis_d2.inference.tiles import Tile
from steatosis_d2.instances.instance import Instance

# A mask this near to the edge of its tile may be cut: networks end a cut droplet some px early.
CUT_MARGIN_PX = 4
# IoU, where both tiles see, above which two parts are of one droplet. Above one half, no part has
# more than one such partner in another tile.
MIN_AGREEMENT = 0.5
# Share of an instance in larger ones of other tiles from which on it is one of them.
MAX_COVERED = 0.5
# Masks that share less than this of the smaller one, where both tiles see, are mere neighbours.
MIN_SHARED = 0.1


@dataclass(eq=False)
class Part:
    """
    What one tile shows of a droplet.

    Attributes:
        instance (Instance): in px of level 0.
        tile (Tile): that shows it.
        is_cut (bool): whether it may go on beyond the tile.
        cluster (Cluster): the parts that it overlaps.
    """

    instance: Instance
    tile: Tile
    is_cut: bool
    cluster: "Cluster"


@dataclass(eq=False)
class Cluster:
    """
    Parts that overlap, directly or through others: they are decided on together.

    Attributes:
        last_tile (int): index of the last tile that sees the place of one of them.
        parts (list[Part]): its members.
        links (list[tuple]): two parts of different tiles that overlap, and whether they agree.
    """

    last_tile: int
    parts: list[Part] = field(default_factory=list)
    links: list[tuple[Part, Part, bool]] = field(default_factory=list)


@dataclass(eq=False)
class JoinedDroplet:
    """
    A whole droplet, or as much of it as there is.

    Attributes:
        parts (list[Part]): that it was made of, each from another tile.
        instance (Instance): their union, in px of level 0.
        area_px (int): of the union.
    """

    parts: list[Part]
    instance: Instance
    area_px: int

    @property
    def order(self):
        """Sorts candidates from the largest to the smallest, and equals by where they are."""
        first = self.parts[0]
        return -self.area_px, first.tile.index, self.instance.top, self.instance.left


class BorderMerger:
    """
    Takes tile after tile, and gives each instance once: as soon as no later tile can change it.

    Memory holds the instances along the borders to tiles that have not come yet.

    Examples:
        >>> from steatosis_d2.inference.tiles import plan_tiles
        >>> tiles = plan_tiles(90, 64, tile_px=64, overlap_px=32)
        >>> merger = BorderMerger(tiles, width=90, height=64)
        >>> droplet = np.ones((10, 10), bool)
        >>> merger.add(tiles[0], [Instance(droplet, top=20, left=40, score=0.9)])
        []
        >>> [merged] = merger.add(tiles[1], [Instance(droplet, top=20, left=14, score=0.9)])
        >>> merged.top, merged.left
        (20, 40)
    """

    def __init__(self, tiles, *, width, height):
        """
        Args:
            tiles (list[Tile]): all that will come, from :func:`~.tiles.plan_tiles`.
            width, height (int): of the slide, in px of level 0.
        """
        self._width, self._height = width, height
        windows = np.array([tile.box_xyxy for tile in tiles], int).reshape(-1, 4)
        self._centers_xy = _centers(windows)
        self._inner_xyxy = _leave_margins(windows, width=width, height=height)
        self._windows = shapely.STRtree(shapely.box(*windows.T))
        self._waiting: defaultdict[int, list[Part]] = defaultdict(list)

    def add(self, tile, instances):
        """
        Take the instances of the next tile.

        Args:
            tile (Tile): the next of the plan.
            instances (list[Instance]): in px of the tile.

        Returns:
            list[Instance]: those that are final now, in px of level 0, in an order that depends
            on the plan alone. ``truncated`` are those that the slide's border cuts, or a tile's
            without a counterpart beyond it.
        """
        parts = self._place(tile, [_tighten(item) for item in instances if item.crop.any()])
        earlier = self._waiting.pop(tile.index, [])
        for first, second in _find_meeting(earlier, parts):
            _connect_if_overlapping(first, second)
        clusters = dict.fromkeys(part.cluster for part in [*earlier, *parts])
        decided = [cluster for cluster in clusters if cluster.last_tile == tile.index]
        final = [self._finish(candidate) for cluster in decided for candidate in _decide(cluster)]
        for cluster in decided:
            # It and its parts refer to each other: a slide's would wait for the garbage collector.
            cluster.parts.clear()
            cluster.links.clear()
        return final

    def _place(self, tile, instances):
        """The parts that no tile sees better, on the waiting lists of the later tiles."""
        if not instances:
            return []
        instances = [
            replace(item, top=item.top + tile.top, left=item.left + tile.left) for item in instances
        ]
        boxes = _boxes_xyxy(instances)
        is_cut = ~_contains(self._inner_xyxy[tile.index], boxes)
        item, seen_by = self._windows.query(shapely.box(*boxes.T), predicate="intersects")
        later: list[list[int]] = [[] for _ in instances]
        for i, index in zip(item, seen_by, strict=True):
            if index > tile.index:
                later[i].append(int(index))
        is_redundant = np.zeros(len(instances), bool)
        is_redundant[item[self._sees_better(seen_by, tile, boxes[item], is_cut[item])]] = True

        parts = []
        for i in np.flatnonzero(~is_redundant):
            cluster = Cluster(last_tile=max(later[i], default=tile.index))
            part = Part(instances[i], tile, bool(is_cut[i]), cluster)
            cluster.parts.append(part)
            parts.append(part)
            for index in later[i]:
                self._waiting[index].append(part)
        return parts

    def _sees_better(self, others, tile, boxes, is_cut):
        """
        Whether other tiles have more to tell of what a tile shows in some boxes.

        Those do that see all of a box that the tile's edge cuts, or that are nearer to it: clearly
        nearer, since two tiles place one droplet a little differently and neither might want it.
        """
        sees_whole = (others != tile.index) & _contains(self._inner_xyxy[others], boxes)
        center_xy = _centers(boxes)
        distance = np.linalg.norm(center_xy - self._centers_xy[others], axis=1)
        own_distance = np.linalg.norm(center_xy - self._centers_xy[tile.index], axis=1)
        side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        return sees_whole & (is_cut | (own_distance - distance > side / 2))

    def _finish(self, candidate):
        """The candidate's instance, marked as truncated where a part of it was never seen."""
        instance = candidate.instance
        unseen = instance.crop.copy()
        for part in candidate.parts:
            unseen[_window(instance, self._inner_xyxy[part.tile.index])] = False
        touches_border = (
            min(instance.left, instance.top) == 0
            or instance.right == self._width
            or instance.bottom == self._height
        )
        return replace(instance, truncated=bool(touches_border or unseen.any()))


def _decide(cluster):
    """The candidates of a cluster that stay, in the order of the tiles they were first seen in."""
    candidates = [_unite(parts) for parts in _group_agreeing(cluster)]
    if len(candidates) == 1:
        return candidates
    candidate_of = {part: candidate for candidate in candidates for part in candidate.parts}
    rivals = defaultdict(list)
    for first, second, _ in cluster.links:
        rivals[candidate_of[first]].append(candidate_of[second])
        rivals[candidate_of[second]].append(candidate_of[first])
    kept: set[JoinedDroplet] = set()
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        tiles = {part.tile for part in candidate.parts}
        larger = [
            rival
            for rival in dict.fromkeys(rivals[candidate])
            # A model that shows two droplets in one tile means two.
            if rival in kept and not any(part.tile in tiles for part in rival.parts)
        ]
        if _area_covered(candidate, larger) < MAX_COVERED * candidate.area_px:
            kept.add(candidate)
    return sorted(kept, key=lambda candidate: candidate.order[1:])


def _group_agreeing(cluster):
    """The parts of each droplet: cut parts that agree, directly or through others."""
    group_of = {part: [part] for part in cluster.parts}
    for first, second, agrees in cluster.links:
        if agrees and first.is_cut and second.is_cut:
            _merge_groups(group_of, first, second)
    return list({id(group): group for group in group_of.values()}.values())


def _merge_groups(group_of, first, second):
    group, other = group_of[first], group_of[second]
    if group is not other:
        group += other
        group_of.update(dict.fromkeys(other, group))


def _unite(parts):
    """A candidate of all px of its parts, with the highest of their scores."""
    if len(parts) == 1:
        [part] = parts
        return JoinedDroplet(parts, part.instance, int(np.count_nonzero(part.instance.crop)))
    boxes = _boxes_xyxy([part.instance for part in parts])
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    score = max(part.instance.score for part in parts)
    crop = np.zeros((bottom - top, right - left), bool)
    union = replace(parts[0].instance, crop=crop, top=top, left=left, score=score)
    for part in parts:
        union.crop[_window(union, _box_xyxy(part.instance))] |= part.instance.crop
    return JoinedDroplet(parts, union, int(np.count_nonzero(union.crop)))


def _area_covered(candidate, others):
    """Px of a candidate that lie in any of the others."""
    covered = np.zeros_like(candidate.instance.crop)
    for other in others:
        window, other_window = _common_windows(candidate.instance, other.instance)
        covered[window] |= other.instance.crop[other_window]
    return np.count_nonzero(covered & candidate.instance.crop)


def _connect_if_overlapping(first, second):
    """Put two parts into one cluster if they overlap by more than neighbours do."""
    window, second_window = _common_windows(first.instance, second.instance)
    n_shared = np.count_nonzero(first.instance.crop[window] & second.instance.crop[second_window])
    if n_shared == 0:
        return
    seen_by_both = _intersect(first.tile.box_xyxy, second.tile.box_xyxy)
    areas = [
        np.count_nonzero(part.instance.crop[_window(part.instance, seen_by_both)])
        for part in (first, second)
    ]
    if n_shared < MIN_SHARED * min(areas):
        return
    agrees = bool(n_shared > MIN_AGREEMENT * (sum(areas) - n_shared))
    if first.instance.class_index != second.instance.class_index:
        if not agrees:  # a droplet beside a vessel, or one in a lobule
            return
        agrees = False  # one object of two names: the larger view is kept
    cluster = _merge_clusters(first.cluster, second.cluster)
    cluster.links.append((first, second, agrees))


def _merge_clusters(cluster, other):
    if cluster is other:
        return cluster
    if len(cluster.parts) < len(other.parts):  # so that each part moves seldom
        cluster, other = other, cluster
    cluster.last_tile = max(cluster.last_tile, other.last_tile)
    cluster.parts += other.parts
    cluster.links += other.links
    for part in other.parts:
        part.cluster = cluster
    return cluster


def _find_meeting(parts, others):
    """Pairs of parts, one of each list, whose boxes share a px."""
    if not parts or not others:
        return []
    boxes = _boxes_xyxy([part.instance for part in parts])[:, None]
    other_boxes = _boxes_xyxy([part.instance for part in others])[None]
    meet = (boxes[..., :2] < other_boxes[..., 2:]) & (other_boxes[..., :2] < boxes[..., 2:])
    return [(parts[i], others[j]) for i, j in np.argwhere(meet.all(axis=2))]


def _tighten(instance):
    """The instance with its crop cut to the px that are set."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(instance.crop, np.uint8))
    if (height, width) == instance.crop.shape:
        return instance
    return replace(
        instance,
        crop=instance.crop[top : top + height, left : left + width],
        top=instance.top + top,
        left=instance.left + left,
    )


def _leave_margins(windows_xyxy, *, width, height):
    """Windows less the margins where a droplet may be cut; the slide's own border cuts nothing."""
    inner = windows_xyxy + CUT_MARGIN_PX * np.array([1, 1, -1, -1])
    at_border = windows_xyxy == (0, 0, width, height)
    return np.where(at_border, windows_xyxy, inner)


def _contains(outer_xyxy, boxes_xyxy):
    return (outer_xyxy[..., :2] <= boxes_xyxy[..., :2]).all(axis=-1) & (
        boxes_xyxy[..., 2:] <= outer_xyxy[..., 2:]
    ).all(axis=-1)


def _centers(boxes_xyxy):
    return (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2


def _box_xyxy(instance):
    return instance.left, instance.top, instance.right, instance.bottom


def _boxes_xyxy(instances):
    return np.array([_box_xyxy(instance) for instance in instances])


def _intersect(box_xyxy, other_xyxy):
    return (
        max(box_xyxy[0], other_xyxy[0]),
        max(box_xyxy[1], other_xyxy[1]),
        min(box_xyxy[2], other_xyxy[2]),
        min(box_xyxy[3], other_xyxy[3]),
    )


def _window(instance, box_xyxy):
    """Rows and columns of an instance's crop that lie in a box; none where they are apart."""
    left, top, right, bottom = box_xyxy
    return (
        slice(max(top - instance.top, 0), max(bottom - instance.top, 0)),
        slice(max(left - instance.left, 0), max(right - instance.left, 0)),
    )


def _common_windows(instance, other):
    """Rows and columns of each crop that both boxes share."""
    common = _intersect(_box_xyxy(instance), _box_xyxy(other))
    return _window(instance, common), _window(other, common)
