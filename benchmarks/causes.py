"""Why a figure likely falls short of its goal or its peer: written by hand, one sentence each, shown on the page."""

from typing import Final

FSYNCS: Final = "Two fsyncs per instance come before its acknowledgement; the other receivers promise less."
PARSED: Final = (
    "Ours reads each instance's header in Python and files it by study and series; the do-nothing handler keeps "
    "nothing, and dcmtk is C++ that writes what comes."
)
SHARED_CORES: Final = "Scheduler, storage and both workers share 2 cores, so the second worker takes from the first."
CAUSES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "segmentation",
        "512x512x400, best of",
        "The peer finds one threshold and its largest piece; districts need bones, joints and landmarks as well, and "
        "the goal of 6 s is for 2 idle cores.",
    ),
    (
        "training",
        "pipeline / fixed batch",
        "A window takes 3 to 4 ms to sample and turn, and where one core is free its thread shares that with the step; "
        "the narrower the network, the larger that share.",
    ),
    (
        "training",
        "speed, ",
        "Steps of equal networks differ by what the loaders take from their core; MONAI's tuned loader uses a second "
        "process, on a core of its own.",
    ),
    (
        "evaluation",
        "a study, every metric",
        "The peer computes SSIM alone; ours is SSIM and every other metric, for the body and each district.",
    ),
    ("receipt", "CT slices of", FSYNCS),
    ("receipt", "times as fast as", FSYNCS),
    ("receipt", "rate of 8 senders", "The senders, the receiver and the disk share 2 cores."),
    ("receipt", "processor time of a slice", PARSED),
    (
        "latency",
        "all but the networks",
        "Writing the results, the districts and the PACS's count of the study are most of it, each on one core.",
    ),
    (
        "rendering",
        "everything but the networks",
        "Reading the CT, finding its districts and writing the results come one after the other on 2 cores.",
    ),
    (
        "rendering",
        "start of the worker process",
        "Importing PyTorch, SimpleITK and highdicom is most of it, and reads their files once from the disk.",
    ),
    (
        "translation",
        "MONAI's time / ours",
        "Both run the same windows in the same batches; what lies between is the placing, masking and summing of "
        "windows, which ours does for few windows of a large image.",
    ),
    (
        "translation",
        "networks' share",
        "The networks of 8 features are so quick that cutting, masking and adding windows weighs beside them.",
    ),
    (
        "translation",
        "share of the matrix product's rate",
        "The doubling of 16 to 32 voxels has one output channel, and the norms read and write whole images without a "
        "multiplication: both are bound by memory.",
    ),
    (
        "translation",
        " / the paper's input",
        "The first convolution reads two channels, and the context's encoder halves as often as the U-Net: beside a "
        "narrow network that weighs more.",
    ),
    ("dask", "renders, one Dask worker", "The scheduler and the worker's answers take time beside the render."),
    ("dask", "renders, two Dask workers", SHARED_CORES),
    ("dask", "processor time of a render, two at a time", SHARED_CORES),
    (
        "memory",
        "|predicted",
        "The prediction is the most over all stages of a render, and each stage's coefficient was rounded up.",
    ),
)
"""By benchmark, and by what the figure's words hold; the first that fits is the cause."""


def cause_of(name: str, figure: str) -> str:
    """The cause of a figure that falls short; empty where nobody has written one."""
    return next((cause for of, words, cause in CAUSES if of == name and words in figure), "")
