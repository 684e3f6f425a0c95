"""Mask R-CNN that brings images to the scale and contrast it was trained at."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from torch.nn import functional

from steatosis_d2.data.contrast import stretch_contrast
from steatosis_d2.data.scale import input_scale


@META_ARCH_REGISTRY.register()
class ScaledInputRCNN(GeneralizedRCNN):
    """
    Detectron2's ``GeneralizedRCNN``, which at test prepares every image for the network.

    Both papers upsample by two before the network. Detectron2's own test-time resizing knows
    target sizes only, not factors, and each caller does it for itself; here the model does it,
    so that a tile of any size gives the same result through ``DefaultPredictor``, evaluation
    and whole slides. The same holds for an image's contrast, where ``INPUT.STRETCH`` asks for it.
    An input may state its pixel size as ``mpp`` (um/px). Results come back in px of the image
    that was given.
    """

    @configurable
    def __init__(self, *, scale, mpp, stretch, **kwargs):
        """
        Args:
            scale (float): factor where an input's pixel size is unknown.
            mpp (float): pixel size in um/px to resize the others to; 0 means none.
            stretch (tuple[float, float]): percentiles, as for
                :func:`steatosis_d2.data.contrast.stretch_contrast`; empty for none.
            kwargs (dict): as for ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.scale = scale
        self.mpp = mpp
        self.stretch = stretch

    @classmethod
    def from_config(cls, cfg):
        return {
            **super().from_config(cfg),
            "scale": cfg.INPUT.SCALE,
            "mpp": cfg.INPUT.MPP,
            "stretch": cfg.INPUT.STRETCH,
        }

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As ``GeneralizedRCNN.inference``; given boxes are in px of the resized image."""
        prepared = [self._prepare_input(image_input) for image_input in batched_inputs]
        return super().inference(prepared, detected_instances, do_postprocess)

    def _prepare_input(self, image_input):
        image = stretch_contrast(image_input["image"], self.stretch)
        height, width = image.shape[-2:]
        scale = input_scale(image_input.get("mpp"), scale=self.scale, network_mpp=self.mpp)
        size = [max(1, round(side * scale)) for side in (height, width)]
        if size != [height, width]:
            image = functional.interpolate(
                self._move_to_current_device(image)[None].float(),
                size=size,
                mode="bilinear",
                antialias=True,
            )[0]
        # The size to which results are brought back, unless the caller asks for another one
        return {"height": height, "width": width, **image_input, "image": image}
