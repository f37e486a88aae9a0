"""Drawn pictures and videos, and each object cut out."""

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.pictures import MAX_SIDE_PX, save_picture
from pyrafuse.inference.writers.registry import WRITERS, Destination, Finding, Places, Writer
from pyrafuse.inference.writers.video import Video, fit_video


@WRITERS.register("image")
class PictureWriter(Writer):
    """Draws still images as ``images/*.jpg``, as .png where no JPEG is so large, and each video as ``videos/*.mp4``."""

    needs_pixels = True

    def __init__(self, destination: Destination) -> None:
        self._pictures = destination.places("images")
        self._videos = destination.places("videos")
        self._name = ""
        self._video: Video | None = None

    def write(self, finding: Finding) -> None:
        if finding.video != self._name:
            self.close()
        if not finding.video:
            suffix = ".jpg" if max(finding.detections.image_size) <= MAX_SIDE_PX[".jpg"] else ".png"
            finding.detections.save(self._pictures.choose(finding.detections.source, suffix))
            return
        pixels = to_numpy(finding.detections.draw()).transpose(1, 2, 0)
        if self._video is None:
            place = self._videos.choose(finding.video, ".mp4")
            self._video = Video(place, fps=finding.fps, size=fit_video(pixels.shape[1], pixels.shape[0]))
            self._name = finding.video
        self._video.write(pixels)

    def close(self) -> None:
        """Complete the video that is being written."""
        video, self._video, self._name = self._video, None, ""
        if video is not None:
            video.close()

    def discard(self) -> None:
        """Drop the video that is being written."""
        if self._video is not None:
            self._video.discard()


@WRITERS.register("crop")
class CropWriter(Writer):
    """Cuts each object out as ``crops/CLASS/*.jpg``; what a class is called becomes a safe name of a folder."""

    needs_pixels = True

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._places: dict[str, Places] = {}

    def write(self, finding: Finding) -> None:
        found = finding.detections
        for name, label, pixels in zip(found.class_names, found.labels.tolist(), found.crop(), strict=True):
            folder = safe_file_name(name) or f"class {label}"
            if folder not in self._places:
                self._places[folder] = self._destination.places(f"crops/{folder}")
            suffix = ".jpg" if max(pixels.shape) <= MAX_SIDE_PX[".jpg"] else ".png"
            save_picture(pixels, self._places[folder].choose(found.source, suffix))


def safe_file_name(name: str) -> str:
    """``name`` as one that any file system takes: no separators, no characters that give orders, at most 80 long."""
    plain = "".join(c if c.isalnum() or c in " -_.,()[]" else "_" for c in name).strip(" .")
    return plain.encode("utf-8", "ignore")[:80].decode("utf-8", "ignore").strip(" .")
