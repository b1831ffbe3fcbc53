"""Coverage-guided fuzzing of one form of file by atheris: `fuzz_form.py FORM SECONDS FOLDER`.

FOLDER gets the inputs that reached new code, and of one that broke a promise a file `crash-*`, `timeout-*` or `oom-*`.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

INSTRUMENTED = [  # what parses; dictionaries and models are left out, for each module takes a part of a second
    *(
        "attunet.io",
        "attunet.sources",
        "attunet.manifest",
        "attunet.runs",
        "attunet.store",
        "attunet.fields",
        "attunet.export.artefact",
    ),
    *(
        "attunet.system",
        "attunet.classes",
        "attunet.config",
        "nibabel.nifti1",
        "nibabel.spatialimages",
        "nibabel.volumeutils",
    ),
    *(
        "nibabel.analyze",
        "nibabel.spm99analyze",
        "nibabel.freesurfer.mghformat",
        "pydicom.filereader",
        "pydicom.dataset",
        "pydicom.dataelem",
    ),
    *(
        "pydicom.sequence",
        "pydicom.valuerep",
        "pydicom.values",
        "pydicom.encaps",
        "pydicom.pixels.utils",
        "tomllib",
        "zipfile",
        "tarfile",
    ),
]
SECONDS, MEMORY_MB = 10, 2048  # of one input

with atheris.instrument_imports(include=INSTRUMENTED):
    from forms import FORMS  # type: ignore[import-not-found]

    from attunet.errors import InputError


class BrokenPromise(Exception):
    """An input was refused in a way that is not promised."""


def attempt(form: str, content: bytes, folder: Path) -> None:
    """Reads one input. Whatever but an InputError in one line comes out of it is a find."""
    kind = FORMS[form]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place, kind.name)
        path.write_bytes(gzip.compress(content, 1) if kind.packed else content)
        try:
            kind.read(path)
        except InputError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                raise BrokenPromise(f"refused in more than one line: {str(error)[:3000]!r}") from None


def main(form: str, seconds: float, out: Path) -> None:
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "base").write_bytes(FORMS[form].base())
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    options = [
        f"-max_total_time={round(seconds)}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        "-max_len=20000",
        "-verbosity=0",
    ]
    options += [f"-artifact_prefix={out}/", "-print_final_stats=1", "-seed=1", str(corpus)]
    atheris.Setup([sys.argv[0], *options], lambda content: attempt(form, content, Path(folder)))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
