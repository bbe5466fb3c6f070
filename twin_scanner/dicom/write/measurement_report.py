"""SUV of each district as a DICOM Structured Report: TID 1500, one volumetric measurement group per district."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceImageForMeasurement,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from twin_scanner.dicom.district_measurements import SUV_MAX, SUV_MEAN, SUV_PEAK, VOLUME, Quantity, code_of
from twin_scanner.dicom.equipment import MANUFACTURER, MODEL_NAME, derive_uid
from twin_scanner.dicom.read.ct_series import CtSeries
from twin_scanner.dicom.read.patient import required_uid
from twin_scanner.dicom.write.companions import (
    PET_CLASS,
    WrittenObject,
    companion_number,
    companion_series_uid,
    nameless_evidence,
    put_into_study,
    write_object,
)
from twin_scanner.dicom.write.pet_series import COMMENT, PHANTOM_ONLY, Synthesis, WrittenSeries, titled
from twin_scanner.imaging.suv import PEAK_DEFINITION, RegionSuv

IMAGING: Final = Code("363679005", "SCT", "Imaging")
_PARAMETER_LENGTH: Final = 1024


@dataclass(frozen=True)
class DistrictMeasurement:
    """One district of the report: its segment, its volume on the CT's grid, and its SUV where it was synthesised."""

    name: str
    segment_number: int
    volume_ml: float
    suv: RegionSuv | None
    remark: str = ""


def write_measurement_report(
    districts: Sequence[DistrictMeasurement],
    segmentation: WrittenObject,
    source: CtSeries,
    pet: WrittenSeries,
    synthesis: Synthesis,
    folder: Path,
    own_codes: Mapping[str, Code] = MappingProxyType({}),
) -> WrittenObject:
    """Write the report (Comprehensive 3D SR): volume, and mean, highest and peak SUV of the synthetic PET.

    A district without SUV is named as not synthesised and has its volume alone. Every group refers to its segment;
    maxima and peaks to the PET slice where they lie; CT, PET and segmentation are the evidence. SyntheticData YES: the
    numbers derive from a synthetic image. The same arguments give the same bytes. Raises Transient.
    """
    series_uid = companion_series_uid("measurement-report", pet.series_uid)
    groups = [_group(district, segmentation, source, pet, synthesis, own_codes) for district in districts]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device_observer(synthesis.device_serial_number)),
        procedure_reported=IMAGING,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    comprehensive = Comprehensive3DSR(
        evidence=nameless_evidence(source, pet, segmentation),
        content=report,
        series_instance_uid=series_uid,
        series_number=companion_number("measurement-report", source, synthesis),
        sop_instance_uid=derive_uid("measurement-report-instance", series_uid, segmentation.sop_instance_uid),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    put_into_study(
        comprehensive,
        "measurement-report",
        source,
        synthesis,
        titled("SYNTHETIC FDG-PET, SUV by district, RESEARCH", synthesis),
        synthetic=True,
    )
    return write_object(comprehensive, "measurement-report", folder)


def device_observer(serial_number: str) -> ObserverContext:
    """Our equipment as the observer of a structured document: TID 1004 of PS3.16."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derive_uid("device", MANUFACTURER, serial_number),
            name=MODEL_NAME,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
            serial_number=serial_number,
        ),
    )


def _group(
    district: DistrictMeasurement,
    segmentation: WrittenObject,
    source: CtSeries,
    pet: WrittenSeries,
    synthesis: Synthesis,
    own_codes: Mapping[str, Code],
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    code = code_of(district.name, own_codes)
    label = district.name if district.suv is not None else f"{district.name} (not synthesised)"
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derive_uid("district", pet.series_uid, district.name), identifier=label
        ),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.sop_class_uid,
            sop_instance_uid=segmentation.sop_instance_uid,
            segment_number=district.segment_number,
            source_series=SourceSeriesForSegmentation(required_uid(source.header, "SeriesInstanceUID")),
        ),
        finding_type=code,
        algorithm_id=AlgorithmIdentification(
            name=synthesis.model_name,
            version=synthesis.model_hash,
            parameters=_parameters(district, synthesis),
        ),
        finding_sites=[FindingSite(code)],
        measurements=[_volume(district), *_suv_measurements(district.suv, pet)],
    )


def _parameters(district: DistrictMeasurement, synthesis: Synthesis) -> list[str]:
    """What decided the numbers, and what a reader of them must know."""
    stated = [
        COMMENT,
        *([PHANTOM_ONLY] if synthesis.phantom_only else []),
        f"districts by {synthesis.segmenter} {synthesis.segmenter_hash}",
        f"plan {synthesis.plan_hash}",
        *([synthesis.source_derivation] if synthesis.source_derivation else []),
        *(f"outside of the training data: {clause}" for clause in synthesis.outside_training),
        *([f"district: {district.remark}"] if district.remark else []),
        *(["not synthesised: the model has no network for this district"] if district.suv is None else []),
        *([PEAK_DEFINITION] if district.suv is not None and district.suv.peak is not None else []),
    ]
    return [parameter[:_PARAMETER_LENGTH] for parameter in stated]


def _volume(district: DistrictMeasurement) -> Measurement:
    return Measurement(name=VOLUME.concept, value=round(district.volume_ml, VOLUME.digits), unit=VOLUME.unit)


def _suv_measurements(suv: RegionSuv | None, pet: WrittenSeries) -> Iterable[Measurement]:
    """SUVmean, SUVmax and SUVpeak as SUVbw with a derivation (PS3.16 CID 7464); a peak only where a sphere fits.

    The peak's derivation is (126031, DCM, Peak Value Within ROI); which sphere is meant stands in the group's
    parameters.
    """
    if suv is None:
        return
    yield _suv(suv.mean, SUV_MEAN)
    yield _suv(suv.maximum, SUV_MAX, pet.sop_instance_uids[suv.maximum_at[0]])
    if suv.peak is not None and suv.peak_at is not None:
        yield _suv(suv.peak, SUV_PEAK, pet.sop_instance_uids[suv.peak_at[0]])


def _suv(value: float, quantity: Quantity, pet_instance_uid: str | None = None) -> Measurement:
    """A value in g/ml, and the PET slice that holds it."""
    images = [] if pet_instance_uid is None else [SourceImageForMeasurement(PET_CLASS, pet_instance_uid)]
    return Measurement(
        name=quantity.concept,
        value=round(value, quantity.digits),
        unit=quantity.unit,
        derivation=quantity.derivation,
        referenced_images=images or None,
    )
