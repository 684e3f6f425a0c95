"""What all slides in files have in common, and pictures that are read whole."""

from steatosis_d2.data.images import (
    IMAGE_SUFFIXES,
    read_image_rgb,
    unreadable_as_input_error,
)
from steatosis_d2.errors import InputError
from steatosis_d2.slides.pyramid import Slide


def unreadable_slide_as_input_error(path):
    """A context manager that raises what goes wrong with a slide's file as InputError."""
    return unreadable_as_input_error(
        path,
        kind="slide",
        expected="SVS, NDPI, SCN, MRXS, DICOM, TIFF, OME-TIFF, OME-Zarr, PNG, JPEG, WebP or BMP",
    )


class FileSlide(Slide):
    """
    A slide in a file.

    Attributes:
        stated_mpp_xy (tuple or None): what the file says of the pixel size, across and down, um/px.
        page (int or None): which page was asked for.
    """

    def __init__(self, path, *, sizes, stated_mpp_xy, page=None):
        super().__init__(path, sizes=sizes, mpp=None)
        self.stated_mpp_xy = stated_mpp_xy
        self.page = page

    def __reduce__(self):
        return _reopen, (type(self), self.path, self.page, self.mpp)


class ImageSlide(FileSlide):
    """A picture that is read whole."""

    def __init__(self, path, *, page=None, stated_mpp_xy=None):
        try:
            self._image_rgb = read_image_rgb(path, page=page)
        except InputError as error:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                raise
            raise InputError(f"'{path}' is no slide that OpenSlide knows; {error}") from None
        height, width = self._image_rgb.shape[:2]
        super().__init__(path, sizes=[(width, height)], stated_mpp_xy=stated_mpp_xy, page=page)

    def _read_level(self, level, left, top, width, height):
        return self._image_rgb[top : top + height, left : left + width].copy()


def damaged_error(path, error, level, left, top, width, height):
    """What a window (InputError) that cannot be decoded is reported as; in px of its level."""
    return InputError(
        f"slide '{path}' cannot be read at x {left}, y {top} ({width} x {height} px of level "
        f"{level}): {error}. The file is damaged or cut short; copy it again."
    )


def _reopen(reader, path, page, mpp):
    """The slide of a pickle; its pixel size was decided on when it was opened first."""
    with unreadable_slide_as_input_error(path):
        slide = reader(path, page=page)
    slide.mpp = mpp
    return slide
