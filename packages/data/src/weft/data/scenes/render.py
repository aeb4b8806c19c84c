"""Drawing a scene with Pillow."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from weft.data.scenes.scene import COLORS, GRID_SIZE, Scene, SceneObject

IMAGE_SIZE = 80
_CELL = IMAGE_SIZE / GRID_SIZE
_RADIUS = {"small": 4.2, "big": 7.6}


def render(scene: Scene) -> Image.Image:
    """Draw a scene: an RGB image of `IMAGE_SIZE` × `IMAGE_SIZE` pixels."""
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), scene.background)
    draw = ImageDraw.Draw(image)
    for item in scene.objects:
        _draw(draw, item)
    return image


def _draw(draw: ImageDraw.ImageDraw, item: SceneObject) -> None:
    x = (item.column + 0.5) * _CELL + item.offset[0]
    y = (item.row + 0.5) * _CELL + item.offset[1]
    radius = _RADIUS[item.size]
    fill = COLORS[item.color]
    if item.shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        draw.polygon([(x + radius * u, y + radius * v) for u, v in _outline(item)], fill=fill)


def _outline(item: SceneObject) -> list[tuple[float, float]]:
    """Corner points in units of the radius, around the centre, y downwards."""
    if item.shape == "rectangle":
        wide = min(1.0, item.aspect) * 0.9
        high = min(1.0, 1 / item.aspect) * 0.9
        return [(-wide, -high), (wide, -high), (wide, high), (-wide, high)]
    if item.shape == "triangle":
        return [(0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)]
    if item.shape == "diamond":
        return [(0.0, -1.05), (0.75, 0.0), (0.0, 1.05), (-0.75, 0.0)]
    if item.shape == "star":
        corners = [((1.1, 0.42)[k % 2], k * math.pi / 5) for k in range(10)]
        return [(length * math.sin(angle), -length * math.cos(angle)) for length, angle in corners]
    arm = 0.34
    return [
        (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
        (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
    ]  # fmt: skip
