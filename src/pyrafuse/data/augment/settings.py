"""What a person can set about augmentation; free of torch, so that the command line starts fast."""

from dataclasses import dataclass, fields

from pyrafuse.base.errors import PyrafuseError


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the defaults are ASFF's, made for 300 epochs of COCO.

    Order: mosaic or mixup, expand, crop, flip, colour, affine. See `light` for small data or short schedules.

    Attributes:
        color_probability: Probability of each change of brightness, contrast, saturation and hue, on its own.
        color_strength: 1 is SSD's: brightness +-32 of 255, contrast and saturation 0.5 to 1.5, hue +-18 degrees.
        expand_probability: Probability of laying the image on a larger canvas of the mean colour.
        expand_max_ratio: Largest side of that canvas, in sides of the image.
        crop_probability: Probability of cutting out a patch that overlaps an object (SSD's sampling of patches).
        crop_min_scale: Smallest side of a patch, in sides of the image.
        flip_probability: Probability of exchanging left and right.
        affine_probability: Probability of rotation, shift, scaling and shear at once.
        affine_degrees: Largest rotation to either side.
        affine_shift: Largest shift along each axis, in sides of the image.
        affine_scale: Largest change of scale: 0.1 is 0.9 to 1.1.
        affine_shear_degrees: Largest shear along each axis.
        mixup_probability: Probability of blending the image with another one.
        mixup_alpha: The blend's share is drawn from Beta(alpha, alpha).
        mosaic_probability: Probability of laying four images side by side; such a picture is not mixed up as well.
        random_interpolation: Resize by one of OpenCV's five methods at random; otherwise as in evaluation.
        min_box_px: Objects whose shorter side is not longer than this at network size are dropped. Where none is
            left, the image is used as it was, with all its objects.

    Raises:
        PyrafuseError: If a value is outside its range.
    """

    color_probability: float = 0.5
    color_strength: float = 1.0
    expand_probability: float = 0.5
    expand_max_ratio: float = 4.0
    crop_probability: float = 6 / 7
    crop_min_scale: float = 0.3
    flip_probability: float = 0.5
    affine_probability: float = 0.5
    affine_degrees: float = 10.0
    affine_shift: float = 0.1
    affine_scale: float = 0.1
    affine_shear_degrees: float = 2.0
    mixup_probability: float = 1.0
    mixup_alpha: float = 1.5
    mosaic_probability: float = 0.0
    random_interpolation: bool = True
    min_box_px: float = 6.0

    def __post_init__(self) -> None:
        limits = {field.name: (0.0, 1.0) for field in fields(self) if field.name.endswith("_probability")}
        limits |= {
            "color_strength": (0.0, 1.5),  # beyond it contrast would turn negative
            "expand_max_ratio": (1.0, 100.0),
            "crop_min_scale": (0.01, 1.0),
            "affine_degrees": (0.0, 180.0),
            "affine_shift": (0.0, 1.0),
            "affine_scale": (0.0, 0.9),
            "affine_shear_degrees": (0.0, 45.0),
            "mixup_alpha": (0.01, 1000.0),
            "min_box_px": (0.0, float("inf")),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise PyrafuseError(f"augmentation: {name} is {value}; choose a value from {low:g} to {high:g}")

    @classmethod
    def none(cls) -> "Augmentation":
        """Every image as it is, only resized."""
        return cls(
            color_probability=0.0,
            expand_probability=0.0,
            crop_probability=0.0,
            flip_probability=0.0,
            affine_probability=0.0,
            mixup_probability=0.0,
            random_interpolation=False,
            min_box_px=0.0,
        )

    @classmethod
    def light(cls) -> "Augmentation":
        """Half the colour, flips, and a scale between two thirds and one and a half: for a few hundred images."""
        return cls(
            color_strength=0.5,
            expand_probability=0.3,
            expand_max_ratio=1.5,
            crop_probability=0.5,
            crop_min_scale=0.65,
            affine_probability=0.0,
            mixup_probability=0.0,
            random_interpolation=False,
            min_box_px=3.0,
        )
