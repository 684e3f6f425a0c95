"""Mask R-CNN that brings images to the scale it was trained at."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from torch.nn import functional

from steatosis_d2.data.scale import input_scale


@META_ARCH_REGISTRY.register()
class ScaledInputRCNN(GeneralizedRCNN):
    """
    Detectron2's ``GeneralizedRCNN``, which at test resizes every image to the network's scale.

    Both papers upsample by two before the network. Detectron2's own test-time resizing knows
    target sizes only, not factors, and each caller does it for itself; here the model does it,
    so that a tile of any size gives the same result through ``DefaultPredictor``, evaluation
    and whole slides. An input may state its pixel size as ``mpp`` (um/px). Results come back
    in px of the image that was given.
    """

    @configurable
    def __init__(self, *, scale, mpp, **kwargs):
        """
        Args:
            scale (float): factor where an input's pixel size is unknown.
            mpp (float): pixel size in um/px to resize the others to; 0 means none.
            kwargs (dict): as for ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.scale = scale
        self.mpp = mpp

    @classmethod
    def from_config(cls, cfg):
        return {**super().from_config(cfg), "scale": cfg.INPUT.SCALE, "mpp": cfg.INPUT.MPP}

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As ``GeneralizedRCNN.inference``; given boxes are in px of the resized image."""
        scaled = [self._scale_input(image_input) for image_input in batched_inputs]
        return super().inference(scaled, detected_instances, do_postprocess)

    def _scale_input(self, image_input):
        image = image_input["image"]
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
