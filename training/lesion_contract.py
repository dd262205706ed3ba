"""What a lesion bundle says of itself: inputs, outputs, labels, limits, licence, data, and how it was trained.

Words and shapes only. It trains nothing and measures nothing.
"""

from __future__ import annotations

from typing import Any

from inference.bundle import Contract, DataSource, TensorSpec
from inference.photo import PhotoRecipe, clinical_features
from training.export import now_utc
from training.lesion_pretrained import LearnedBackbone
from training.skin_data import SkinSet
from training.skin_sources import BODY_SITE_WORDS, BODY_SITES


def lesion_contract(
    data: SkinSet, version: str, checksum: str, recipe: PhotoRecipe, threshold: float, training: dict[str, Any]
) -> Contract:
    """The contract; `checksum` is the data's SHA-256, and `training` what the bundle tells of its training, written as it is."""
    source, side, features = data.source, recipe.size, clinical_features(BODY_SITES)
    classes = len(source.labels)
    return Contract(
        task=source.task,
        version=version,
        created=now_utc(),
        model_sha256="",
        inputs=(
            _tensor("photo", ("n", 3, side, side), "RGB photo, upright, normalised as preprocessing says"),
            _tensor(
                "clinical",
                ("n", len(features)),
                "answers in the order of clinical_features; all zeros is unknown",
            ),
        ),
        outputs=(
            _tensor(
                "probabilities",
                ("n", classes),
                "calibrated probability of each label, were all equally common; sums to 1",
            ),
            _tensor("malignancy_probability", ("n",), f"sum over {', '.join(source.malignant)}"),
            _tensor(
                "heat_map",
                ("n", "rows", "columns"),
                "by place, rows from the top: how far the malignancy probability falls if a ninth of the photo, looking like "
                "this place, looked like the photo's mean; below 0 the place speaks against malignancy",
            ),
            _tensor(
                "unfamiliarity",
                ("n",),
                "how unlike the training photos this one is; see out_of_distribution",
            ),
        ),
        labels=source.labels,
        intended_use=(
            "Estimates from a phone photo of one skin lesion, and up to eight answers, how likely it is "
            "malignant, to help order a referral queue. It may raise a patient's urgency, never lower it."
            if source.task == "lesions"
            else f"Benchmark on the public {source.name} data. Not for patients."
        ),
        limits=source.limits,
        licence=source.licence,
        data=(DataSource(name=source.name, licence=source.licence, sha256=checksum, citation=source.citation),),
        training=training,
        preprocessing=recipe.as_contract(),
        thresholds={"malignancy": threshold},
        vocabulary={
            "body_site": {"sites": list(BODY_SITES), "words": BODY_SITE_WORDS},
            "clinical_features": list(features),
            "malignant": list(source.malignant),
        },
    )


def _tensor(name: str, shape: tuple[int | str, ...], meaning: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, meaning=meaning)


def passed_on(contract: Contract, learned: LearnedBackbone, task: str) -> Contract:
    """The contract of a network that began from what others' data taught: their licence and limits, and a task of its own.

    The task differs, so that such a bundle never goes live in the default's place by its version alone.
    """
    licences = dict.fromkeys((learned.source.licence, contract.licence))
    limits = tuple(dict.fromkeys((*learned.limits, *contract.limits)))
    return contract.model_copy(
        update={"task": task, "licence": " and ".join(licences), "limits": limits, "data": (*contract.data, learned.source)}
    )
