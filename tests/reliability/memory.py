"""The service's memory while cases with photos come, large ones and small ones: bounded, and flat after the first of them."""

from __future__ import annotations

import asyncio
import io
import json
from functools import cache

import httpx
import numpy as np
from PIL import Image

from reliability.cases import cases
from reliability.live_service import LiveService, live_service
from reliability.outcome import Ground, Outcome
from reliability.overload import sampled_memory

BOUND_MEGABYTES = 350.0
FLAT = 1.1
_CLIENTS = 4
_LARGE_EVERY = 50
_LARGE_SIZES = ((4000, 3000), (3024, 4032), (4608, 2592))
_SMALL_SIZES = ((320, 240), (256, 256), (640, 480), (480, 640))


def run(size: int, ground: Ground) -> Outcome:
    """`size` cases with a photo each, every fiftieth of them of a phone's full 12 megapixels."""
    outcome = Outcome("memory")
    with live_service(ground.folder, ground.database_url) as service, sampled_memory(service) as samples:
        asyncio.run(_post(outcome, service, size))
        third = max(1, len(samples) // 3)
        middle, last = max(samples[third : 2 * third] or samples), max(samples[-third:])
        peak = service.peak_megabytes()
        outcome.require(peak <= BOUND_MEGABYTES, f"it held {peak:.0f} MB, expected at most {BOUND_MEGABYTES:.0f}")
        # A few hundred cases still meet what is loaded late; whether it is flat shows in thousands.
        outcome.require(
            not ground.is_timed or last <= FLAT * middle,
            f"not flat: at most {middle:.0f} MB in the middle third, {last:.0f} MB in the last",
        )
        outcome.done |= {
            "cases": size,
            "MB at first": round(samples[0]),
            "MB at most": round(peak),
            "MB middle": round(middle),
            "MB last": round(last),
        }
    return outcome


async def _post(outcome: Outcome, service: LiveService, size: int) -> None:
    numbers, headers = iter(range(size)), service.token("clinic", "mithi")

    async def one_client(client: httpx.AsyncClient) -> None:
        for number in numbers:
            case = json.dumps({**cases()[number % len(cases())], "case_id": f"memory-{number}"})
            form = {"case": (None, case, "application/json"), "photos": (f"{number}.jpg", _photo(number), "image/jpeg")}
            for _ in range(10):  # the service may say that it is busy
                answer = await client.post("/v1/referrals", files=form, headers=headers)
                if answer.status_code != 503:
                    break
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
            outcome.require(answer.status_code == 201, f"case {number}: status {answer.status_code}")

    async with service.client(_CLIENTS, 60) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_CLIENTS):
            tasks.create_task(one_client(client))


def _photo(number: int) -> bytes:
    """A photo of skin colours; a small one differs from every other, so that each is stored."""
    is_large, turn = number % _LARGE_EVERY == 0, number // _LARGE_EVERY
    if is_large:
        return _drawn(_LARGE_SIZES[turn % len(_LARGE_SIZES)])
    content = _drawn(_SMALL_SIZES[number % len(_SMALL_SIZES)])
    image = Image.open(io.BytesIO(content))
    image.paste((number % 256, number // 256 % 256, 90), (0, 0, 16, 16))
    return _encoded(image)


@cache
def _drawn(size: tuple[int, int]) -> bytes:
    columns, rows = size
    noise = np.random.default_rng(5).normal(0, 12, (rows // 8 + 1, columns // 8 + 1, 3))
    coarse = np.clip(np.array([190, 140, 115]) + noise, 0, 255).astype(np.uint8)
    return _encoded(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
