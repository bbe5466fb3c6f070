"""BodyPartExamined (0018,0015) as codes: terms of PS3.16 Annex L with the concepts of CID 4031, as pydicom has them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

BODY_PARTS: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "ABDOMEN": codes.cid4031.Abdomen,
        "ABDOMENPELVIS": codes.cid4031.AbdomenAndPelvis,
        "CHEST": codes.cid4031.Chest,
        "CHESTABDOMEN": codes.cid4031.ChestAndAbdomen,
        "CHESTABDPELVIS": codes.cid4031.ChestAbdomenAndPelvis,
        "EXTREMITY": codes.cid4031.Extremity,
        "HEAD": codes.cid4031.Head,
        "HEADNECK": codes.cid4031.HeadAndNeck,
        "NECK": codes.cid4031.Neck,
        "NECKCHEST": codes.cid4031.NeckAndChest,
        "NECKCHESTABDOMEN": codes.cid4031.NeckChestAndAbdomen,
        "NECKCHESTABDPELV": codes.cid4031.NeckChestAbdomenAndPelvis,
        "PELVIS": codes.cid4031.Pelvis,
        "WHOLEBODY": codes.cid4031.EntireBody,
    }
)
"""The terms of a CT with districts; another part is named and not coded."""
