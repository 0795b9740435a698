"""Detectors with what follows them in the graph: as many boxes as there are, or none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from hotstart import Dim
from qualification.conformance.zoo.data import Detections
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import pixels, seeded
from qualification.conformance.zoo.vision import detr

FAMILY = "detection"
BATCH = Dim("batch", min=1, max=4)
SIDES: dict[str, Dim] = {axis: Dim(axis, min=32, max=96) for axis in ("height", "width")}
ROWS, COLUMNS = Dim("rows", min=2, max=6), Dim("columns", min=2, max=6)


class ScoredQueries(nn.Module):
    """RT-DETR with what follows it: the best pairs of query and class above a threshold."""

    def __init__(self, model: nn.Module, best: int, threshold: float) -> None:
        super().__init__()
        self.model = model
        self.best = best
        self.threshold = threshold

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        found = self.model(pixel_values)
        classes = found.logits.shape[-1]
        scores, pair = found.logits.sigmoid().flatten(1).topk(self.best)
        query = pair // classes
        boxes = corners(found.pred_boxes).gather(1, query[..., None].expand(-1, -1, 4))
        kept = scores > self.threshold
        return {
            "image": kept.nonzero()[:, 0],
            "scores": scores[kept],
            "labels": (pair % classes)[kept],
            "boxes": boxes[kept],
        }


class TwoStages(nn.Module):
    """Proposes regions, looks at each again, and draws its mask (after He et al., 2017).

    Suppression compares all boxes at once (Bolya et al., 2019); `grid_sample` samples regions.
    """

    def __init__(self, threshold: float, proposals: int = 24, channels: int = 16) -> None:
        super().__init__()
        self.threshold = threshold
        self.proposals = proposals
        self.backbone = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.objectness = nn.Conv2d(channels, 1, 1)
        self.offsets = nn.Conv2d(channels, 4, 1)
        self.inside = nn.Linear(channels * 49, 32)
        self.classes = nn.Linear(32, 5)
        self.refined = nn.Linear(32, 4)
        self.mask = nn.Sequential(
            nn.ConvTranspose2d(channels, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 1, 1)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.backbone(image[None])
        boxes = self.proposed(features)
        regions = self.regions(features, boxes)
        hidden = self.inside(regions.flatten(1)).relu()
        scores, labels = self.classes(hidden).softmax(-1)[:, 1:].max(-1)
        boxes = (boxes + 0.1 * self.refined(hidden).tanh()).clamp(0, 1)
        kept = torch.where(scores > self.threshold)[0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        kept = kept[unsuppressed(boxes[kept])]
        return {
            "boxes": boxes[kept],
            "scores": scores[kept],
            "labels": labels[kept],
            "masks": self.mask(regions[kept])[:, 0].sigmoid() > 0.5,
        }

    def proposed(self, features: Tensor) -> Tensor:
        """The best boxes, from 0 to 1, one of which every cell proposes, without doubles."""
        height, width = features.shape[2:]
        y = (torch.arange(height) + 0.5) / height
        x = (torch.arange(width) + 0.5) / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        offsets = self.offsets(features)[0].flatten(1).T.tanh()
        sizes = 0.3 + 0.2 * offsets[:, 2:]
        boxes = corners(torch.cat([centres + 0.1 * offsets[:, :2], sizes], dim=-1)).clamp(0, 1)
        best = self.objectness(features).flatten().topk(self.proposals).indices
        return boxes[best][unsuppressed(boxes[best])]

    def regions(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Sample the features in every box at 7 by 7 points."""
        steps = (torch.arange(7) + 0.5) / 7
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        at = low + (high - low) * steps[:, None]
        count = boxes.shape[0]
        x = at[:, None, :, 0].expand(count, 7, 7)
        y = at[:, :, None, 1].expand(count, 7, 7)
        grid = torch.stack([x, y], dim=-1) * 2 - 1
        per_box = features.expand(count, -1, -1, -1)
        return functional.grid_sample(per_box, grid, align_corners=False)


class YoloHead(nn.Module):
    """Decodes boxes of each level, on a grid that is kept for the size of the last call.

    After YOLOv5 (Jocher, 2020): three anchors in every cell of every level.
    """

    def __init__(
        self,
        classes: int = 4,
        channels: tuple[int, ...] = (16, 32),
        anchors: tuple[tuple[int, ...], ...] = ((6, 8, 12, 10, 16, 20), (24, 30, 40, 36, 60, 56)),
        strides: tuple[int, ...] = (8, 16),
    ) -> None:
        super().__init__()
        self.no = classes + 5
        self.nl = len(anchors)
        self.na = len(anchors[0]) // 2
        self.grid = [torch.empty(0) for _ in range(self.nl)]
        self.anchor_grid = [torch.empty(0) for _ in range(self.nl)]
        self.register_buffer("stride", torch.tensor(strides, dtype=torch.float))
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.anchors /= self.stride.view(-1, 1, 1)
        self.m = nn.ModuleList(nn.Conv2d(into, self.no * self.na, 1) for into in channels)

    def forward(self, levels: list[Tensor]) -> Tensor:
        found = []
        for i, convolution in enumerate(self.m):
            x = convolution(levels[i])
            batch, _, ny, nx = x.shape
            x = x.view(batch, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            if self.grid[i].shape[2:4] != x.shape[2:4]:
                self.grid[i], self.anchor_grid[i] = self._make_grid(nx, ny, i)
            xy, wh, scores = x.sigmoid().split((2, 2, self.no - 4), 4)
            xy = (xy * 2 + self.grid[i]) * self.stride[i]
            wh = (wh * 2) ** 2 * self.anchor_grid[i]
            found.append(torch.cat([xy, wh, scores], 4).view(batch, self.na * nx * ny, self.no))
        return torch.cat(found, 1)

    def _make_grid(self, nx: int, ny: int, i: int) -> tuple[Tensor, Tensor]:
        device, dtype = self.anchors[i].device, self.anchors[i].dtype
        shape = 1, self.na, ny, nx, 2
        y, x = (
            torch.arange(ny, device=device, dtype=dtype),
            torch.arange(nx, device=device, dtype=dtype),
        )
        yv, xv = torch.meshgrid(y, x, indexing="ij")
        grid = torch.stack((xv, yv), 2).expand(shape) - 0.5
        anchors = (self.anchors[i] * self.stride[i]).view((1, self.na, 1, 1, 2)).expand(shape)
        return grid, anchors


class Yolo(nn.Module):
    """Strided convolutions to two levels, and a head for both."""

    def __init__(self, channels: tuple[int, ...] = (8, 8, 16, 32)) -> None:
        super().__init__()
        pairs = itertools.pairwise((3, *channels))
        self.halve = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.SiLU(),
            )
            for into, out in pairs
        )
        self.head = YoloHead(channels=channels[-2:])

    def forward(self, images: Tensor) -> Tensor:
        levels = [images]
        for halve in self.halve:
            levels.append(halve(levels[-1]))
        return self.head(levels[-2:])


def corners(boxes: Tensor) -> Tensor:
    """Boxes by two corners, of those by centre and size."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def unsuppressed(boxes: Tensor, most: float = 0.6) -> Tensor:
    """Tell which boxes, best first, do not overlap a better one by more than a share of both."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    overlap = shared / (areas[:, None] + areas[None] - shared)
    return ~(overlap > most).triu(diagonal=1).any(dim=0)


def rt_detr() -> nn.Module:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    model = transformers.RTDetrForObjectDetection(
        transformers.RTDetrConfig(
            backbone_config=backbone,
            encoder_hidden_dim=32,
            encoder_in_channels=[32, 64, 64],
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            d_model=32,
            num_queries=12,
            decoder_in_channels=[32, 32, 32],
            decoder_ffn_dim=64,
            decoder_layers=2,
            decoder_attention_heads=4,
            num_labels=7,
        )
    )
    return spread(model, 30, "backbone")


def spread(model: nn.Module, factor: float, within: str = "") -> nn.Module:
    """Multiply weights, without which images hardly differ and rounding decides what is best."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if within in name and weight.dim() > 1:
                weight.mul_(factor)
    return model


class LogitsAndBoxes(nn.Module):
    """What a detector is asked for; features in between are of the order of millions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixel_values=pixel_values)
        return found.logits, found.pred_boxes


def images(sizes: Sizes) -> dict[str, Any]:
    return {"pixel_values": pixels(sizes["batch"], 64, 64)}


def of_batches(name: str, make: Callable[[], nn.Module], notes: str) -> Entry:
    return Entry(
        name=name,
        family=FAMILY,
        make=seeded(make),
        inputs=images,
        dynamic_shapes={"pixel_values": {0: BATCH}},
        example={"batch": 2},
        notes=notes,
    )


def two_stages(name: str, threshold: float, notes: str) -> Entry:
    return Entry(
        name=name,
        family=FAMILY,
        make=seeded(lambda: TwoStages(threshold)),
        inputs=lambda sizes: {"image": pixels(1, sizes["height"], sizes["width"])[0]},
        dynamic_shapes={"image": {1: SIDES["height"], 2: SIDES["width"]}},
        example={"height": 64, "width": 48},
        notes=notes,
    )


ENTRIES: tuple[Entry, ...] = (
    of_batches(
        "detr-detections",
        lambda: Detections(spread(detr(2), 10), 0.7),
        "boxes above a threshold, best first",
    ),
    of_batches(
        "detr-no-detections", lambda: Detections(detr(2), 0.99), "the same, where there are none"
    ),
    of_batches(
        "rt-detr",
        lambda: LogitsAndBoxes(rt_detr()),
        "queries are chosen among the encoder's features",
    ),
    of_batches(
        "rt-detr-detections",
        lambda: ScoredQueries(rt_detr(), 10, 0.5),
        "the best pairs of query and class above a threshold",
    ),
    two_stages("two-stages", 0.3, "proposals, regions, classes and masks; plain torch"),
    two_stages("two-stages-no-detections", 0.99, "the same, where nothing is found"),
    Entry(
        name="yolo-head",
        family=FAMILY,
        make=seeded(Yolo),
        inputs=lambda sizes: {
            "images": pixels(sizes["batch"], 16 * sizes["rows"], 16 * sizes["columns"])
        },
        dynamic_shapes={"images": {0: BATCH, 2: 16 * ROWS, 3: 16 * COLUMNS}},
        example={"batch": 2, "rows": 4, "columns": 3},
        notes="keeps a grid for the last size; images are multiples of 16; plain torch",
    ),
)
