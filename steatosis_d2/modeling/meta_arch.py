"""Mask R-CNN that brings images to the scale it was trained at."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from torch.nn import functional


@META_ARCH_REGISTRY.register()
class ScaledInputRCNN(GeneralizedRCNN):
    """
    Detectron2's ``GeneralizedRCNN``, which at test resizes every image by a fixed factor.

    Both papers upsample by two before the network. Detectron2's own test-time resizing knows
    target sizes only, not factors, and each caller does it for itself; here the model does it,
    so that a tile of any size gives the same result through ``DefaultPredictor``, evaluation
    and whole slides. Results come back in px of the image that was given.
    """

    @configurable
    def __init__(self, *, scale_test, **kwargs):
        """
        Args:
            scale_test (float): factor from px of the given image to px of the network's input.
            kwargs (dict): as for ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.scale_test = scale_test

    @classmethod
    def from_config(cls, cfg):
        return {**super().from_config(cfg), "scale_test": cfg.INPUT.SCALE_TEST}

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As ``GeneralizedRCNN.inference``; given boxes are in px of the resized image."""
        scaled = [self._scale_input(image_input) for image_input in batched_inputs]
        return super().inference(scaled, detected_instances, do_postprocess)

    def _scale_input(self, image_input):
        image = image_input["image"]
        height, width = image.shape[-2:]
        size = [max(1, round(side * self.scale_test)) for side in (height, width)]
        if size != [height, width]:
            image = functional.interpolate(
                self._move_to_current_device(image)[None].float(),
                size=size,
                mode="bilinear",
                antialias=True,
            )[0]
        # The size to which results are brought back, unless the caller asks for another one
        return {"height": height, "width": width, **image_input, "image": image}
