"""An image on a regular grid in the patient's space: geometry, resampling, cropping and NIfTI."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from twin_scanner.errors import Rejected
from twin_scanner.imaging.bounds import HOUNSFIELD_RANGE
from twin_scanner.imaging.nifti_file import read_image, write_image

FloatArray: TypeAlias = npt.NDArray[np.float32]
LabelArray: TypeAlias = npt.NDArray[np.uint8]
Triple: TypeAlias = tuple[float, float, float]
Shape: TypeAlias = tuple[int, int, int]
Interpolation: TypeAlias = Literal["linear", "nearest"]

AIR_HU = -1024.0
"""HU of what lies outside every field of view, and the floor of the scale: nothing is thinner than air.

Padding often stands below it without being declared (thorax_petct: PixelPaddingValue -2000, stored -3024), and a lossy
codec rings around padding that was declared; neither is a measurement, so all of it becomes air. It is the lower end of
the default window, so model space 0.
"""
GEOMETRY_TOLERANCE_MM = 1e-3
"""Two grids closer than this at every corner are the same grid: DICOM decimal strings carry 1e-3 mm or better."""
FEW_LABELS = 12
"""Up to here counting each label by itself is quicker (measured, a plane of 512 x 512)."""
LARGEST_LABEL_VALUE = 65535
"""A label map in a file has none larger: atlases number their structures by thousands (FreeSurfer to 14175)."""
CANONICAL = "LPS"
"""Where W, H and D run to in canonical axes: left, back (posterior), head (superior)."""
DIRECTION_TOLERANCE = 1e-4
"""Cosines are stored with six digits; axes that are orthonormal within this are taken as such."""


@dataclass(frozen=True)
class Geometry:
    """A regular grid of (D, H, W) voxels in DICOM patient coordinates (LPS, mm).

    ``spacing_mm`` runs along (D, H, W). ``origin_lps_mm`` is the centre of voxel (0, 0, 0) as (x, y, z).
    ``direction`` holds the unit vectors of the D, H and W axes, each as (x, y, z): PS3.3 C.7.6.2.1.1.
    """

    shape: Shape
    spacing_mm: Triple
    origin_lps_mm: Triple
    direction: tuple[Triple, Triple, Triple] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))

    def __post_init__(self) -> None:
        axes = np.asarray(self.direction)
        if min(self.shape) < 1 or min(self.spacing_mm) <= 0:
            raise Rejected(f"The grid of {self.shape} voxels of {self.spacing_mm} mm is empty: check the image's size.")
        if not np.allclose(axes @ axes.T, np.eye(3), atol=DIRECTION_TOLERANCE):
            raise Rejected("The axes of the image are not at right angles: resample it to a regular grid first.")

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 matrix from the index (d, h, w, 1) to (x, y, z, 1) in LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction).T * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_lps_mm
        return matrix

    @property
    def extent_mm(self) -> Triple:
        """Edge to edge length along (D, H, W) in mm."""
        d, h, w = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return d, h, w

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def position_lps_mm(self, index: tuple[float, float, float]) -> Triple:
        """LPS position in mm of a (fractional) index (d, h, w)."""
        x, y, z = (self.affine @ np.asarray([*index, 1.0]))[:3]
        return float(x), float(y), float(z)

    def with_spacing(self, spacing_mm: Triple) -> "Geometry":
        """The grid of another spacing over the same field of view, edge to edge and centred on it."""
        shape = tuple(max(1, round(e / s)) for e, s in zip(self.extent_mm, spacing_mm, strict=True))
        offset = [
            (old * (n - 1) - new * (m - 1)) / (2 * old)
            for n, old, m, new in zip(self.shape, self.spacing_mm, shape, spacing_mm, strict=True)
        ]
        origin = self.position_lps_mm((offset[0], offset[1], offset[2]))
        return replace(self, shape=(shape[0], shape[1], shape[2]), spacing_mm=spacing_mm, origin_lps_mm=origin)

    def continued_over(self, other: "Geometry") -> "Geometry":
        """This grid, continued or cut by whole voxels along its own axes to those centred in the other's extent.

        Where the other is turned against it, the extent is the box around the other's corners.
        """
        edges = [(-0.5, n - 0.5) for n in other.shape]
        corners = np.array([[d, h, w, 1.0] for d in edges[0] for h in edges[1] for w in edges[2]])
        indices = (np.linalg.inv(self.affine) @ other.affine @ corners.T)[:3]
        first, last = np.ceil(indices.min(axis=1)).astype(int), np.floor(indices.max(axis=1)).astype(int)
        d, h, w = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        return self.cropped((d, h, w))

    def cropped(self, box: tuple[slice, slice, slice]) -> "Geometry":
        """The grid of ``array[box]``; every slice has a start and a stop, and no step."""
        shape = tuple(s.stop - s.start for s in box)
        origin = self.position_lps_mm((box[0].start, box[1].start, box[2].start))
        return replace(self, shape=(shape[0], shape[1], shape[2]), origin_lps_mm=origin)

    def same_grid(self, other: "Geometry") -> bool:
        """Whether both grids have their corner voxels in the same places, within GEOMETRY_TOLERANCE_MM."""
        if self.shape != other.shape:
            return False
        far = tuple(n - 1 for n in self.shape)
        corners = np.array([[d, h, w, 1.0] for d in (0, far[0]) for h in (0, far[1]) for w in (0, far[2])]).T
        return bool(np.allclose(self.affine @ corners, other.affine @ corners, rtol=0, atol=GEOMETRY_TOLERANCE_MM))


@dataclass(frozen=True, eq=False)
class Volume:
    """A float32 image (D, H, W) and its grid; what the values mean (HU, SUV g/ml, model space) is the owner's word."""

    array: FloatArray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} does not lie on the grid {self.geometry.shape}")
        if self.array.dtype != np.float32:
            raise ValueError(f"a Volume holds float32, not {self.array.dtype}")

    def cropped(self, box: tuple[slice, slice, slice]) -> "Volume":
        """The part of the image inside ``box``, with its own geometry."""
        return Volume(self.array[box], self.geometry.cropped(box))

    def canonical(self) -> "Volume":
        """The same voxels with D to the head, H to the back and W to the left (nearest axes); no resampling."""
        return self.oriented(CANONICAL)

    def oriented(self, code: str) -> "Volume":
        """The same voxels in another axis order; ``code`` says where W, H and D run to, as SimpleITK's DICOMOrient.

        It is this volume itself where that is its order already, as of most scanners' axial slices.
        """
        if _orientation(self.geometry) == code:
            return self
        image = sitk.DICOMOrient(to_sitk(self.array, self.geometry), code)
        return Volume(sitk.GetArrayFromImage(image), geometry_of(image))


def canonical_labels(labels: LabelArray, geometry: Geometry) -> LabelArray:
    """A label map in the axis order of ``Volume.canonical``; the same voxels, no copy if in it already."""
    if _orientation(geometry) == CANONICAL:
        return labels
    return sitk.GetArrayFromImage(sitk.DICOMOrient(to_sitk(labels, geometry), CANONICAL))


def label_counts(labels: LabelArray) -> npt.NDArray[np.int64]:
    """How many voxels have each of the 256 labels, plane by plane: no second copy of the map is ever held.

    Few labels are counted one by one: ``bincount``, which wants 8 bytes a voxel, takes longer than all of them.
    """
    counts = np.zeros(256, np.int64)
    for plane in labels:
        highest = int(plane.max(initial=0))
        if highest > FEW_LABELS:
            counts += np.bincount(plane.ravel(), minlength=256)
            continue
        for label in range(highest + 1):
            counts[label] += np.count_nonzero(plane == label)
    return counts


def to_sitk(array: npt.NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """A SimpleITK image (x, y, z order, LPS) of an array (D, H, W)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing([float(s) for s in reversed(geometry.spacing_mm)])
    image.SetOrigin([float(o) for o in geometry.origin_lps_mm])
    image.SetDirection(_cosines(geometry))
    return image


def _cosines(geometry: Geometry) -> list[float]:
    """The direction as SimpleITK has it: the axes (x, y, z of the image) as columns of a matrix, row by row."""
    return [float(c) for c in np.asarray(geometry.direction)[::-1].T.ravel()]


def _orientation(geometry: Geometry) -> str:
    """Where W, H and D run to, nearest axes, as ``Volume.oriented`` names it."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(_cosines(geometry))


def geometry_of(image: sitk.Image) -> Geometry:
    """The Geometry of a three-dimensional SimpleITK image."""
    columns = np.asarray(image.GetDirection()).reshape(3, 3)
    d, h, w = (tuple(float(c) for c in columns[:, axis]) for axis in (2, 1, 0))
    x, y, z = image.GetSpacing()
    i, j, k = image.GetSize()
    ox, oy, oz = image.GetOrigin()
    return Geometry((k, j, i), (z, y, x), (ox, oy, oz), ((d[0], d[1], d[2]), (h[0], h[1], h[2]), (w[0], w[1], w[2])))


def resample(volume: Volume, geometry: Geometry, outside: float, interpolation: Interpolation = "linear") -> Volume:
    """The image, trilinear or nearest neighbour, on another grid; outside its field of view it becomes ``outside``."""
    if volume.geometry.same_grid(geometry):
        return Volume(volume.array, geometry)
    return Volume(_resampled(volume.array, volume.geometry, geometry, interpolation, outside), geometry)


def resample_labels(labels: LabelArray, source: Geometry, geometry: Geometry) -> LabelArray:
    """A label map (D, H, W), nearest neighbour, on another grid; 0 outside its field of view."""
    if source.same_grid(geometry):
        return labels
    return _resampled(labels, source, geometry, "nearest", 0).astype(np.uint8, copy=False)


def _resampled(
    array: npt.NDArray[np.generic],
    source: Geometry,
    target: Geometry,
    interpolation: Interpolation,
    outside: float,
) -> npt.NDArray[np.float32]:
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(sitk.Image([1, 1, 1], sitk.sitkUInt8))
    resampler.SetSize([int(n) for n in reversed(target.shape)])
    resampler.SetOutputSpacing([float(s) for s in reversed(target.spacing_mm)])
    resampler.SetOutputOrigin([float(o) for o in target.origin_lps_mm])
    resampler.SetOutputDirection(_cosines(target))
    resampler.SetInterpolator(sitk.sitkLinear if interpolation == "linear" else sitk.sitkNearestNeighbor)
    resampler.SetDefaultPixelValue(float(outside))
    return sitk.GetArrayFromImage(resampler.Execute(to_sitk(array, source)))


def read_nifti(path: Path) -> Volume:
    """A NIfTI file as float32, its RAS coordinates turned into LPS; raises Rejected for what is no 3D NIfTI."""
    image = read_image(path)
    return Volume(sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32)), geometry_of(image))


def read_nifti_ct(path: Path) -> Volume:
    """A CT in HU from a NIfTI file, AIR_HU where it is below, as of DICOM; NIfTI cannot declare its padding.

    Raises Rejected as ``read_nifti``, and for what no scanner stores.
    """
    volume = read_nifti(path)
    low, high = HOUNSFIELD_RANGE
    for value in (float(volume.array.min()), float(volume.array.max())):
        if not low <= value <= high:
            raise Rejected(f"{path.name} holds {value:g} HU, outside {low:g} to {high:g}: give a CT in HU.")
    np.maximum(volume.array, np.float32(AIR_HU), out=volume.array)
    return volume


def read_nifti_labels(path: Path) -> tuple[LabelArray, Geometry]:
    """A NIfTI label map (D, H, W) as uint8; raises Rejected where a value is no whole number from 0 to 255."""
    values, geometry = _whole_numbers(path, largest=255)
    return values.astype(np.uint8, copy=False), geometry


def read_nifti_label_values(path: Path) -> tuple[npt.NDArray[np.uint16], Geometry]:
    """A NIfTI label map (D, H, W) as uint16, of any stored type; raises Rejected for values beyond 0 to 65535."""
    values, geometry = _whole_numbers(path, largest=LARGEST_LABEL_VALUE)
    return values.astype(np.uint16, copy=False), geometry


def _whole_numbers(path: Path, largest: int) -> tuple[npt.NDArray[np.generic], Geometry]:
    image = read_image(path)
    values = sitk.GetArrayFromImage(image)
    fits = bool(values.min() >= 0 and values.max() <= largest)
    if not fits or (values.dtype.kind == "f" and not all(bool((plane % 1 == 0).all()) for plane in values)):
        raise Rejected(f"{path.name} is not a label map: it holds values other than whole numbers from 0 to {largest}.")
    return values, geometry_of(image)


def write_nifti(path: Path, array: npt.NDArray[np.generic], geometry: Geometry) -> None:
    """Write an array (D, H, W) as .nii or .nii.gz, whole or not at all; raises Transient where the disk fails."""
    write_image(path, to_sitk(array, geometry))
