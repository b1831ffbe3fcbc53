"""Trunk, organs, and what is as bright as organs."""

import numpy as np

from attunet.phantom.canvas import BODY_POWER, Body, Canvas, rotation

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4


def paint_trunk(canvas: Canvas, body: Body, rng: np.random.Generator) -> np.ndarray:
    """Skin, fat, muscle wall, spine, lungs and heart. Returns the part of the grid that abdominal organs may fill."""
    everywhere = (slice(None),) * 3
    muscle = rng.uniform(0.12, 0.3)
    canvas.paint(everywhere, _cross_section(canvas, body, 0) < 1, rng.uniform(0.15, 0.3), texture=0.1)  # skin
    # Suppressed fat
    canvas.paint(everywhere, _cross_section(canvas, body, 3) < 1, rng.uniform(0.04, 0.16), texture=0.2)
    canvas.paint(everywhere, _cross_section(canvas, body, body.fat) < 1, muscle, texture=0.15)
    section = _cross_section(canvas, body, body.fat + body.wall)
    cavity = section < 1
    canvas.paint(everywhere, cavity, rng.uniform(0.05, 0.2), texture=0.35)
    for side in (-1, 1):
        canvas.blob(body.at(side * 0.2, -0.85, 0), (34, 22, 400), muscle * rng.uniform(0.8, 1.2), texture=0.2)
        # Psoas
        canvas.blob(body.at(side * 0.27, -0.5, -110), (24, 22, 110), muscle * rng.uniform(0.8, 1.3), texture=0.2)
    height = canvas.place[2]
    box, level = canvas.ellipsoid(body.at(0, -0.52, 0), (24, 20, 400))
    canvas.paint(box, level < 1, rng.uniform(0.15, 0.35), texture=0.15)
    disc = (level < 1) & (np.mod(height[box] + rng.uniform(0, 32), 32) < 8)
    canvas.paint(box, disc, rng.uniform(0.2, 0.7))
    canvas.blob(body.at(0, -0.86, 0), (9, 8, 400), rng.uniform(0.6, 1.1))  # cerebrospinal fluid
    lung = cavity & (height > body.diaphragm - 45 * section)
    canvas.paint(everywhere, lung, 0.03, texture=0.5)
    canvas.blob((10, 25, body.diaphragm + 25), (60, 48, 40), rng.uniform(0.15, 0.45), texture=0.6)  # heart
    return cavity & (height < body.diaphragm - 4 - 45 * section)


def _cross_section(canvas: Canvas, body: Body, shrink: float) -> np.ndarray:
    """Level of the trunk's outline, shrunk by some mm: below 1 inside."""
    x = np.abs(canvas.place[0]) / np.float32(body.half_width - shrink)
    y = np.abs(canvas.place[1]) / np.float32(body.half_depth - shrink)
    return x**BODY_POWER + y**BODY_POWER


def paint_distractors(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Stomach, colon, loops of bowel: as bright as organs, textured, never labelled."""
    for _ in range(int(rng.integers(40, 70))):
        place = body.at(rng.uniform(-0.75, 0.75), rng.uniform(-0.15, 0.8), rng.uniform(-130, 25))
        radii = rng.uniform(9, 24, 3)
        canvas.blob(
            place, radii, rng.uniform(0.15, 1.1), turn=rotation(rng.uniform(-60, 60, 3)), texture=rng.uniform(0.05, 0.4)
        )
    for side in (-1, 1):  # colon, beside and below the kidneys, sometimes as bright
        place = body.at(side * rng.uniform(0.66, 0.78), rng.uniform(-0.25, 0.15), rng.uniform(-95, -65))
        canvas.blob(
            place, (rng.uniform(16, 24), rng.uniform(18, 26), rng.uniform(45, 70)), rng.uniform(0.2, 1.0), texture=0.3
        )
    stomach = body.at(rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.4), rng.uniform(25, 50))
    turn = rotation((rng.uniform(-20, 20), rng.uniform(-20, 40), rng.uniform(-30, 30)))
    canvas.blob(
        stomach,
        (rng.uniform(34, 52), rng.uniform(28, 42), rng.uniform(38, 55)),
        rng.uniform(0.2, 1.1),
        turn=turn,
        texture=0.3,
    )


def paint_organs(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    _paint_spleen(canvas, body, cavity, rng)
    _paint_liver(canvas, body, cavity, rng)
    for label, side in ((RIGHT_KIDNEY, -1), (LEFT_KIDNEY, 1)):
        _paint_kidney(canvas, body, cavity, rng, label=label, side=side)
    spine = body.at(0, -0.52, 0)
    for x, y, radius in ((16, 30, 9), (-16, 30, 11)):  # aorta and inferior vena cava, before the spine, dark or bright
        box, level = canvas.ellipsoid(spine + np.array([x, y, 0]), (radius, radius, 400))
        canvas.paint(box, level < 1, rng.uniform(0.1, 1.0))


def _paint_spleen(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    """A crescent behind the stomach, on the left."""
    size = rng.uniform(0.92, 1.3)
    place = body.at(rng.uniform(0.72, 0.82), rng.uniform(-0.4, -0.2), rng.uniform(20, 45))
    turn = rotation((rng.uniform(-15, 15), rng.uniform(-10, 10), rng.uniform(10, 35)))
    hollow_box, hollow = canvas.ellipsoid(place - turn @ (size * 30, 0, 0), (size * 24, size * 44, size * 60), turn)
    free = cavity.copy()
    free[hollow_box] &= hollow > 1
    box, level = canvas.ellipsoid(place, (size * 27, size * 52, size * rng.uniform(42, 56)), turn)
    canvas.paint(box, (level < 1) & free[box], rng.uniform(0.42, 0.85), label=SPLEEN, texture=0.06)


def _paint_liver(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    """A right lobe that tapers down the flank, a left lobe before the stomach, bright vessels, a gall bladder."""
    brightness = rng.uniform(0.22, 0.55)
    size, width, depth = rng.uniform(0.88, 1.08), body.half_width, body.half_depth
    base = body.at(-0.5, rng.uniform(-0.02, 0.1), rng.uniform(15, 35))
    slant = np.eye(3)
    slant[0, 2] = rng.uniform(0.12, 0.3)  # medial above, lateral below
    lobes = [
        canvas.ellipsoid(
            base, (size * 0.56 * width, size * 0.78 * depth, size * rng.uniform(74, 95)), np.linalg.inv(slant).T
        ),
        canvas.ellipsoid(
            body.at(rng.uniform(-0.05, 0.12), rng.uniform(0.4, 0.55), rng.uniform(35, 55)),
            (size * 0.48 * width, size * 0.36 * depth, size * rng.uniform(26, 40)),
            rotation((0, rng.uniform(-15, 10), rng.uniform(-15, 15))),
        ),
    ]
    back_box, back = canvas.ellipsoid(body.at(0, -0.6, 0), (48, 62, 400))
    free = cavity & (canvas.labels == 0)
    free[back_box] &= back > 1
    for box, level in lobes:
        canvas.paint(box, (level < 1) & free[box], brightness, label=LIVER, texture=0.07)
    box, _ = lobes[0]
    strands = np.abs(canvas.grain[box]) < rng.uniform(0.04, 0.12)  # zero crossings of smooth noise branch as vessels do
    liver = canvas.labels[box] == LIVER
    canvas.image[box][strands & liver] *= rng.uniform(1.3, 2.2)
    canvas.blob(
        body.at(rng.uniform(-0.4, -0.25), rng.uniform(0.3, 0.5), rng.uniform(-25, 5)),
        (13, 15, 24),
        rng.uniform(0.5, 1.2),
    )


def _paint_kidney(
    canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator, *, label: int, side: int
) -> None:
    """A kidney: bright cortex, darker pyramids, a hilum that opens to the middle.

    side: -1 for the patient's right, 1 for the left.
    """
    place = body.at(side * rng.uniform(0.4, 0.52), rng.uniform(-0.56, -0.4), rng.uniform(-50, -15))
    size = rng.uniform(0.88, 1.12)
    turn = rotation((rng.uniform(-15, 5), side * rng.uniform(0, 18), side * rng.uniform(10, 45)))
    box, level = canvas.ellipsoid(place, (size * 28, size * 26, size * rng.uniform(50, 60)), turn)
    brightness = rng.uniform(0.45, 1.0)
    # The fat around it
    canvas.paint(box, (level < rng.uniform(1.15, 1.5)) & cavity[box], rng.uniform(0.05, 0.15), texture=0.3)
    inside = (level < 1) & cavity[box]
    canvas.paint(box, inside, brightness, label=label, texture=0.06)
    pyramids = inside & (level < 0.55) & (canvas.grain[box] > 0.3)
    canvas.image[box][pyramids] *= rng.uniform(0.55, 0.9)
    hilum = place - turn @ (side * size * 24.0, 0, 0)
    canvas.blob(hilum, (size * 13, size * 8, size * 15), rng.uniform(0.1, 0.6), turn=turn)
