"""A DICOM slide as scanners write it, by pydicom."""

import numpy as np
from PIL import ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRLittleEndian,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

TILE_PX = 64


def write_dicom_slide(folder, image_rgb, *, mpp, n_levels=1):
    """
    Write a slide as a series: a file a resolution, tiled, not compressed.

    Args:
        folder (Path): for ``0.dcm``, the full resolution, ``1.dcm`` of half its sides, and so on.
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float): um/px.
        n_levels (int): how many resolutions.

    Returns:
        Path: of ``0.dcm``.
    """
    folder.mkdir(parents=True)
    series = _describe_series()
    for level in range(n_levels):
        pixels = image_rgb[:: 2**level, :: 2**level]
        _write_level(folder / f"{level}.dcm", pixels, series, level=level, mpp=mpp * 2**level)
    return folder / "0.dcm"


def _describe_series():
    """What all files of a series share."""
    shared = Dataset()
    shared.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(shared, name, _uid(name))
    shared.PatientID, shared.PatientName = "P1", "Doe^Jane"
    shared.PatientBirthDate, shared.PatientSex = "", "F"
    shared.StudyDate, shared.StudyTime = "20240203", "040506"
    shared.ContentDate, shared.ContentTime = "20240203", "050607"
    shared.AcquisitionDateTime = "20240203050000"
    shared.StudyID = shared.AccessionNumber = shared.ReferringPhysicianName = ""
    shared.Modality, shared.SeriesNumber = "SM", 3
    shared.PositionReferenceIndicator = "SLIDE_CORNER"
    shared.Manufacturer, shared.ManufacturerModelName = "Maker", "Scanner"
    shared.DeviceSerialNumber, shared.SoftwareVersions = "7", "1.0"
    shared.AcquisitionContextSequence = []
    shared.ContainerIdentifier = "C1"
    shared.IssuerOfTheContainerIdentifierSequence = []
    shared.ContainerTypeCodeSequence = [_code(codes.SCT.MicroscopeSlide)]
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S1", _uid("specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    shared.SpecimenDescriptionSequence = [specimen]
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = [_code(codes.DCM.BrightfieldIllumination)]
    path.IlluminationColorCodeSequence = [_code(codes.SCT.FullSpectrum)]
    path.ICCProfile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path.ColorSpace = "SRGB"
    shared.OpticalPathSequence, shared.NumberOfOpticalPaths = [path], 1
    shared.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 20.0
    shared.TotalPixelMatrixOriginSequence = [origin]
    shared.VolumetricProperties, shared.FocusMethod = "VOLUME", "AUTO"
    shared.SpecimenLabelInImage = shared.ExtendedDepthOfField = shared.BurnedInAnnotation = "NO"
    shared.LossyImageCompression = "00"
    return shared


def _write_level(path, image_rgb, series, *, level, mpp):
    file = Dataset()
    file.update(series)
    height, width = image_rgb.shape[:2]
    file.SOPInstanceUID = _uid(f"instance {level}")
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.InstanceNumber = level + 1
    kind = ["DERIVED", "RESAMPLED"] if level else ["ORIGINAL", "NONE"]
    file.ImageType = [kind[0], "PRIMARY", "VOLUME", kind[1]]
    file.ImagedVolumeWidth, file.ImagedVolumeHeight = width * mpp / 1e3, height * mpp / 1e3
    file.ImagedVolumeDepth = 0.001
    file.TotalPixelMatrixColumns, file.TotalPixelMatrixRows = width, height
    file.TotalPixelMatrixFocalPlanes = 1
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.Rows = file.Columns = TILE_PX
    organization = Dataset()
    organization.DimensionOrganizationUID = _uid("dimensions")
    file.DimensionOrganizationSequence = [organization]
    file.DimensionOrganizationType = "TILED_FULL"
    measures, frame_type, optical_path = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1e3, mpp / 1e3], 0.001
    frame_type.FrameType = file.ImageType
    optical_path.OpticalPathIdentifier = "1"
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    groups.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    groups.OpticalPathIdentificationSequence = [optical_path]
    file.SharedFunctionalGroupsSequence = [groups]
    padded = np.pad(
        image_rgb, ((0, -height % TILE_PX), (0, -width % TILE_PX), (0, 0)), constant_values=255
    )
    tiles = [
        padded[top : top + TILE_PX, left : left + TILE_PX].tobytes()
        for top in range(0, height, TILE_PX)
        for left in range(0, width, TILE_PX)
    ]
    file.NumberOfFrames, file.PixelData = len(tiles), b"".join(tiles)
    file["PixelData"].VR = "OB"
    file.save_as(path, enforce_file_format=True)


def _uid(name):
    return generate_uid(entropy_srcs=[name])


def _code(code):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
