"""One input of a model: the files of a volume, and their reading."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attunet.channels import are_colours
from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.io.readers import read_volume
from attunet.sources.case_files import without_names
from attunet.sources.read_case import read_image
from attunet.volumes.volume import Volume


@dataclass(frozen=True)
class Input:
    """One volume."""

    name: str  # path below the input folder, without ending (`site/scan`)
    files: tuple[Path, ...]  # one file, or one for each channel
    choices: Choices = field(default_factory=dict)
    case: str = ""  # name of the case that a store has of these files; empty where no layout tells it
    # Another volume of the folder whose name differs in capitals or the coding of accents at most; both are refused
    # when they are read, because both would have one label map
    namesake: Path | None = None
    unfit: str = ""  # the rule that its channels break, with which it is refused when it is read
    hidden: bool = False  # True if no text in the files may be quoted, since it may have names

    @property
    def is_refused(self) -> bool:
        """True if `check` raises."""
        return bool(self.namesake or self.unfit)

    def check(self) -> None:
        """Raise InputError if another volume has the same name, or the channels are not the model's."""
        if self.namesake:
            raise InputError(
                f"{self.files[0]}: must differ from {self.namesake} in more than ending, capitals or channel number, "
                "for a label map of its own: rename one, or take one away"
            )

        with without_names(self.name, self.hidden):
            if self.unfit:
                raise InputError(f"{self.files[0]}: {self.unfit}")

    def read(self, num_channels: int, channels: Sequence[str] = ()) -> Volume:
        """Read the volume for a model with `num_channels` channels of these names, if they are known.

        Raises InputError as `read_volume` does, for two volumes of one name, and for other channels than the model's.
        """
        self.check()
        with without_names(self.name, self.hidden):
            return self._read(num_channels, channels)

    def _read(self, num_channels: int, channels: Sequence[str]) -> Volume:
        if len(self.files) == 1:
            volume = read_volume(self.files[0], channels=num_channels, choices=self.choices)
            grey_will_do = volume.unit == "pixel" and are_colours(channels)
            if len(channels) > 1 and not grey_will_do and len(volume.data) != num_channels:
                raise InputError(
                    f"{self.files[0]}: must have {num_channels} channels ({', '.join(channels)}), got "
                    f"{len(volume.data)}; in one file, or a file for each that is called as the channel"
                )
            return volume
        got = len(self.files)  # of one channel each at least
        if got <= num_channels:
            volume = read_image(self.files, choices=self.choices)
            got = len(volume.data)
        if got != num_channels:
            raise InputError(
                f"{self.files[0]}: must have {num_channels} channels with the {len(self.files) - 1} files beside "
                f"it that are of one case, got {got}"
            )
        return volume
