"""From samples to a data set in the form that everything after it reads: PNG images and COCO."""

import logging
from pathlib import Path

from PIL import Image
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.data.images import read_image_rgb
from steatosis_d2.data.splits import SPLITS
from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

logger = logging.getLogger(__name__)

_SUSPICIOUS_SHARE = 0.5


def read_sample(sample, *, encode_masks, read_image=read_image_rgb):
    """
    Pixels and instances of one sample.

    Args:
        sample (Sample): the sample.
        encode_masks (callable): (masks_path, height=, width=) -> list of COCO RLEs, one of
            :data:`steatosis_d2.data.instance_masks.ENCODERS`.
        read_image (callable): path -> uint8 array of shape (H, W, 3), RGB.

    Returns:
        tuple[ndarray, list[dict]]: uint8, shape (H, W, 3), RGB; one COCO RLE an instance.

    Raises:
        InputError: the image or a mask is missing, unreadable or of another size.
    """
    image_rgb = read_image(sample.image_path)
    height, width = image_rgb.shape[:2]
    return image_rgb, encode_masks(sample.masks_path, height=height, width=width)


def write_dataset(
    splits,
    output,
    *,
    read,
    category,
    mpp=None,
    group_of=None,
    incomplete=False,
    description="",
):
    """
    Write ``images/<name>.png`` (8-bit RGB) and ``annotations/instances_{train,val,test}.json``.

    All three COCO files are written, with empty lists where a split has no images. A sample that
    cannot be read is left out; all the others are written, then one error names every fault. The
    same input gives the same bytes.

    Args:
        splits (dict[str, list[Sample]]): ``train``, ``val`` and ``test``.
        output (Path): folder to write to; it is created.
        read (callable): sample -> image and RLEs, as :func:`read_sample`.
        category (str): ``droplet`` or ``nucleus``.
        mpp (float or None): pixel size in um/px, where the user knows it.
        group_of (callable or None): image_rgb -> the kind of image (str), where there are several.
        incomplete (bool): some droplets are not labelled.
        description (str): goes into ``info`` of the COCO files.

    Raises:
        InputError: the output would overwrite the source's images, or samples were left out.
    """
    images_folder = output / "images"
    _check_source_is_kept(splits, images_folder)
    images_folder.mkdir(parents=True, exist_ok=True)
    faults = []
    for split in SPLITS:
        images, annotations, unreadable = _write_images(
            splits[split],
            images_folder,
            read=read,
            extras=lambda image_rgb: {
                "mpp": mpp,
                "group": group_of and group_of(image_rgb),
                "incomplete": incomplete,
            },
            label=split,
        )
        write_coco(
            output / "annotations" / f"instances_{split}.json",
            images,
            annotations,
            category=category,
            info={"description": description},
        )
        faults += unreadable
        annotated = {annotation["image_id"] for annotation in annotations}
        logger.info(
            "%s: %d images, %d of them without a %s; %d instances",
            split,
            len(images),
            len(images) - len(annotated),
            category,
            len(annotations),
        )
    if faults:
        raise InputError(
            f"{len(faults)} images were left out of '{output}' (the others are written):\n  "
            + "\n  ".join(faults)
        )


def _write_images(samples, images_folder, *, read, extras, label):
    images: list[dict] = []
    annotations: list[dict] = []
    faults: list[str] = []
    with logging_redirect_tqdm():
        for sample in tqdm(samples, desc=label, unit="image", disable=None):
            try:
                image_rgb, codes = read(sample)
            except InputError as error:
                faults.append(str(error))
                continue
            height, width = image_rgb.shape[:2]
            image = image_record(
                len(images) + 1,
                f"{sample.name}.png",
                height=height,
                width=width,
                **extras(image_rgb),
            )
            images.append(image)
            records = [
                annotation_record(annotation_id, image["id"], rle)
                for annotation_id, rle in enumerate(codes, start=len(annotations) + 1)
            ]
            _warn_of_inverted(sample, records, n_pixels=height * width)
            annotations += records
            _write_png(images_folder / image["file_name"], image_rgb)
    return images, annotations, faults


def _warn_of_inverted(sample, records, *, n_pixels):
    """One instance that covers most of an image is its background, more often than not."""
    share = max((record["area"] for record in records), default=0) / n_pixels
    if share > _SUSPICIOUS_SHARE:
        logger.warning(
            "'%s': one instance covers %.0f%% of the image. Is its mask inverted, or its "
            "background a colour?",
            sample.masks_path,
            100 * share,
        )


def _write_png(path, image_rgb):
    with replace_when_done(path) as temporary:
        # Level 1 writes tissue several times faster than the default, and 5 to 10% larger.
        Image.fromarray(image_rgb).save(temporary, compress_level=1)


def _check_source_is_kept(splits, images_folder):
    paths = [sample.image_path for split in SPLITS for sample in splits[split]]
    sources = {path.parent.resolve() for path in paths if isinstance(path, Path)}
    if images_folder.resolve() in sources:
        raise InputError(
            f"the output's image folder '{images_folder}' holds the source's images, which would "
            "be overwritten; choose another --output."
        )
