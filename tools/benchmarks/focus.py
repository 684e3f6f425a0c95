"""How much of the fat the network that ships still finds out of focus, and whether that is seen."""

import cv2
import numpy as np

from benchmarks.figures import Figure

TILES = 24
SEED = 2081
TILE_UM, MPP = 208, 0.5
FAT_FRACTIONS = (0.02, 0.1, 0.25)  # by tile, in turn
BLURS_UM = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
NOISE = 2.0  # grey levels of the camera, whatever the focus


def measure_focus(_options):
    """Fat area and tissue called out of focus, over the standard deviation of a Gaussian blur."""
    from steatosis_d2.inference.models import MaskRCNNChoice

    model = MaskRCNNChoice()()
    tiles = [draw_tile(number) for number in range(TILES)]
    found = {blur_um: measure_blur(model, tiles, blur_um) for blur_um in BLURS_UM}
    sharp_px, _ = found[0.0]
    return [
        figure
        for blur_um, (fat_px, blurred) in found.items()
        for figure in (
            Figure(
                "focus",
                f"fat area found under a blur of {blur_um:g} um, of that found in focus, {TILES} "
                "synthetic tiles",
                100 * fat_px / sharp_px,
                "%",
            ),
            Figure(
                "focus", f"tissue called out of focus under a blur of {blur_um:g} um", blurred, "%"
            ),
        )
    ]


def measure_blur(model, tiles, blur_um):
    """Px of fat that are found in all tiles, and the percentage called out of focus."""
    from steatosis_d2.slides.slide import ArraySlide
    from steatosis_d2.slides.tissue import find_tissue

    fat_px, percents = 0, []
    for image_rgb in tiles:
        image_rgb = defocus(image_rgb, blur_um)
        fat = np.zeros(image_rgb.shape[:2], bool)
        for one in model([image_rgb], mpp=MPP)[0]:
            fat[one.top : one.bottom, one.left : one.right] |= one.crop
        fat_px += np.count_nonzero(fat)
        tissue = find_tissue(ArraySlide(image_rgb, mpp=MPP))
        percents.append(tissue.artefact_percents()["out of focus"])
    return fat_px, float(np.mean(percents))


def defocus(image_rgb, blur_um):
    """The image (uint8, shape (H, W, 3)) under a Gaussian blur, with the noise of a camera."""
    image = image_rgb.astype(np.float32)
    if blur_um:
        image = cv2.GaussianBlur(image, (0, 0), blur_um / MPP)
    noise = np.random.default_rng(SEED).normal(0, NOISE, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def draw_tile(number):
    """Tissue of a look of its own."""
    from steatosis_d2.data.synthetic import random_liver

    rng = np.random.default_rng([SEED, number])
    fat_fraction = FAT_FRACTIONS[number % len(FAT_FRACTIONS)]
    liver = random_liver(rng, mpp=MPP, fat_fraction=fat_fraction, glass_fraction=0.0)
    side_px = round(TILE_UM / MPP)
    return liver.render(top=0, left=0, height=side_px, width=side_px).image_rgb


MEASURES = (measure_focus,)
